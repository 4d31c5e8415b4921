"""What devices that have moved have left at the embedded hub, and who of them has arrived at it from elsewhere."""

import uuid
from collections.abc import Collection
from typing import Final

from provisiond.connectors import retirement_reason
from provisiond.model import AuditRecord, Check, Retirement
from provisiond.ports import Clock, DeviceStore, Entropy, HubDirectory
from provisiond.registration.hub_access import EMBEDDED

_BATCH: Final = 100
"""Retirements that are carried out in one look: each is a transaction."""

ACTOR: Final = "embedded hub"


class Departures:
    """The embedded hub's part in moves; the rows are in the store, so that a restart changes nothing.

    A device that has moved away goes on being let in until it was seen at its new hub or its time is up. Then there is
    nothing to be deleted, for the registration is the identity: the row goes, and with it what let the device in.
    """

    def __init__(self, *, store: DeviceStore, hubs: HubDirectory, clock: Clock, entropy: Entropy) -> None:
        self._store = store
        self._hubs = hubs
        self._clock = clock
        self._entropy = entropy
        self._arrived: dict[str, set[str]] = {}
        self._departing: frozenset[str] = frozenset()

    def arrived(self, hub: str, registration_key: str) -> None:
        """A device has connected, with an identity that it has here: it needs no other any more."""
        self._arrived.setdefault(hub, set()).add(registration_key)

    async def step(self) -> Collection[str]:
        """Write down who has arrived, let go of who has left.

        Returns:
            Lower-case ids of the devices that may be let in no longer, whichever process has let go of them.

        Raises:
            StoreUnavailable: it is done another time.
        """
        await self._note_arrivals()
        embedded = [hub.name for hub in self._hubs.snapshot() if hub.type == EMBEDDED]
        now = self._clock.now()
        let_go = set()  # whoever has moved and arrived since the last look was never among the departing
        for hub in embedded:
            for retirement in await self._store.list_retirements(hub, due_by=now, limit=_BATCH):
                await self._store.finish_retirement(retirement, self._audit(retirement))
                let_go.add(retirement.device_id.lower())
        before, self._departing = self._departing, await self._store.departing_devices(embedded)
        return (before | let_go) - self._departing

    async def _note_arrivals(self) -> None:
        arrived, self._arrived = self._arrived, {}
        while arrived:
            hub, registration_keys = arrived.popitem()
            try:
                await self._store.note_arrivals(hub, registration_keys, self._clock.now())
            except BaseException:
                for name, keys in {**arrived, hub: registration_keys}.items():
                    self._arrived.setdefault(name, set()).update(keys)
                raise

    def _audit(self, retirement: Retirement) -> AuditRecord:
        finding = f"{retirement.hub}: {retirement.device_id} is let in no longer, unless it is here again"
        return AuditRecord(
            tracking_id=str(uuid.UUID(bytes=self._entropy.token_bytes(16), version=4)),
            at=self._clock.now(),
            event="retire",
            registration_id=retirement.registration_id,
            outcome=f"{retirement.action.value}d",
            reason=retirement_reason(retirement),
            hub=retirement.hub,
            actor=ACTOR,
            trace=(Check("hub", True, finding),),
        )
