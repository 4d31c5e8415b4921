"""How much one device may ask, and how fast somebody may try keys. Pure: the time is passed in.

What is counted belongs to a registration id *at an address*: whoever uses a device's name from elsewhere wears out an
allowance of its own, and never the device's. Nor does whoever uses it from the same address, such as behind the same
router: what is asked by connections that were refused is counted apart from what the proved ones ask, and a
connection that was not refused yet is always heard. Only what it hears, should it be refused too, is the pause.

Behind a broker of somebody else's neither address nor connection is known; there the id is the key (the broker's access
rules say who may use it), and wrong proofs are only counted as requests.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from ipaddress import IPv6Address
from math import ceil
from typing import Final

from provisiond.errors import Throttled
from provisiond.registration.address_queue import PROMISE_MAX_S, AddressQueues

KEYS_MAX: Final = 20_000
"""Twice the default number of connections; 200 octets each. Who is forgotten begins anew, which harms nobody."""

CONCURRENT_MAX: Final = 100
"""Requests of one device at once. It needs one, and its retries may overtake each other while a hub is slow; a hundred
cost 100 KiB and end in one row, and bound whoever is allowed more than so many a minute."""

REFUSALS_PER_MIN_PER_ADDRESS: Final = 300
"""Refusals of one address that are recorded, a kilobyte each: of every device of a site that was set up wrongly, while
who tries ever-new names cannot fill the disk."""

REFUSALS_PER_MIN: Final = 1200
"""The same of all addresses together."""

_EVERYBODY: Final = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """How much may be asked.

    Args:
        requests_per_min: of one registration id at one address, in a row or spread; more are answered 429.
        requests_per_min_per_address: of all registration ids of one address together.
        wrong_keys: wrong proofs in a row before a pause is asked for, 1 s, doubling with each one.
        wrong_keys_pause_s: the longest such pause.
    """

    requests_per_min: int = 120
    requests_per_min_per_address: int = 30_000
    wrong_keys: int = 100
    wrong_keys_pause_s: float = 60.0


class Standing(Enum):
    """What is known of the connection that asks."""

    FRESH = auto()
    """It has not been answered yet."""
    CHALLENGED = auto()
    """It was given its first challenge."""
    PROVED = auto()
    """It has proved to be its device."""
    REFUSED = auto()
    """It was refused what it last asked; or nothing can be known, behind a broker of somebody else's."""

    @property
    def is_open(self) -> bool:
        """Whether it is still heard, whatever others have asked in its name."""
        return self in (Standing.FRESH, Standing.CHALLENGED)


@dataclass(frozen=True, slots=True)
class ThrottleKey:
    """Who is counted.

    Args:
        registration_key: lower-case registration id.
        address: of the device, an IPv6 one as its /64; empty when it is not known.
    """

    registration_key: str
    address: str

    @classmethod
    def of(cls, registration_key: str, remote_address: str) -> "ThrottleKey":
        """The key of a device at an address."""
        return cls(registration_key, address_group(remote_address))


@dataclass(slots=True)
class _Entry:
    tokens: float
    refilled_at_s: float
    running: int = 0
    failures: int = 0
    blocked_until_s: float = 0.0
    promised_at_s: float | None = None
    was_told: bool = False

    def refill(self, requests_per_min: int, now_s: float) -> None:
        """Add what was earned since the last time."""
        earned = (now_s - self.refilled_at_s) * requests_per_min / 60.0
        self.tokens = min(float(requests_per_min), self.tokens + earned)
        self.refilled_at_s = now_s
        if self.tokens > requests_per_min / 2 and now_s >= self.blocked_until_s:
            self.was_told = False

    def take(self) -> None:
        """Use one up; none that was not there."""
        self.tokens = max(0.0, self.tokens - 1.0)


