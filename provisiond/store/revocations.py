"""What a restored database would give back to devices that it was taken away from."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Final

from provisiond.errors import StoreUnavailable
from provisiond.store.audit_trail import read_head_file
from provisiond.store.connection import connect_here, no_backup

SHOWN_MAX: Final = 100
"""Lines for the operator; a backup that differs in more is another site's, or a very old one."""

_DELETED: Final = """
SELECT backup.kind, backup.key
FROM older.enrollment backup
LEFT JOIN main.enrollment present ON (present.key, present.kind) = (backup.key, backup.kind)
WHERE present.id IS NULL AND json_extract(backup.record, '$.provisioningStatus') <> 'disabled'
ORDER BY 1, 2
"""
_DISABLED: Final = """
SELECT present.kind, present.key
FROM main.enrollment present
LEFT JOIN older.enrollment backup ON (present.key, present.kind) = (backup.key, backup.kind)
WHERE json_extract(present.record, '$.provisioningStatus') = 'disabled'
    AND ifnull(json_extract(backup.record, '$.provisioningStatus'), '') <> 'disabled'
ORDER BY 1, 2
"""
# What a device could prove itself with: another key, certificate or TPM than now, or an id that the group has no more.
_REPLACED: Final = """
SELECT backup.kind, backup.key
FROM older.enrollment backup
JOIN main.enrollment present ON (present.key, present.kind) = (backup.key, backup.kind)
WHERE json_extract(backup.record, '$.provisioningStatus') <> 'disabled' AND (
    EXISTS (
        SELECT 1 FROM json_each(backup.record, '$.attestation') then_
        WHERE then_.key IN ('primary', 'secondary', 'endorsementKey') AND then_.value IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM json_each(present.record, '$.attestation') now_
            WHERE now_.key IN ('primary', 'secondary', 'endorsementKey') AND now_.value = then_.value
        )
    )
    OR EXISTS (
        SELECT 1 FROM json_each(backup.record, '$.attestation.allowedIds') then_
        WHERE NOT EXISTS (
            SELECT 1 FROM json_each(present.record, '$.attestation.allowedIds') now_
            WHERE lower(now_.value) = lower(then_.value)
        )
    )
)
ORDER BY 1, 2
"""
_DISABLED_DEVICES: Final = """
SELECT 'device', present.key
FROM main.registration present
JOIN older.registration backup ON present.key = backup.key
WHERE present.status = 'disabled' AND backup.status <> 'disabled'
ORDER BY 2
"""
_REVOKED: Final = """
SELECT 'certificate', present.serial
FROM main.revoked_certificate present
LEFT JOIN older.revoked_certificate backup
    ON (present.issuer_hash, present.serial) = (backup.issuer_hash, backup.serial)
WHERE backup.serial IS NULL
ORDER BY 2
"""
_QUERIES: Final = (
    ("{} {} was deleted after this backup", "enrollment", _DELETED),
    ("{} {} was disabled after this backup", "enrollment", _DISABLED),
    ("{} {} was disabled after this backup", "registration", _DISABLED_DEVICES),
    ("{} {} was revoked after this backup", "revoked_certificate", _REVOKED),
    ("{} {} had a key, certificate or id that was taken away after this backup", "enrollment", _REPLACED),
)


def undone_by(backup: Path, database: Path) -> tuple[str, ...]:
    """What was taken away from devices since a backup, and would be theirs again; at most 100 lines.

    Args:
        backup: would be put in the database's place.
        database: as it is; where it is lost or damaged, the file that the daemon keeps beside it tells whether
            anything was revoked, though not what.

    Raises:
        StoreUnavailable: the backup cannot be read.
    """
    try:
        return tuple(islice(_compare(backup, database), SHOWN_MAX)) if database.exists() else _guess(backup, database)
    except (sqlite3.Error, StoreUnavailable):
        return _guess(backup, database)


def _compare(backup: Path, database: Path) -> Iterator[str]:
    with closing(connect_here(database, read_only=True)) as connection:
        uri = f"{backup.absolute().as_uri()}?mode=ro"
        connection.execute("ATTACH ? AS older", (uri,))
        if not _table_exists(connection, "main", "enrollment"):
            raise StoreUnavailable("the database has no enrollments")
        for text, table, query in _QUERIES:
            if not all(_table_exists(connection, schema, table) for schema in ("main", "older")):
                continue  # one of the two is of a schema that does not have it
            try:
                for kind, key in connection.execute(query):
                    yield text.format(kind.decode(errors="replace"), key.decode(errors="replace"))
            except sqlite3.Error as error:  # a record that cannot be read: whatever it says may be a revocation
                yield f"what the damaged table {table} says cannot be told ({error})"


def _guess(backup: Path, database: Path) -> tuple[str, ...]:
    known = read_head_file(database.parent)
    if known is None:
        return ()
    revocations, checkpoint = known
    try:
        with closing(connect_here(backup, read_only=True)) as connection:
            then = _revocations(connection)
    except sqlite3.Error as error:
        raise no_backup(backup, error) from error
    if revocations <= then:
        return ()
    when = f"between this backup and {checkpoint.at:%Y-%m-%d %H:%M}Z"
    what = f"{revocations - then} enrollments or certificates were disabled, deleted or revoked {when}"
    return (f"{what}; the database that knows which is lost",)


def _revocations(connection: sqlite3.Connection) -> int:
    found = connection.execute("SELECT value FROM meta WHERE name = 'revocations'").fetchone()
    return int(found[0]) if found else 0


def _table_exists(connection: sqlite3.Connection, schema: str, table: str) -> bool:
    query = f"SELECT 1 FROM {schema}.sqlite_schema WHERE type = 'table' AND name = ?"  # noqa: S608 - a constant
    return connection.execute(query, (table,)).fetchone() is not None
