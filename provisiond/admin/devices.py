"""The use cases of operators for devices at their hubs: who is there, and taking one's access away, with proof."""

import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import Final

from provisiond.admin.device_proof import (
    DELETED,
    JUDGED,
    NOT_PROVED,
    PROVED,
    STILL_OPEN,
    DeviceProbe,
    DeviceProof,
    Revocation,
)
from provisiond.admin.device_records import DeviceAdminStore, DeviceRecord, DeviceRecords
from provisiond.admin.hub_revocation import order_retirement
from provisiond.admin.use_cases import Admin
from provisiond.connectors import HubConnector
from provisiond.errors import InvalidArgument
from provisiond.model import (
    AuditRecord,
    Check,
    Enrollment,
    EnrollmentKind,
    Hub,
    ProvisioningStatus,
    Registration,
    RegistrationStatus,
    Retirement,
    RetirementAction,
    SymmetricKeyMaterial,
)
from provisiond.ports import Clock, Entropy, Write
from provisiond.registration.hub_access import device_keys
from provisiond.registration.machine import Event, step

__all__ = ["JUDGED", "NOT_PROVED", "PROVED", "STILL_OPEN", "DeviceProbe", "DeviceRecord", "Devices", "Revocation"]

_BLOCK: Final = "blockedInGroup"
"""Member of `device_information`: the individual enrollment is there only to take one device out of this group."""

_PAGE: Final = 500


