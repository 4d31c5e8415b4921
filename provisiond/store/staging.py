"""Where an import's changes wait until all of them are known to be right: a file without a name.

It has no name so that nothing is left of it, whatever ends the process; it is a file so that a million rows take no
memory.
"""

import asyncio
import json
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from provisiond.errors import ProvisiondError, StoreUnavailable
from provisiond.model import Enrollment, EnrollmentKind
from provisiond.ports import EnrollmentChange
from provisiond.store import audit, enrollments, rows
from provisiond.store.sqlite import SqliteStore

_BATCH: Final = 1000
"""Rows between two looks at whether the import was given up."""

_SCHEMA: Final = """
CREATE TABLE claimed (kind TEXT, key TEXT, number INTEGER, PRIMARY KEY (kind, key)) STRICT, WITHOUT ROWID;
CREATE TABLE change (
    id INTEGER PRIMARY KEY, replaces TEXT, hashes TEXT,
    key TEXT, kind TEXT, attestation_type TEXT, etag TEXT, record TEXT, digest TEXT,
    at_s INTEGER, tracking_id TEXT, registration_key TEXT, code INTEGER, audit TEXT
) STRICT;
"""


class BulkTables:
    """`ports.BulkStore` on an open store."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def get_enrollments(self, kind: EnrollmentKind, keys: Sequence[str]) -> Mapping[str, Enrollment]:
        """Those of the records that are there, by key; raises CorruptRecord, StoreUnavailable."""
        found = await self._store.read(
            partial(enrollments.load_many, kind=kind, keys=tuple(keys), digest=self._store.digest)
        )
        return {enrollment.key: enrollment for enrollment in found}

    async def apply_enrollments(self, changes: Sequence[EnrollmentChange]) -> Sequence[Exception | None]:
        """Store each change that can be, in one transaction; raises StoreUnavailable."""
        encoded = [encode_change(change, self._store.digest) for change in changes]

        def apply(connection: sqlite3.Connection) -> list[Exception | None]:
            results: list[Exception | None] = []
            trail = []
            for values in encoded:
                try:
                    trail.append(apply_encoded(connection, values, self._store.digest))
                    results.append(None)
                except ProvisiondError as error:
                    results.append(error)
            audit.append(connection, trail)
            return results

        return await self._store.write(apply)


class ImportStaging:
    """`ports.Staging` beside the database of an open store; a context manager."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._given_up = threading.Event()
        self.is_applied = False
        descriptor, name = tempfile.mkstemp(prefix=".import-", dir=store.path.parent)
        os.close(descriptor)
        try:
            # The writer's thread reads it at the end, while this one waits.
            self._connection = sqlite3.connect(name, isolation_level=None, check_same_thread=False)
            for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-8192", "locking_mode=EXCLUSIVE"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.executescript(_SCHEMA)
        finally:
            os.unlink(name)  # noqa: PTH108 - a name of a file that is open

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()

    def claim(self, kind: EnrollmentKind, key: str, number: int) -> int | None:
        """Note which row a key is from; the number of the row that had it before, or None."""
        cursor = self._connection.execute(
            "INSERT INTO claimed VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (kind.value, rows.storable(key), number)
        )
        if cursor.rowcount:
            return None
        found = self._connection.execute(
            "SELECT number FROM claimed WHERE kind = ? AND key = ?", (kind.value, rows.storable(key))
        )
        return int(found.fetchone()[0])

    def add(self, changes: Sequence[EnrollmentChange]) -> None:
        """Have changes wait.

        Raises:
            StoreUnavailable: the disk is full.
        """
        encoded = [encode_change(change, self._store.digest) for change in changes]
        marks = ", ".join("?" * 13)
        try:
            self._connection.execute("BEGIN")
            self._connection.executemany(f"INSERT INTO change VALUES (NULL, {marks})", encoded)  # noqa: S608 - marks
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the rows cannot be kept beside the database: {error}") from error

    async def apply(self) -> None:
        """Store all of them in one transaction, or none.

        Cancelled, it ends when it is known which of the two it was: `is_applied`.

        Raises:
            AlreadyExists, EtagMismatch, RecordNotFound: a record was changed meanwhile.
            StoreUnavailable: nothing was stored.
        """
        writing = asyncio.ensure_future(self._store.write(self._apply))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            self._given_up.set()
            with suppress(ProvisiondError):
                await writing
                self.is_applied = True
            raise
        self.is_applied = True

    def _apply(self, connection: sqlite3.Connection) -> None:
        connection.execute("SAVEPOINT import")
        try:
            for batch in self._batches():
                self._require_wanted()
                audit.append(connection, [apply_encoded(connection, values, self._store.digest) for values in batch])
        except BaseException:
            connection.execute("ROLLBACK TO import")
            connection.execute("RELEASE import")
            raise
        connection.execute("RELEASE import")

    def _require_wanted(self) -> None:
        if self._given_up.is_set():
            raise StoreUnavailable("the import was interrupted; nothing was stored")

    def _batches(self) -> Iterator[list[tuple[Any, ...]]]:
        cursor = self._connection.execute("SELECT * FROM change ORDER BY id")
        while batch := cursor.fetchmany(_BATCH):
            yield [values[1:] for values in batch]


def encode_change(change: EnrollmentChange, digest: rows.RowDigest) -> tuple[Any, ...]:
    """A change as columns, for `apply_encoded`; raises InvalidArgument, StoreError."""
    row = rows.enrollment_row(change.enrollment, digest)
    hashes = json.dumps(enrollments.subject_hashes(change.enrollment))
    return (change.replaces, hashes, *astuple(row), *astuple(rows.audit_row(change.audit)))


def apply_encoded(connection: sqlite3.Connection, values: tuple[Any, ...], digest: rows.RowDigest) -> rows.AuditRow:
    """Create or replace, in the transaction of the caller; the audit row to append.

    Raises:
        AlreadyExists, EtagMismatch, RecordNotFound: nothing was changed.
    """
    replaces, hashes, key, kind, attestation_type, etag, record, stored, *audited = values
    row = rows.EnrollmentRow(
        key=key, kind=kind, attestation_type=attestation_type, etag=etag, record=record, digest=stored
    )
    subject_hashes = tuple(json.loads(hashes))
    if replaces is None:
        enrollments.insert(connection, row, subject_hashes)
    else:
        enrollments.replace(connection, row, subject_hashes, if_match=replaces, digest=digest)
    at_s, tracking_id, registration_key, code, audit_record = audited
    return rows.AuditRow(
        at_s=at_s, tracking_id=tracking_id, registration_key=registration_key, code=code, record=audit_record
    )
