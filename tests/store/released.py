"""Databases of released schemas, as SQL: `python -m tests.store.released VERSION` freezes the newest one.

A file is written once, with the code of the release that had the schema, and never again: what it holds is what a
user's database holds, whatever this code writes today.
"""

import os
import sqlite3
import sys
import tempfile
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from provisiond.model import AttestationType, CloudMessage, DeviceTwin, PendingDevice, Retirement
from provisiond.ports import PendingLimits
from provisiond.store import audit, devices, enrollments, hubs, pending, registrations, rows, schema
from provisiond.store.connection import connect_here, transaction
from tests.store.records import AT, KEYS, make_audit, make_enrollment, make_group, make_registration

_NUMBERS = ("application_id", "user_version")

SCHEMAS = Path(__file__).parent / "schemas"
CA_DER = x509.load_pem_x509_certificate((SCHEMAS / "line-4.pem").read_bytes()).public_bytes(Encoding.DER)

ENROLLMENTS = (make_enrollment(), make_enrollment("Sensor-2", attestation=KEYS), make_group("line-4", ca_der=CA_DER))
REGISTRATIONS = (make_registration(), make_registration("Sensor-2", version=3))
AUDIT = (make_audit("t-1"), make_audit("t-2", "Sensor-2"), make_audit("t-3", "nobody", outcome="refused", code=401002))
TWIN = DeviceTwin(device_id="Device-1", tags={"line": 4}, desired={"interval_s": 10}, version=2, updated_at=AT)
MESSAGE = CloudMessage(message_id="m-1", payload=b"\x00hello", expires_at=AT + timedelta(days=20_000))
RETIREMENT = Retirement(
    hub="old",
    device_id="Device-1",
    registration_id="Device-1",
    due_at=AT.replace(microsecond=0),
    grace_s=3600,
    reason="moved to new",
)
SUBSCRIPTIONS = {"$iothub/methods/POST/#": 0}
PENDING = PendingDevice(
    registration_id="Unknown-1",
    attestation_type=AttestationType.X509,
    evidence=b"certificate",
    proved=True,
    first_seen_at=AT.replace(microsecond=0),
    last_seen_at=AT.replace(microsecond=0),
    remote_address="192.0.2.9",
    tracking_id="t-4",
)


def schema_file(version: int) -> Path:
    """Where the database of a schema is, as SQL."""
    return SCHEMAS / f"{version:04d}.sql"


def restore(version: int, path: Path) -> None:
    """Make the database of a released schema again."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(schema_file(version).read_text())


def dump(version: int) -> str:
    """SQL of a database with that schema, filled by this code."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "provisiond.db"
        path.touch(mode=0o600)
        with closing(connect_here(path, read_only=False)) as connection:
            schema.migrate(connection, path, schema.migrations()[:version])
            with transaction(connection):
                _fill(connection, version)
        with closing(sqlite3.connect(path)) as connection:
            numbers = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _NUMBERS}
            lines = [*connection.iterdump(), *(f"PRAGMA {name}={number};" for name, number in numbers.items())]
    return "\n".join(lines) + "\n"


def _fill(connection: sqlite3.Connection, version: int) -> None:
    digest = rows.RowDigest(rows.read_digest_key(connection))
    for enrollment in ENROLLMENTS:
        row = rows.enrollment_row(enrollment, digest)
        enrollments.insert(connection, row, enrollments.subject_hashes(enrollment))
    registrations.store(connection, [rows.registration_row(one, digest) for one in REGISTRATIONS])
    audit.append(connection, [rows.audit_row(record) for record in AUDIT])
    devices.change_twin(connection, "device-1", lambda _: TWIN, digest)
    devices.queue_message(connection, "device-1", MESSAGE, limit=10, digest=digest)
    hubs.set_draining(connection, "old", wanted=True)
    hubs.revoke_certificate(connection, "ab" * 32, 0x1234, AT)
    if version >= 3:
        pending.put(connection, PENDING, limits=PendingLimits())
    if version >= 5:
        hubs.put_retirements(connection, [RETIREMENT])
    if version >= 7:
        devices.put_subscriptions(connection, "device-1", SUBSCRIPTIONS)


if __name__ == "__main__":
    newest = int(sys.argv[1])
    with schema_file(newest).open("x", encoding="utf-8") as file:  # never twice
        file.write(dump(newest))
