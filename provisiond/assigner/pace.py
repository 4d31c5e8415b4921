"""How long a queue is and how fast it is worked off: what devices that wait are told. Pure."""

import math
from dataclasses import dataclass, replace
from typing import Final

_SMOOTHING: Final = 0.3
_RATE_UNKNOWN_PER_S: Final = 20.0
"""A cautious guess until the first batch: a slow hub makes 20 identities a second."""
RETRY_AFTER_MAX_S: Final = 120
"""Longer than that nobody should sleep on an estimate; it is also well within what every SDK takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """A queue.

    Args:
        waiting: devices in it.
        rate_per_s: devices that leave it in a second while the hub answers, smoothed; None before the first.
    """

    waiting: int = 0
    rate_per_s: float | None = None


def worked(pace: Pace, *, count: int, elapsed_s: float) -> Pace:
    """The queue after a batch of `count` that took `elapsed_s`."""
    waiting = max(0, pace.waiting - count)
    if count == 0 or elapsed_s <= 0:
        return replace(pace, waiting=waiting)
    rate = count / elapsed_s
    before = rate if pace.rate_per_s is None else pace.rate_per_s
    return Pace(waiting=waiting, rate_per_s=before + _SMOOTHING * (rate - before))


def retry_after_s(pace: Pace, *, recovery_s: float = 0.0) -> int:
    """When a device at the end of the queue should ask again, whole seconds, 1 to 120.

    Args:
        pace: the queue.
        recovery_s: until the hub is asked again, when it does not answer.
    """
    ahead_s = pace.waiting / (pace.rate_per_s or _RATE_UNKNOWN_PER_S)
    return max(1, min(RETRY_AFTER_MAX_S, math.ceil(recovery_s + ahead_s)))