class Throttle:
    """Token buckets, requests in progress and runs of wrong proofs.

    Args:
        keys_max: how many devices are remembered; the one that was silent longest is forgotten first.
    """

    def __init__(self, *, keys_max: int = KEYS_MAX) -> None:
        self._keys_max = keys_max
        # By whether they count what was proved.
        self._entries: dict[bool, OrderedDict[ThrottleKey, _Entry]] = {True: OrderedDict(), False: OrderedDict()}
        self._addresses = AddressQueues()
        self._refusals = AddressQueues()
        self._standings: dict[str, Standing] = {}

    def __len__(self) -> int:
        return sum(map(len, self._entries.values()))

    def standing(self, connection_id: str) -> Standing:
        """What is known of a connection; empty where connections are not ours to know."""
        return self._standings.get(connection_id, Standing.FRESH) if connection_id else Standing.REFUSED

    def closed(self, connection_id: str) -> None:
        """Forget a connection."""
        self._standings.pop(connection_id, None)

    def may_record_refusal(self, address: str, *, now_s: float) -> bool:
        """Whether a refusal is worth a record of its own; a flood of them has had its share."""
        for whose, per_min in ((address, REFUSALS_PER_MIN_PER_ADDRESS), (_EVERYBODY, REFUSALS_PER_MIN)):
            if self._refusals.enter(whose, requests_per_min=per_min, now_s=now_s, keeps_place=False) is not None:
                return False
        return True

    @contextmanager
    def admitted(
        self, key: ThrottleKey, connection_id: str, *, limits: RequestLimits, now_s: float
    ) -> Iterator[Throttled | None]:
        """Let a request in; it is in progress until the block ends. What became of it is told to `answered`.

        Args:
            key: who asks.
            connection_id: on which connection.
            limits: how many are allowed.
            now_s: monotonic seconds.

        Yields:
            What the device is to hear, should it be refused, instead of why; None when it may hear why.

        Raises:
            Throttled: too many in the last minute, too many at once, or too soon after too many wrong proofs; says
                when the next one will be let in. `repeated` from the second one of a row on.
        """
        standing, overdue = self.standing(connection_id), None
        if standing.is_open:
            # Nothing is taken from the allowance of the proved: it is not known yet whether this is one of them.
            _check(self._find(key, True, limits, now_s), limits=limits, now_s=now_s)
        entry = self._find(key, standing is Standing.PROVED, limits, now_s)
        try:
            _check(entry, limits=limits, now_s=now_s)
        except Throttled as throttled:
            if not standing.is_open:
                raise
            overdue = throttled
        self._check_address(key.address, entry, limits=limits, now_s=now_s)
        if not standing.is_open:
            entry.take()
        entry.running += 1
        try:
            yield overdue
        finally:
            entry.running -= 1

    def answered(
        self,
        key: ThrottleKey,
        connection_id: str,
        result: Standing,
        *,
        is_wrong_proof: bool,
        limits: RequestLimits,
        now_s: float,
    ) -> None:
        """Count what came of a request that was let in.

        Args:
            key: who asked.
            connection_id: on which connection.
            result: what the answer makes of the connection.
            is_wrong_proof: after so many of them in a row each one doubles the pause.
            limits: how many are allowed.
            now_s: monotonic seconds.
        """
        before = self.standing(connection_id)
        if before is not Standing.FRESH and result is Standing.CHALLENGED:
            result = Standing.REFUSED  # one challenge is enough for who can answer it
        if before.is_open:
            self._find(key, result is Standing.PROVED, limits, now_s).take()
        if connection_id:
            self._standings[connection_id] = result
        entry = self._find(key, False, limits, now_s)
        if is_wrong_proof and key.address:
            entry.failures += 1
            if entry.failures >= limits.wrong_keys:
                pause_s = min(limits.wrong_keys_pause_s, 2.0 ** min(entry.failures - limits.wrong_keys, 16))
                entry.blocked_until_s = now_s + pause_s
        elif result is Standing.PROVED:
            entry.failures, entry.blocked_until_s = 0, 0.0

    def _find(self, key: ThrottleKey, is_proved: bool, limits: RequestLimits, now_s: float) -> _Entry:
        entries = self._entries[is_proved]
        entry = entries.get(key)
        if entry is None:
            entry = entries[key] = _Entry(tokens=float(limits.requests_per_min), refilled_at_s=now_s)
            if len(entries) > self._keys_max:
                entries.popitem(last=False)
        else:
            entries.move_to_end(key)
            entry.refill(limits.requests_per_min, now_s)
        return entry

    def _check_address(self, address: str, entry: _Entry, *, limits: RequestLimits, now_s: float) -> None:
        promised_at_s, repeated = entry.promised_at_s, True
        if promised_at_s is None or now_s > promised_at_s + PROMISE_MAX_S:
            per_min = limits.requests_per_min_per_address
            wait = self._addresses.enter(address, requests_per_min=per_min, now_s=now_s)
            if wait is None:
                entry.promised_at_s = None
                return
            promised_at_s, repeated = wait.until_s, wait.repeated
            entry.promised_at_s = promised_at_s if wait.is_promised else None
        elif now_s >= promised_at_s:
            entry.promised_at_s = None
            return
        reason = f"more than {limits.requests_per_min_per_address} requests a minute of this address"
        raise Throttled(reason, retry_after_s=ceil(promised_at_s - now_s), repeated=repeated)


def address_group(address: str) -> str:
    """What counts as one address: an IPv4 address, or an IPv6 /64, for that is what one host is given (RFC 4291)."""
    if ":" not in address:
        return address
    parsed = IPv6Address(address.partition("%")[0])
    return str(parsed.ipv4_mapped) if parsed.ipv4_mapped else parsed.packed[:8].hex()


def _check(entry: _Entry, *, limits: RequestLimits, now_s: float) -> None:
    per_min = limits.requests_per_min
    if now_s < entry.blocked_until_s:
        reason, wait_s = f"{entry.failures} wrong proofs in a row", entry.blocked_until_s - now_s
    elif entry.tokens < 1.0:
        reason, wait_s = f"more than {per_min} requests a minute", (1.0 - entry.tokens) * 60.0 / per_min
    elif entry.running >= CONCURRENT_MAX:
        reason, wait_s = f"{CONCURRENT_MAX} requests are in progress", 1.0
    else:
        return
    repeated, entry.was_told = entry.was_told, True
    raise Throttled(reason, retry_after_s=ceil(wait_s), repeated=repeated)
