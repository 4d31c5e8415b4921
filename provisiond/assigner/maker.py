"""What waits to be made at a hub: rows in state `assigning`, batch after batch."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from provisiond.assigner.desk import Desk
from provisiond.assigner.health import backoff_s
from provisiond.assigner.pace import Pace, worked
from provisiond.connectors import identity_of
from provisiond.errors import HubFault, HubRefused, HubUnavailable, VersionConflict
from provisiond.model import Registration, RegistrationStatus
from provisiond.ports import Write
from provisiond.registration.machine import Event, step

_PAUSED_MAX: Final = 10_000
"""Devices that wait for their next try, remembered; one that is forgotten is only tried sooner."""


@dataclass(slots=True)
class _Paused:
    attempts: int = 0
    retry_at_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class Maker:
    """One hub's. `pace`: how long its queue is, and how fast it is worked off."""

    desk: Desk
    pace: Pace = field(default_factory=Pace)
    _paused: dict[str, _Paused] = field(default_factory=dict)
    _cursor: str = ""

    async def step(self) -> bool:
        """Make a batch.

        Returns:
            Whether there may be more.

        Raises:
            HubFault: the hub does not answer; the rows are where they were.
            StoreError: nor does the store.
        """
        size = self.desk.connector.batch_size
        page = await self.desk.store.list_registrations(
            status=RegistrationStatus.ASSIGNING, hub=self.desk.hub, after_key=self._cursor, limit=size
        )
        begun_within = bool(self._cursor)
        # From page to page and round again, so that those that have to wait do not hold up those behind them.
        self._cursor = page[-1].key if len(page) == size else ""
        due = [registration for registration in page if self._is_due(registration)]
        if due:
            await self._make(due)
        return bool(due) or bool(self._cursor) or (begun_within and not page)

    async def _make(self, batch: Sequence[Registration]) -> None:
        desk = self.desk
        begun = desk.clock.monotonic()
        outcomes = await self._ensure(batch)
        elapsed_s = desk.clock.monotonic() - begun
        await asyncio.gather(
            *(
                self._finish(registration, outcome, elapsed_s)
                for registration, outcome in zip(batch, outcomes, strict=True)
            )
        )
        made = sum(outcome is None for outcome in outcomes)
        self.pace = worked(self.pace, count=made, elapsed_s=desk.clock.monotonic() - begun)
        if made:
            desk.observer.hub_worked(desk.hub, action="ensure", count=made, elapsed_s=elapsed_s)

    async def _ensure(self, batch: Sequence[Registration]) -> Sequence[HubFault | None]:
        """Make them together; should the connector fail over one of them, each by itself, so that it fails alone."""
        desk = self.desk
        identities = [identity_of(registration) for registration in batch]
        try:
            return await desk.call(desk.connector.ensure(identities))
        except HubFault:
            raise
        except Exception as error:  # noqa: BLE001 - a bug that one device brings out must not keep the others waiting
            desk.observer.hub_failed(desk.hub, error)
            if len(batch) == 1:
                return [HubUnavailable(f"the connector failed: {error!r}")]
        return [outcome for registration in batch for outcome in await self._ensure([registration])]

    async def _finish(self, registration: Registration, outcome: HubFault | None, elapsed_s: float) -> None:
        paused = self._paused.pop(registration.key, None) or _Paused()
        if outcome is None:
            await self._settle(registration, Event.CONFIRMED, None, f"made within {elapsed_s:.3f} s")
            return
        paused.attempts += 1
        if isinstance(outcome, HubRefused) or paused.attempts >= self.desk.limits.attempts:
            await self._settle(registration, Event.HUB_REFUSED, outcome, str(outcome))
            self.desk.observer.hub_worked(self.desk.hub, action="refuse", count=1, elapsed_s=elapsed_s)
            return
        wait_s = backoff_s(paused.attempts, jitter=self.desk.jitter())
        paused.retry_at_s = self.desk.clock.monotonic() + wait_s
        if len(self._paused) < _PAUSED_MAX:
            self._paused[registration.key] = paused

    async def _settle(self, registration: Registration, event: Event, fault: HubFault | None, finding: str) -> None:
        audit = self.desk.audit(
            "assign",
            registration,
            outcome="assigned" if fault is None else "failed",
            reason="" if fault is None else str(fault),
            finding=finding,
        )
        settled = replace(
            registration,
            status=step(registration.status, event),
            version=registration.version + 1,
            error_code=None,
            error_message=None,
            etag=self.desk.etag(),
            updated_at=self.desk.clock.now(),
        )
        if fault is not None:
            message = f"{HubRefused.public_message} (tracking id {audit.tracking_id})"
            settled = replace(settled, error_code=HubRefused.code, error_message=message)
            audit = replace(audit, code=HubRefused.code)
        write = Write(
            registration=settled,
            expected_version=registration.version,
            audit=audit,
            made_at=settled.updated_at if fault is None else None,
        )
        try:
            await self.desk.store.commit(write)
        except VersionConflict:
            await self.desk.take_back(registration)
        else:
            self.desk.observer.hub_settled(settled, audit)

    def _is_due(self, registration: Registration) -> bool:
        paused = self._paused.get(registration.key)
        return paused is None or paused.retry_at_s <= self.desk.clock.monotonic()
