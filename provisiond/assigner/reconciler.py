"""Whether what should be in a hub is there: page after page, for ever, and what it has forgotten is made again."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from provisiond.assigner.desk import Desk
from provisiond.connectors import identity_of
from provisiond.model import Registration, RegistrationStatus
from provisiond.ports import Write


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What the comparison with the hub has found since this daemon began to work on it.

    Args:
        checked: registrations.
        missing: identities that the hub had forgotten; they were made again.
        disabled: identities that somebody else has disabled in the hub; they are left alone.
        passes: times that the whole hub was gone through.
    """

    checked: int = 0
    missing: int = 0
    disabled: int = 0
    passes: int = 0


@dataclass(slots=True, kw_only=True)
class Reconciler:
    """One hub's."""

    desk: Desk
    drift: Drift = field(default_factory=Drift)
    _cursor: str = ""
    _due_at_s: float = 0.0

    async def step(self) -> None:
        """Compare a page, if it is time.

        Raises:
            HubFault: the hub does not answer; the page is compared another time.
            StoreError: nor does the store.
        """
        now = self.desk.clock.monotonic()
        if now < self._due_at_s:
            return
        self._due_at_s = now + self.desk.limits.reconcile_interval_s
        size = self.desk.limits.reconcile_page
        page = await self.desk.store.list_registrations(
            status=RegistrationStatus.ASSIGNED, hub=self.desk.hub, after_key=self._cursor, limit=size
        )
        batch_size = self.desk.connector.batch_size
        for start in range(0, len(page), batch_size):
            await self._compare(page[start : start + batch_size])
        complete = len(page) < size
        self._cursor = "" if complete else page[-1].key
        self.drift = replace(self.drift, passes=self.drift.passes + complete)

    async def _compare(self, batch: Sequence[Registration]) -> None:
        states = await self.desk.call(self.desk.connector.read([registration.device_id for registration in batch]))
        missing = [registration for registration in batch if registration.device_id not in states]
        disabled = sum(not state.enabled for state in states.values())
        self.drift = replace(
            self.drift, checked=self.drift.checked + len(batch), disabled=self.drift.disabled + disabled
        )
        # What has changed since the page was read is not drift, and somebody else's to see to.
        forgotten = [registration for registration in missing if await self._is_current(registration)]
        if forgotten:
            await self._repair(forgotten)

    async def _repair(self, forgotten: Sequence[Registration]) -> None:
        desk = self.desk
        begun = desk.clock.monotonic()
        identities = [identity_of(registration) for registration in forgotten]
        outcomes = await desk.call(desk.connector.ensure(identities))
        for registration, outcome in zip(forgotten, outcomes, strict=True):
            finding = "the hub had forgotten the device" if outcome is None else str(outcome)
            done = "repaired" if outcome is None else "failed"
            await desk.store.commit(Write(audit=desk.audit("repair", registration, outcome=done, finding=finding)))
            if not await self._is_current(registration):
                await desk.take_back(registration)
        self.drift = replace(self.drift, missing=self.drift.missing + len(forgotten))
        elapsed_s = desk.clock.monotonic() - begun
        desk.observer.hub_worked(desk.hub, action="repair", count=len(forgotten), elapsed_s=elapsed_s)

    async def _is_current(self, registration: Registration) -> bool:
        current = await self.desk.store.get_registration(registration.key)
        return current is not None and current.version == registration.version
