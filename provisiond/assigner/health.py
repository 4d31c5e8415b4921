"""Whether a hub answers, and when to ask one again that does not: a circuit breaker. Pure."""

from dataclasses import dataclass, replace
from typing import Final

from provisiond.errors import HubFault, HubUnauthorized

FAILURES_TO_BE_DOWN: Final = 3
"""In a row: one lost packet or one restart within a second must not send devices elsewhere."""

_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 15.0
"""A hub on the same site that comes back should be noticed within seconds; one call in 15 s harms nobody."""
_SMOOTHING: Final = 0.2
"""Share of the newest latency in the smoothed one: about the last five count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubHealth:
    """What the last calls to a hub have shown.

    Args:
        failures: in a row.
        unauthorized: the last one was that the hub does not take our own credentials.
        retry_at_s: monotonic time before which it is left alone.
        latency_ms: smoothed round trip of the probes.
        error: what the last failure was; empty while it answers.
    """

    failures: int = 0
    unauthorized: bool = False
    retry_at_s: float = 0.0
    latency_ms: float | None = None
    error: str = ""

    @property
    def healthy(self) -> bool:
        """Whether it may get new devices."""
        return self.failures < FAILURES_TO_BE_DOWN and not self.unauthorized

    @property
    def state(self) -> str:
        """`up`, `down` or `unauthorized`."""
        if self.unauthorized:
            return "unauthorized"
        return "up" if self.healthy else "down"


def measured(health: HubHealth, *, latency_ms: float) -> HubHealth:
    """The health after a probe that took so long; whether the hub does what it is there for, is another question."""
    before = latency_ms if health.latency_ms is None else health.latency_ms
    return replace(health, latency_ms=before + _SMOOTHING * (latency_ms - before))


def answered(health: HubHealth) -> HubHealth:
    """The health after everything that was asked of the hub has been done."""
    return HubHealth(latency_ms=health.latency_ms)


def failed(health: HubHealth, fault: HubFault, *, now_s: float, jitter: float) -> HubHealth:
    """The health after a call that failed.

    Args:
        health: before.
        fault: what happened.
        now_s: monotonic.
        jitter: 0 to 1, at random: several daemons and hubs must not ask in step.
    """
    failures = health.failures + 1
    return replace(
        health,
        failures=failures,
        unauthorized=isinstance(fault, HubUnauthorized),
        retry_at_s=now_s + backoff_s(failures, jitter=jitter),
        error=str(fault),
    )


def backoff_s(attempts: int, *, jitter: float) -> float:
    """How long to wait after so many failures in a row: doubling, bounded, and between half and all of it."""
    longest = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(attempts - 1, 10))
    return longest * (0.5 + 0.5 * jitter)
