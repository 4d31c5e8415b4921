"""Copies of the database that can be relied upon, and what is wrong with one that cannot.

A live file is never copied as a file: the newest commits are in the write-ahead log beside it.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Final

from provisiond.errors import CorruptRecord, InvalidArgument, StoreUnavailable
from provisiond.model import EnrollmentKind
from provisiond.store import audit, devices, enrollments, rows, schema
from provisiond.store.connection import FATAL_CODES, connect_here, no_backup, primary_code, transaction, unavailable
from provisiond.store.new_file import written_beside

PROBLEMS_MAX: Final = 100
"""Problems listed; a file with more needs its backup, not a longer list."""
SAMPLE_ROWS: Final = 2000
"""Rows of a table in a sample: a tenth of a second, and one damaged page in a thousand is found in most cases."""

_IN_USE_TIMEOUT_S: Final = 1.0


def write_backup(connection: sqlite3.Connection, database: Path, target: Path) -> None:
    """Write a copy of the database as it is now, as one file of mode 0600; the daemon may go on writing.

    A file of that name is replaced, and only by a copy that is complete, sound and on disk.

    Raises:
        InvalidArgument: the target is the database itself.
        StoreUnavailable: the copy is damaged.
        OSError: the target cannot be written.
        sqlite3.Error: the database cannot be read, or the target not be written.
    """
    if target.exists() and target.samefile(database):
        raise InvalidArgument(f"{target} is the database itself")
    with written_beside(target, for_service=False) as part:
        _copy(connection, part)


def back_up(database: Path, target: Path) -> None:
    """As `write_backup`, of a database of any schema: before an upgrade is when a backup is wanted most.

    Raises:
        InvalidArgument: the target is the database itself.
        StoreUnavailable: the copy could not be made; a file of that name is as it was.
    """
    try:
        with closing(connect_here(database, read_only=True)) as connection:
            write_backup(connection, database, target)
    except (sqlite3.Error, OSError) as error:
        raise unavailable(error) from error


def restore_backup(source: Path, target: Path) -> Path | None:
    """Put a backup in the database's place; the daemon must not be running. What was there is kept beside it.

    The database that was there becomes `provisiond.db.before-restore`, or `….before-restore-2` and so on when an
    earlier restore has kept one: the wrong backup, restored twice, must not cost what was there at first.

    Returns:
        What was there; None when nothing was.

    Raises:
        SchemaTooNew: the backup was written by a newer provisiond.
        StoreUnavailable: the backup is damaged or no backup; the database is in use; the disk failed.
    """
    try:
        with _sound_backup(source) as backup, written_beside(target, for_service=True) as part:
            _copy(backup, part)
            kept = _set_aside(target)
    except (sqlite3.Error, OSError) as error:
        raise unavailable(error) from error
    return kept


def problems(connection: sqlite3.Connection) -> tuple[str, ...]:
    """What is wrong with a database, at most 100 lines for the operator; empty when nothing is.

    Pages, references, the digest of every row, the columns beside the records, counters, audit chain.

    Raises:
        sqlite3.Error: the database cannot be read.
    """
    with transaction(connection, "DEFERRED"):
        return tuple(islice(_problems(connection), PROBLEMS_MAX))


def sample_problems(connection: sqlite3.Connection) -> tuple[str, ...]:
    """The same of up to `SAMPLE_ROWS` enrollments and registrations, evenly spread, and of nothing else: no page is
    looked at that they are not on, no counter, no audit record.

    Raises:
        sqlite3.Error: the database cannot be read.
    """
    with transaction(connection, "DEFERRED"):
        digest = rows.RowDigest(rows.read_digest_key(connection))
        found = (
            *_enrollment_problems(connection, digest, _spread(connection, "enrollment")),
            *_registration_problems(connection, digest, _spread(connection, "registration")),
        )
    return found[:PROBLEMS_MAX]


def _spread(connection: sqlite3.Connection, table: str) -> list[int]:
    last: int = connection.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()[0]  # noqa: S608 - constants
    return sorted({last - last * number // SAMPLE_ROWS for number in range(SAMPLE_ROWS)})


def _problems(connection: sqlite3.Connection) -> Iterator[str]:
    sound = True
    for (line,) in connection.execute(f"PRAGMA integrity_check({PROBLEMS_MAX:d})"):
        if line != b"ok":
            sound = False
            yield line.decode(errors="backslashreplace")
    if not sound:
        return  # what a damaged tree says about its rows is noise
    for table, row_id, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        yield f"row {row_id} of {table.decode()} refers to a missing row of {parent.decode()}"
    digest = rows.RowDigest(rows.read_digest_key(connection))
    yield from _enrollment_problems(connection, digest)
    yield from _registration_problems(connection, digest)
    yield from _count_problems(connection)
    yield from devices.problems(connection, digest)
    verdict = audit.verify(connection)
    if verdict.problem is not None:
        yield f"audit: {verdict.problem}"


def _enrollment_problems(
    connection: sqlite3.Connection, digest: rows.RowDigest, ids: Sequence[int] | None = None
) -> Iterator[str]:
    certificates: dict[int, set[bytes]] = {}
    for subject_hash, owner in connection.execute(
        "SELECT subject_hash, enrollment FROM enrollment_certificate" + _among("enrollment", ids)  # noqa: S608 - numbers
    ):
        certificates.setdefault(owner, set()).add(subject_hash)
    found = connection.execute(
        "SELECT id, key, kind, attestation_type, etag, digest, record FROM enrollment" + _among("id", ids)  # noqa: S608 - numbers
    )
    for row_id, key, kind, attestation_type, etag, stored, record in found:
        try:
            digest.check(stored, rows.ENROLLMENT, key, kind, record)
        except CorruptRecord as error:
            yield str(error)
            continue
        enrollment = rows.enrollment(EnrollmentKind(kind.decode()), record)
        expected = {subject_hash.encode() for subject_hash in enrollments.subject_hashes(enrollment)}
        row = rows.enrollment_row(enrollment, digest)
        columns = (_octets(row.attestation_type), _octets(row.etag), expected)
        if columns != (attestation_type, etag, certificates.get(row_id, set())):
            yield f"the columns of enrollment {enrollment.key!r} do not agree with its record"


def _among(column: str, ids: Sequence[int] | None) -> str:
    """A WHERE clause; of numbers, which need no quoting."""
    return "" if ids is None else f" WHERE {column} IN ({','.join(map(str, ids))})"


def _registration_problems(
    connection: sqlite3.Connection, digest: rows.RowDigest, ids: Sequence[int] | None = None
) -> Iterator[str]:
    found = connection.execute(
        "SELECT key, version, digest, record, status, substatus, hub, group_key, endorsement_key_hash, device_key"  # noqa: S608 - numbers
        " FROM registration" + _among("id", ids)
    )
    for key, version, stored, record, *columns in found:
        try:
            digest.check(stored, rows.REGISTRATION, key, b"%d" % version, record)
        except CorruptRecord as error:
            yield str(error)
            continue
        row = rows.registration_row(rows.registration(record), digest)
        texts = (row.status, row.substatus, row.hub, row.group_key, row.endorsement_key_hash, row.device_key)
        if (row.version, *map(_octets, texts)) != (version, *columns):
            yield f"the columns of registration {row.key!r} do not agree with its record"


def _count_problems(connection: sqlite3.Connection) -> Iterator[str]:
    counted = connection.execute("SELECT status, coalesce(hub, ''), count(*) FROM registration GROUP BY 1, 2")
    kept = connection.execute("SELECT status, hub, total FROM registration_count WHERE total <> 0")
    if set(counted.fetchall()) != set(kept.fetchall()):
        yield "the counters of registrations by status and hub do not agree with the registrations"


def _octets(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


@contextmanager
def _sound_backup(source: Path) -> Iterator[sqlite3.Connection]:
    try:
        backup = connect_here(source, read_only=True)
    except sqlite3.Error as error:
        raise no_backup(source, error) from error
    with closing(backup):
        try:
            _require_sound(backup, source)
        except sqlite3.Error as error:
            raise no_backup(source, error) from error
        yield backup


def _require_sound(backup: sqlite3.Connection, source: Path) -> None:
    version = schema.current_version(backup)
    schema.require_known(version, len(schema.migrations()))
    if version == 0:
        raise StoreUnavailable(f"{source} is empty: it is no backup")
    integrity = backup.execute("PRAGMA integrity_check(1)").fetchone()[0]
    found: tuple[str, ...] = (integrity.decode(),) if integrity != b"ok" else ()
    if version == len(schema.migrations()):  # an older one's rows are looked at after its migration
        found = found or problems(backup)
    if found:
        raise StoreUnavailable(f"{source} is damaged and was not restored: {found[0]}")


def _set_aside(target: Path) -> Path | None:
    """Keep the present database under another name, with nothing left in its log.

    Raises:
        StoreUnavailable: a process has it open.
    """
    if not target.exists():
        return None
    try:
        with closing(connect_here(target, read_only=False, busy_timeout_s=_IN_USE_TIMEOUT_S)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")  # takes its log in, and fails while others have it open
    except sqlite3.Error as error:
        if primary_code(error) not in FATAL_CODES:
            raise StoreUnavailable(f"{target} is in use; stop the daemon first ({error})") from error
    kept = _name_for_former(target)
    kept.hardlink_to(target)
    for suffix in ("-wal", "-shm"):  # a damaged database's log must not be played into the restored one
        target.with_name(target.name + suffix).unlink(missing_ok=True)
    return kept


def _name_for_former(target: Path) -> Path:
    for number in count(1):
        kept = target.with_name(f"{target.name}.before-restore" + (f"-{number}" if number > 1 else ""))
        if kept.exists() and kept.samefile(target):  # of a restore that was killed before it was done
            kept.unlink()
        if not kept.exists():
            break
    return kept


def _copy(connection: sqlite3.Connection, path: Path) -> None:
    with closing(sqlite3.connect(path)) as target:
        connection.backup(target)
        target.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
        integrity = target.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if integrity != "ok":
        raise StoreUnavailable(f"the copy is damaged: {integrity}")
