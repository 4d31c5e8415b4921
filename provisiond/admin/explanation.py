"""What would become of a device that asked now: the decision and its trace, and nothing is written."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric import ec

from provisiond.assignment.policies import allocate
from provisiond.attestation.symmetric_key import PROVISIONING_KEY_NAME, generate_sas_token
from provisiond.attestation.tpm_templates import STORAGE_TEMPLATES
from provisiond.errors import AllocationError, AttestationError
from provisiond.model import (
    Decision,
    Enrollment,
    Evidence,
    Facts,
    Hub,
    Outcome,
    Possession,
    RegisterRequest,
    RegistrationId,
    SymmetricKeyMaterial,
    TpmEvidence,
    TpmMaterial,
    Trace,
    X509Material,
)
from provisiond.ports import Clock, Entropy, FactsQuery, StoredFacts
from provisiond.registration.decide import Context, RegistrationPolicy, decide_register, refuse
from provisiond.registration.questions import facts_query

_SRK_TEMPLATE_ID: Final = "SRK-P256"
_TOKEN_LIFETIME_S: Final = 3600


class FactsStore(Protocol):
    """What an explanation needs of the store."""

    async def facts(self, query: FactsQuery) -> StoredFacts:
        """As `DecisionStore.facts`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """What the device would present; all empty means what its individual enrollment asks for.

    Args:
        chain: DER certificates, leaf first.
        sas_token: as the device would send it.
        endorsement_key, storage_root_key: TPM2B_PUBLIC.
        ek_chain: DER certificates of the endorsement key, leaf first.
    """

    chain: tuple[bytes, ...] = ()
    sas_token: str | None = field(default=None, repr=False)
    endorsement_key: bytes | None = None
    storage_root_key: bytes | None = None
    ek_chain: tuple[bytes, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was given."""
        return not self.chain and self.sas_token is None and self.endorsement_key is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A decision that was not carried out.

    Args:
        decision: as the device would have brought it about.
        facts: what it rests on.
        assumptions: what was taken for true because only the device can show it.
        hub_scores: hub name and score under the enrollment's policy, best first; empty when nobody was let in.
    """

    claimed_id: RegistrationId
    decision: Decision
    facts: Facts
    assumptions: tuple[str, ...] = ()
    hub_scores: tuple[tuple[str, float], ...] = ()

    @property
    def would_be_assigned(self) -> bool:
        """Whether the device would hear of a hub."""
        return self.decision.outcome in (Outcome.ASSIGNED, Outcome.ASSIGNING)

    @property
    def enrollments(self) -> tuple[Enrollment, ...]:
        """The enrollments that were looked at."""
        individual = (self.facts.individual,) if self.facts.individual else ()
        return (*individual, *self.facts.groups)


async def explain(
    claimed_id: RegistrationId,
    presented: Presented,
    *,
    store: FactsStore,
    hubs: Sequence[Hub],
    policy: RegistrationPolicy,
    clock: Clock,
    entropy: Entropy,
) -> Explanation:
    """Decide as the service would, now, and write nothing.

    Args:
        claimed_id: whose request.
        presented: with what proof.
        store: where the facts are.
        hubs: the linked hubs.
        policy: of the running configuration.
        clock: the time.
        entropy: what a decision needs of chance; nothing made of it is kept.

    Raises:
        CorruptRecord, StoreUnavailable: the facts cannot be read.
    """
    # An enrollment and a registration may complete what was given, so they are looked at first.
    known = await store.facts(FactsQuery(registration_key=claimed_id.key))
    context = _context(clock, entropy)
    evidence, assumptions = _evidence(presented, known, claimed_id, policy.attestation.id_scope, context.now)
    request = RegisterRequest(claimed_id=claimed_id, evidence=evidence)
    stored = await store.facts(facts_query(request))
    facts = Facts(
        individual=stored.individual,
        groups=stored.groups,
        registration=stored.registration,
        endorsement_key_owner=stored.endorsement_key_owner,
        hubs=tuple(replace(hub, eligible=hub.eligible and hub.name not in stored.draining_hubs) for hub in hubs),
    )
    if presented.is_empty and facts.individual is None:
        fault = AttestationError(
            "no individual enrollment has this id; whether a group lets it in, its certificate, key or TPM tells",
            finding="enrollment-unknown",
        )
        decision = refuse(fault, claimed_id=claimed_id, event="register", context=context, trace=Trace())
    else:
        decision = decide_register(request, facts, policy=policy, context=context)
    return Explanation(
        claimed_id=claimed_id,
        decision=decision,
        facts=facts,
        assumptions=assumptions,
        hub_scores=_hub_scores(decision, facts, claimed_id, policy),
    )


def _evidence(
    presented: Presented, known: StoredFacts, claimed_id: RegistrationId, id_scope: str, now: datetime
) -> tuple[Evidence, tuple[str, ...]]:
    if presented.is_empty:
        return _enrolled_evidence(known, f"{id_scope}/registrations/{claimed_id}", now)
    assumptions: list[str] = []
    possession = Possession.UNPROVED
    if presented.chain:
        possession = Possession.TLS
        assumptions.append("the device holds the private key of the certificate")
    tpm = None
    if presented.endorsement_key is not None:
        possession = Possession.ANSWERED
        tpm, assumed = _tpm_evidence(presented, known)
        assumptions += assumed
    evidence = Evidence(unverified_chain=presented.chain, sas_token=presented.sas_token, tpm=tpm, possession=possession)
    return evidence, tuple(assumptions)


def _enrolled_evidence(known: StoredFacts, resource: str, now: datetime) -> tuple[Evidence, tuple[str, ...]]:
    """What the individual enrollment asks for; nothing when there is none, for then only the device could tell."""
    if known.individual is None:
        return Evidence(), ()
    match known.individual.attestation:
        case X509Material() as material:
            assumed = "the device presents the enrolled primary certificate, and holds its private key"
            return Evidence(unverified_chain=(material.primary_der,), possession=Possession.TLS), (assumed,)
        case TpmMaterial() as material:
            tpm, assumed_too = _tpm_evidence(Presented(endorsement_key=material.endorsement_key), known)
            return Evidence(tpm=tpm, possession=Possession.ANSWERED), (
                "the device presents the enrolled endorsement key",
                *assumed_too,
            )
        case SymmetricKeyMaterial() as material:
            expiry_s = int(now.timestamp()) + _TOKEN_LIFETIME_S
            token = generate_sas_token(
                resource=resource, key=material.primary_key, expiry=expiry_s, key_name=PROVISIONING_KEY_NAME
            )
            return Evidence(sas_token=token), ("the device holds the enrolled primary key",)


def _tpm_evidence(presented: Presented, known: StoredFacts) -> tuple[TpmEvidence, tuple[str, ...]]:
    assumptions = ["the TPM activates the challenge, and meets the enrollment's PCR policy if it has one"]
    storage_root_key = presented.storage_root_key
    if storage_root_key is None:
        storage_root_key = _recorded_storage_root_key(known)
        assumptions.append("the storage root key is " + ("the recorded one" if storage_root_key else "a usable one"))
    evidence = TpmEvidence(
        endorsement_key=presented.endorsement_key or b"",
        storage_root_key=storage_root_key or _any_storage_root_key(),
        unverified_ek_chain=presented.ek_chain,
    )
    return evidence, tuple(assumptions)


def _recorded_storage_root_key(known: StoredFacts) -> bytes | None:
    material = known.individual.attestation if known.individual else None
    enrolled = material.storage_root_key if isinstance(material, TpmMaterial) else None
    return enrolled or (known.registration.storage_root_key if known.registration else None)


def _any_storage_root_key() -> bytes:
    """A key that follows a storage template: only its form is looked at before the device proves itself."""
    templates = [known for size in STORAGE_TEMPLATES.values() for known in size]
    template = next(known for known in templates if known.id == _SRK_TEMPLATE_ID)
    point = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    size_bytes = template.unique_size_bytes
    x, y = point.x.to_bytes(size_bytes, "big"), point.y.to_bytes(size_bytes, "big")
    return template.prefix + x + size_bytes.to_bytes(2, "big") + y


def _hub_scores(
    decision: Decision, facts: Facts, claimed_id: RegistrationId, policy: RegistrationPolicy
) -> tuple[tuple[str, float], ...]:
    enrollment = decision.guard
    if enrollment is None:
        return ()
    try:
        allocation = allocate(
            policy=enrollment.allocation_policy or policy.default_allocation,
            hubs=facts.hubs,
            allowed=enrollment.iot_hubs,
            registration_key=claimed_id.key,
            current_hub=facts.registration.hub if facts.registration else None,
            trace=Trace(),
        )
    except AllocationError:
        return ()
    return tuple(sorted(allocation.scores, key=lambda scored: scored[1], reverse=True))


def _context(clock: Clock, entropy: Entropy) -> Context:
    return Context(
        now=clock.now(),
        immediate=True,
        tracking_id="",
        operation_id="",
        etag="",
        challenge_id="explained",
        connection_id="explained",
        entropy=entropy,
    )
