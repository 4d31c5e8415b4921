"""The enrollments that the configuration declares, and the hubs it has last had, in an open store."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from functools import partial

from provisiond.model import AuditRecord, Enrollment, EnrollmentKind, JSONValue
from provisiond.ports import EnrollmentChange
from provisiond.store import audit, enrollments, rows
from provisiond.store.sqlite import SqliteStore
from provisiond.store.staging import BulkTables, apply_encoded, encode_change

_GROUPS_MAX = 100_000


class DeclaredTables:
    """`admin.declared.DeclaredStore`."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def get_enrollments(self, kind: EnrollmentKind, keys: Sequence[str]) -> Mapping[str, Enrollment]:
        """Those of the records that are there, by key; raises CorruptRecord, StoreUnavailable."""
        return await BulkTables(self._store).get_enrollments(kind, keys)

    async def list_declared(self) -> Sequence[Enrollment]:
        """Every record that was declared in the configuration; raises CorruptRecord, StoreUnavailable."""
        return await self._store.read(partial(enrollments.load_declared, digest=self._store.digest))

    async def list_groups(self) -> Sequence[Enrollment]:
        """Every enrollment group; raises CorruptRecord, StoreUnavailable."""
        return await self._store.list_enrollments(EnrollmentKind.GROUP, limit=_GROUPS_MAX)

    async def apply_declared(
        self, changes: Sequence[EnrollmentChange], removals: Sequence[tuple[Enrollment, AuditRecord]]
    ) -> None:
        """Store all of it in one transaction, or nothing.

        Raises:
            AlreadyExists, EtagMismatch, RecordNotFound: somebody was first.
            StoreUnavailable: nothing was stored.
        """
        digest = self._store.digest
        encoded = [encode_change(change, digest) for change in changes]
        trail = [rows.audit_row(record) for _, record in removals]

        def apply(connection: sqlite3.Connection) -> None:
            connection.execute("SAVEPOINT declared")
            try:
                for enrollment, _ in removals:  # first, so that a CA may move from one group to another
                    enrollments.remove(
                        connection, enrollment.kind, enrollment.key, if_match=enrollment.etag, digest=digest
                    )
                changed = [apply_encoded(connection, values, digest) for values in encoded]
                audit.append(connection, [*trail, *changed])
            except BaseException:
                connection.execute("ROLLBACK TO declared")
                connection.execute("RELEASE declared")
                raise
            connection.execute("RELEASE declared")

        await self._store.write(apply)

    async def get_hubs(self) -> Mapping[str, Mapping[str, JSONValue]] | None:
        """The hubs that a daemon has last taken over, as described; None before the first; raises StoreUnavailable."""
        found = await self._store.read(
            lambda connection: connection.execute("SELECT value FROM meta WHERE name = 'hubs'").fetchone()
        )
        hubs: Mapping[str, Mapping[str, JSONValue]] | None = json.loads(found[0]) if found else None
        return hubs

    async def put_hubs(self, hubs: Mapping[str, Mapping[str, JSONValue]]) -> None:
        """Say which hubs were taken over; raises StoreUnavailable."""
        text = json.dumps(dict(hubs))
        put = (
            "INSERT INTO meta (name, value) VALUES ('hubs', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        )
        await self._store.write(lambda connection: connection.execute(put, (text,)).rowcount)
