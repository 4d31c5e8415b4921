"""A hub in memory that does what a test tells it to, and what watches the work on it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from provisiond.connectors import ConnectionTrial, IdentityState, TrialOutcome
from provisiond.errors import HubUnavailable
from tests.noticing import Noticing


@dataclass
class FakeHub(Noticing):
    """`connectors.HubConnector` in memory.

    `fault`: raised by every call while it is set. `refusals`: what `ensure` says of a device. `before_ensure` and
    `after_ensure` are awaited around the deed: to be late, to cancel, to change the row meanwhile.
    """

    batch_size: int = 10
    identities: dict = field(default_factory=dict)
    disabled: set = field(default_factory=set)
    used: set = field(default_factory=set)
    fault: Exception | None = None
    refusals: dict = field(default_factory=dict)
    before_ensure: Callable | None = None
    after_ensure: Callable | None = None
    calls: list = field(default_factory=list)
    closed: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def ensure(self, identities):
        self._note("ensure", [identity.device_id for identity in identities])
        if self.before_ensure is not None:
            await self.before_ensure(identities)
        outcomes = [self.refusals.get(identity.device_id) for identity in identities]
        for identity, outcome in zip(identities, outcomes, strict=True):
            if outcome is None:
                self.identities[identity.device_id] = identity
                self.disabled.discard(identity.device_id)
        if self.after_ensure is not None:
            await self.after_ensure(identities)
        return outcomes

    async def disable(self, device_ids):
        self._note("disable", list(device_ids))
        self.disabled |= set(device_ids) & set(self.identities)

    async def delete(self, device_ids):
        self._note("delete", list(device_ids))
        for device_id in device_ids:
            self.identities.pop(device_id, None)

    async def read(self, device_ids):
        self._note("read", list(device_ids))
        return {
            device_id: IdentityState(
                enabled=device_id not in self.disabled, used_since_change=device_id in self.used or None
            )
            for device_id in device_ids
            if device_id in self.identities
        }

    async def probe(self):
        self._note("probe", [])

    async def try_connect(self, identity):
        known = self.identities.get(identity.device_id)
        accepted = known == identity and identity.device_id not in self.disabled
        outcome = TrialOutcome.ACCEPTED if accepted else TrialOutcome.REFUSED
        return ConnectionTrial(outcome=outcome, finding=f"the fake hub {outcome} it")

    async def aclose(self):
        self.closed = True

    def count(self, action):
        return sum(name == action for name, _ in self.calls)

    def _note(self, action, device_ids):
        self.calls.append((action, device_ids))
        self.changed.set()
        if self.fault is not None:
            raise self.fault


def down():
    return HubUnavailable("connection refused")


@dataclass
class HubLog(Noticing):
    """`ports.HubObserver` and `ports.HubBoard` that keep what they are told, and wake who waits for it."""

    states: list = field(default_factory=list)
    work: list = field(default_factory=list)
    settled: list = field(default_factory=list)
    failures: list = field(default_factory=list)
    views: dict = field(default_factory=dict)
    assigned: dict = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def hub_changed(self, hub, *, state, error):
        self._note(self.states, (hub, state, error))

    def hub_worked(self, hub, *, action, count, elapsed_s):
        self._note(self.work, (hub, action, count))

    def hub_settled(self, registration, audit):
        self._note(self.settled, (registration.registration_id, audit.outcome))

    def hub_failed(self, hub, error):
        self._note(self.failures, (hub, error))

    def see(self, name, view):
        self.views[name] = view
        self.changed.set()

    def count(self, assigned):
        self.assigned = dict(assigned)
        self.changed.set()

    def total(self, hub, action):
        return sum(count for name, did, count in self.work if (name, did) == (hub, action))

    def _note(self, where, what):
        where.append(what)
        self.changed.set()


@dataclass
class Claims:
    """`ports.HubClaims` of one process among those that share `held`."""

    held: dict = field(default_factory=dict)

    def claim(self, hub):
        return self.held.setdefault(hub, self) is self

    def release(self, hub):
        if self.held.get(hub) is self:
            del self.held[hub]
