"""The SQL of the challenge table. Functions run inside the caller's transaction, on its connection's thread."""

import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Final

from provisiond.ports import StoredChallenge
from provisiond.store import rows

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LATE_US: Final = 60_000_000
"""An answer that is a minute late finds its challenge expired and not gone, which tells the operator more."""


def put(connection: sqlite3.Connection, key: str, challenge: bytes, expires_at: datetime) -> None:
    """Keep a challenge in place of an older one."""
    expires_at_us = (expires_at - _EPOCH) // _MICROSECOND
    connection.execute(
        "INSERT INTO challenge (key, challenge, expires_at_us) VALUES (?, ?, ?) ON CONFLICT (key)"
        " DO UPDATE SET challenge = excluded.challenge, expires_at_us = excluded.expires_at_us",
        (rows.storable(key), challenge, expires_at_us),
    )


def take(connection: sqlite3.Connection, key: str) -> StoredChallenge | None:
    """Remove a challenge and give it, or None."""
    found = connection.execute(
        "DELETE FROM challenge WHERE key = ? RETURNING challenge, expires_at_us", (rows.storable(key),)
    ).fetchone()
    if found is None:
        return None
    return StoredChallenge(challenge=found[0], expires_at=_EPOCH + found[1] * _MICROSECOND)


def purge(connection: sqlite3.Connection, now: datetime) -> int:
    """Remove challenges that expired a minute ago or earlier; how many are left that can still be answered."""
    now_us = (now - _EPOCH) // _MICROSECOND
    connection.execute("DELETE FROM challenge WHERE expires_at_us < ?", (now_us - _LATE_US,))
    left: int = connection.execute("SELECT count(*) FROM challenge WHERE expires_at_us >= ?", (now_us,)).fetchone()[0]
    return left
