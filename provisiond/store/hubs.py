"""The SQL of the hubs' queues and states. Functions run inside the caller's transaction, on its connection's thread."""

import json
import sqlite3
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from provisiond.model import JSONValue, RegistrationStatus, Retirement, RetirementAction
from provisiond.store import rows

_PUT: Final = """
INSERT INTO retirement (hub, device_id, registration_id, action, due_at_s, reason, grace_s)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (hub, device_id) DO UPDATE SET registration_id = excluded.registration_id, action = excluded.action,
        due_at_s = excluded.due_at_s, reason = excluded.reason, grace_s = excluded.grace_s
"""

_COLUMNS: Final = "hub, device_id, registration_id, action, due_at_s, reason, grace_s"

_NOWHERE_ELSE: Final = """
EXISTS (SELECT 1 FROM registration WHERE key = lower(retirement.registration_id) AND status IN ('assigning', 'failed'))
"""
"""Whether a device that has moved has no identity at its new hub yet."""

# --- retirements -----------------------------------------------------------------------------------------------------


def put_retirements(connection: sqlite3.Connection, retirements: Collection[Retirement]) -> None:
    """Insert or replace."""
    connection.executemany(_PUT, [_row(retirement) for retirement in retirements])


def void_retirements(connection: sqlite3.Connection, identities: Collection[tuple[str, str]]) -> None:
    """Forget what was to become of these identities, (hub, device id): their devices have come back."""
    # Nearly always nothing is to go from anywhere; then this costs one look at an empty table.
    if connection.execute("SELECT 1 FROM retirement LIMIT 1").fetchone() is not None:
        connection.executemany("DELETE FROM retirement WHERE hub = ? AND device_id = ?", list(identities))


def expedite_retirements(connection: sqlite3.Connection, registration_id: str, at: datetime) -> None:
    """Make everything of a registration due at this time, if it was due later."""
    connection.execute(
        "UPDATE retirement SET due_at_s = min(due_at_s, ?1), grace_s = 0 WHERE lower(registration_id) = lower(?2)",
        (int(at.timestamp()), rows.storable(registration_id)),
    )


def finish_retirement(connection: sqlite3.Connection, retirement: Retirement) -> bool:
    """Forget one that is done; False when it is not there, or not the same any more."""
    cursor = connection.execute(
        "DELETE FROM retirement WHERE hub = ? AND device_id = ? AND registration_id = ? AND action = ?"
        " AND due_at_s = ? AND reason = ? AND grace_s = ?",
        _row(retirement),
    )
    return cursor.rowcount == 1


def list_retirements(
    connection: sqlite3.Connection, hub: str, *, due_by: datetime, after_device: str, limit: int
) -> list[Retirement]:
    """Up to `limit` that are due, by device id; not of devices that have moved to where they have no identity yet."""
    found = connection.execute(
        f"SELECT {_COLUMNS} FROM retirement WHERE hub = ? AND device_id > ? AND due_at_s <= ?"  # noqa: S608 - constants
        f" AND NOT (grace_s > 0 AND {_NOWHERE_ELSE}) ORDER BY device_id LIMIT ?",
        (rows.storable(hub), rows.storable(after_device), int(due_by.timestamp()), limit),
    )
    return [_retirement(row) for row in found]


def departures_of(connection: sqlite3.Connection, registration_key: str) -> list[Retirement]:
    """What a registration still has at hubs that it is to go from, by hub name."""
    found = connection.execute(
        f"SELECT {_COLUMNS} FROM retirement WHERE lower(registration_id) = ? ORDER BY hub",  # noqa: S608 - constants
        (rows.storable(registration_key),),
    )
    return [_retirement(row) for row in found]


def departing_devices(connection: sqlite3.Connection, hub_names: Collection[str]) -> frozenset[str]:
    """Lower-case ids of the devices that are to go from any of these hubs."""
    found = connection.execute(
        "SELECT lower(device_id) FROM retirement WHERE hub IN (SELECT value FROM json_each(?))",
        (json.dumps(list(hub_names)),),
    )
    return frozenset(device_key.decode() for (device_key,) in found)


def count_departing(connection: sqlite3.Connection) -> dict[str, int]:
    """How much is to go from each hub, now or later."""
    found = connection.execute("SELECT hub, count(*) FROM retirement GROUP BY hub")
    return {hub.decode(): total for hub, total in found}


def awaited(connection: sqlite3.Connection, hub: str, *, limit: int) -> list[Retirement]:
    """Up to `limit` identities elsewhere that go as soon as their devices were seen at this hub."""
    columns = ", ".join(f"retirement.{column}" for column in _COLUMNS.split(", "))
    found = connection.execute(
        f"SELECT {columns} FROM retirement JOIN registration ON registration.key = lower(retirement.registration_id)"  # noqa: S608
        " WHERE retirement.grace_s > 0 AND registration.hub = ?1 AND retirement.hub <> ?1"
        " AND registration.status IN ('assigned', 'assigning') LIMIT ?2",
        (rows.storable(hub), limit),
    )
    return [_retirement(row) for row in found]


def anybody_is_awaited(connection: sqlite3.Connection) -> bool:
    """Whether any device that has moved was not seen at its new hub yet."""
    return connection.execute("SELECT 1 FROM retirement WHERE grace_s > 0 LIMIT 1").fetchone() is not None


