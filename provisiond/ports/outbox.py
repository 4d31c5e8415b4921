"""What is asked by, and of, those who work on the rows that wait for a hub."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from provisiond.model import AuditRecord, JSONValue, Registration, RegistrationStatus, Retirement
from provisiond.ports.decision_store import Write


class OutboxStore(Protocol):
    """What the assigner needs of the store: the rows that are its queues. All raise StoreUnavailable."""

    async def commit(self, write: Write) -> None:
        """As `DecisionStore.commit`."""
        ...

    async def get_registration(self, key: str) -> Registration | None:
        """As `AdminStore.get_registration`."""
        ...

    async def list_registrations(
        self,
        *,
        after_key: str = "",
        limit: int,
        enrollment_id: str | None = None,
        status: RegistrationStatus | None = None,
        hub: str | None = None,
    ) -> Sequence[Registration]:
        """As `AdminStore.list_registrations`."""
        ...

    async def list_retirements(
        self, hub: str, *, due_by: datetime, after_device: str = "", limit: int
    ) -> Sequence[Retirement]:
        """What is to go from a hub and is due, by device id, starting after `after_device`.

        What a device has left that waits to be made at its new hub, or was refused there, is not due: it has no other.
        """
        ...

    async def count_departing(self) -> Mapping[str, int]:
        """How much is to go from each hub, now or later, by name."""
        ...

    async def awaited_arrivals(self, hub: str, *, limit: int) -> Sequence[Retirement]:
        """What devices have left elsewhere that goes as soon as they were seen at this hub."""
        ...

    async def note_arrivals(self, hub: str, registration_keys: Collection[str], at: datetime) -> int:
        """Have what these registrations have left elsewhere go now, if they are at this hub; how much that is."""
        ...

    async def put_retirement(self, retirement: Retirement, audit: AuditRecord | None = None) -> None:
        """Have an identity go from a hub; it replaces what was to become of it."""
        ...

    async def finish_retirement(self, retirement: Retirement, audit: AuditRecord) -> bool:
        """Forget a retirement that is done; False when it is not there any more: the device has come back."""
        ...

    async def count_by_hub(self) -> Mapping[str, Mapping[RegistrationStatus, int]]:
        """Registrations by hub name and status."""
        ...

    async def draining_hubs(self) -> frozenset[str]:
        """Names of the hubs that operators drain."""
        ...

    async def put_hub_observation(self, name: str, observed: Mapping[str, JSONValue]) -> None:
        """Say what was seen of a hub."""
        ...

    async def hub_observations(self) -> Mapping[str, Mapping[str, JSONValue]]:
        """What was last seen of each hub, by name."""
        ...


class HubClaims(Protocol):
    """Which daemon works on which hub's queue: one at a time, and none that has died."""

    def claim(self, hub: str) -> bool:
        """Take the queue of a hub, or say that somebody else has it; a queue that we have, we keep."""
        ...

    def release(self, hub: str) -> None:
        """Let go of it."""
        ...


class Outbox(Protocol):
    """Who works on the rows that a decision left `assigning`."""

    def wake(self, hub: str) -> None:
        """There is something in this hub's queue; must not block."""
        ...
