"""One hub's worker: makes what waits to be made there, takes away what is to go, and looks whether the rest is there.

The rows are the queue. A crash at any point leaves a row that is found again; every call may be made twice; and what a
call has done is only believed once the row says so.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from provisiond.assigner.arrivals import Arrivals
from provisiond.assigner.desk import Desk
from provisiond.assigner.health import HubHealth, answered, failed, measured
from provisiond.assigner.maker import Maker
from provisiond.assigner.pace import retry_after_s
from provisiond.assigner.reconciler import Reconciler
from provisiond.errors import HubFault, HubUnavailable, StoreError
from provisiond.model import HubView, JSONValue, Retirement, RetirementAction
from provisiond.ports import HubBoard, HubClaims

_STORE_WAIT_S: Final = 2.0
"""After the store failed: it says itself when it is beyond help, and the daemon ends."""
_DOWN_WAIT_S: Final = 5.0
"""What devices are told at the least while the hub is down: it is not expected back with the next question."""


@dataclass(slots=True, kw_only=True)
class HubWorker:
    """The worker of one hub; `run` it in a task of its own, and `wake` it when there is something to do."""

    desk: Desk
    board: HubBoard
    claims: HubClaims
    maker: Maker
    arrivals: Arrivals
    reconciler: Reconciler
    health: HubHealth = field(default_factory=HubHealth)
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _told: tuple[str, bool] | None = None
    _probe_at_s: float = 0.0
    _published: dict[str, JSONValue] = field(default_factory=dict)
    _publish_at_s: float = 0.0

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                self._woken.clear()
                await self._sleep(await self._careful_step())
        finally:
            self.claims.release(self.desk.hub)

    def wake(self) -> None:
        """There is something in the queue."""
        self.maker.pace = replace(self.maker.pace, waiting=self.maker.pace.waiting + 1)
        self.arrivals.expect()
        self._woken.set()

    def count(self, waiting: int) -> None:
        """Take over how long the queue is, as the store says."""
        self.maker.pace = replace(self.maker.pace, waiting=waiting)
        if self.claims.claim(self.desk.hub):
            self._show()

    async def _careful_step(self) -> float:
        try:
            return await self._step()
        except StoreError as error:
            self.desk.observer.hub_failed(self.desk.hub, error)
            return _STORE_WAIT_S
        except Exception as error:  # noqa: BLE001 - a bug in one hub's connector must not stop the others
            self.desk.observer.hub_failed(self.desk.hub, error)
            self._note_fault(HubUnavailable(f"its connector failed: {error!r}"))
            return self._recovery_s()

    async def _step(self) -> float:
        """Do what there is to do; how long there will be nothing, seconds."""
        if not self.claims.claim(self.desk.hub):
            await self._follow()
            return self.desk.limits.poll_s
        if self._recovery_s() > 0:
            return self._recovery_s()
        busy = False
        try:
            await self._probe()
            await self.arrivals.step()
            busy = await self.maker.step()
            busy |= await self._retire()
            await self.reconciler.step()
        except HubFault as fault:
            self._note_fault(fault)
        else:
            # Only now: a hub that answers probes and makes nothing is not well.
            self._note_health(answered(self.health))
        await self._publish()
        return 0.0 if busy else self._recovery_s() or self.desk.limits.poll_s

    # --- what is to go -----------------------------------------------------------------------------------------------

    async def _retire(self) -> bool:
        """Take a batch away; whether there may be more."""
        size = self.desk.connector.batch_size
        due = await self.desk.store.list_retirements(self.desk.hub, due_by=self.desk.clock.now(), limit=size)
        for action in RetirementAction:
            await self._retire_batch(action, [retirement for retirement in due if retirement.action is action])
        return len(due) == size

    async def _retire_batch(self, action: RetirementAction, batch: Sequence[Retirement]) -> None:
        if not batch:
            return
        desk = self.desk
        begun = desk.clock.monotonic()
        device_ids = [retirement.device_id for retirement in batch]
        if action is RetirementAction.DISABLE:
            await desk.call(desk.connector.disable(device_ids))
        else:
            await desk.call(desk.connector.delete(device_ids))
        elapsed_s = desk.clock.monotonic() - begun
        for retirement in batch:
            # Should the device have come back meanwhile, its row is in the queue and makes the identity again.
            await desk.store.finish_retirement(retirement, desk.retirement_audit(retirement))
        desk.observer.hub_worked(desk.hub, action=action.value, count=len(batch), elapsed_s=elapsed_s)

    # --- whether it answers ------------------------------------------------------------------------------------------

    async def _probe(self) -> None:
        clock = self.desk.clock
        begun = clock.monotonic()
        if begun < self._probe_at_s and not self.health.failures:
            return
        await self.desk.call(self.desk.connector.probe())
        self._probe_at_s = begun + self.desk.limits.probe_interval_s
        self.health = measured(self.health, latency_ms=(clock.monotonic() - begun) * 1000)

    def _note_fault(self, fault: HubFault) -> None:
        now_s = self.desk.clock.monotonic()
        self._note_health(failed(self.health, fault, now_s=now_s, jitter=self.desk.jitter()))

    def _note_health(self, health: HubHealth) -> None:
        news = (health.state, bool(health.error))
        self.health = health
        self._show()
        if news != self._told:
            self._told = news
            self.desk.observer.hub_changed(self.desk.hub, state=health.state, error=health.error)

    def _recovery_s(self) -> float:
        """How long a hub that failed is still left alone, seconds."""
        return max(0.0, self.health.retry_at_s - self.desk.clock.monotonic()) if self.health.failures else 0.0

    # --- what others hear of it --------------------------------------------------------------------------------------

    def _show(self) -> None:
        recovery_s = 0.0 if self.health.healthy else max(_DOWN_WAIT_S, self._recovery_s())
        self._put_up(healthy=self.health.healthy, latency_ms=self.health.latency_ms, recovery_s=recovery_s)

    def _put_up(self, *, healthy: bool, latency_ms: float | None, recovery_s: float) -> None:
        told_s = retry_after_s(self.maker.pace, recovery_s=recovery_s)
        self.board.see(self.desk.hub, HubView(healthy=healthy, latency_ms=latency_ms, retry_after_s=told_s))

    async def _follow(self) -> None:
        """Another daemon works on this hub: take over what it has seen."""
        observed = (await self.desk.store.hub_observations()).get(self.desk.hub)
        if observed is None:
            return
        latency_ms = observed.get("latencyMs")
        healthy = observed.get("state") == "up"
        self._put_up(
            healthy=healthy,
            latency_ms=latency_ms if isinstance(latency_ms, (int, float)) else None,
            recovery_s=0.0 if healthy else _DOWN_WAIT_S,
        )

    async def _publish(self) -> None:
        """Say in the store what was seen, when it has changed, and now and then."""
        now_s = self.desk.clock.monotonic()
        essence: dict[str, JSONValue] = {"state": self.health.state, "error": self.health.error}
        if essence == self._published and now_s < self._publish_at_s:
            return
        await self.desk.store.put_hub_observation(self.desk.hub, {**essence, **self._details()})
        self._published, self._publish_at_s = essence, now_s + self.desk.limits.probe_interval_s

    def _details(self) -> Mapping[str, JSONValue]:
        latency_ms, rate, drift = self.health.latency_ms, self.maker.pace.rate_per_s, self.reconciler.drift
        return {
            "latencyMs": None if latency_ms is None else round(latency_ms, 3),
            "waiting": self.maker.pace.waiting,
            "ratePerS": None if rate is None else round(rate, 1),
            "drift": {
                "checked": drift.checked,
                "missing": drift.missing,
                "disabled": drift.disabled,
                "passes": drift.passes,
            },
            "seenAt": self.desk.clock.now().isoformat(),
        }

    async def _sleep(self, delay_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._woken.wait()
