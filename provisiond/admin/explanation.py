"""What would become of a device that asked now: the decision and its trace, and nothing is written."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from provisiond.admin.assumed_evidence import Presented, assume_evidence
from provisiond.assignment.policies import allocate
from provisiond.errors import AllocationError, AttestationError
from provisiond.model import (
    AllocationRequest,
    AttestationType,
    CustomAllocation,
    Decision,
    Enrollment,
    EnrollmentKind,
    Facts,
    Hub,
    Outcome,
    RegisterRequest,
    RegistrationId,
    Trace,
)
from provisiond.ports import Clock, Entropy, FactsQuery, StoredFacts
from provisiond.registration.decide import Context, RegistrationPolicy, decide_register, refuse
from provisiond.registration.questions import facts_of, facts_query

_MISSING_INTERMEDIATES: Final = ("ca-not-enrolled", "issuer-missing")
_WHAT_TELLS: Final = {
    AttestationType.X509: "its certificate and intermediates tell: --certificate-path",
    AttestationType.TPM: "its TPM tells: --endorsement-key and --ek-certificate",
    AttestationType.SYMMETRIC_KEY: "its token tells: --sas",
}


class FactsStore(Protocol):
    """What an explanation needs of the store."""

    async def facts(self, query: FactsQuery) -> StoredFacts:
        """As `DecisionStore.facts`."""
        ...


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
    known = await store.facts(FactsQuery(registration_key=claimed_id.key, symmetric_key_groups=presented.is_empty))
    context = _context(clock, entropy)
    evidence, assumptions = assume_evidence(
        presented, known, claimed_id, id_scope=policy.attestation.id_scope, now=context.now
    )
    request = RegisterRequest(claimed_id=claimed_id, evidence=evidence)
    facts = facts_of(await store.facts(facts_query(request)), hubs)
    if presented.is_empty and not assumptions:
        decision = _undecidable(claimed_id, facts, context)
    else:
        decision = decide_register(request, facts, policy=policy, context=context)
        if presented.is_empty and facts.individual is None and _lacks_intermediates(decision):
            decision, assumptions = _undecidable(claimed_id, facts, context), ()
        if decision.allocation is not None:  # a webhook is not asked: it may count its questions
            chosen, assumed = _presumed_answer(decision.allocation)
            facts, assumptions = replace(facts, custom_allocation=chosen), (*assumptions, assumed)
            decision = decide_register(request, facts, policy=policy, context=context)
    return Explanation(
        claimed_id=claimed_id,
        decision=decision,
        facts=facts,
        assumptions=assumptions,
        hub_scores=_hub_scores(decision, facts, claimed_id, policy),
    )


def _presumed_answer(question: AllocationRequest) -> tuple[CustomAllocation, str]:
    """The hub that the device is at, else the first that it may get; and what to say about it."""
    current = question.registration.hub if question.registration else None
    chosen = next((hub for hub in question.hubs if hub.name == current), question.hubs[0])
    offered = ", ".join(hub.name for hub in question.hubs[:16])
    answer = CustomAllocation(enrollment_etag=question.enrollment.etag, host=chosen.host)
    return answer, f"the webhook of the custom allocation, which was not asked, chooses {chosen.name} of {offered}"


def _undecidable(claimed_id: RegistrationId, facts: Facts, context: Context) -> Decision:
    """Nothing was given, and nothing that is kept says what the device would present."""
    registration = facts.registration
    if registration is not None and registration.enrollment_kind is EnrollmentKind.GROUP:
        tells = _WHAT_TELLS[registration.attestation_type]
        reason = f"enrollment group {registration.enrollment_id} has let it in; whether it would again, {tells}"
        fault = AttestationError(reason, finding="evidence-not-given")
    else:
        reason = (
            "no individual enrollment has this id; whether a group lets it in, what it presents tells: "
            "--certificate-path, --sas, or --endorsement-key and --ek-certificate"
        )
        fault = AttestationError(reason, finding="enrollment-unknown")
    return refuse(fault, claimed_id=claimed_id, event="register", context=context, trace=Trace())


def _lacks_intermediates(decision: Decision) -> bool:
    """Whether a recorded certificate leads nowhere, which the intermediates that a device sends may mend."""
    trace = decision.audit.trace if decision.audit else ()
    return any(not check.passed and check.name in _MISSING_INTERMEDIATES for check in trace)


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
