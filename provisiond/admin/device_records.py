"""Devices as an operator sees them: their identity, what lets them in, whether they are there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from provisiond.admin.hub_revocation import RetirementStore
from provisiond.errors import RecordNotFound
from provisiond.model import DevicePresence, Enrollment, EnrollmentKind, Hub, Registration, Retirement
from provisiond.ports import AdminStore, DecisionStore, DeviceStore
from provisiond.registration.hub_access import EMBEDDED


class DeviceAdminStore(AdminStore, DecisionStore, DeviceStore, RetirementStore, Protocol):
    """What these use cases need of the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRecord:
    """A device as an operator sees it.

    Args:
        registration: its identity at the hub.
        enrollment: what lets it in now: the individual enrollment of its id, or the group it came by; None: nothing.
        presence: of one that has ever connected to the embedded hub.
        hub: where it is, when that is linked.
        departures: what it still has at hubs that it has moved from.
    """

    registration: Registration
    enrollment: Enrollment | None = None
    presence: DevicePresence | None = None
    hub: Hub | None = None
    departures: tuple[Retirement, ...] = ()

    @property
    def key(self) -> str:
        """What pages are ordered by."""
        return self.registration.key

    @property
    def is_embedded(self) -> bool:
        """Whether its hub is this service."""
        return self.hub is not None and self.hub.type == EMBEDDED


class DeviceRecords:
    """What is known of devices.

    Args:
        store: where records are.
        hubs: the linked hubs.
    """

    def __init__(self, store: DeviceAdminStore, hubs: Sequence[Hub]) -> None:
        self._store = store
        self._hubs = {hub.name: hub for hub in hubs}

    async def find(self, device_id: str) -> DeviceRecord:
        """One device, by its device id.

        Raises:
            RecordNotFound: no registration has that device id.
        """
        registration = await self._store.find_device(device_id.lower())
        if registration is None:
            raise RecordNotFound(f"there is no device {device_id}; `provisiond device list` shows those there are")
        (record,) = await self.of([registration])
        return replace(record, departures=tuple(await self._store.departures_of(registration.key)))

    async def of(self, registrations: Sequence[Registration]) -> Sequence[DeviceRecord]:
        """The devices of registrations, in their order."""
        presences = await self._store.list_presence([one.device_id.lower() for one in registrations])
        return [
            DeviceRecord(
                registration=registration,
                enrollment=await self.enrollment_of(registration),
                presence=presences.get(registration.device_id.lower()),
                hub=self._hubs.get(registration.hub or ""),
            )
            for registration in registrations
        ]

    async def enrollment_of(self, registration: Registration) -> Enrollment | None:
        """What lets the device in now: the individual enrollment of its id, or the group it came by."""
        individual = await self._store.get_enrollment(EnrollmentKind.INDIVIDUAL, registration.key)
        if individual is not None or registration.enrollment_kind is EnrollmentKind.INDIVIDUAL:
            return individual
        return await self._store.get_enrollment(EnrollmentKind.GROUP, registration.enrollment_id.lower())
