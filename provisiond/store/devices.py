"""The SQL of what the embedded hub keeps of its devices. Functions run inside the caller's transaction."""

import json
import sqlite3
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from provisiond.errors import CorruptRecord, ProvisiondError
from provisiond.model import CloudMessage, DevicePresence, DeviceTwin
from provisiond.store import rows

_TWIN: Final = b"device_twin"
_MESSAGE: Final = b"device_message"

TwinChange = Callable[[DeviceTwin | None], DeviceTwin]

# --- twins -----------------------------------------------------------------------------------------------------------


def load_twin(connection: sqlite3.Connection, device_key: str, digest: rows.RowDigest) -> DeviceTwin | None:
    """A twin, or None.

    Raises:
        CorruptRecord: it is damaged.
    """
    found = connection.execute(
        "SELECT key, digest, record FROM device_twin WHERE key = ?", (rows.storable(device_key),)
    ).fetchone()
    if found is None:
        return None
    key, stored, record = found
    digest.check(stored, _TWIN, key, record)
    return _twin(record)


def change_twin(
    connection: sqlite3.Connection, device_key: str, change: TwinChange, digest: rows.RowDigest
) -> tuple[DeviceTwin | None, DeviceTwin] | ProvisiondError:
    """Replace a twin by what `change` makes of it; what `change` raises is given back, and nothing is written.

    Raises:
        CorruptRecord: the stored one is damaged.
        StoreError: it has a value that cannot be stored.
    """
    before = load_twin(connection, device_key, digest)
    try:
        after = change(before)
    except ProvisiondError as error:
        return error
    if after is not before:
        key, record = rows.storable(device_key), rows.encode(_twin_document(after))
        connection.execute(
            "INSERT INTO device_twin (key, record, digest) VALUES (?, ?, ?)"
            " ON CONFLICT (key) DO UPDATE SET record = excluded.record, digest = excluded.digest",
            (key, record, digest.of(_TWIN, key.encode(), record.encode()).decode()),
        )
    return before, after


def _twin_document(twin: DeviceTwin) -> dict[str, object]:
    return {
        "deviceId": twin.device_id,
        "tags": twin.tags,
        "desired": twin.desired,
        "reported": twin.reported,
        "version": twin.version,
        "desiredVersion": twin.desired_version,
        "reportedVersion": twin.reported_version,
        "updatedAt": twin.updated_at.isoformat(),
    }


def _twin(record: bytes) -> DeviceTwin:
    document = rows.decode(record)
    return DeviceTwin(
        device_id=document["deviceId"],
        tags=document["tags"],
        desired=document["desired"],
        reported=document["reported"],
        version=document["version"],
        desired_version=document["desiredVersion"],
        reported_version=document["reportedVersion"],
        updated_at=datetime.fromisoformat(document["updatedAt"]),
    )


# --- cloud-to-device messages ----------------------------------------------------------------------------------------


def queue_message(
    connection: sqlite3.Connection, device_key: str, message: CloudMessage, *, limit: int, digest: rows.RowDigest
) -> int | None:
    """Append a message; None when `limit` are there already, else how many are now."""
    key = rows.storable(device_key)
    waiting = int(connection.execute("SELECT count(*) FROM device_message WHERE device_key = ?", (key,)).fetchone()[0])
    if waiting >= limit:
        return None
    record = rows.encode(
        {
            "messageId": message.message_id,
            "payload": b64encode(message.payload).decode("ascii"),
            "properties": message.properties,
            "expiresAt": message.expires_at.isoformat(),
        }
    )
    connection.execute(
        "INSERT INTO device_message (device_key, expires_at_s, deliveries, record, digest) VALUES (?, ?, 0, ?, ?)",
        (key, int(message.expires_at.timestamp()), record, digest.of(_MESSAGE, key.encode(), record.encode()).decode()),
    )
    return waiting + 1


def take_turn(
    connection: sqlite3.Connection, device_key: str, *, now: datetime, deliveries_max: int, digest: rows.RowDigest
) -> CloudMessage | None:
    """The first message that may still be delivered, with this delivery counted; the others before it are removed.

    Raises:
        CorruptRecord: it is damaged.
    """
    key = rows.storable(device_key)
    connection.execute(
        "DELETE FROM device_message WHERE device_key = ? AND (expires_at_s <= ? OR deliveries >= ?)",
        (key, int(now.timestamp()), deliveries_max),
    )
    found = connection.execute(
        "UPDATE device_message SET deliveries = deliveries + 1 WHERE seq ="
        " (SELECT min(seq) FROM device_message WHERE device_key = ?)"
        " RETURNING seq, deliveries, device_key, digest, record",
        (key,),
    ).fetchone()
    if found is None:
        return None
    sequence, deliveries, stored_key, stored, record = found
    digest.check(stored, _MESSAGE, stored_key, record)
    return replace(_message(record), sequence=sequence, deliveries=deliveries)


