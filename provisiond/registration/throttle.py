"""How much one device may ask, and how fast somebody may try keys. Pure: the time is passed in.

What is counted belongs to a registration id *at an address*: whoever uses a device's name from elsewhere wears out an
allowance of its own, and never the device's. Behind a broker of somebody else's no address is known; there the id is
the key (the broker's access rules say who may use it), and wrong proofs are only counted as requests.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address
from math import ceil
from typing import Final

from provisiond.errors import Throttled

KEYS_MAX: Final = 20_000
"""Twice the default number of connections; 200 octets each. Who is forgotten begins anew, which harms nobody."""

CONCURRENT_MAX: Final = 100
"""Requests of one device at once. It needs one, and its retries may overtake each other while a hub is slow; a hundred
cost 100 KiB and end in one row, and bound whoever is allowed more than so many a minute."""

FREE_FAILURES: Final = 100
"""Wrong proofs in a row before a pause is asked for. No number of guesses finds a key of 128 bits: the pause spares the
log and the processor, and a technician who tries what may be wrong with a device should hear 401, not 429."""

BACKOFF_MAX_S: Final = 60.0
"""A guess a minute finds no key of 128 bits, and a device whose key was mended is in again within the minute."""


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
    was_told: bool = False


class Throttle:
    """Token buckets, requests in progress and runs of wrong proofs, by `ThrottleKey`.

    Args:
        keys_max: how many are remembered; the one that was silent longest is forgotten first.
    """

    def __init__(self, *, keys_max: int = KEYS_MAX) -> None:
        self._keys_max = keys_max
        self._entries: OrderedDict[ThrottleKey, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    @contextmanager
    def admitted(self, key: ThrottleKey, *, requests_per_min: int, now_s: float) -> Iterator[None]:
        """Let a request in; it is in progress until the block ends.

        Args:
            key: who asks.
            requests_per_min: how many are allowed, in a row or spread.
            now_s: monotonic seconds.

        Raises:
            Throttled: too many in the last minute, too many at once, or too soon after too many wrong proofs; says
                when the next one will be let in. `repeated` from the second one of a row on.
        """
        entry = self._find(key, requests_per_min, now_s)
        self._refill(entry, requests_per_min, now_s)
        _check(entry, requests_per_min=requests_per_min, now_s=now_s)
        entry.tokens -= 1.0
        entry.running += 1
        try:
            yield
        finally:
            entry.running -= 1

    def proof_failed(self, key: ThrottleKey, *, now_s: float) -> None:
        """Somebody did not prove to be this device: after `FREE_FAILURES` in a row each doubles the pause."""
        entry = self._entries.get(key)
        if entry is None or not key.address:
            return
        entry.failures += 1
        if entry.failures >= FREE_FAILURES:
            pause_s = min(BACKOFF_MAX_S, 2.0 ** min(entry.failures - FREE_FAILURES, 16))
            entry.blocked_until_s = now_s + pause_s

    def proved(self, key: ThrottleKey) -> None:
        """This device proved itself: what was wrong before is forgotten."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.failures, entry.blocked_until_s = 0, 0.0

    def _find(self, key: ThrottleKey, requests_per_min: int, now_s: float) -> _Entry:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(tokens=float(requests_per_min), refilled_at_s=now_s)
            if len(self._entries) > self._keys_max:
                self._entries.popitem(last=False)
        else:
            self._entries.move_to_end(key)
        return entry

    def _refill(self, entry: _Entry, requests_per_min: int, now_s: float) -> None:
        earned = (now_s - entry.refilled_at_s) * requests_per_min / 60.0
        entry.tokens = min(float(requests_per_min), entry.tokens + earned)
        entry.refilled_at_s = now_s
        if entry.tokens > requests_per_min / 2 and now_s >= entry.blocked_until_s:
            entry.was_told = False


def address_group(address: str) -> str:
    """What counts as one address: an IPv4 address, or an IPv6 /64, for that is what one host is given (RFC 4291)."""
    if ":" not in address:
        return address
    parsed = IPv6Address(address.partition("%")[0])
    return str(parsed.ipv4_mapped) if parsed.ipv4_mapped else parsed.packed[:8].hex()


def _check(entry: _Entry, *, requests_per_min: int, now_s: float) -> None:
    if now_s < entry.blocked_until_s:
        reason, wait_s = f"{entry.failures} wrong proofs in a row", entry.blocked_until_s - now_s
    elif entry.tokens < 1.0:
        reason, wait_s = (
            f"more than {requests_per_min} requests a minute",
            (1.0 - entry.tokens) * 60.0 / requests_per_min,
        )
    elif entry.running >= CONCURRENT_MAX:
        reason, wait_s = f"{CONCURRENT_MAX} requests are in progress", 1.0
    else:
        return
    repeated, entry.was_told = entry.was_told, True
    raise Throttled(reason, retry_after_s=ceil(wait_s), repeated=repeated)