class Devices:
    """What an operator may do to devices.

    Args:
        admin: changes enrollments, with their audit records.
        store: where records are.
        clock, entropy: the time, and what tracking ids are made of.
        hubs: the linked hubs.
        actor: who asks, for the audit log.
    """

    def __init__(
        self,
        *,
        admin: Admin,
        store: DeviceAdminStore,
        clock: Clock,
        entropy: Entropy,
        hubs: Sequence[Hub],
        actor: str,
    ) -> None:
        self._admin = admin
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self._records = DeviceRecords(store, hubs)
        self._proof = DeviceProof(store, records=self._records, clock=clock, entropy=entropy, actor=actor)

    # --- looking ------------------------------------------------------------------------------------------------------

    async def list_devices(self, *, after: str = "", limit: int, hub: str | None = None) -> Sequence[DeviceRecord]:
        """A page of devices in the order of their lower-case registration ids, starting after `after`."""
        return await self._records.of(await self._admin.list_registrations(after=after, limit=limit, hub=hub))

    async def get_device(self, device_id: str) -> DeviceRecord:
        """One device, by its device id.

        Raises:
            RecordNotFound: no registration has that device id.
        """
        return await self._records.find(device_id)

    # --- taking access away -------------------------------------------------------------------------------------------

    async def disable(self, device_id: str) -> Revocation:
        """Take a device's access away: its individual enrollment is disabled; any other device gets a disabled one.

        Raises:
            RecordNotFound: there is no such device.
            EtagMismatch, AlreadyExists: somebody else changed it at the same time.
        """
        device = await self.get_device(device_id)
        done = [await self._block(device)]
        retirement = await self._retire(device, RetirementAction.DISABLE)
        return await self._revocation("device.disable", device, done, retirement)

    async def revoke_all(self, kind: EnrollmentKind, enrollment_id: str) -> AsyncIterator[Revocation]:
        """Take the access of every device away that an enrollment let in; the enrollment is disabled first.

        A device of the group that an individual enrollment lets in keeps it.

        Raises:
            RecordNotFound: there is no such enrollment.
            EtagMismatch: somebody else changed it at the same time.
        """
        enrollment = await self._admin.get_enrollment(kind, enrollment_id)
        if enrollment.enabled:
            enrollment = await self._admin.set_provisioning_status(
                kind, enrollment.id, ProvisioningStatus.DISABLED, if_match=enrollment.etag
            )
        done = [Check("enrollment", True, f"{kind.value} enrollment {enrollment.id} is disabled")]
        async for registration in self._let_in_by(enrollment):
            device = (await self._records.of([registration]))[0]
            if device.enrollment is not None and device.enrollment.enabled:
                continue
            retirement = await self._retire(device, RetirementAction.DISABLE)
            yield await self._revocation("device.disable", device, done, retirement)

    async def delete(self, device_id: str) -> Revocation:
        """Take a device out: no enrollment lets it in, its registration goes, and with it twin and waiting messages.

        A member of a group is kept out by a disabled individual enrollment: its key or certificate is still good.

        Raises:
            RecordNotFound: there is no such device.
            EtagMismatch, AlreadyExists: somebody else changed it at the same time.
        """
        device = await self.get_device(device_id)
        enrollment = device.enrollment
        if enrollment is not None and enrollment.kind is EnrollmentKind.INDIVIDUAL and not _blocks(enrollment):
            await self._admin.delete_enrollment(EnrollmentKind.INDIVIDUAL, enrollment.id, if_match=enrollment.etag)
            done = [Check("enrollment", True, f"individual enrollment {enrollment.id} is deleted")]
        elif enrollment is None and device.registration.enrollment_kind is EnrollmentKind.INDIVIDUAL:
            done = [Check("enrollment", True, f"enrollment {device.registration.enrollment_id} was gone already")]
        else:
            done = [await self._block(device)]
        retirement = await self._retire(device, RetirementAction.DELETE)
        await self._admin.delete_registration(device.registration.registration_id)
        done.append(Check("registration", True, f"{device.registration.registration_id} is deleted, with its twin"))
        return await self._revocation(DELETED, device, done, retirement)

    async def enable(self, device_id: str) -> DeviceRecord:
        """Give a device its access back, as it was before it was disabled.

        Raises:
            RecordNotFound: there is no such device.
            InvalidArgument: its enrollment is gone and it was not disabled, or its whole group is disabled.
            EtagMismatch: somebody else changed it at the same time.
        """
        device = await self.get_device(device_id)
        enrollment = device.enrollment
        if enrollment is None:
            raise InvalidArgument(f"the enrollment of {device_id} is gone; create it again")
        if enrollment.kind is EnrollmentKind.GROUP and not enrollment.enabled:
            raise InvalidArgument(
                f"its whole enrollment group is disabled: `provisiond enrollment-group enable {enrollment.id}`"
            )
        if _blocks(enrollment):
            await self._admin.delete_enrollment(EnrollmentKind.INDIVIDUAL, enrollment.id, if_match=enrollment.etag)
        elif not enrollment.enabled:
            await self._admin.set_provisioning_status(
                enrollment.kind, enrollment.id, ProvisioningStatus.ENABLED, if_match=enrollment.etag
            )
        await self._restore(device)
        return await self.get_device(device_id)

    async def prove(
        self,
        revocation: Revocation,
        probe: DeviceProbe,
        *,
        connector: HubConnector | None = None,
        published: Check | None = None,
    ) -> AuditRecord:
        """As `DeviceProof.prove`: cut it off, try to connect as it would, store the receipt; raises as that does."""
        return await self._proof.prove(revocation, probe, connector=connector, published=published)

    # --- steps --------------------------------------------------------------------------------------------------------

    async def _block(self, device: DeviceRecord) -> Check:
        """Also where what let it in is gone: another group may vouch for it as well, now or later."""
        enrollment, registration = device.enrollment, device.registration
        if enrollment is not None and enrollment.kind is EnrollmentKind.INDIVIDUAL:
            if enrollment.enabled:
                await self._admin.set_provisioning_status(
                    enrollment.kind, enrollment.id, ProvisioningStatus.DISABLED, if_match=enrollment.etag
                )
            return Check("enrollment", True, f"individual enrollment {enrollment.id} is disabled")
        now = self._clock.now()
        block = Enrollment(
            kind=EnrollmentKind.INDIVIDUAL,
            id=registration.registration_id,
            # Nobody knows these keys: it is there to be disabled.
            attestation=SymmetricKeyMaterial(primary_key=b"", secondary_key=b""),
            provisioning_status=ProvisioningStatus.DISABLED,
            device_information={_BLOCK: registration.enrollment_id},
            created_at=now,
            updated_at=now,
        )
        await self._admin.create_enrollment(block)
        if enrollment is None:
            gone = f"enrollment {registration.enrollment_id} was gone already"
            return Check("enrollment", True, f"{gone}; a disabled individual enrollment keeps {block.id} out")
        finding = f"a disabled individual enrollment takes {block.id} out of enrollment group {enrollment.id}"
        return Check("enrollment", True, finding, "DPS: a disabled match ends the search")

    async def _retire(self, device: DeviceRecord, action: RetirementAction) -> Retirement | None:
        """At a hub that has identities of its own, this one has to go as well; the service sees to it.

        Wherever the device is: what it has left at hubs that it has moved from goes now.
        """
        if device.is_embedded:
            await self._store.expedite_retirements(device.registration.registration_id, self._clock.now())
            return None
        return await order_retirement(device.registration, action, store=self._store, now=self._clock.now())

    async def _let_in_by(self, enrollment: Enrollment) -> AsyncIterator[Registration]:
        if enrollment.kind is EnrollmentKind.INDIVIDUAL:
            found = await self._store.get_registration(enrollment.key)
            if found is not None:
                yield found
            return
        after = ""
        while page := await self._store.list_registrations(after_key=after, limit=_PAGE, enrollment_id=enrollment.key):
            for registration in page:
                yield registration
            after = page[-1].key

    async def _restore(self, device: DeviceRecord) -> None:
        """A hub with identities of its own has to make this one anew."""
        registration = device.registration
        if device.is_embedded or registration.status is not RegistrationStatus.DISABLED:
            return
        status = step(registration.status, Event.RESERVED)
        restored = dataclasses.replace(registration, status=status, version=registration.version + 1)
        await self._store.commit(Write(registration=restored, expected_version=registration.version))

    async def _revocation(
        self, event: str, device: DeviceRecord, done: Sequence[Check], retirement: Retirement | None
    ) -> Revocation:
        registration, enrollment = device.registration, device.enrollment
        if enrollment is not None and _blocks(enrollment):  # disabled before; what it signs with is its group's
            by_group = registration.enrollment_kind is EnrollmentKind.GROUP
            key = registration.enrollment_id.lower()
            enrollment = await self._store.get_enrollment(EnrollmentKind.GROUP, key) if by_group else None
        keys = () if enrollment is None else device_keys(registration, enrollment)
        return Revocation(event=event, device=device, keys=keys, done=tuple(done), retirement=retirement)


def _blocks(enrollment: Enrollment) -> bool:
    return _BLOCK in (enrollment.device_information or {})
