"""Allocation policies: which of the eligible hubs a device gets.

All are deterministic in their arguments, so that `explain` shows what a registration would do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from provisiond.errors import AllocationError
from provisiond.model import AllocationPolicy, Hub, Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """A choice and how it came about. `scores`: hub name and score; the highest won."""

    hub: Hub
    policy: AllocationPolicy
    scores: tuple[tuple[str, float], ...]


MOVE_GAIN: Final = 0.2
"""Part by which another hub's latency must be lower before `geoLatency` moves a device: 9 ms for 10 is not worth it."""
MOVE_GAIN_MIN_MS: Final = 2.0
"""And by how much at least: half of 1 ms is nothing that a device notices."""

UNMEASURED: Final = -1e9
"""The score of a hub whose latency is not known: farther than any, and a number that JSON can carry."""


def candidates(hubs: Sequence[Hub], allowed: Sequence[str]) -> tuple[Hub, ...]:
    """The hubs a device may get: allowed and eligible, and healthy, unless none is.

    Where no eligible hub is healthy, the device waits, assigning, for the one it gets to come back.
    """
    eligible = [hub for hub in _in_order(hubs, allowed) if hub.eligible]
    return tuple(hub for hub in eligible if hub.healthy) or tuple(eligible)


def allocate(
    *,
    policy: AllocationPolicy,
    hubs: Sequence[Hub],
    allowed: Sequence[str] = (),
    registration_key: str,
    current_hub: str | None = None,
    trace: Trace,
) -> Allocation:
    """Choose a hub for a verified device.

    Args:
        policy: how to choose.
        hubs: every linked hub.
        allowed: names or hosts to choose among, without case; empty means all. The order matters to `static` only.
        registration_key: lower-case registration id; what `hashed` hashes.
        current_hub: name of the hub the device is on, for the policies that prefer to leave it there.
        trace: gets a line with the scores.

    Raises:
        AllocationError: no eligible hub (400208).
    """
    open_hubs = candidates(hubs, allowed)
    if not open_hubs:
        trace.failed("allocation", f"none of {len(hubs)} linked hubs is allowed and eligible", "DPS 400208")
        raise AllocationError(f"no eligible hub for {registration_key}: {_describe(hubs, allowed)}")
    if policy is AllocationPolicy.GEO_LATENCY and all(hub.latency_ms is None for hub in open_hubs):
        trace.passed("allocation", "no hub's latency has been measured yet: hashed")
        policy = AllocationPolicy.HASHED
    scores = [(hub, _score(policy, hub, index, registration_key, current_hub)) for index, hub in enumerate(open_hubs)]
    chosen, _ = max(scores, key=lambda scored: (scored[1], scored[0].name))
    allocation = Allocation(hub=chosen, policy=policy, scores=tuple((hub.name, score) for hub, score in scores))
    listed = ", ".join(f"{name} {score:.6g}" for name, score in allocation.scores[:16])
    trace.passed("allocation", f"{policy.value}: {chosen.name} of {listed}")
    return allocation


def rendezvous_score(registration_key: str, hub_name: str, weight: int) -> float:
    """Weighted rendezvous hashing: the hub with the highest score wins.

    Each hub wins in proportion to its weight, and adding or removing a hub moves only the devices that it gains or
    loses (Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005).
    """
    digest = blake2b(f"{registration_key}\x00{hub_name}".encode(), digest_size=8).digest()
    # The middle of one of 2^53 equal intervals of (0, 1): never 0 or 1, which have no useful logarithm.
    uniform = ((int.from_bytes(digest) >> 11) + 0.5) / 2**53
    return -weight / math.log(uniform)


def _score(policy: AllocationPolicy, hub: Hub, index: int, registration_key: str, current_hub: str | None) -> float:
    match policy:
        case AllocationPolicy.HASHED:
            return rendezvous_score(registration_key, hub.name, hub.weight)
        case AllocationPolicy.STATIC:
            return 0.0 - index
        case AllocationPolicy.LEAST_LOADED:
            # The device itself is not load: it must not push itself from hub to hub each time it asks.
            others = hub.assigned_count - (hub.name == current_hub)
            return 0.0 - others / hub.weight
        case AllocationPolicy.GEO_LATENCY:
            return _latency_score(hub, current_hub)
        case AllocationPolicy.CUSTOM:
            raise AllocationError("a custom allocation is its webhook's to decide", code=400207)


def _latency_score(hub: Hub, current_hub: str | None) -> float:
    """The hub a device is on counts as a little nearer than it is, or noise would move devices to and fro."""
    if hub.latency_ms is None:
        return UNMEASURED
    if hub.name != current_hub:
        return 0.0 - hub.latency_ms
    return 0.0 - min(hub.latency_ms * (1 - MOVE_GAIN), hub.latency_ms - MOVE_GAIN_MIN_MS)


def _in_order(hubs: Sequence[Hub], allowed: Sequence[str]) -> list[Hub]:
    if not allowed:
        return list(hubs)
    by_label = {label.lower(): hub for hub in hubs for label in (hub.host, hub.name)}
    found = [by_label[label.lower()] for label in allowed if label.lower() in by_label]
    return list(dict.fromkeys(found))


def _describe(hubs: Sequence[Hub], allowed: Sequence[str]) -> str:
    state = ", ".join(f"{hub.name}{'' if hub.eligible else ' (draining)'}" for hub in hubs[:16]) or "no hub is linked"
    return f"{state}; allowed: {', '.join(allowed[:16]) or 'all'}"
