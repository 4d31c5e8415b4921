"""The SQL of the enrollment table. Functions run inside the caller's transaction, on its connection's thread."""

import json
import sqlite3
from collections.abc import Iterable
from typing import Final

from provisiond.attestation.x509 import subject_hash
from provisiond.errors import AlreadyExists, AttestationError, EtagMismatch, InvalidArgument, RecordNotFound
from provisiond.model import Enrollment, EnrollmentKind, X509Material
from provisiond.store import rows

# The condition is the index's own, to the letter: otherwise SQLite would read every record.
_DECLARED: Final = """
SELECT kind, key, digest, record FROM enrollment WHERE instr(record, '"origin":"config"') ORDER BY kind, key
"""


def subject_hashes(enrollment: Enrollment) -> tuple[str, ...]:
    """SHA-256 (lower-case hexadecimal) of the DER subject Name of each CA certificate of a group; none for the rest.

    Raises:
        InvalidArgument: a certificate cannot be parsed.
    """
    material = enrollment.attestation
    if enrollment.kind is not EnrollmentKind.GROUP or not isinstance(material, X509Material):
        return ()
    try:
        return tuple(dict.fromkeys(subject_hash(der).hex() for der in material.certificates))
    except AttestationError as error:
        raise InvalidArgument(f"a certificate of {enrollment.id!r} cannot be parsed: {error}") from error


def insert(connection: sqlite3.Connection, row: rows.EnrollmentRow, hashes: tuple[str, ...]) -> None:
    """Add a record.

    Raises:
        AlreadyExists: there is one of that kind and key.
    """
    cursor = connection.execute(
        "INSERT INTO enrollment (key, kind, attestation_type, etag, record, digest) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (key, kind) DO NOTHING",
        (row.key, row.kind, row.attestation_type, row.etag, row.record, row.digest),
    )
    if cursor.rowcount == 0:
        raise AlreadyExists(f"{_name(row.kind)} {row.key!r} exists")
    _insert_certificates(connection, cursor.lastrowid, hashes)


def replace(
    connection: sqlite3.Connection,
    row: rows.EnrollmentRow,
    hashes: tuple[str, ...],
    *,
    if_match: str | None,
    digest: rows.RowDigest,
) -> None:
    """Replace a record.

    Raises:
        RecordNotFound: there is none.
        EtagMismatch: it has changed since `if_match` was read.
        CorruptRecord: the stored one is damaged, and `if_match` cannot be compared.
    """
    row_id = _require(connection, EnrollmentKind(row.kind), row.key, if_match=if_match, digest=digest)
    connection.execute(
        "UPDATE enrollment SET attestation_type = ?, etag = ?, record = ?, digest = ? WHERE id = ?",
        (row.attestation_type, row.etag, row.record, row.digest, row_id),
    )
    if row.kind == EnrollmentKind.GROUP:
        connection.execute("DELETE FROM enrollment_certificate WHERE enrollment = ?", (row_id,))
        _insert_certificates(connection, row_id, hashes)


def remove(
    connection: sqlite3.Connection, kind: EnrollmentKind, key: str, *, if_match: str | None, digest: rows.RowDigest
) -> None:
    """Remove a record and what refers to it.

    Raises:
        RecordNotFound: there is none.
        EtagMismatch: it has changed since `if_match` was read.
        CorruptRecord: the stored one is damaged, and `if_match` cannot be compared.
    """
    row_id = _require(connection, kind, key, if_match=if_match, digest=digest)
    connection.execute("DELETE FROM enrollment WHERE id = ?", (row_id,))


def load(connection: sqlite3.Connection, kind: EnrollmentKind, key: str, digest: rows.RowDigest) -> Enrollment | None:
    """One record, or None.

    Raises:
        CorruptRecord: it is damaged.
    """
    found = connection.execute(
        "SELECT key, digest, record FROM enrollment WHERE key = ? AND kind = ?", (rows.storable(key), kind.value)
    ).fetchone()
    return None if found is None else _decode(kind, found, digest)


