"""What clients did wrong: counted by reason, and logged one line each as long as they are few."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

logger = logging.getLogger("provisiond.broker")

LINES_PER_S: Final = 10.0
"""A person can still follow this, and a full day of it is under 100 MB."""
LINES_AT_ONCE: Final = 50.0
"""A fleet that restarts with one wrong setting shows its devices' names before lines are left out."""
_QUOTE_LENGTH: Final = 120


class Reason(StrEnum):
    """Why a connection was refused or ended by us."""

    CONNECTION_LIMIT = "connection-limit"
    ADDRESS_LIMIT = "address-limit"
    FILE_LIMIT = "file-limit"
    TLS = "tls"
    TOO_SLOW = "too-slow"
    PROTOCOL = "protocol"
    CONNECT = "connect"
    SLOW_READER = "slow-reader"
    KEEP_ALIVE = "keep-alive"
    IDLE = "idle"
    TAKEN_OVER = "taken-over"
    DISCONNECTED = "disconnected"


_ORDINARY: Final = frozenset({Reason.KEEP_ALIVE, Reason.IDLE, Reason.TAKEN_OVER, Reason.DISCONNECTED})
"""Ends that are nobody's fault: counted, and logged for who debugs."""


@dataclass(slots=True)
class BrokerStatistics:
    """Plain counters, for metrics.

    Args:
        connections: open now.
        connections_total: accepted since the start.
        refused: connections refused or ended by us, by reason.
    """

    connections: int = 0
    connections_total: int = 0
    refused: Counter[Reason] = field(default_factory=Counter)


class OffenceLog:
    """Counts every offence and logs it, at most `LINES_PER_S` lines a second in the long run.

    Args:
        statistics: where to count.
        monotonic: seconds that never go back.
    """

    def __init__(self, statistics: BrokerStatistics, monotonic: Callable[[], float]) -> None:
        self._statistics = statistics
        self._monotonic = monotonic
        self._tokens = LINES_AT_ONCE
        self._refilled_at = monotonic()
        self._left_out = 0

    def report(self, reason: Reason, remote_address: str, detail: str) -> None:
        """Count an offence and, unless there are too many, log it. `detail` holds client text only through `quote`."""
        self._statistics.refused[reason] += 1
        if reason in _ORDINARY:
            logger.debug("%s: %s: %s", remote_address, reason.value, detail)
        elif self._take_token():
            left_out, self._left_out = self._left_out, 0
            suffix = f" ({left_out} similar lines left out before)" if left_out else ""
            logger.warning("%s: %s: %s%s", remote_address, reason.value, detail, suffix)
        else:
            self._left_out += 1

    def _take_token(self) -> bool:
        now = self._monotonic()
        self._tokens = min(LINES_AT_ONCE, self._tokens + (now - self._refilled_at) * LINES_PER_S)
        self._refilled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def quote(text: str) -> str:
    """Client text made safe for one log line: ASCII, escaped, shortened."""
    return ascii(text[:_QUOTE_LENGTH]) + ("…" if len(text) > _QUOTE_LENGTH else "")
