"""The SQL of the challenge table. Functions run inside the caller's transaction, on its connection's thread."""

import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Final

from provisiond.ports import StoredChallenge
from provisiond.store import rows

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LIFETIME_MAX_US: Final = 3_600_000_000
"""No challenge lives longer than an hour, so one that expired an hour before a new one does has expired: no clock."""


def put(connection: sqlite3.Connection, key: str, challenge: bytes, expires_at: datetime) -> None:
    """Keep a challenge in place of an older one; others that have expired are removed on the way."""
    expires_at_us = (expires_at - _EPOCH) // _MICROSECOND
    connection.execute("DELETE FROM challenge WHERE expires_at_us < ?", (expires_at_us - _LIFETIME_MAX_US,))
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
