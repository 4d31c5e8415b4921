"""From a claim to a `Verified`: the mechanisms, in the order of the claim."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from provisiond.attestation import symmetric_key, x509
from provisiond.enrollment.match import Claim, match, presented_types
from provisiond.errors import AttestationError
from provisiond.model import (
    AttestationType,
    Enrollment,
    Evidence,
    Facts,
    RegistrationId,
    Trace,
    Verified,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationPolicy:
    """What this service accepts as proof.

    Args:
        id_scope: the scope SAS tokens must name.
        allowed: the accepted mechanisms.
        clock_skew_s: tolerance for a token's expiry, seconds.
        x509_limits: bounds on what a chain may cost.
        crls: DER certificate revocation lists.
    """

    id_scope: str
    allowed: frozenset[AttestationType] = frozenset(AttestationType)
    clock_skew_s: float = 120.0
    x509_limits: x509.X509Limits = field(default_factory=x509.X509Limits)
    crls: tuple[bytes, ...] = ()


def attest(
    claimed_id: RegistrationId,
    evidence: Evidence,
    facts: Facts,
    *,
    policy: AttestationPolicy,
    now: datetime,
    trace: Trace,
) -> Verified:
    """Prove the claimed identity against the trust material of the enrollments that claim it.

    Returns:
        The proof; its enrollment may be disabled, which is for the caller to act on.

    Raises:
        AttestationError: nothing proves it. An unknown id costs what a wrong key costs.
    """
    if not presented_types(evidence):
        raise AttestationError("neither a certificate nor a token was presented", finding="no-evidence")
    claim = match(facts, evidence, allowed=policy.allowed, trace=trace)
    attempt = _Attempt(claimed_id, evidence, claim, policy, now, trace)
    if claim.individual is None:
        return attempt.by_group()
    return attempt.by_individual(claim.individual)


@dataclass(frozen=True, slots=True)
class _Attempt:
    claimed_id: RegistrationId
    evidence: Evidence
    claim: Claim
    policy: AttestationPolicy
    now: datetime
    trace: Trace

    def by_individual(self, individual: Enrollment) -> Verified:
        try:
            return self._verify_individual(individual)
        except AttestationError:
            if individual.enabled:
                raise
        # A disabled individual enrollment takes one device out of its group, whatever mechanism it names: the device
        # that proves itself through the group is told that it is disabled, anybody else only "unauthorized".
        return replace(self.by_group(), enrollment=individual)

    def by_group(self) -> Verified:
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
            self._spend_the_time_of_a_wrong_key()
            failure = AttestationError(f"no enrollment claims {self.claimed_id}", finding="no-enrollment")
        raise failure

    def _verify_individual(self, individual: Enrollment) -> Verified:
        mechanism = individual.attestation_type
        if mechanism not in self.policy.allowed:
            raise AttestationError(f"{mechanism} is not allowed on this service", finding="mechanism-not-allowed")
        if mechanism not in presented_types(self.evidence):
            raise AttestationError(
                f"the enrollment asks for {mechanism}, which was not presented", finding="no-evidence"
            )
        match mechanism:
            case AttestationType.X509:
                return x509.verify_individual(
                    enrollment=individual,
                    claimed_id=self.claimed_id,
                    unverified_chain=self.evidence.unverified_chain,
                    now=self.now,
                    trace=self.trace,
                    limits=self.policy.x509_limits,
                )
            case AttestationType.SYMMETRIC_KEY:
                return symmetric_key.verify_individual(
                    enrollment=individual,
                    claimed_id=self.claimed_id,
                    sas_token=self.evidence.sas_token or "",
                    id_scope=self.policy.id_scope,
                    now=self.now,
                    clock_skew_s=self.policy.clock_skew_s,
                    trace=self.trace,
                )
            case AttestationType.TPM:
                raise AttestationError("TPM attestation is not available yet", finding="mechanism-not-allowed")

    def _group_verifiers(self) -> dict[AttestationType, Callable[[tuple[Enrollment, ...]], Verified]]:
        return {
            AttestationType.X509: self._verify_x509_groups,
            AttestationType.SYMMETRIC_KEY: self._verify_symmetric_key_groups,
        }

    def _verify_x509_groups(self, groups: tuple[Enrollment, ...]) -> Verified:
        return x509.verify_group(
            groups=groups,
            claimed_id=self.claimed_id,
            unverified_chain=self.evidence.unverified_chain,
            now=self.now,
            trace=self.trace,
            limits=self.policy.x509_limits,
            crls=self.policy.crls,
        )

    def _verify_symmetric_key_groups(self, groups: tuple[Enrollment, ...]) -> Verified:
        return symmetric_key.verify_group(
            groups=groups,
            claimed_id=self.claimed_id,
            sas_token=self.evidence.sas_token or "",
            id_scope=self.policy.id_scope,
            now=self.now,
            clock_skew_s=self.policy.clock_skew_s,
            trace=self.trace,
        )

    def _spend_the_time_of_a_wrong_key(self) -> None:
        if self.evidence.sas_token is not None:
            symmetric_key.equalise(
                claimed_id=self.claimed_id,
                sas_token=self.evidence.sas_token,
                id_scope=self.policy.id_scope,
                now=self.now,
                clock_skew_s=self.policy.clock_skew_s,
                trace=self.trace,
            )
