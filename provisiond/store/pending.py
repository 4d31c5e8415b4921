"""The SQL of the pending_device table. Functions run inside the caller's transaction, on its connection's thread."""

import sqlite3
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

from provisiond.errors import RecordNotFound
from provisiond.model import AttestationType, PendingDevice
from provisiond.ports import PendingLimits
from provisiond.store import rows

PER_ID_MAX: Final = 4
"""Different certificates or TPMs that claim one id: a device, its replacement, and whoever tries to be it."""

_COLUMNS: Final = (
    "registration_id, attestation_type, evidence, proved, first_seen_at_s, last_seen_at_s, attempts, remote_address,"
    " tracking_id, rejected"
)


def put(connection: sqlite3.Connection, device: PendingDevice, *, limits: PendingLimits) -> bool:
    """Note an attempt; False when there is no room for another device."""
    now_s = int(device.last_seen_at.timestamp())
    oldest = device.last_seen_at - timedelta(seconds=limits.ttl_s)
    connection.execute("DELETE FROM pending_device WHERE last_seen_at_s < ?", (int(oldest.timestamp()),))
    key, evidence_hash = rows.storable(device.registration_id.lower()), sha256(device.evidence).hexdigest()
    changed = connection.execute(
        "UPDATE pending_device SET last_seen_at_s = ?, attempts = attempts + 1, remote_address = ?, tracking_id = ?,"
        " proved = max(proved, ?) WHERE registration_key = ? AND evidence_hash = ?",
        (now_s, device.remote_address, device.tracking_id, device.proved, key, evidence_hash),
    )
    if changed.rowcount:
        return True
    total, of_id = connection.execute(
        "SELECT count(*), count(*) FILTER (WHERE registration_key = ?) FROM pending_device", (key,)
    ).fetchone()
    if of_id >= PER_ID_MAX or (total >= limits.devices and not _forget_rejected(connection)):
        return False
    connection.execute(
        f"INSERT INTO pending_device (registration_key, evidence_hash, {_COLUMNS})"  # noqa: S608 - constants
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, 0)",
        (
            key,
            evidence_hash,
            device.registration_id,
            device.attestation_type.value,
            device.evidence,
            device.proved,
            now_s,
            now_s,
            device.remote_address,
            device.tracking_id,
        ),
    )
    return True


def _forget_rejected(connection: sqlite3.Connection) -> bool:
    """Make room for one that nobody has looked at yet; False when none was rejected."""
    forgotten = connection.execute(
        "DELETE FROM pending_device WHERE (registration_key, evidence_hash) = (SELECT registration_key, evidence_hash"
        " FROM pending_device WHERE rejected ORDER BY last_seen_at_s LIMIT 1)"
    )
    return bool(forgotten.rowcount)


def load(connection: sqlite3.Connection, *, registration_key: str | None, rejected: bool) -> list[PendingDevice]:
    """Those that wait, or were rejected, oldest first; of one id or of all.

    One whose id was enrolled since, by hand or while its request was decided on, does not wait any more.
    """
    found = connection.execute(
        f"SELECT {_COLUMNS} FROM pending_device WHERE rejected = ?1"  # noqa: S608 - constants
        " AND (?2 IS NULL OR registration_key = ?2)"
        " AND NOT EXISTS (SELECT 1 FROM enrollment WHERE kind = 'individual' AND key = registration_key)"
        " ORDER BY first_seen_at_s, registration_key",
        (rejected, None if registration_key is None else rows.storable(registration_key)),
    )
    return [_decode(row) for row in found.fetchall()]


def reject(connection: sqlite3.Connection, registration_key: str, evidence_hash: str) -> None:
    """Keep it out of sight for as long as it comes back; raises RecordNotFound."""
    changed = connection.execute(
        "UPDATE pending_device SET rejected = 1 WHERE registration_key = ? AND evidence_hash = ? AND NOT rejected",
        (rows.storable(registration_key), evidence_hash),
    )
    if not changed.rowcount:
        raise RecordNotFound(f"no such device waits as {registration_key}")


def _decode(row: tuple[bytes, bytes, bytes, int, int, int, int, bytes, bytes, int]) -> PendingDevice:
    name, kind, evidence, proved, first_s, last_s, attempts, address, tracking_id, rejected = row
    return PendingDevice(
        registration_id=name.decode(errors="replace"),
        attestation_type=AttestationType(kind.decode()),
        evidence=evidence,
        proved=bool(proved),
        first_seen_at=datetime.fromtimestamp(first_s, UTC),
        last_seen_at=datetime.fromtimestamp(last_s, UTC),
        attempts=attempts,
        remote_address=address.decode(errors="replace"),
        tracking_id=tracking_id.decode(errors="replace"),
        rejected=bool(rejected),
    )
