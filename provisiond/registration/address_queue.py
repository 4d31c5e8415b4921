"""How much all the devices of one address may ask together, and when who must wait will be let in. Pure.

A token bucket that hands out its future tokens: who is refused is given the next moment that nobody was given yet, and
is let in then, whoever else has come meanwhile. So a crowd hears as many different moments as it has members.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

ADDRESSES_MAX: Final = 20_000
"""Twice the default number of connections. Who is forgotten begins anew, which harms nobody."""

PROMISE_MAX_S: Final = 60.0
"""Nobody is told to wait longer, and a promise is kept for as long again."""

_INSTANT_S: Final = 1e-6
"""Sums of many short times are not exact."""


@dataclass(slots=True)
class _Queue:
    free_at_s: float
    """When everything that was handed out, promises included, will have been earned."""
    was_told: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Why and how long.

    Args:
        until_s: when the request will be let in, monotonic seconds.
        is_promised: whether a place was kept for it until then.
        repeated: whether somebody of this address has been told before, since it was last idle.
    """

    until_s: float
    is_promised: bool
    repeated: bool


class AddressQueues:
    """One bucket an address.

    Args:
        addresses_max: how many are remembered; the one that was silent longest is forgotten first.
    """

    def __init__(self, *, addresses_max: int = ADDRESSES_MAX) -> None:
        self._addresses_max = addresses_max
        self._queues: OrderedDict[str, _Queue] = OrderedDict()

    def __len__(self) -> int:
        return len(self._queues)

    def enter(self, address: str, *, requests_per_min: int, now_s: float, keeps_place: bool = True) -> Wait | None:
        """Count a request in, or say when it will be.

        Args:
            address: as `throttle.address_group`; empty, which is nobody's, is not counted.
            requests_per_min: how many are allowed, in a row or spread.
            now_s: monotonic seconds.
            keeps_place: whether who must wait is given a place.
        """
        if not address:
            return None
        queue = self._find(address, now_s)
        queue.free_at_s = max(queue.free_at_s, now_s)
        each_s = 60.0 / requests_per_min
        until_s = queue.free_at_s + each_s - 60.0  # a minute's allowance may be used at once
        if until_s <= now_s + _INSTANT_S:
            queue.free_at_s += each_s
            queue.was_told = queue.was_told and until_s > now_s - 30.0
            return None
        repeated, queue.was_told = queue.was_told, True
        if until_s > now_s + PROMISE_MAX_S or not keeps_place:
            return Wait(until_s=now_s + PROMISE_MAX_S, is_promised=False, repeated=repeated)
        queue.free_at_s += each_s
        return Wait(until_s=until_s, is_promised=True, repeated=repeated)

    def _find(self, address: str, now_s: float) -> _Queue:
        queue = self._queues.get(address)
        if queue is None:
            queue = self._queues[address] = _Queue(free_at_s=now_s)
            if len(self._queues) > self._addresses_max:
                self._queues.popitem(last=False)
        else:
            self._queues.move_to_end(address)
        return queue
