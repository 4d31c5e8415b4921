"""The linked hubs: which there are, what was seen of them, and who chooses in place of a policy."""

from collections.abc import Mapping
from typing import Protocol

from provisiond.model import AllocationRequest, CustomAllocation, Hub, HubView


class CustomAllocator(Protocol):
    """Who answers custom allocations."""

    async def allocate(self, request: AllocationRequest) -> CustomAllocation:
        """Ask the webhook of the enrollment, within its deadline; never raises for what it does."""
        ...


class HubDirectory(Protocol):
    """The linked hubs, as they are now."""

    def snapshot(self) -> tuple[Hub, ...]:
        """Every linked hub with its health, weight and load."""
        ...

    def place(self, *, before: str | None, after: str | None) -> None:
        """Count a device on another hub, by name, until the next count of all; None is nowhere."""
        ...


class HubBoard(Protocol):
    """Where what was seen of the hubs is put up, for decisions to look at."""

    def see(self, name: str, view: HubView) -> None:
        """Take over what was seen of a hub."""
        ...

    def count(self, assigned: Mapping[str, int]) -> None:
        """Take over how many devices each hub has, by name."""
        ...