def load_many(
    connection: sqlite3.Connection, kind: EnrollmentKind, keys: Iterable[str], digest: rows.RowDigest
) -> list[Enrollment]:
    """Those of the records that are there.

    Raises:
        CorruptRecord: one is damaged.
    """
    found = connection.execute(
        "SELECT key, digest, record FROM enrollment WHERE kind = ? AND key IN (SELECT value FROM json_each(?))",
        (kind.value, json.dumps([rows.storable(key) for key in keys])),
    )
    return [_decode(kind, row, digest) for row in found.fetchall()]


def load_declared(connection: sqlite3.Connection, digest: rows.RowDigest) -> list[Enrollment]:
    """Every record that the configuration declares, of both kinds.

    Raises:
        CorruptRecord: one is damaged.
    """
    found = connection.execute(_DECLARED)
    decoded = [_decode(EnrollmentKind(kind.decode()), tuple(row), digest) for kind, *row in found.fetchall()]
    return [enrollment for enrollment in decoded if enrollment.origin == "config"]


def unchanged(connection: sqlite3.Connection, guards: Iterable[rows.EnrollmentGuard]) -> set[rows.EnrollmentGuard]:
    """Those of the guards whose enrollment is there and has not changed."""
    keys = json.dumps([guard.key for guard in guards])
    found = connection.execute(
        "SELECT key, kind, etag FROM enrollment WHERE key IN (SELECT value FROM json_each(?))", (keys,)
    )
    return {
        rows.EnrollmentGuard(key=key.decode(), kind=kind.decode(), etag=etag.decode(errors="replace"))
        for key, kind, etag in found.fetchall()
    }


def page(
    connection: sqlite3.Connection, kind: EnrollmentKind, *, after_key: str, limit: int, digest: rows.RowDigest
) -> list[Enrollment]:
    """Up to `limit` records in key order, after `after_key`.

    Raises:
        CorruptRecord: one is damaged.
    """
    # The kind is a constant in the text: only so does the planner see that the index of the groups will do.
    found = connection.execute(
        "SELECT key, digest, record FROM enrollment WHERE kind = 'group' AND key > ? ORDER BY key LIMIT ?"
        if kind is EnrollmentKind.GROUP
        else "SELECT key, digest, record FROM enrollment WHERE kind = 'individual' AND key > ? ORDER BY key LIMIT ?",
        (rows.storable(after_key), limit),
    )
    return [_decode(kind, row, digest) for row in found]


def _decode(kind: EnrollmentKind, row: tuple[bytes, bytes, bytes], digest: rows.RowDigest) -> Enrollment:
    key, stored, record = row
    digest.check(stored, rows.ENROLLMENT, key, kind.value.encode(), record)
    return rows.enrollment(kind, record)


def _require(
    connection: sqlite3.Connection, kind: EnrollmentKind, key: str, *, if_match: str | None, digest: rows.RowDigest
) -> int:
    found = connection.execute(
        "SELECT id, key, digest, record FROM enrollment WHERE key = ? AND kind = ?", (rows.storable(key), kind.value)
    ).fetchone()
    if found is None:
        raise RecordNotFound(f"there is no {_name(kind)} {key!r}")
    if if_match not in (None, "*") and _decode(kind, found[1:], digest).etag != if_match:
        raise EtagMismatch(f"{_name(kind)} {key!r} has changed since it was read")
    return int(found[0])


def _insert_certificates(connection: sqlite3.Connection, row_id: int | None, hashes: tuple[str, ...]) -> None:
    connection.executemany(
        "INSERT INTO enrollment_certificate (subject_hash, enrollment) VALUES (?, ?)",
        [(subject_hash, row_id) for subject_hash in hashes],
    )


def _name(kind: str) -> str:
    return "enrollment group" if kind == EnrollmentKind.GROUP else "individual enrollment"