def remove_message(connection: sqlite3.Connection, sequence: int) -> None:
    """Remove a message, if it is there."""
    connection.execute("DELETE FROM device_message WHERE seq = ?", (sequence,))


def _message(record: bytes) -> CloudMessage:
    document = rows.decode(record)
    return CloudMessage(
        message_id=document["messageId"],
        payload=b64decode(document["payload"]),
        properties=document["properties"],
        expires_at=datetime.fromisoformat(document["expiresAt"]),
    )


# --- subscriptions ---------------------------------------------------------------------------------------------------


def load_subscriptions(connection: sqlite3.Connection, device_key: str) -> dict[str, int]:
    """QoS by topic filter; what cannot be read is as good as nothing, for a device can subscribe again."""
    found = connection.execute(
        "SELECT granted FROM device_subscriptions WHERE key = ?", (rows.storable(device_key),)
    ).fetchone()
    try:
        granted = json.loads(found[0]) if found else {}
        return {str(topic_filter): qos for topic_filter, qos in granted.items() if qos in (0, 1)}
    except (ValueError, AttributeError, TypeError):
        return {}


def put_subscriptions(connection: sqlite3.Connection, device_key: str, granted: Mapping[str, int]) -> None:
    """Insert, replace, or remove where there are none."""
    key = rows.storable(device_key)
    if not granted:
        connection.execute("DELETE FROM device_subscriptions WHERE key = ?", (key,))
        return
    connection.execute(
        "INSERT INTO device_subscriptions (key, granted) VALUES (?, ?)"
        " ON CONFLICT (key) DO UPDATE SET granted = excluded.granted",
        (key, rows.storable(json.dumps(dict(granted)))),
    )


# --- presence --------------------------------------------------------------------------------------------------------


def put_presence(connection: sqlite3.Connection, presences: Sequence[DevicePresence]) -> None:
    """Insert or replace."""
    connection.executemany(
        "INSERT INTO device_presence (key, connected, changed_at_s, last_seen_at_s, remote_address)"
        " VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET connected = excluded.connected,"
        " changed_at_s = excluded.changed_at_s, last_seen_at_s = excluded.last_seen_at_s,"
        " remote_address = excluded.remote_address",
        [
            (
                rows.storable(presence.device_key),
                presence.connected,
                int(presence.changed_at.timestamp()),
                int(presence.last_seen_at.timestamp()),
                presence.remote_address,
            )
            for presence in presences
        ],
    )


def reset_presence(connection: sqlite3.Connection, now: datetime) -> None:
    """Nobody is connected."""
    connection.execute(
        "UPDATE device_presence SET connected = 0, changed_at_s = ? WHERE connected", (int(now.timestamp()),)
    )


def list_presence(connection: sqlite3.Connection, device_keys: Sequence[str]) -> dict[str, DevicePresence]:
    """Presence by lower-case device id, of those that have any."""
    found = connection.execute(
        "SELECT key, connected, changed_at_s, last_seen_at_s, remote_address FROM device_presence"
        " WHERE key IN (SELECT value FROM json_each(?))",
        (json.dumps(list(device_keys)),),
    )
    return {
        presence.device_key: presence
        for presence in (
            DevicePresence(
                device_key=key.decode(errors="replace"),
                connected=bool(connected),
                changed_at=datetime.fromtimestamp(changed_at_s, UTC),
                last_seen_at=datetime.fromtimestamp(last_seen_at_s, UTC),
                remote_address=remote_address.decode(errors="replace"),
            )
            for key, connected, changed_at_s, last_seen_at_s, remote_address in found.fetchall()
        )
    }


def count_access_changes(connection: sqlite3.Connection) -> int:
    """The counter that triggers keep on enrollments and registrations."""
    return int(connection.execute("SELECT value FROM meta WHERE name = 'access'").fetchone()[0])


# --- care ------------------------------------------------------------------------------------------------------------


def problems(connection: sqlite3.Connection, digest: rows.RowDigest) -> Iterator[str]:
    """One line for each row that is not what was written."""
    twins = connection.execute("SELECT key, digest, record FROM device_twin")
    messages = connection.execute("SELECT device_key, digest, record FROM device_message")
    for table, found in ((_TWIN, twins), (_MESSAGE, messages)):
        for key, stored, record in found:
            try:
                digest.check(stored, table, key, record)
            except CorruptRecord as error:
                yield str(error)
