"""The SQL of the registration table. Functions run inside the caller's transaction, on its connection's thread."""

import json
import sqlite3
from collections.abc import Iterable
from typing import Any, Final

from provisiond.errors import EtagMismatch, RecordNotFound
from provisiond.model import Registration, RegistrationStatus
from provisiond.store import rows
from provisiond.store.inserting import insert_rows

_INSERT: Final = """
INSERT INTO registration
    (key, version, status, substatus, hub, group_key, endorsement_key_hash, device_key, record, digest)
"""

_OR_UPDATE: Final = """
    ON CONFLICT (key) DO UPDATE SET version = excluded.version, status = excluded.status,
        substatus = excluded.substatus, hub = excluded.hub, group_key = excluded.group_key,
        endorsement_key_hash = excluded.endorsement_key_hash, device_key = excluded.device_key,
        record = excluded.record, digest = excluded.digest
"""


def versions(connection: sqlite3.Connection, keys: Iterable[str]) -> dict[str, int]:
    """The version of each registration that exists."""
    found = connection.execute(
        "SELECT key, version FROM registration WHERE key IN (SELECT value FROM json_each(?))", (json.dumps(list(keys)),)
    )
    return {key.decode(errors="surrogateescape"): version for key, version in found.fetchall()}


def endorsement_key_owners(connection: sqlite3.Connection, hashes: Iterable[str | None]) -> dict[str, str]:
    """The key of the registration that has each endorsement key (hexadecimal hash)."""
    found = connection.execute(
        "SELECT endorsement_key_hash, key FROM registration"
        " WHERE endorsement_key_hash IN (SELECT value FROM json_each(?))",
        (json.dumps(list(hashes)),),
    )
    return {owned.decode(): key.decode(errors="surrogateescape") for owned, key in found.fetchall()}


def store(connection: sqlite3.Connection, records: Iterable[rows.RegistrationRow]) -> None:
    """Insert or replace; the caller has compared the versions in this transaction."""
    insert_rows(
        connection,
        _INSERT,
        [
            (
                row.key,
                row.version,
                row.status,
                row.substatus,
                row.hub,
                row.group_key,
                row.endorsement_key_hash,
                row.device_key,
                row.record,
                row.digest,
            )
            for row in records
        ],
        otherwise=_OR_UPDATE,
    )


def remove(connection: sqlite3.Connection, key: str, *, if_match: str | None, digest: rows.RowDigest) -> None:
    """Remove a record.

    Raises:
        RecordNotFound: there is none.
        EtagMismatch: it has changed since `if_match` was read.
        CorruptRecord: the stored one is damaged, and `if_match` cannot be compared.
    """
    found = _find(connection, key)
    if found is None:
        raise RecordNotFound(f"there is no registration {key!r}")
    if if_match not in (None, "*") and _decode(found, digest).etag != if_match:
        raise EtagMismatch(f"registration {key!r} has changed since it was read")
    connection.execute("DELETE FROM registration WHERE key = ?", (rows.storable(key),))


def load(connection: sqlite3.Connection, key: str, digest: rows.RowDigest) -> Registration | None:
    """One record, or None.

    Raises:
        CorruptRecord: it is damaged.
    """
    found = _find(connection, key)
    return None if found is None else _decode(found, digest)


def find_device(connection: sqlite3.Connection, device_key: str, digest: rows.RowDigest) -> Registration | None:
    """The registration that a device id belongs to: the oldest, should there be two; or None.

    Raises:
        CorruptRecord: it is damaged.
    """
    found = connection.execute(
        "SELECT key, version, digest, record FROM registration WHERE device_key = ? ORDER BY id LIMIT 1",
        (rows.storable(device_key),),
    ).fetchone()
    return None if found is None else _decode(found, digest)


def page(
    connection: sqlite3.Connection,
    *,
    after_key: str,
    limit: int,
    enrollment_key: str | None,
    status: RegistrationStatus | None,
    hub: str | None,
    digest: rows.RowDigest,
) -> list[Registration]:
    """Up to `limit` records in key order, after `after_key`; filters are exact.

    Raises:
        CorruptRecord: one is damaged.
    """
    parameters: dict[str, Any] = {"after": rows.storable(after_key), "limit": limit}
    conditions = ["key > :after"]
    if status is not None:
        parameters["status"] = status.value
        conditions.append("status = :status")
        if status is not RegistrationStatus.ASSIGNED:
            conditions.append("status <> 'assigned'")  # what the planner needs to see to take the partial index
    if hub is not None:
        parameters["hub"] = rows.storable(hub)
        conditions.append("hub = :hub")
    select = f"SELECT key, version, digest, record FROM registration WHERE {' AND '.join(conditions)}"  # noqa: S608 - constants
    if enrollment_key is not None:
        parameters["enrollment"] = rows.storable(enrollment_key)
        select = f"{select} AND group_key = :enrollment UNION ALL {select} AND key = :enrollment AND group_key IS NULL"
    found = connection.execute(f"{select} ORDER BY key LIMIT :limit", parameters)
    return [_decode(row, digest) for row in found]


def count(connection: sqlite3.Connection) -> list[tuple[str, str, int]]:
    """Registrations by status and hub name (empty for none), from the counters that the triggers keep."""
    found = connection.execute("SELECT status, hub, total FROM registration_count WHERE total > 0")
    return [(status.decode(), hub.decode(), total) for status, hub, total in found]


def _find(connection: sqlite3.Connection, key: str) -> tuple[bytes, int, bytes, bytes] | None:
    found: tuple[bytes, int, bytes, bytes] | None = connection.execute(
        "SELECT key, version, digest, record FROM registration WHERE key = ?", (rows.storable(key),)
    ).fetchone()
    return found


def _decode(row: tuple[bytes, int, bytes, bytes], digest: rows.RowDigest) -> Registration:
    key, version, stored, record = row
    digest.check(stored, rows.REGISTRATION, key, b"%d" % version, record)
    return rows.registration(record)
