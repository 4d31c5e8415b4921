"""From a claim to a `Verified`: the mechanisms, in the order of the claim."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from hmac import compare_digest

from provisiond.attestation import symmetric_key, x509
from provisiond.attestation.message_proof import verify_mac
from provisiond.attestation.tpm import endorsement_key_hash
from provisiond.attestation.tpm_pcr_policy import PcrPolicy
from provisiond.enrollment.match import Claim, match, presented_types
from provisiond.errors import AttestationError
from provisiond.model import (
    Answer,
    AttestationType,
    Enrollment,
    Evidence,
    Facts,
    IssuedChallenge,
    Possession,
    RegisterRequest,
    Role,
    SymmetricKeyMaterial,
    TpmEvidence,
    Trace,
    Verified,
)
from provisiond.registration import challenge, tpm_claim


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationPolicy:
    """What this service accepts as proof.

    Args:
        id_scope: the scope SAS tokens must name.
        allowed: the accepted mechanisms.
        clock_skew_s: tolerance for a token's expiry, seconds.
        challenge_ttl_s: how long a challenge may be answered, seconds.
        x509_limits: bounds on what a chain may cost.
        crls: DER certificate revocation lists.
        tpm: whose word about TPMs is taken.
    """

    id_scope: str
    allowed: frozenset[AttestationType] = frozenset(AttestationType)
    clock_skew_s: float = 120.0
    challenge_ttl_s: float = 120.0
    x509_limits: x509.X509Limits = x509.DEFAULT_LIMITS
    crls: tuple[bytes, ...] = ()
    tpm: tpm_claim.TpmPolicy = field(default_factory=tpm_claim.TpmPolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unproved:
    """A claim that is enrolled as far as it can be seen, and that a challenge has to prove.

    Args:
        enrollment: None for symmetric keys, where nothing is presented that could tell.
        keys: of the TPM, for TPM attestation.
    """

    attestation_type: AttestationType
    enrollment: Enrollment | None = None
    keys: tpm_claim.TpmKeys | None = None


def attest(
    request: RegisterRequest,
    facts: Facts,
    *,
    policy: AttestationPolicy,
    connection_id: str,
    now: datetime,
    trace: Trace,
) -> Verified | Unproved:
    """Prove the claimed identity against the trust material of the enrollments that claim it.

    Args:
        request: what is asked, with the evidence and, when it answers a challenge, the answer.
        facts: what is stored about the claim.
        policy: what counts as proof.
        connection_id: of the connection that asks; a challenge of another one is not answered here.
        now: aware UTC.
        trace: hears of every check.

    Returns:
        The proof, whose enrollment may be disabled, which is for the caller to act on; or what to challenge.

    Raises:
        AttestationError: nothing proves it. An unknown id costs what a wrong key costs.
    """
    if request.answer is not None and request.issued is None:
        raise challenge.missing()
    if not presented_types(request.evidence):
        raise AttestationError("neither a certificate, a token nor a TPM was presented", finding="no-evidence")
    claim = match(facts, request.evidence, allowed=policy.allowed, trace=trace)
    attempt = _Attempt(request, facts, claim, policy, connection_id, now, trace)
    if claim.individual is None:
        return attempt.by_group()
    return attempt.by_individual(claim.individual)


@dataclass(frozen=True, slots=True)
class _Attempt:
    request: RegisterRequest
    facts: Facts
    claim: Claim
    policy: AttestationPolicy
    connection_id: str
    now: datetime
    trace: Trace

    def by_individual(self, individual: Enrollment) -> Verified | Unproved:
        try:
            return self._verify_individual(individual)
        except AttestationError:
            if individual.enabled:
                self._spend_the_time_of_the_groups()
                raise
        # A disabled individual enrollment takes one device out of its group, whatever mechanism it names: the device
        # that proves itself through the group is told that it is disabled, anybody else only "unauthorized".
        outcome = self.by_group()
        return outcome if isinstance(outcome, Unproved) else replace(outcome, enrollment=individual)

    def by_group(self) -> Verified | Unproved:
        failure: AttestationError | None = None
        for mechanism, verify in self._group_verifiers().items():
            groups = self.claim.groups_of(mechanism)
            if not groups:
                continue
            try:
                return verify(groups)
            except AttestationError as error:
                failure = failure or error
        if failure is None:
            return self._by_nobody()
        self._spend_the_time_of_a_wrong_key()
        raise failure

    def _verify_individual(self, individual: Enrollment) -> Verified | Unproved:
        mechanism = individual.attestation_type
        if mechanism not in self.policy.allowed:
            raise AttestationError(f"{mechanism} is not allowed on this service", finding="mechanism-not-allowed")
        if mechanism not in presented_types(self._evidence):
            raise AttestationError(
                f"the enrollment asks for {mechanism}, which was not presented", finding="no-evidence"
            )
        match mechanism:
            case AttestationType.X509:
                return self._possessed(self._verify_pinned_certificate(individual))
            case AttestationType.SYMMETRIC_KEY:
                return self._verify_individual_key(individual)
            case AttestationType.TPM:
                tpm = self._tpm
                tpm_claim.check_individual(individual, tpm, self.trace, policy=self.policy.tpm)
                return self._verify_tpm(individual, tpm, tpm_claim.read_keys(tpm, self.trace))

    def _group_verifiers(self) -> dict[AttestationType, Callable[[tuple[Enrollment, ...]], Verified | Unproved]]:
        return {
            AttestationType.X509: lambda groups: self._possessed(self._verify_chain(groups)),
            AttestationType.SYMMETRIC_KEY: self._verify_group_key,
            AttestationType.TPM: self._verify_tpm_group,
        }

    def _by_nobody(self) -> Unproved:
        """Nothing is enrolled; to find that out must not cost less than a wrong key.

        Raises:
            AttestationError: unless a challenge comes first: it is given to everybody, so that it tells nothing.
        """
        if self._evidence.claims_symmetric_key:
            if self.request.answer is None:
                return Unproved(attestation_type=AttestationType.SYMMETRIC_KEY)
            self._verify_answer_by_key([])
        self._spend_the_time_of_a_wrong_key()
        if self._evidence.unverified_chain and self._evidence.sas_token is None:
            self._verify_chain(())  # raises: what is wrong with the certificate, or which issuer nobody enrolled
        raise AttestationError(f"no enrollment claims {self.request.claimed_id}", finding="enrollment-unknown")

    def _spend_the_time_of_a_wrong_key(self) -> None:
        """An id that has no individual enrollment must not be told by how fast it is refused."""
        if self.claim.individual is None and self._evidence.sas_token is not None:
            symmetric_key.equalise(
                claimed_id=self.request.claimed_id,
                sas_token=self._evidence.sas_token,
                id_scope=self.policy.id_scope,
                now=self.now,
                clock_skew_s=self.policy.clock_skew_s,
                trace=Trace(),
            )

    def _spend_the_time_of_the_groups(self) -> None:
        """An id without an individual enrollment is tried against every key group; so is a wrong key, for its time."""
        groups = self.claim.groups_of(AttestationType.SYMMETRIC_KEY)
        if groups and self._evidence.sas_token is not None:
            with suppress(AttestationError):
                replace(self, trace=Trace())._verify_group_key(groups)  # noqa: SLF001 - a copy of itself

    # --- X.509 ---

    def _verify_pinned_certificate(self, individual: Enrollment) -> Verified:
        return x509.verify_individual(
            enrollment=individual,
            claimed_id=self.request.claimed_id,
            unverified_chain=self._evidence.unverified_chain,
            now=self.now,
            trace=self.trace,
            limits=self.policy.x509_limits,
            crls=self.policy.crls,
        )

    def _verify_chain(self, groups: tuple[Enrollment, ...]) -> Verified:
        return x509.verify_group(
            groups=groups,
            claimed_id=self.request.claimed_id,
            unverified_chain=self._evidence.unverified_chain,
            now=self.now,
            trace=self.trace,
            limits=self.policy.x509_limits,
            crls=self.policy.crls,
        )

    def _possessed(self, verified: Verified) -> Verified | Unproved:
        """A certificate is public: it proves something only to whom its key's holder shows it."""
        if self._evidence.possession is not Possession.UNPROVED:
            self.trace.passed("possession", f"of the certificate's key: {self._evidence.possession}")
            return verified
        if self.request.answer is None:
            return Unproved(attestation_type=AttestationType.X509, enrollment=verified.enrollment)
        answer, issued = self._bound(AttestationType.X509)
        challenge.verify_certificate_answer(
            self.request, answer, issued, id_scope=self.policy.id_scope, trace=self.trace
        )
        return verified

    # --- symmetric keys ---

    def _verify_individual_key(self, individual: Enrollment) -> Verified | Unproved:
        if self._evidence.sas_token is None:
            return self._verify_key_by_challenge([individual], self._individual_keys(individual))
        return symmetric_key.verify_individual(
            enrollment=individual,
            claimed_id=self.request.claimed_id,
            sas_token=self._evidence.sas_token,
            id_scope=self.policy.id_scope,
            now=self.now,
            clock_skew_s=self.policy.clock_skew_s,
            trace=self.trace,
        )

    def _verify_group_key(self, groups: tuple[Enrollment, ...]) -> Verified | Unproved:
        if self._evidence.sas_token is None:
            ordered = sorted(groups, key=lambda group: not group.enabled)
            return self._verify_key_by_challenge(
                ordered, [key for group in ordered for key in self._derived_keys(group)]
            )
        return symmetric_key.verify_group(
            groups=groups,
            claimed_id=self.request.claimed_id,
            sas_token=self._evidence.sas_token,
            id_scope=self.policy.id_scope,
            now=self.now,
            clock_skew_s=self.policy.clock_skew_s,
            trace=self.trace,
        )

    def _verify_key_by_challenge(self, enrollments: list[Enrollment], keys: list[bytes]) -> Verified | Unproved:
        """Two keys an enrollment, in order."""
        if self.request.answer is None:
            return Unproved(attestation_type=AttestationType.SYMMETRIC_KEY)
        index = self._verify_answer_by_key(keys)
        enrollment, credential = enrollments[index // 2], ("primary key", "secondary key")[index % 2]
        self.trace.passed("possession", f"of the {credential} of {enrollment.id}: HMAC over this challenge")
        return Verified(
            registration_id=self.request.claimed_id,
            enrollment=enrollment,
            attestation_type=AttestationType.SYMMETRIC_KEY,
            credential=credential,
            device_key=keys[index],
        )

    def _verify_answer_by_key(self, keys: list[bytes]) -> int:
        answer, issued = self._bound(AttestationType.SYMMETRIC_KEY)
        covered = challenge.transcript_of(self.request, issued, id_scope=self.policy.id_scope)
        return verify_mac(keys, mac=answer.mac or b"", transcript=covered)

    def _individual_keys(self, individual: Enrollment) -> list[bytes]:
        material = individual.attestation
        return [material.primary_key, material.secondary_key] if isinstance(material, SymmetricKeyMaterial) else []

    def _derived_keys(self, group: Enrollment) -> list[bytes]:
        spelt = self.request.claimed_id.text
        return [symmetric_key.derive_device_key(key, spelt) for key in self._individual_keys(group)]

    # --- TPM ---

    def _verify_tpm_group(self, groups: tuple[Enrollment, ...]) -> Verified | Unproved:
        tpm = self._tpm
        keys = tpm_claim.read_keys(tpm, self.trace)
        group = tpm_claim.find_group(
            groups, self.request.claimed_id, tpm, keys, policy=self.policy.tpm, now=self.now, trace=self.trace
        )
        return self._verify_tpm(group, tpm, keys)

    def _verify_tpm(self, enrollment: Enrollment, tpm: TpmEvidence, keys: tpm_claim.TpmKeys) -> Verified | Unproved:
        tpm_claim.check_history(self.request.claimed_id, tpm, self.facts, self.trace)
        if self._evidence.possession is not Possession.ANSWERED:
            policy = self._satisfiable_pcr_policy(enrollment)
            if self.request.answer is None:
                return Unproved(attestation_type=AttestationType.TPM, enrollment=enrollment, keys=keys)
            self._verify_tpm_answer(tpm, keys, policy)
        self.trace.passed("possession", "of the TPM that holds the endorsement key")
        return Verified(
            registration_id=self.request.claimed_id,
            enrollment=enrollment,
            attestation_type=AttestationType.TPM,
            credential="endorsement key",
            endorsement_key_hash=endorsement_key_hash(tpm.endorsement_key),
            tpm=tpm,
        )

    def _satisfiable_pcr_policy(self, enrollment: Enrollment) -> PcrPolicy | None:
        policy = tpm_claim.pcr_policy_of(enrollment)
        if policy is not None and self.request.protocol is Role.DPS:
            raise AttestationError(
                "the enrollment has a PCR policy, which only the native protocol can satisfy", finding="quote-missing"
            )
        return policy

    def _verify_tpm_answer(self, tpm: TpmEvidence, keys: tpm_claim.TpmKeys, policy: PcrPolicy | None) -> None:
        answer, issued = self._bound(AttestationType.TPM)
        if not compare_digest(issued.keys_sha256, tpm_claim.keys_digest(tpm)):
            raise AttestationError("the challenge was made for other TPM keys", finding="challenge-other-keys")
        if self.request.protocol is not Role.DPS:
            challenge.verify_tpm_answer(
                self.request,
                answer,
                issued,
                keys=keys,
                pcr_policy=policy,
                id_scope=self.policy.id_scope,
                trace=self.trace,
            )
            return
        challenge.verify_tpm_token(
            self.request,
            answer,
            issued,
            id_scope=self.policy.id_scope,
            now=self.now,
            clock_skew_s=self.policy.clock_skew_s,
            trace=self.trace,
        )

    # --- what was presented ---

    @property
    def _evidence(self) -> Evidence:
        return self.request.evidence

    @property
    def _tpm(self) -> TpmEvidence:
        if self._evidence.tpm is None:
            raise AttestationError("no TPM was presented", finding="no-evidence")
        return self._evidence.tpm

    def _bound(self, attestation_type: AttestationType) -> tuple[Answer, IssuedChallenge]:
        return challenge.check_bound(
            self.request,
            attestation_type=attestation_type,
            connection_id=self.connection_id,
            now=self.now,
            trace=self.trace,
        )
