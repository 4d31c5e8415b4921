"""Letting in, or not, the devices that nobody enrolled."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from provisiond.admin.fingerprint import six_words
from provisiond.admin.use_cases import Admin
from provisiond.errors import InvalidArgument, RecordNotFound
from provisiond.model import (
    AttestationMaterial,
    AttestationType,
    AuditRecord,
    Enrollment,
    EnrollmentKind,
    PendingDevice,
    TpmMaterial,
    X509Material,
)


class PendingQueue(Protocol):
    """What approvals need of the store."""

    async def list(self, *, registration_key: str | None = None, rejected: bool = False) -> Sequence[PendingDevice]:
        """Those that wait, oldest first."""
        ...

    async def accept(self, enrollment: Enrollment, audit: AuditRecord) -> None:
        """Enroll, and let nothing wait under its id any more; raises AlreadyExists."""
        ...

    async def reject(self, device: PendingDevice, audit: AuditRecord) -> None:
        """Have it wait no more; raises RecordNotFound."""
        ...


async def accept(
    admin: Admin,
    queue: PendingQueue,
    registration_id: str,
    *,
    fingerprint: str | None,
    options: Callable[[Enrollment], Enrollment] = lambda enrollment: enrollment,
) -> Enrollment:
    """Enroll a device with what it has shown; its next request is assigned.

    Args:
        admin: checks the enrollment.
        queue: where it waits.
        registration_id: its id.
        fingerprint: its six words, as somebody reads them from the device; None takes the only one that waits.
        options: changes what it is enrolled with besides.

    Raises:
        RecordNotFound: no such device waits.
        InvalidArgument: several wait under this id, or the words are another device's, or it cannot be enrolled.
        AlreadyExists: the id was enrolled meanwhile.
    """
    device = await find(queue, registration_id, fingerprint=fingerprint, or_rejected=True)
    enrollment = options(enrollment_of(device, admin.now))
    change = admin.prepare_enrollment(enrollment)
    await queue.accept(change.enrollment, change.audit)
    return change.enrollment


async def reject(admin: Admin, queue: PendingQueue, registration_id: str, *, fingerprint: str | None) -> PendingDevice:
    """Keep a device out of the list for as long as it comes back; raises as `accept`."""
    device = await find(queue, registration_id, fingerprint=fingerprint)
    await queue.reject(
        device, admin.record_of("registration.reject", device.registration_id, six_words(device.evidence))
    )
    return device


async def find(
    queue: PendingQueue, registration_id: str, *, fingerprint: str | None, or_rejected: bool = False
) -> PendingDevice:
    """The device that waits under an id; with `or_rejected`, one that was rejected as well, when its words are given.

    Raises:
        RecordNotFound: none does.
        InvalidArgument: several do, or it has other words.
    """
    waiting = list(await queue.list(registration_key=registration_id.lower()))
    rejected = list(await queue.list(registration_key=registration_id.lower(), rejected=True)) if or_rejected else []
    if fingerprint is not None:
        waiting += rejected
    if not waiting and rejected:
        words = six_words(rejected[0].evidence)
        raise RecordNotFound(f"{registration_id} was rejected; to accept it all the same: --fingerprint {words}")
    if not waiting:
        raise RecordNotFound(
            f"no device waits as {registration_id}; `provisiond registration list --pending` shows all"
        )
    if fingerprint is None:
        if len(waiting) > 1:
            words = "\n".join(six_words(device.evidence) for device in waiting)
            raise InvalidArgument(
                f"{len(waiting)} devices wait as {registration_id}; say which, --fingerprint:\n{words}"
            )
        return waiting[0]
    wanted = "-".join(fingerprint.lower().replace("-", " ").split())
    for device in waiting:
        if six_words(device.evidence) == wanted:
            return device
    raise InvalidArgument(f"no device that waits as {registration_id} has the words {wanted}: compare them again")


def enrollment_of(device: PendingDevice, now: datetime) -> Enrollment:
    """The individual enrollment of a device, by what it has shown."""
    material: AttestationMaterial
    if device.attestation_type is AttestationType.TPM:
        material = TpmMaterial(endorsement_key=device.evidence)
    else:
        material = X509Material(primary_der=device.evidence)
    return Enrollment(
        kind=EnrollmentKind.INDIVIDUAL,
        id=device.registration_id,
        attestation=material,
        created_at=now,
        updated_at=now,
    )
