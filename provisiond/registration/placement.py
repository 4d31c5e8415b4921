"""Where a verified device goes: which hub, and the record that says so."""

from dataclasses import replace
from datetime import timedelta
from typing import Final

from provisiond.assignment.policies import allocate, candidates
from provisiond.enrollment.reprovision import POLICIES, stays, substatus_after
from provisiond.errors import AllocationError
from provisiond.model import (
    AllocationPolicy,
    AllocationRequest,
    AttestationType,
    CustomAllocation,
    Enrollment,
    Facts,
    Hub,
    JSONValue,
    RegisterRequest,
    Registration,
    RegistrationStatus,
    ReprovisionPolicy,
    Retirement,
    Trace,
    Verified,
)
from provisiond.registration.context import Context, RegistrationPolicy
from provisiond.registration.hub_reach import within_reach
from provisiond.registration.machine import Event, step

_HUB_KEY_SIZE_BYTES: Final = 32
"""HMAC-SHA256's own strength; what Azure gives a TPM device as well."""

_AT_A_HUB: Final = (RegistrationStatus.ASSIGNED, RegistrationStatus.ASSIGNING)


def choose_hub(
    verified: Verified, request: RegisterRequest, facts: Facts, *, policy: RegistrationPolicy, trace: Trace
) -> Hub | AllocationRequest | Registration:
    """Choose the hub of a verified device.

    Args:
        verified: who it is, and what let it in.
        request: what the device sent, and on whose topics.
        facts: with the answer of the custom allocation, when it was asked.
        policy: defaults of enrollments.
        trace: hears why.

    Returns:
        The hub; or what has to be asked before it can be chosen; or the record of a device that never moves
        and stays where it is, although that hub is linked no longer.

    Raises:
        AllocationError: no hub can take it (400208), or the custom allocation failed (400207).
    """
    enrollment, existing = verified.enrollment, facts.registration
    kept = stays(existing, _reprovision_of(request, enrollment, policy))
    current = next((hub for hub in facts.hubs if existing is not None and hub.name == existing.hub), None)
    if kept and existing is not None and (current is not None or existing.status in _AT_A_HUB):
        trace.passed("reprovisioning", f"stays on {existing.hub}: the policy never updates the hub assignment")
        return current or existing
    hubs = within_reach(facts.hubs, verified, protocol=request.protocol, trace=trace)
    how = enrollment.allocation_policy or policy.default_allocation
    if how is AllocationPolicy.CUSTOM:
        return _choose_by_webhook(verified, replace(facts, hubs=hubs), payload=request.payload, trace=trace)
    return allocate(
        policy=how,
        hubs=hubs,
        allowed=enrollment.iot_hubs,
        registration_key=verified.registration_id.key,
        current_hub=existing.hub if existing else None,
        trace=trace,
    ).hub


