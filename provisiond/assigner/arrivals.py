"""Who has moved to a hub and was seen there: what such a device has left elsewhere need not wait any longer."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from provisiond.assigner.desk import Desk
from provisiond.connectors import ArrivalWatch

_SHARE: Final = 20
"""Of the store's time, one part in so many, when a hundred thousand devices move at once."""


@dataclass(slots=True, kw_only=True)
class Arrivals:
    """One hub's.

    Devices that are still being made are looked out for as well: one may connect within milliseconds of hearing where.
    """

    desk: Desk
    _watched: frozenset[str] = frozenset()
    _due_at_s: float = 0.0
    _not_before_s: float = 0.0

    def expect(self) -> None:
        """Somebody is about to be made, and may have come from another hub: look at once."""
        self._due_at_s = 0.0

    async def step(self) -> None:
        """Ask who was seen, if it is time.

        Raises:
            HubFault: the hub does not answer.
            StoreError: nor does the store.
        """
        desk = self.desk
        begun_s = desk.clock.monotonic()
        if begun_s < max(self._due_at_s, self._not_before_s):
            return
        awaited = await desk.store.awaited_arrivals(desk.hub, limit=desk.limits.arrivals)
        self._due_at_s = begun_s + desk.limits.arrival_interval_s
        self._not_before_s = begun_s + _SHARE * (desk.clock.monotonic() - begun_s)
        wanted = frozenset(retirement.device_id for retirement in awaited)
        if not wanted and not self._watched:
            return
        seen = await self._look(sorted(wanted))
        self._watched = wanted
        keys = {one.registration_id.lower() for one in awaited if one.device_id in seen}
        if keys and await desk.store.note_arrivals(desk.hub, keys, desk.clock.now()):
            desk.observer.hub_worked(desk.hub, action="arrive", count=len(keys), elapsed_s=0.0)

    async def _look(self, device_ids: Sequence[str]) -> Collection[str]:
        connector = self.desk.connector
        if isinstance(connector, ArrivalWatch):
            return await self.desk.call(connector.watch(device_ids))
        seen: set[str] = set()
        for start in range(0, len(device_ids), connector.batch_size):
            states = await self.desk.call(connector.read(device_ids[start : start + connector.batch_size]))
            seen |= {device_id for device_id, state in states.items() if state.used_since_change}
        return seen
