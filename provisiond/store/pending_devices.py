"""Devices that wait for an operator."""

import sqlite3
from collections.abc import Sequence
from functools import partial
from hashlib import sha256

from provisiond.model import AuditRecord, Enrollment, PendingDevice
from provisiond.store import enrollments, pending, rows
from provisiond.store.sqlite import SqliteStore


class PendingDevices:
    """The devices that wait in an open store."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def list(self, *, registration_key: str | None = None, rejected: bool = False) -> Sequence[PendingDevice]:
        """Those that wait, oldest first; raises StoreUnavailable."""
        return await self._store.read(partial(pending.load, registration_key=registration_key, rejected=rejected))

    async def accept(self, enrollment: Enrollment, audit: AuditRecord) -> None:
        """Enroll a device and let nothing wait under its id any more, in one transaction.

        Raises:
            AlreadyExists: the id was enrolled meanwhile.
            StoreUnavailable: nothing was changed.
        """
        row = rows.enrollment_row(enrollment, self._store.digest)

        def apply(connection: sqlite3.Connection) -> None:
            enrollments.insert(connection, row, ())
            connection.execute("DELETE FROM pending_device WHERE registration_key = ?", (row.key,))

        await self._store.write(apply, audit)

    async def reject(self, device: PendingDevice, audit: AuditRecord) -> None:
        """Have a device wait no more; raises RecordNotFound, StoreUnavailable."""
        evidence_hash = sha256(device.evidence).hexdigest()
        apply = partial(pending.reject, registration_key=device.registration_id.lower(), evidence_hash=evidence_hash)
        await self._store.write(apply, audit)
