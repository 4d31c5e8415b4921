"""How many challenges are outstanding: each is a row that the store keeps for somebody who has proved nothing yet.

Pure: the time is passed in. The count of all of them is the store's, for several daemons may share it; what one address
and one connection have is known to the daemon that they talk to.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass
from math import ceil
from typing import Final

from provisiond.errors import Throttled

RECOUNT_S: Final = 1.0
"""How old the store's count may be; what this daemon adds meanwhile is counted on top of it."""

PER_CONNECTION_MAX: Final = 16
"""A device has one; a gateway that relays for others has a connection for each."""

_RETRY_MAX_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeLimits:
    """How many challenges may be outstanding.

    Args:
        total: of all devices together, on all daemons.
        per_address: of one address.
    """

    total: int = 10_000
    per_address: int = 1_000


@dataclass(frozen=True, slots=True)
class _Issued:
    expires_at_s: float
    address: str
    connection_id: str


class ChallengeLedger:
    """Who has how many challenges outstanding."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, _Issued] = OrderedDict()  # oldest first
        self._addresses: Counter[str] = Counter()
        self._connections: Counter[str] = Counter()
        self._counted = 0
        self._counted_at_s = float("-inf")

    def __len__(self) -> int:
        return len(self._open)

    def is_stale(self, now_s: float) -> bool:
        """Whether the store should be asked again."""
        return now_s - self._counted_at_s >= RECOUNT_S

    def recount(self, total: int, now_s: float) -> None:
        """Take over the store's count."""
        self._counted, self._counted_at_s = total, now_s

    def check(self, *, address: str, connection_id: str, limits: ChallengeLimits, now_s: float) -> None:
        """See whether one more may be made.

        Args:
            address: as `throttle.address_group`; empty when it is not known.
            connection_id: empty where connections are not ours to know.
            limits: how many there may be.
            now_s: monotonic seconds.

        Raises:
            Throttled: too many; says when the oldest of them expires, ten seconds at the most.
        """
        self._expire(now_s)
        for is_full, reason in (
            (self._counted >= limits.total, f"{self._counted} challenges are outstanding"),
            (
                bool(address) and self._addresses[address] >= limits.per_address,
                f"{limits.per_address} challenges of this address are outstanding",
            ),
            (
                bool(connection_id) and self._connections[connection_id] >= PER_CONNECTION_MAX,
                f"{PER_CONNECTION_MAX} challenges of this connection are outstanding",
            ),
        ):
            if is_full:
                raise Throttled(reason, retry_after_s=ceil(min(self._oldest_s(now_s), _RETRY_MAX_S)))

    def issued(self, key: str, *, address: str, connection_id: str, expires_at_s: float) -> None:
        """Count a challenge that was made; it replaces an older one of its key."""
        self.taken(key)
        self._open[key] = _Issued(expires_at_s, address, connection_id)
        self._addresses[address] += 1
        self._connections[connection_id] += 1
        self._counted += 1

    def taken(self, key: str) -> None:
        """Count a challenge out: it was answered, or is void."""
        entry = self._open.pop(key, None)
        if entry is None:
            return
        for counter, name in ((self._addresses, entry.address), (self._connections, entry.connection_id)):
            counter[name] -= 1
            if not counter[name]:
                del counter[name]
        self._counted = max(0, self._counted - 1)

    def _oldest_s(self, now_s: float) -> float:
        """How long the oldest that this daemon knows still lasts."""
        return next(iter(self._open.values())).expires_at_s - now_s if self._open else RECOUNT_S

    def _expire(self, now_s: float) -> None:
        while self._open and self._oldest_s(now_s) <= 0:
            self.taken(next(iter(self._open)))