def place(hub: Hub, verified: Verified, facts: Facts, *, policy: RegistrationPolicy, context: Context) -> Registration:
    """The record of a device on its hub: assigned, or assigning where the hub has to be called first."""
    existing, enrollment = facts.registration, verified.enrollment
    custom = current_answer(verified, facts, policy)
    placed = Registration(
        registration_id=verified.registration_id.text,
        status=step(
            existing.status if existing else RegistrationStatus.UNASSIGNED,
            Event.PLACED if hub.immediate else Event.RESERVED,
        ),
        substatus=substatus_after(existing, hub.name, _reprovision(verified, policy)),
        operation_id=context.operation_id,
        version=1,
        hub=hub.name,
        assigned_host=hub.host,
        device_id=enrollment.device_id or verified.registration_id.text,
        enrollment_kind=enrollment.kind,
        enrollment_id=enrollment.id,
        attestation_type=verified.attestation_type,
        hub_key=None
        if hub.immediate
        else verified.device_key or _key_for_certificate(hub, verified, existing, context),
        certificate_der=verified.certificate_der,
        initial_twin=custom.initial_twin if custom else None,
        payload=custom.payload if custom else None,
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


def is_unchanged(existing: Registration, placed: Registration) -> bool:
    """Whether the hub has, or is about to have, just what would be placed there now."""
    if existing.status not in _AT_A_HUB:
        return False
    as_it_was = replace(
        placed,
        status=existing.status,
        substatus=existing.substatus,
        version=existing.version,
        enrollment_id=existing.enrollment_id
        if existing.enrollment_id.lower() == placed.enrollment_id.lower()
        else placed.enrollment_id,
        storage_root_key=existing.storage_root_key,
        etag=existing.etag,
        updated_at=existing.updated_at,
    )
    return as_it_was == existing


def retirement(
    existing: Registration | None, placed: Registration, *, after_s: float, trace: Trace
) -> Retirement | None:
    """What becomes of the identity at the hub that the device leaves, if it leaves one.

    It stays usable until the device was seen at its new hub, or so many seconds long after it was made there: a device
    that crashes before it has heard of the move must not be locked out.
    """
    if existing is None or existing.hub is None or existing.hub == placed.hub:
        return None
    trace.passed(
        "departure", f"may go on at {existing.hub} until it was seen at {placed.hub}, for {after_s:g} s at the longest"
    )
    return Retirement(
        hub=existing.hub,
        device_id=existing.device_id,
        registration_id=existing.registration_id,
        due_at=placed.updated_at + timedelta(seconds=after_s),
        grace_s=int(after_s),
        reason=f"moved to {placed.hub}",
    )


def current_answer(verified: Verified, facts: Facts, policy: RegistrationPolicy) -> CustomAllocation | None:
    """The custom allocation's answer, if it is the policy and was asked about the enrollment as it is now."""
    answer, enrollment = facts.custom_allocation, verified.enrollment
    how = enrollment.allocation_policy or policy.default_allocation
    if how is not AllocationPolicy.CUSTOM or answer is None or answer.enrollment_etag != enrollment.etag:
        return None
    return answer


def _choose_by_webhook(
    verified: Verified, facts: Facts, *, payload: JSONValue, trace: Trace
) -> Hub | AllocationRequest:
    enrollment, answer = verified.enrollment, facts.custom_allocation
    hubs = candidates(facts.hubs, enrollment.iot_hubs)
    if not hubs:
        trace.failed("allocation", f"none of {len(facts.hubs)} linked hubs is allowed and eligible", "DPS 400208")
        raise AllocationError(f"no eligible hub for {verified.registration_id.key}")
    if answer is None or answer.enrollment_etag != enrollment.etag:
        return AllocationRequest(
            enrollment=enrollment,
            registration_id=verified.registration_id.text,
            attestation_type=verified.attestation_type,
            certificate_der=verified.certificate_der,
            endorsement_key=verified.tpm.endorsement_key if verified.tpm else None,
            registration=facts.registration,
            hubs=hubs,
            payload=payload,
        )
    if answer.error:
        trace.failed("allocation", f"custom: {answer.error}", "DPS 400207")
        raise AllocationError(answer.error, code=400207, public=answer.public_error)
    chosen = next((hub for hub in hubs if hub.host.lower() == answer.host.lower()), None)
    if chosen is None:
        finding = f"custom: the webhook chose {answer.host[:140]!r}, which is not among the linked hubs it was offered"
        trace.failed("allocation", finding, "DPS 400207")
        raise AllocationError(finding, code=400207, public="Custom allocation failed: not a linked hub")
    trace.passed("allocation", f"custom: the webhook chose {chosen.name}")
    return chosen


def _reprovision_of(request: RegisterRequest, enrollment: Enrollment, policy: RegistrationPolicy) -> ReprovisionPolicy:
    if request.predates_reprovisioning:
        return enrollment.reprovision_policy or POLICIES["never"]
    return enrollment.reprovision_policy or policy.default_reprovision


def _reprovision(verified: Verified, policy: RegistrationPolicy) -> ReprovisionPolicy:
    return verified.enrollment.reprovision_policy or policy.default_reprovision


def _key_for_certificate(hub: Hub, verified: Verified, existing: Registration | None, context: Context) -> bytes | None:
    """What a device with a certificate derives its password from, where the hub takes it by nothing else."""
    if hub.knows_certificates or verified.attestation_type is not AttestationType.X509:
        return None
    known = existing.hub_key if existing and existing.certificate_der == verified.certificate_der else None
    return known or context.entropy.token_bytes(_HUB_KEY_SIZE_BYTES)


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
