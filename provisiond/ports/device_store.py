"""What the embedded hub asks of the store."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from provisiond.model import (
    AuditRecord,
    CloudMessage,
    DevicePresence,
    DeviceTwin,
    Enrollment,
    EnrollmentKind,
    Registration,
    Retirement,
)
from provisiond.ports.decision_store import FactsQuery, StoredFacts


class DeviceStore(Protocol):
    """What the embedded hub needs of the store. `device_key` arguments are lower-case device ids.

    All raise StoreUnavailable; those that read a record raise CorruptRecord when it is damaged.
    """

    async def facts(self, query: FactsQuery) -> StoredFacts:
        """As `DecisionStore.facts`."""
        ...

    async def find_enrollment(self, kind: EnrollmentKind, key: str) -> Enrollment | None:
        """One enrollment or group, or None."""
        ...

    async def find_device(self, device_key: str) -> Registration | None:
        """The registration that a device id belongs to; the oldest, should two have it."""
        ...

    async def get_twin(self, device_key: str) -> DeviceTwin | None:
        """A device's twin, or None when nobody has looked for it yet."""
        ...

    async def change_twin(
        self, device_key: str, change: Callable[[DeviceTwin | None], DeviceTwin]
    ) -> tuple[DeviceTwin | None, DeviceTwin]:
        """Replace a twin by what `change` makes of it, in one transaction; give what was there, and what is there now.

        Args:
            device_key: whose.
            change: pure; runs on another thread. Any ProvisiondError that it raises is the caller's.
        """
        ...

    async def queue_message(self, device_key: str, message: CloudMessage, *, limit: int) -> int | None:
        """Append a message to a device's queue, durably; None when `limit` are there, else how many are now."""
        ...

    async def take_turn(self, device_key: str, *, now: datetime, deliveries_max: int) -> CloudMessage | None:
        """The first message of a device's queue, with this delivery counted; those that are of no use are removed."""
        ...

    async def remove_message(self, sequence: int) -> None:
        """Remove a message that was acknowledged."""
        ...

    async def get_subscriptions(self, device_key: str) -> Mapping[str, int]:
        """What a device is still subscribed to from an earlier connection: QoS by topic filter."""
        ...

    async def put_subscriptions(self, device_key: str, granted: Mapping[str, int]) -> None:
        """Keep what a device is subscribed to, durably; nothing is kept of nothing."""
        ...

    async def put_presence(self, presences: Sequence[DevicePresence]) -> None:
        """Write who is connected and was last seen when."""
        ...

    async def reset_presence(self, now: datetime) -> None:
        """Nobody is connected: the service has only just begun."""
        ...

    async def list_presence(self, device_keys: Sequence[str]) -> Mapping[str, DevicePresence]:
        """Presence of those devices that have ever connected."""
        ...

    async def count_access_changes(self) -> int:
        """A number that changes whenever an enrollment changes or a registration is removed, by any process."""
        ...

    async def departures_of(self, registration_key: str) -> Sequence[Retirement]:
        """What a registration still has at hubs that it is to go from."""
        ...

    async def departing_devices(self, hub_names: Collection[str]) -> frozenset[str]:
        """Lower-case ids of the devices that are to go from any of these hubs."""
        ...

    async def list_retirements(
        self, hub: str, *, due_by: datetime, after_device: str = "", limit: int
    ) -> Sequence[Retirement]:
        """As `OutboxStore.list_retirements`."""
        ...

    async def finish_retirement(self, retirement: Retirement, audit: AuditRecord) -> bool:
        """As `OutboxStore.finish_retirement`."""
        ...

    async def note_arrivals(self, hub: str, registration_keys: Collection[str], at: datetime) -> int:
        """As `OutboxStore.note_arrivals`."""
        ...
