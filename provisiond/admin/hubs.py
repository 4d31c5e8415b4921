"""The use cases of operators for hubs: how they are, draining them, and what that would do."""

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Protocol

from provisiond.errors import RecordNotFound
from provisiond.model import (
    AllocationPolicy,
    AuditRecord,
    Enrollment,
    EnrollmentKind,
    Hub,
    JSONValue,
    Registration,
    RegistrationStatus,
    ReprovisionPolicy,
)
from provisiond.ports import AdminStore, Clock, Entropy, OutboxStore
from provisiond.registration.drain import Move, plan_move

_PAGE: Final = 1000
_AT_A_HUB: Final = (RegistrationStatus.ASSIGNED, RegistrationStatus.ASSIGNING)


class HubAdminStore(AdminStore, OutboxStore, Protocol):
    """What these use cases need of the store."""

    async def set_hub_draining(self, name: str, wanted: bool, audit: AuditRecord) -> bool:
        """Drain a hub, or no longer; whether that was a change."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRecord:
    """A hub as an operator sees it.

    Args:
        hub: as configured, and whether it takes new devices.
        share: part of new devices that it gets under `hashed` now, 0 to 1.
        draining: an operator drains it.
        counts: registrations by status.
        departing: identities that devices have left there, and that are to go.
        observed: what the daemon has seen of it: `state`, `latencyMs`, `waiting`, `ratePerS`, `drift`, `error`,
            `seenAt`; empty for one that nobody has looked at yet.
    """

    hub: Hub
    share: float
    draining: bool
    counts: Mapping[RegistrationStatus, int]
    departing: int = 0
    observed: Mapping[str, JSONValue] = field(default_factory=dict)

    @property
    def assigned(self) -> int:
        """Devices that are on it, or about to be."""
        return sum(self.counts.get(status, 0) for status in _AT_A_HUB)


class Hubs:
    """What an operator may do to hubs.

    Args:
        store: where their states are.
        clock, entropy: the time, and what tracking ids are made of.
        hubs: as configured.
        default_allocation, default_reprovision: for enrollments that do not say.
        actor: who asks, for the audit log.
    """

    def __init__(
        self,
        *,
        store: HubAdminStore,
        clock: Clock,
        entropy: Entropy,
        hubs: Sequence[Hub],
        default_allocation: AllocationPolicy,
        default_reprovision: ReprovisionPolicy,
        actor: str,
    ) -> None:
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self._hubs = tuple(hubs)
        self._default_allocation = default_allocation
        self._default_reprovision = default_reprovision
        self._actor = actor

    async def list_hubs(self) -> Sequence[HubRecord]:
        """Every configured hub, in the order of the configuration."""
        draining = await self._store.draining_hubs()
        counts = await self._store.count_by_hub()
        observations, departing = await self._store.hub_observations(), await self._store.count_departing()
        seen = [as_seen(hub, draining, counts, observations) for hub in self._hubs]
        total = sum(hub.weight for hub in seen if _takes_devices(hub))
        return [
            HubRecord(
                hub=hub,
                share=hub.weight / total if _takes_devices(hub) else 0.0,
                draining=hub.name in draining,
                counts=counts.get(hub.name, {}),
                departing=departing.get(hub.name, 0),
                observed={} if hub.immediate else observations.get(hub.name, {}),
            )
            for hub in seen
        ]

    async def get_hub(self, name: str) -> HubRecord:
        """One hub, by name or host.

        Raises:
            RecordNotFound: there is no such hub in the configuration.
        """
        for record in await self.list_hubs():
            if name.lower() in (record.hub.name.lower(), record.hub.host.lower()):
                return record
        known = ", ".join(hub.name for hub in self._hubs[:16])
        raise RecordNotFound(f"there is no hub {name} in the configuration; there are: {known}")

    async def set_draining(self, name: str, wanted: bool) -> HubRecord:
        """Have a hub take no new devices, or take them again; the devices on it move as they register again.

        Raises:
            RecordNotFound: there is no such hub in the configuration.
        """
        hub = (await self.get_hub(name)).hub
        audit = AuditRecord(
            tracking_id=str(uuid.UUID(bytes=self._entropy.token_bytes(16), version=4)),
            at=self._clock.now(),
            event="hub.drain" if wanted else "hub.undrain",
            registration_id="",
            outcome="done",
            hub=hub.name,
            actor=self._actor,
        )
        await self._store.set_hub_draining(hub.name, wanted, audit)
        return await self.get_hub(hub.name)

    async def plan(self, name: str) -> AsyncIterator[Move]:
        """What each device of a hub would do when it next registers, were the hub drained or removed.

        Raises:
            RecordNotFound: there is no such hub in the configuration.
        """
        records = await self.list_hubs()
        hub = (await self.get_hub(name)).hub
        hubs = [record.hub for record in records]
        groups: dict[str, Enrollment | None] = {}
        after = ""
        while page := await self._store.list_registrations(after_key=after, limit=_PAGE, hub=hub.name):
            for registration in page:
                if registration.status not in _AT_A_HUB:
                    continue
                move = plan_move(
                    registration,
                    await self._enrollment_of(registration, groups),
                    hubs,
                    default_allocation=self._default_allocation,
                    default_reprovision=self._default_reprovision,
                )
                hubs = _counting(hubs, move)
                yield move
            after = page[-1].key

    async def _enrollment_of(
        self, registration: Registration, groups: dict[str, Enrollment | None]
    ) -> Enrollment | None:
        individual = await self._store.get_enrollment(EnrollmentKind.INDIVIDUAL, registration.key)
        if individual is not None or registration.enrollment_kind is EnrollmentKind.INDIVIDUAL:
            return individual
        key = registration.enrollment_id.lower()
        if key not in groups:
            groups[key] = await self._store.get_enrollment(EnrollmentKind.GROUP, key)
        return groups[key]


def is_current(observed: Mapping[str, JSONValue], *, now: datetime, within_s: float = 60.0) -> bool:
    """Whether an observation is young enough to be believed: the daemon renews it every ten seconds."""
    try:
        seen_at = datetime.fromisoformat(str(observed["seenAt"]))
    except (KeyError, ValueError):
        return False
    return (now - seen_at).total_seconds() <= within_s


def as_seen(
    hub: Hub,
    draining: frozenset[str],
    counts: Mapping[str, Mapping[RegistrationStatus, int]],
    observations: Mapping[str, Mapping[str, JSONValue]],
) -> Hub:
    """A configured hub as a decision would see it, by what the daemon that works for it has last seen of it."""
    observed = observations.get(hub.name, {})
    latency_ms = observed.get("latencyMs")
    return replace(
        hub,
        eligible=hub.name not in draining,
        healthy=hub.immediate or observed.get("state", "up") == "up",
        latency_ms=0.0 if hub.immediate else latency_ms,
        assigned_count=sum(counts.get(hub.name, {}).get(status, 0) for status in _AT_A_HUB),
    )


def _takes_devices(hub: Hub) -> bool:
    return hub.eligible and hub.healthy


def _counting(hubs: list[Hub], move: Move) -> list[Hub]:
    """The hubs with this device moved, for the next one's `leastLoaded`."""
    if move.target is None:
        return hubs
    change = {move.registration.hub: -1, move.target: 1}
    return [
        replace(hub, assigned_count=hub.assigned_count + change[hub.name]) if hub.name in change else hub
        for hub in hubs
    ]
