"""The decision: select, attest, authorise, allocate, step. Pure: the same request and facts give the same answer."""

from collections.abc import Sequence
from dataclasses import replace
from hmac import compare_digest

from provisiond.attestation.tpm import parse_endorsement_key, parse_storage_root_key
from provisiond.attestation.tpm_activation import activation_blob
from provisiond.errors import AllocationError, AttestationError, DeviceFault, NotFound, ServerFault
from provisiond.model import (
    AllocationRequest,
    AuditRecord,
    Decision,
    Enrollment,
    EnrollmentKind,
    ErrorBody,
    Evidence,
    Facts,
    Hub,
    Outcome,
    PollRequest,
    Possession,
    RegisterRequest,
    Registration,
    RegistrationId,
    RegistrationStatus,
    Reply,
    Retirement,
    Role,
    Trace,
    Verified,
)
from provisiond.registration import challenge, tpm_claim
from provisiond.registration.attest import Unproved, attest
from provisiond.registration.context import Context, RegistrationPolicy
from provisiond.registration.machine import Event, step
from provisiond.registration.placement import choose_hub, is_unchanged, place, retirement
from provisiond.registration.unknown import await_operator

__all__ = ["Context", "RegistrationPolicy", "decide_poll", "decide_register", "refuse"]


def decide_register(
    request: RegisterRequest, facts: Facts, *, policy: RegistrationPolicy, context: Context
) -> Decision:
    """Decide a register request. Never raises for what a device can bring about: a refusal is a decision."""
    trace = Trace()
    event = "register" if request.answer is None else "answer"
    try:
        outcome = _attest(request, facts, policy=policy, context=context, trace=trace)
        if isinstance(outcome, Unproved):
            return _challenge(request, outcome, policy=policy, context=context, trace=trace)
    except DeviceFault as fault:
        refused = refuse(fault, claimed_id=request.claimed_id, event=event, context=context, trace=trace)
        return await_operator(refused, fault, request, facts, context=context) if policy.unknown_pending else refused
    if not outcome.enrollment.enabled:
        return _disabled(outcome, event=event, context=context, trace=trace)
    trace.passed("authorisation", f"enrollment {outcome.enrollment.id} is enabled")
    try:
        return _assign(outcome, request, facts, policy=policy, context=context, trace=trace)
    except AllocationError as error:
        return _failed(outcome, error, context=context, trace=trace)


def decide_poll(request: PollRequest, facts: Facts, *, policy: RegistrationPolicy, context: Context) -> Decision:
    """Decide a poll: the connection proves itself again, and the operation must be its own registration's newest.

    On native topics there may be nothing to prove with again; the operation id, which nobody can guess, is then what
    shows who asks. It opens nothing but the registration's state, in which every secret is sealed to its device. A
    client certificate that the registration was not made with does not count: a plant's network may ask for one.
    """
    trace = Trace()
    if request.protocol is Role.NATIVE and not _is_proved_again(request.evidence, facts.registration):
        return _decide_bearer_poll(request, facts, policy=policy, context=context, trace=trace)
    claim = RegisterRequest(claimed_id=request.claimed_id, evidence=request.evidence, protocol=request.protocol)
    try:
        verified = _attest(claim, facts, policy=policy, context=context, trace=trace)
        if isinstance(verified, Unproved):
            raise AttestationError("the connection has not proved itself; register first", finding="no-evidence")
        registration = _own_operation(facts.registration, request.operation_id)
    except DeviceFault as fault:
        return refuse(fault, claimed_id=request.claimed_id, event="poll", context=context, trace=trace)
    if not verified.enrollment.enabled:
        return _disabled(verified, event="poll", context=context, trace=trace)
    return Decision(
        reply=_report(registration, request.claimed_id, facts.hubs, policy=policy, context=context, immediate=True),
        outcome=Outcome(registration.status.value),
    )


