"""Hubs as decisions see them, and what was seen of them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """A hub as the decision sees it.

    Args:
        name: unique name in the configuration.
        host: what devices connect to.
        weight: share of new devices under `hashed`, 1 to 1000.
        type: connector, such as `embedded`; `immediate` hubs need no call before a device may be told about them.
        eligible: takes new devices: not draining.
        healthy: answered when it was last asked; one that does not is chosen only where no other is eligible.
        retry_after_s: when a device that is assigned to it now should ask again, whole seconds; None for the default.
        assigned_count: devices assigned now (for `leastLoaded`).
        latency_ms: smoothed round trip (for `geoLatency`), None when not measured.
        knows_certificates: takes a device by its certificate; otherwise such a device needs a password as well.
    """

    name: str
    host: str
    type: str = "embedded"
    weight: int = 1
    eligible: bool = True
    healthy: bool = True
    retry_after_s: int | None = None
    immediate: bool = True
    assigned_count: int = 0
    latency_ms: float | None = None
    knows_certificates: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class HubView:
    """What was seen of one hub.

    Args:
        healthy: it answers.
        latency_ms: smoothed round trip, None when not measured.
        retry_after_s: when a device that is assigned to it now should ask again, whole seconds; None for the default.
    """

    healthy: bool = True
    latency_ms: float | None = None
    retry_after_s: int | None = None