def note_arrivals(connection: sqlite3.Connection, hub: str, registration_keys: Collection[str], at: datetime) -> int:
    """Have what these registrations have left elsewhere go now: they were seen at their hub. How much that is."""
    cursor = connection.executemany(
        "UPDATE retirement SET due_at_s = min(due_at_s, ?1), grace_s = 0, reason = reason || ?2"
        " WHERE grace_s > 0 AND lower(registration_id) = ?3 AND hub <> ?4 AND EXISTS"
        " (SELECT 1 FROM registration WHERE key = ?3 AND hub = ?4 AND status = 'assigned')",
        [
            (int(at.timestamp()), f", seen there at {at:%Y-%m-%dT%H:%M:%SZ}", rows.storable(key), rows.storable(hub))
            for key in registration_keys
        ],
    )
    return cursor.rowcount


def restart_grace(connection: sqlite3.Connection, hub: str, registration_key: str, at: datetime) -> None:
    """A device was made at this hub: from now on it may take its time to be seen there."""
    connection.execute(
        "UPDATE retirement SET due_at_s = max(due_at_s, ? + grace_s)"
        " WHERE grace_s > 0 AND lower(registration_id) = ? AND hub <> ?",
        (int(at.timestamp()), rows.storable(registration_key), rows.storable(hub)),
    )


def _row(retirement: Retirement) -> tuple[Any, ...]:
    return (
        rows.storable(retirement.hub),
        rows.storable(retirement.device_id),
        rows.storable(retirement.registration_id),
        retirement.action.value,
        int(retirement.due_at.timestamp()),
        rows.storable(retirement.reason),
        retirement.grace_s,
    )


def _retirement(row: tuple[bytes, bytes, bytes, bytes, int, bytes, int]) -> Retirement:
    hub, device_id, registration_id, action, due_at_s, reason, grace_s = row
    return Retirement(
        hub=hub.decode(),
        device_id=device_id.decode(),
        registration_id=registration_id.decode(),
        action=RetirementAction(action.decode()),
        due_at=datetime.fromtimestamp(due_at_s, UTC),
        grace_s=grace_s,
        reason=reason.decode(),
    )


# --- hubs ------------------------------------------------------------------------------------------------------------


def count(connection: sqlite3.Connection) -> dict[str, dict[RegistrationStatus, int]]:
    """Registrations by hub and status, from the counters that the triggers keep."""
    totals: dict[str, dict[RegistrationStatus, int]] = {}
    for status, hub, total in connection.execute("SELECT status, hub, total FROM registration_count WHERE total > 0"):
        totals.setdefault(hub.decode(), {})[RegistrationStatus(status.decode())] = total
    totals.pop("", None)
    return totals


def draining(connection: sqlite3.Connection) -> frozenset[str]:
    """Names of the hubs that drain."""
    return frozenset(name.decode() for (name,) in connection.execute("SELECT name FROM draining_hub"))


def set_draining(connection: sqlite3.Connection, name: str, wanted: bool) -> bool:
    """Drain a hub, or no longer; whether that was a change."""
    statement = (
        "INSERT INTO draining_hub (name) VALUES (?) ON CONFLICT DO NOTHING"
        if wanted
        else "DELETE FROM draining_hub WHERE name = ?"
    )
    return connection.execute(statement, (rows.storable(name),)).rowcount == 1


def put_observation(connection: sqlite3.Connection, name: str, observed: Mapping[str, JSONValue]) -> None:
    """Replace what was seen of a hub."""
    connection.execute(
        "INSERT INTO hub_observation (name, observed) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET observed = excluded.observed",
        (rows.storable(name), json.dumps(dict(observed), allow_nan=False)),
    )


def observations(connection: sqlite3.Connection) -> dict[str, dict[str, JSONValue]]:
    """What was last seen of each hub."""
    found = connection.execute("SELECT name, observed FROM hub_observation")
    return {name.decode(): json.loads(observed) for name, observed in found}


# --- revoked certificates --------------------------------------------------------------------------------------------


def revoke_certificate(connection: sqlite3.Connection, issuer_hash: str, serial: int, at: datetime) -> None:
    """Remember a certificate as revoked, since when it first was."""
    connection.execute(
        "INSERT INTO revoked_certificate (issuer_hash, serial, revoked_at_s) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (issuer_hash, f"{serial:x}", int(at.timestamp())),
    )


def release_certificates(connection: sqlite3.Connection, issuer_hash: str, serials: Collection[int]) -> None:
    """Have certificates count again."""
    connection.executemany(
        "DELETE FROM revoked_certificate WHERE issuer_hash = ? AND serial = ?",
        [(issuer_hash, f"{serial:x}") for serial in serials],
    )


def revoked_certificates(connection: sqlite3.Connection, issuer_hash: str) -> dict[int, datetime]:
    """Serial numbers that one issuer's list has to name, and since when."""
    found = connection.execute(
        "SELECT serial, revoked_at_s FROM revoked_certificate WHERE issuer_hash = ? ORDER BY serial", (issuer_hash,)
    )
    return {int(serial, 16): datetime.fromtimestamp(at_s, UTC) for serial, at_s in found}
