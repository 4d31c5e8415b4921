"""One hub's worker: makes what waits to be made there, takes away what is to go, and looks whether the rest is there.

The rows are the queue. A crash at any point leaves a row that is found again; every call may be made twice; and what a
call has done is only believed once the row says so.
"""

import asyncio
import uuid
from base64 import b64encode
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from provisiond.assigner.health import HubHealth, answered, backoff_s, failed
from provisiond.assigner.pace import Pace, retry_after_s, worked
from provisiond.connectors import HubConnector, identity_of
from provisiond.errors import HubFault, HubRefused, HubUnavailable, StoreError, VersionConflict
from provisiond.model import (
    AuditRecord,
    Check,
    HubView,
    JSONValue,
    Registration,
    RegistrationStatus,
    Retirement,
    RetirementAction,
)
from provisiond.ports import Clock, Entropy, HubBoard, HubClaims, HubObserver, OutboxStore, Write
from provisiond.registration.machine import Event, step

T = TypeVar("T")

ACTOR: Final = "assigner"
"""Who acts, in the audit log."""

_STORE_WAIT_S: Final = 2.0
"""After the store failed: it says itself when it is beyond help, and the daemon ends."""
_PAUSED_MAX: Final = 10_000
"""Devices that wait for their next try, remembered; one that is forgotten is only tried sooner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignerLimits:
    """Bounds of the work on hubs.

    Args:
        call_timeout_s: for one call, a whole batch of identities included.
        poll_s: how often a queue is looked at without being woken: rows of another daemon, or of one that crashed.
        probe_interval_s: how often a hub that has nothing to do is asked whether it is there.
        reconcile_interval_s: how often a page of what should be in a hub is compared with what is.
        reconcile_page: registrations in such a page.
        attempts: tries for one device while the hub answers for others; then it is refused.
    """

    call_timeout_s: float = 10.0
    poll_s: float = 2.0
    probe_interval_s: float = 10.0
    reconcile_interval_s: float = 60.0
    reconcile_page: int = 200
    attempts: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What the comparison with the hub has found since this worker began.

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


@dataclass(slots=True)
class _Paused:
    attempts: int = 0
    retry_at_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class HubWorker:
    """The worker of one hub; `run` it in a task of its own, and `wake` it when there is something to do."""

    hub: str
    connector: HubConnector
    store: OutboxStore
    board: HubBoard
    claims: HubClaims
    clock: Clock
    entropy: Entropy
    observer: HubObserver
    limits: AssignerLimits = field(default_factory=AssignerLimits)
    health: HubHealth = field(default_factory=HubHealth)
    pace: Pace = field(default_factory=Pace)
    drift: Drift = field(default_factory=Drift)
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _paused: dict[str, _Paused] = field(default_factory=dict)
    _cursor: str = ""
    _reconcile_cursor: str = ""
    _probe_at_s: float = 0.0
    _reconcile_at_s: float = 0.0
    _published: dict[str, JSONValue] = field(default_factory=dict)
    _publish_at_s: float = 0.0

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                self._woken.clear()
                await self._sleep(await self._careful_step())
        finally:
            self.claims.release(self.hub)

    def wake(self) -> None:
        """There is something in the queue."""
        self.pace = replace(self.pace, waiting=self.pace.waiting + 1)
        self._woken.set()

    def count(self, waiting: int) -> None:
        """Take over how long the queue is, as the store says."""
        self.pace = replace(self.pace, waiting=waiting)
        if self.claims.claim(self.hub):
            self._show()

    async def _careful_step(self) -> float:
        try:
            return await self._step()
        except StoreError as error:
            self.observer.hub_failed(self.hub, error)
            return _STORE_WAIT_S
        except Exception as error:  # noqa: BLE001 - a bug in one hub's connector must not stop the others
            self.observer.hub_failed(self.hub, error)
            self._note_fault(HubUnavailable(f"its connector failed: {error!r}"))
            return self._recovery_s()

    async def _step(self) -> float:
        """Do what there is to do; how long there will be nothing, seconds."""
        if not self.claims.claim(self.hub):
            await self._follow()
            return self.limits.poll_s
        if self._recovery_s() > 0:
            return self._recovery_s()
        busy = False
        try:
            await self._probe()
            busy = await self._make()
            busy |= await self._retire()
            await self._reconcile()
        except HubFault as fault:
            self._note_fault(fault)
        await self._publish()
        return 0.0 if busy else self._recovery_s() or self.limits.poll_s

    # --- what waits to be made ---------------------------------------------------------------------------------------

    async def _make(self) -> bool:
        """Make a batch; whether there may be more."""
        page = await self.store.list_registrations(
            status=RegistrationStatus.ASSIGNING, hub=self.hub, after_key=self._cursor, limit=self.connector.batch_size
        )
        wrapped = bool(self._cursor)
        self._cursor = page[-1].key if len(page) == self.connector.batch_size else ""
        due = [registration for registration in page if self._is_due(registration)]
        if not due:
            return bool(self._cursor) or (wrapped and not page)
        await self._make_batch(due)
        return True

    async def _make_batch(self, batch: Sequence[Registration]) -> None:
        begun = self.clock.monotonic()
        outcomes = await self._call(self.connector.ensure([identity_of(registration) for registration in batch]))
        elapsed_s = self.clock.monotonic() - begun
        await asyncio.gather(
            *(
                self._finish(registration, outcome, elapsed_s)
                for registration, outcome in zip(batch, outcomes, strict=True)
            )
        )
        made = sum(outcome is None for outcome in outcomes)
        self.pace = worked(self.pace, count=made, elapsed_s=self.clock.monotonic() - begun)
        if made:
            self.observer.hub_worked(self.hub, action="ensure", count=made, elapsed_s=elapsed_s)

    async def _finish(self, registration: Registration, outcome: HubFault | None, elapsed_s: float) -> None:
        paused = self._paused.pop(registration.key, None) or _Paused()
        if outcome is None:
            await self._settle(registration, Event.CONFIRMED, None, f"made within {elapsed_s:.3f} s")
            return
        paused.attempts += 1
        if isinstance(outcome, HubRefused) or paused.attempts >= self.limits.attempts:
            await self._settle(registration, Event.HUB_REFUSED, outcome, str(outcome))
            self.observer.hub_worked(self.hub, action="refuse", count=1, elapsed_s=elapsed_s)
            return
        paused.retry_at_s = self.clock.monotonic() + backoff_s(paused.attempts, jitter=self._jitter())
        if len(self._paused) < _PAUSED_MAX:
            self._paused[registration.key] = paused

    async def _settle(self, registration: Registration, event: Event, fault: HubFault | None, finding: str) -> None:
        audit = self._audit(
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
            error_code=None if fault is None else HubRefused.code,
            error_message=None if fault is None else f"{HubRefused.public_message} (tracking id {audit.tracking_id})",
            etag=self._etag(),
            updated_at=self.clock.now(),
        )
        if fault is not None:
            audit = replace(audit, code=HubRefused.code)
        try:
            await self.store.commit(Write(registration=settled, expected_version=registration.version, audit=audit))
        except VersionConflict:
            await self._take_back(registration)

    async def _take_back(self, registration: Registration) -> None:
        """The row has changed while its hub was called: what was made there may be of no use any more."""
        current = await self.store.get_registration(registration.key)
        if current is not None and current.status is not RegistrationStatus.DISABLED:
            return  # still to be made here, with what the row says now; or elsewhere, which has its own retirement
        # Deleted, not disabled, in either case: should the device be let in again, it is made anew.
        await self.store.put_retirement(
            Retirement(
                hub=self.hub,
                device_id=registration.device_id,
                registration_id=registration.registration_id,
                due_at=self.clock.now(),
                reason=f"{'deleted' if current is None else 'disabled'} while it was being made",
            )
        )
        self._woken.set()

    def _is_due(self, registration: Registration) -> bool:
        paused = self._paused.get(registration.key)
        return paused is None or paused.retry_at_s <= self.clock.monotonic()

    # --- what is to go -----------------------------------------------------------------------------------------------

    async def _retire(self) -> bool:
        """Take a batch away; whether there may be more."""
        size = self.connector.batch_size
        due = await self.store.list_retirements(self.hub, due_by=self.clock.now(), limit=size)
        for action in RetirementAction:
            await self._retire_batch(action, [retirement for retirement in due if retirement.action is action])
        return len(due) == size

    async def _retire_batch(self, action: RetirementAction, batch: Sequence[Retirement]) -> None:
        if not batch:
            return
        begun = self.clock.monotonic()
        device_ids = [retirement.device_id for retirement in batch]
        if action is RetirementAction.DISABLE:
            await self._call(self.connector.disable(device_ids))
        else:
            await self._call(self.connector.delete(device_ids))
        elapsed_s = self.clock.monotonic() - begun
        for retirement in batch:
            # Should the device have come back meanwhile, its row is in the queue and makes the identity again.
            await self.store.finish_retirement(retirement, self._retirement_audit(retirement))
        self.observer.hub_worked(self.hub, action=action.value, count=len(batch), elapsed_s=elapsed_s)

    # --- whether it is there -----------------------------------------------------------------------------------------

    async def _reconcile(self) -> None:
        """Compare a page of what should be in the hub with what is, and make what it has forgotten."""
        now = self.clock.monotonic()
        if now < self._reconcile_at_s:
            return
        self._reconcile_at_s = now + self.limits.reconcile_interval_s
        size = self.limits.reconcile_page
        page = await self.store.list_registrations(
            status=RegistrationStatus.ASSIGNED, hub=self.hub, after_key=self._reconcile_cursor, limit=size
        )
        for start in range(0, len(page), self.connector.batch_size):
            await self._compare(page[start : start + self.connector.batch_size])
        complete = len(page) < size
        self._reconcile_cursor = "" if complete else page[-1].key
        self.drift = replace(self.drift, passes=self.drift.passes + complete)

    async def _compare(self, batch: Sequence[Registration]) -> None:
        states = await self._call(self.connector.read([registration.device_id for registration in batch]))
        missing = [registration for registration in batch if registration.device_id not in states]
        disabled = sum(not state.enabled for state in states.values())
        self.drift = replace(
            self.drift, checked=self.drift.checked + len(batch), disabled=self.drift.disabled + disabled
        )
        if missing:
            await self._repair(missing)

    async def _repair(self, missing: Sequence[Registration]) -> None:
        begun = self.clock.monotonic()
        current = [await self.store.get_registration(registration.key) for registration in missing]
        # What has changed since the page was read is not drift, and somebody else's to see to.
        same = [
            now for was, now in zip(missing, current, strict=True) if now is not None and now.version == was.version
        ]
        outcomes = await self._call(self.connector.ensure([identity_of(registration) for registration in same]))
        for registration, outcome in zip(same, outcomes, strict=True):
            finding = "the hub had forgotten the device" if outcome is None else str(outcome)
            audit = self._audit(
                "repair", registration, outcome="repaired" if outcome is None else "failed", finding=finding
            )
            await self.store.commit(Write(audit=audit))
            if outcome is None:
                await self._take_back_if_gone(registration)
        self.drift = replace(self.drift, missing=self.drift.missing + len(same))
        self.observer.hub_worked(self.hub, action="repair", count=len(same), elapsed_s=self.clock.monotonic() - begun)

    async def _take_back_if_gone(self, registration: Registration) -> None:
        current = await self.store.get_registration(registration.key)
        if current is None or current.version != registration.version:
            await self._take_back(registration)

    # --- whether it answers ------------------------------------------------------------------------------------------

    async def _probe(self) -> None:
        now = self.clock.monotonic()
        if now < self._probe_at_s and not self.health.failures:
            return
        await self._call(self.connector.probe())
        self._probe_at_s = now + self.limits.probe_interval_s
        self._note_health(answered(self.health, latency_ms=(self.clock.monotonic() - now) * 1000))

    async def _call(self, call: Awaitable[T]) -> T:
        """Call the hub within the deadline.

        Raises:
            HubFault: as the connector; HubUnavailable when there is no answer in time.
        """
        try:
            async with asyncio.timeout(self.limits.call_timeout_s):
                return await call
        except TimeoutError as error:
            raise HubUnavailable(f"no answer within {self.limits.call_timeout_s:g} s") from error

    def _note_fault(self, fault: HubFault) -> None:
        self._note_health(failed(self.health, fault, now_s=self.clock.monotonic(), jitter=self._jitter()))

    def _note_health(self, health: HubHealth) -> None:
        changed = health.state != self.health.state or (health.error != "") != (self.health.error != "")
        self.health = health
        self._show()
        if changed:
            self.observer.hub_changed(self.hub, state=health.state, error=health.error)

    def _recovery_s(self) -> float:
        """How long a hub that failed is still left alone, seconds."""
        return max(0.0, self.health.retry_at_s - self.clock.monotonic()) if self.health.failures else 0.0

    # --- what others hear of it --------------------------------------------------------------------------------------

    def _show(self) -> None:
        recovery_s = 0.0 if self.health.healthy else max(5.0, self._recovery_s())
        self.board.see(
            self.hub,
            HubView(
                healthy=self.health.healthy,
                latency_ms=self.health.latency_ms,
                retry_after_s=retry_after_s(self.pace, recovery_s=recovery_s),
            ),
        )

    async def _publish(self) -> None:
        """Say in the store what was seen, when it has changed, and now and then."""
        now = self.clock.monotonic()
        essence: dict[str, JSONValue] = {"state": self.health.state, "error": self.health.error}
        if essence == self._published and now < self._publish_at_s:
            return
        self._published, self._publish_at_s = essence, now + self.limits.probe_interval_s
        latency_ms, rate = self.health.latency_ms, self.pace.rate_per_s
        await self.store.put_hub_observation(
            self.hub,
            {
                **essence,
                "latencyMs": None if latency_ms is None else round(latency_ms, 3),
                "waiting": self.pace.waiting,
                "ratePerS": None if rate is None else round(rate, 1),
                "drift": {
                    "checked": self.drift.checked,
                    "missing": self.drift.missing,
                    "disabled": self.drift.disabled,
                    "passes": self.drift.passes,
                },
                "seenAt": self.clock.now().isoformat(),
            },
        )

    async def _follow(self) -> None:
        """Another daemon works on this hub: take over what it has seen."""
        observed = (await self.store.hub_observations()).get(self.hub)
        if observed is None:
            return
        latency_ms = observed.get("latencyMs")
        healthy = observed.get("state") == "up"
        self.board.see(
            self.hub,
            HubView(
                healthy=healthy,
                latency_ms=latency_ms if isinstance(latency_ms, (int, float)) else None,
                retry_after_s=retry_after_s(self.pace, recovery_s=0.0 if healthy else 5.0),
            ),
        )

    async def _sleep(self, delay_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._woken.wait()

    # --- values ------------------------------------------------------------------------------------------------------

    def _audit(
        self, event: str, registration: Registration, *, outcome: str, finding: str, reason: str = ""
    ) -> AuditRecord:
        return AuditRecord(
            tracking_id=str(uuid.UUID(bytes=self.entropy.token_bytes(16), version=4)),
            at=self.clock.now(),
            event=event,
            registration_id=registration.registration_id,
            outcome=outcome,
            reason=reason,
            enrollment_kind=registration.enrollment_kind,
            enrollment_id=registration.enrollment_id,
            hub=self.hub,
            actor=ACTOR,
            trace=(Check("hub", outcome != "failed", f"{self.hub}: {finding}"),),
        )

    def _retirement_audit(self, retirement: Retirement) -> AuditRecord:
        return AuditRecord(
            tracking_id=str(uuid.UUID(bytes=self.entropy.token_bytes(16), version=4)),
            at=self.clock.now(),
            event="retire",
            registration_id=retirement.registration_id,
            outcome=f"{retirement.action.value}d",
            reason=retirement.reason,
            hub=self.hub,
            actor=ACTOR,
            trace=(Check("hub", True, f"{self.hub}: {retirement.device_id} {retirement.action.value}d"),),
        )

    def _etag(self) -> str:
        return b64encode(f'"{uuid.UUID(bytes=self.entropy.token_bytes(16), version=4)}"'.encode()).decode("ascii")

    def _jitter(self) -> float:
        return self.entropy.token_bytes(1)[0] / 255