def refuse(
    fault: DeviceFault | ServerFault, *, claimed_id: RegistrationId, event: str, context: Context, trace: Trace
) -> Decision:
    """The decision that answers with an error: a code and a tracking id for the device, everything for the operator."""
    if not trace.ends_with_failure(fault.finding, str(fault)):
        trace.failed(fault.finding, str(fault), getattr(fault, "clause", ""))
    error = ErrorBody(
        code=fault.code, message=fault.public_message, tracking_id=context.tracking_id, timestamp=context.now
    )
    retry_after_s = getattr(fault, "retry_after_s", None)
    return Decision(
        reply=Reply(status=fault.code // 1000, error=error, retry_after_s=retry_after_s),
        outcome=Outcome.REFUSED,
        audit=AuditRecord(
            tracking_id=context.tracking_id,
            at=context.now,
            event=event,
            registration_id=claimed_id.text,
            outcome=Outcome.REFUSED,
            code=fault.code,
            reason=str(fault),
            actor=context.actor,
            trace=trace.snapshot(),
        ),
    )


def _attest(
    request: RegisterRequest, facts: Facts, *, policy: RegistrationPolicy, context: Context, trace: Trace
) -> Verified | Unproved:
    return attest(
        request,
        facts,
        policy=policy.attestation,
        connection_id=context.connection_id,
        now=context.now,
        trace=trace,
    )


def _is_proved_again(evidence: Evidence, registration: Registration | None) -> bool:
    """Whether a connection shows what the registration was made with: its TPM, or its certificate."""
    if evidence.possession is Possession.ANSWERED:
        return True
    return registration is not None and registration.certificate_der in evidence.unverified_chain[:1]


def _decide_bearer_poll(
    request: PollRequest, facts: Facts, *, policy: RegistrationPolicy, context: Context, trace: Trace
) -> Decision:
    try:
        registration = _own_operation(facts.registration, request.operation_id)
        enrollment = _letting_in(registration, facts, policy)
    except DeviceFault as fault:
        return refuse(fault, claimed_id=request.claimed_id, event="poll", context=context, trace=trace)
    if not enrollment.enabled:
        return Decision(
            reply=Reply(status=200, status_text=RegistrationStatus.DISABLED, registration_id=request.claimed_id.text),
            outcome=Outcome.DISABLED,
        )
    return Decision(
        reply=_report(registration, request.claimed_id, facts.hubs, policy=policy, context=context, immediate=True),
        outcome=Outcome(registration.status.value),
    )


def _letting_in(registration: Registration, facts: Facts, policy: RegistrationPolicy) -> Enrollment:
    """The enrollment that a registration stands on now; an individual one, also one made since, before its group."""
    enrollment = facts.individual
    if enrollment is None and registration.enrollment_kind is EnrollmentKind.GROUP:
        enrollment = facts.registered_group
    if enrollment is None:
        raise AttestationError(f"enrollment {registration.enrollment_id} is gone", finding="enrollment-unknown")
    if enrollment.attestation_type not in policy.attestation.allowed:
        raise AttestationError(
            f"{enrollment.attestation_type} is not allowed on this service", finding="mechanism-not-allowed"
        )
    return enrollment


def _challenge(
    request: RegisterRequest, claim: Unproved, *, policy: RegistrationPolicy, context: Context, trace: Trace
) -> Decision:
    enrollment = claim.enrollment
    issued = challenge.issue(
        request,
        attestation_type=claim.attestation_type,
        keys=claim.keys,
        pcr_policy=tpm_claim.pcr_policy_of(enrollment) if claim.keys is not None and enrollment is not None else None,
        connection_id=context.connection_id,
        challenge_id=context.challenge_id,
        expires_at=challenge.expiry(context.now, policy.attestation.challenge_ttl_s),
        entropy=context.entropy,
    )
    trace.passed("challenge", f"{context.challenge_id} issued, expires at {issued.challenge.expires_at:%H:%M:%S}Z")
    return Decision(
        reply=Reply(status=401, challenge=issued.challenge),
        outcome=Outcome.CHALLENGED,
        challenge=issued,
    )


def _assign(
    verified: Verified,
    request: RegisterRequest,
    facts: Facts,
    *,
    policy: RegistrationPolicy,
    context: Context,
    trace: Trace,
) -> Decision:
    existing = facts.registration
    hub = choose_hub(verified, request, facts, policy=policy, trace=trace)
    if isinstance(hub, AllocationRequest):
        return _ask(verified, hub, policy=policy)
    if isinstance(hub, Registration):
        return _keep(hub, verified, facts, policy=policy, context=context, trace=trace)
    placed = place(hub, verified, facts, policy=policy, context=context)
    if existing is not None and is_unchanged(existing, placed):
        trace.passed("reprovisioning", f"stays on {hub.name}: nothing has changed")
        return _keep(existing, verified, facts, policy=policy, context=context, trace=trace)
    trace.passed("registration", f"{placed.status.value} on {hub.name}, {placed.substatus}")
    retire = retirement(existing, placed, after_s=policy.retire_after_s, trace=trace)
    return _settle(
        placed,
        verified,
        facts,
        policy=policy,
        context=context,
        trace=trace,
        write=placed,
        expected_version=existing.version if existing else 0,
        retire=retire,
    )


def _ask(verified: Verified, question: AllocationRequest, *, policy: RegistrationPolicy) -> Decision:
    """Nothing is decided yet. Should nobody ask the question, the device is told to come again."""
    return Decision(
        reply=Reply(
            status=202,
            status_text=RegistrationStatus.ASSIGNING,
            registration_id=verified.registration_id.text,
            retry_after_s=policy.retry_after_s,
        ),
        outcome=Outcome.PENDING,
        allocation=question,
    )


def _keep(
    existing: Registration,
    verified: Verified,
    facts: Facts,
    *,
    policy: RegistrationPolicy,
    context: Context,
    trace: Trace,
) -> Decision:
    step(existing.status, Event.KEPT)
    return _settle(
        existing, verified, facts, policy=policy, context=context, trace=trace, expected_version=existing.version
    )


def _settle(
    registration: Registration,
    verified: Verified,
    facts: Facts,
    *,
    policy: RegistrationPolicy,
    context: Context,
    trace: Trace,
    expected_version: int,
    write: Registration | None = None,
    retire: Retirement | None = None,
) -> Decision:
    outcome = Outcome(registration.status.value)
    return Decision(
        reply=_report(
            registration,
            verified.registration_id,
            facts.hubs,
            policy=policy,
            context=context,
            immediate=context.immediate,
        ),
        outcome=outcome,
        registration=write,
        expected_version=expected_version,
        audit=_audit(verified, outcome, registration.hub, context=context, trace=trace),
        proved=verified.tpm,
        guard=verified.enrollment,
        retire=retire,
    )


def _own_operation(registration: Registration | None, operation_id: str) -> Registration:
    known = registration.operation_id if registration else ""
    if not compare_digest(known.encode(), operation_id.encode()) or registration is None:
        raise NotFound("the operation is not one of this registration")
    return registration


def _report(
    registration: Registration,
    claimed_id: RegistrationId,
    hubs: Sequence[Hub],
    *,
    policy: RegistrationPolicy,
    context: Context,
    immediate: bool,
) -> Reply:
    """What a device hears of its registration. A first answer that is not `immediate` is 202 whatever is true."""
    spelt = claimed_id.text
    if registration.status is RegistrationStatus.ASSIGNING or not immediate:
        return Reply(
            status=202,
            operation_id=registration.operation_id,
            status_text=RegistrationStatus.ASSIGNING,
            registration_id=spelt if immediate else "",
            retry_after_s=_retry_after_s(registration, hubs, policy),
        )
    return Reply(
        status=200,
        operation_id=registration.operation_id,
        status_text=registration.status,
        registration=_spelt(registration, spelt),
        authentication_key=_seal_hub_key(registration, context),
    )


def _spelt(registration: Registration, registration_id: str) -> Registration:
    """The device reads its own spelling back."""
    same = registration.registration_id == registration_id
    return registration if same else replace(registration, registration_id=registration_id)


def _retry_after_s(registration: Registration, hubs: Sequence[Hub], policy: RegistrationPolicy) -> int:
    """As long as the hub's queue is; a device that is told to poll without need, as always."""
    if registration.status is RegistrationStatus.ASSIGNING:
        hub = next((hub for hub in hubs if hub.name == registration.hub), None)
        if hub is not None and hub.retry_after_s is not None:
            return hub.retry_after_s
    return policy.retry_after_s


def _seal_hub_key(registration: Registration, context: Context) -> bytes | None:
    """Sealed to the keys that were recorded when the TPM proved itself."""
    if registration.hub_key is None or registration.endorsement_key is None or registration.storage_root_key is None:
        return None
    return activation_blob(
        endorsement_key=parse_endorsement_key(registration.endorsement_key),
        storage_root_key=parse_storage_root_key(registration.storage_root_key),
        key=registration.hub_key,
        entropy=context.entropy,
    )


def _disabled(verified: Verified, *, event: str, context: Context, trace: Trace) -> Decision:
    trace.failed(
        "authorisation", f"enrollment {verified.enrollment.id} is disabled", "DPS: a disabled match ends the search"
    )
    return Decision(
        reply=Reply(status=200, status_text=RegistrationStatus.DISABLED, registration_id=verified.registration_id.text),
        outcome=Outcome.DISABLED,
        audit=_audit(verified, Outcome.DISABLED, None, context=context, trace=trace, event=event),
    )


def _failed(verified: Verified, error: AllocationError, *, context: Context, trace: Trace) -> Decision:
    """A verified device that no hub can take: `failed` at 200, as Azure. Nothing is stored; asking again is safe."""
    state = Registration(
        registration_id=verified.registration_id.text,
        status=RegistrationStatus.FAILED,
        operation_id="",
        version=0,
        device_id=verified.enrollment.device_id or verified.registration_id.text,
        enrollment_kind=verified.enrollment.kind,
        enrollment_id=verified.enrollment.id,
        attestation_type=verified.attestation_type,
        error_code=error.code,
        error_message=f"{error.public_message} (tracking id {context.tracking_id})",
        etag=context.etag,
        created_at=context.now,
        updated_at=context.now,
    )
    audit = _audit(verified, Outcome.FAILED, None, context=context, trace=trace)
    return Decision(
        reply=Reply(status=200, status_text=RegistrationStatus.FAILED, registration=state),
        outcome=Outcome.FAILED,
        audit=replace(audit, code=error.code, reason=str(error)),
    )


def _audit(
    verified: Verified, outcome: Outcome, hub: str | None, *, context: Context, trace: Trace, event: str = "register"
) -> AuditRecord:
    return AuditRecord(
        tracking_id=context.tracking_id,
        at=context.now,
        event=event,
        registration_id=verified.registration_id.text,
        outcome=outcome,
        enrollment_kind=verified.enrollment.kind,
        enrollment_id=verified.enrollment.id,
        hub=hub,
        actor=context.actor,
        trace=trace.snapshot(),
    )
