"""What the embedded hub asks of the store, on SQLite."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial

from provisiond.model import CloudMessage, DevicePresence, DeviceTwin, Enrollment, EnrollmentKind, Registration
from provisiond.store import devices, enrollments, registrations
from provisiond.store.hops import Hops
from provisiond.store.writer import MutationItem


class SqliteDeviceStore(Hops):
    """`ports.DeviceStore` on one file."""

    async def find_device(self, device_key: str) -> Registration | None:
        """The registration of a device id, or None; raises CorruptRecord, StoreUnavailable."""
        return await self._look(partial(registrations.find_device, device_key=device_key, digest=self._digest))

    async def find_enrollment(self, kind: EnrollmentKind, key: str) -> Enrollment | None:
        """As `get_enrollment`, ahead of what operators read; raises CorruptRecord, StoreUnavailable."""
        return await self._look(partial(enrollments.load, kind=kind, key=key, digest=self._digest))

    async def get_twin(self, device_key: str) -> DeviceTwin | None:
        """A device's twin, or None; raises CorruptRecord, StoreUnavailable."""
        return await self._look(partial(devices.load_twin, device_key=device_key, digest=self._digest))

    async def change_twin(self, device_key: str, change: devices.TwinChange) -> tuple[DeviceTwin | None, DeviceTwin]:
        """Replace a twin by what `change` makes of it; raises what that raises, CorruptRecord, StoreUnavailable."""
        apply = partial(devices.change_twin, device_key=device_key, change=change, digest=self._digest)
        changed: tuple[DeviceTwin | None, DeviceTwin] = await self._writes.call(MutationItem(apply=apply))
        return changed

    async def queue_message(self, device_key: str, message: CloudMessage, *, limit: int) -> int | None:
        """Append to a device's queue; None when it is full, else its length; raises StoreUnavailable."""
        apply = partial(devices.queue_message, device_key=device_key, message=message, limit=limit, digest=self._digest)
        length: int | None = await self._writes.call(MutationItem(apply=apply))
        return length

    async def take_turn(self, device_key: str, *, now: datetime, deliveries_max: int) -> CloudMessage | None:
        """The first message of a queue, its delivery counted; raises CorruptRecord, StoreUnavailable."""
        apply = partial(
            devices.take_turn, device_key=device_key, now=now, deliveries_max=deliveries_max, digest=self._digest
        )
        message: CloudMessage | None = await self._writes.call(MutationItem(apply=apply))
        return message

    async def remove_message(self, sequence: int) -> None:
        """Remove a message that was acknowledged; raises StoreUnavailable."""
        await self._writes.call(MutationItem(apply=partial(devices.remove_message, sequence=sequence)))

    async def get_subscriptions(self, device_key: str) -> Mapping[str, int]:
        """QoS by topic filter, of an earlier connection; raises StoreUnavailable."""
        return await self._look(partial(devices.load_subscriptions, device_key=device_key))

    async def put_subscriptions(self, device_key: str, granted: Mapping[str, int]) -> None:
        """Keep them; raises StoreUnavailable."""
        put = partial(devices.put_subscriptions, device_key=device_key, granted=dict(granted))
        await self._writes.call(MutationItem(apply=put))

    async def put_presence(self, presences: Sequence[DevicePresence]) -> None:
        """Write who is connected and was last seen when; raises StoreUnavailable."""
        await self._writes.call(MutationItem(apply=partial(devices.put_presence, presences=tuple(presences))))

    async def reset_presence(self, now: datetime) -> None:
        """Nobody is connected; raises StoreUnavailable."""
        await self._writes.call(MutationItem(apply=partial(devices.reset_presence, now=now)))

    async def list_presence(self, device_keys: Sequence[str]) -> Mapping[str, DevicePresence]:
        """Presence by lower-case device id; raises StoreUnavailable."""
        return await self._ask(partial(devices.list_presence, device_keys=tuple(device_keys)))

    async def count_access_changes(self) -> int:
        """Changes whenever an enrollment changes or a registration is removed; raises StoreUnavailable."""
        return await self._look(devices.count_access_changes)
