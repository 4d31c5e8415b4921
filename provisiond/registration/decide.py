"""The decision: select, attest, authorise, allocate, step. Pure: the same request and facts give the same answer."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from hmac import compare_digest
from typing import Final

from provisiond.assignment.policies import Allocation, allocate
from provisiond.attestation.tpm import parse_endorsement_key, parse_storage_root_key
from provisiond.attestation.tpm_activation import activation_blob
from provisiond.enrollment.match import presented_types
from provisiond.enrollment.reprovision import stays, substatus_after
from provisiond.errors import AllocationError, AttestationError, DeviceFault, NotFound, ServerFault
from provisiond.model import (
    AllocationPolicy,
    AuditRecord,
    Decision,
    ErrorBody,
    Facts,
    Hub,
    Outcome,
    PollRequest,
    RegisterRequest,
    Registration,
    RegistrationId,
    RegistrationStatus,
    Reply,
    ReprovisionPolicy,
    Role,
    Trace,
    Verified,
)
from provisiond.ports import Entropy
from provisiond.registration import challenge, tpm_claim
from provisiond.registration.attest import AttestationPolicy, Unproved, attest
from provisiond.registration.machine import Event, step

_HUB_KEY_SIZE_BYTES: Final = 32
"""HMAC-SHA256's own strength; what Azure gives a TPM device as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationPolicy:
    """The operator's settings that a decision depends on.

    Args:
        retry_after_s: what an unfinished operation tells the device to wait, whole seconds.
        default_allocation, default_reprovision: for enrollments that do not say.
    """

    attestation: AttestationPolicy
    retry_after_s: int = 3
    default_allocation: AllocationPolicy = AllocationPolicy.HASHED
    default_reprovision: ReprovisionPolicy = field(default_factory=ReprovisionPolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a decision is given besides the request and the facts.

    Args:
        now: wall time, aware UTC.
        immediate: whether this device takes `assigned` as its first answer.
        tracking_id: fresh UUID text, for the audit row and, on a refusal, the device.
        operation_id: fresh and unguessable, for a new registration.
        etag: fresh, for a changed registration.
        challenge_id: fresh and unguessable, for a challenge.
        connection_id: of the connection that asks; empty where connections are not ours to know.
        entropy: makes what a challenge or a sealed key needs.
        actor: remote address of the device.
    """

    now: datetime
    immediate: bool
    tracking_id: str
    operation_id: str
    etag: str
    challenge_id: str
    connection_id: str
    entropy: Entropy
    actor: str = ""


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
        return refuse(fault, claimed_id=request.claimed_id, event=event, context=context, trace=trace)
    if not outcome.enrollment.enabled:
        return _disabled(outcome, event=event, context=context, trace=trace)
    trace.passed("authorisation", f"enrollment {outcome.enrollment.id} is enabled")
    try:
        return _assign(outcome, facts, policy=policy, context=context, trace=trace)
    except AllocationError as error:
        return _failed(outcome, error, context=context, trace=trace)


def decide_poll(request: PollRequest, facts: Facts, *, policy: RegistrationPolicy, context: Context) -> Decision:
    """Decide a poll: the connection proves itself again, and the operation must be its own registration's newest.

    On native topics there may be nothing to prove with again; the operation id, which nobody can guess, is then what
    shows who asks. It opens nothing but the registration's state, in which every secret is sealed to its device.
    """
    trace = Trace()
    if request.protocol is Role.NATIVE and not presented_types(request.evidence):
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
        reply=_report(registration, request.claimed_id, policy=policy, context=context, immediate=True),
        outcome=Outcome(registration.status.value),
    )


def refuse(
    fault: DeviceFault | ServerFault, *, claimed_id: RegistrationId, event: str, context: Context, trace: Trace
) -> Decision:
    """The decision that answers with an error: a code and a tracking id for the device, everything for the operator."""
    finding = getattr(fault, "finding", type(fault).__name__)
    trace.failed(finding, str(fault), getattr(fault, "clause", ""))
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


def _decide_bearer_poll(
    request: PollRequest, facts: Facts, *, policy: RegistrationPolicy, context: Context, trace: Trace
) -> Decision:
    try:
        registration = _own_operation(facts.registration, request.operation_id)
    except NotFound as fault:
        return refuse(fault, claimed_id=request.claimed_id, event="poll", context=context, trace=trace)
    if facts.individual is not None and not facts.individual.enabled:
        return Decision(
            reply=Reply(status=200, status_text=RegistrationStatus.DISABLED, registration_id=request.claimed_id.text),
            outcome=Outcome.DISABLED,
        )
    return Decision(
        reply=_report(registration, request.claimed_id, policy=policy, context=context, immediate=True),
        outcome=Outcome(registration.status.value),
    )


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
    verified: Verified, facts: Facts, *, policy: RegistrationPolicy, context: Context, trace: Trace
) -> Decision:
    existing = facts.registration
    reprovision = verified.enrollment.reprovision_policy or policy.default_reprovision
    if existing is not None and stays(existing, reprovision):
        trace.passed("reprovisioning", f"stays on {existing.hub}: the policy never updates the hub assignment")
        return _keep(existing, verified, policy=policy, context=context, trace=trace)
    hub = _allocate(verified, facts, policy=policy, trace=trace).hub
    if existing is not None and _is_unchanged(existing, hub, verified):
        trace.passed("reprovisioning", f"stays on {hub.name}: nothing has changed")
        return _keep(existing, verified, policy=policy, context=context, trace=trace)
    registration = _place(existing, hub, verified, reprovision=reprovision, context=context)
    trace.passed("registration", f"{registration.status.value} on {hub.name}, {registration.substatus}")
    return _settle(
        registration,
        verified,
        policy=policy,
        context=context,
        trace=trace,
        write=registration,
        expected_version=existing.version if existing else 0,
    )


def _allocate(verified: Verified, facts: Facts, *, policy: RegistrationPolicy, trace: Trace) -> Allocation:
    return allocate(
        policy=verified.enrollment.allocation_policy or policy.default_allocation,
        hubs=facts.hubs,
        allowed=verified.enrollment.iot_hubs,
        registration_key=verified.registration_id.key,
        current_hub=facts.registration.hub if facts.registration else None,
        trace=trace,
    )


def _is_unchanged(existing: Registration, hub: Hub, verified: Verified) -> bool:
    return (
        existing.status in (RegistrationStatus.ASSIGNED, RegistrationStatus.ASSIGNING)
        and existing.hub == hub.name
        and existing.assigned_host == hub.host
        and existing.enrollment_kind == verified.enrollment.kind
        and existing.enrollment_id.lower() == verified.enrollment.key
        and existing.attestation_type == verified.attestation_type
        and existing.endorsement_key_hash == verified.endorsement_key_hash
    )


def _place(
    existing: Registration | None, hub: Hub, verified: Verified, *, reprovision: ReprovisionPolicy, context: Context
) -> Registration:
    status = existing.status if existing else RegistrationStatus.UNASSIGNED
    placed = Registration(
        registration_id=verified.registration_id.text,
        status=step(status, Event.PLACED if hub.immediate else Event.RESERVED),
        substatus=substatus_after(existing, hub.name, reprovision),
        operation_id=context.operation_id,
        version=1,
        hub=hub.name,
        assigned_host=hub.host,
        device_id=verified.enrollment.device_id or verified.registration_id.text,
        enrollment_kind=verified.enrollment.kind,
        enrollment_id=verified.enrollment.id,
        attestation_type=verified.attestation_type,
        etag=context.etag,
        created_at=context.now,
        updated_at=context.now,
    )
    placed = _with_tpm(placed, existing, verified, context)
    if existing is None:
        return placed
    # The name at the hub and the operation a device may be polling outlive every move; both end with the record.
    return replace(
        placed,
        registration_id=existing.registration_id,
        operation_id=existing.operation_id,
        version=existing.version + 1,
        device_id=existing.device_id,
        created_at=existing.created_at,
    )


def _with_tpm(
    placed: Registration, existing: Registration | None, verified: Verified, context: Context
) -> Registration:
    """A TPM device keeps its hub key for as long as it is the same TPM; it is made here, and leaves only sealed."""
    if verified.tpm is None:
        return placed
    same = existing is not None and existing.endorsement_key_hash == verified.endorsement_key_hash
    known = existing.hub_key if existing is not None and same else None
    return replace(
        placed,
        endorsement_key_hash=verified.endorsement_key_hash,
        endorsement_key=verified.tpm.endorsement_key,
        storage_root_key=verified.tpm.storage_root_key,
        hub_key=known or context.entropy.token_bytes(_HUB_KEY_SIZE_BYTES),
    )


def _keep(
    existing: Registration, verified: Verified, *, policy: RegistrationPolicy, context: Context, trace: Trace
) -> Decision:
    step(existing.status, Event.KEPT)
    return _settle(existing, verified, policy=policy, context=context, trace=trace, expected_version=existing.version)


def _settle(
    registration: Registration,
    verified: Verified,
    *,
    policy: RegistrationPolicy,
    context: Context,
    trace: Trace,
    expected_version: int,
    write: Registration | None = None,
) -> Decision:
    outcome = Outcome(registration.status.value)
    return Decision(
        reply=_report(
            registration, verified.registration_id, policy=policy, context=context, immediate=context.immediate
        ),
        outcome=outcome,
        registration=write,
        expected_version=expected_version,
        audit=_audit(verified, outcome, registration.hub, context=context, trace=trace),
        proved=verified.tpm,
        guard=verified.enrollment,
    )


def _own_operation(registration: Registration | None, operation_id: str) -> Registration:
    known = registration.operation_id if registration else ""
    if not compare_digest(known.encode(), operation_id.encode()) or registration is None:
        raise NotFound("the operation is not one of this registration")
    return registration


def _report(
    registration: Registration,
    claimed_id: RegistrationId,
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
            retry_after_s=policy.retry_after_s,
        )
    return Reply(
        status=200,
        operation_id=registration.operation_id,
        status_text=registration.status,
        # The device reads its own spelling back.
        registration=replace(registration, registration_id=spelt),
        authentication_key=_seal_hub_key(registration, context),
    )


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
