"""What operators ask of the store, on SQLite."""

from collections.abc import Sequence
from functools import partial

from provisiond.model import AuditRecord, Enrollment, EnrollmentKind, Registration, RegistrationStatus
from provisiond.store import audit, enrollments, registrations, rows
from provisiond.store.hops import Hops


class SqliteAdminStore(Hops):
    """`ports.AdminStore` on one file."""

    async def create_enrollment(self, enrollment: Enrollment, audit: AuditRecord) -> None:
        """Insert; raises AlreadyExists, InvalidArgument (a group's certificate), StoreUnavailable."""
        row = rows.enrollment_row(enrollment, self._digest)
        hashes = enrollments.subject_hashes(enrollment)
        await self._mutate(partial(enrollments.insert, row=row, hashes=hashes), audit)

    async def get_enrollment(self, kind: EnrollmentKind, key: str) -> Enrollment | None:
        """One record, or None; raises CorruptRecord, StoreUnavailable."""
        return await self._ask(partial(enrollments.load, kind=kind, key=key, digest=self._digest))

    async def list_enrollments(self, kind: EnrollmentKind, *, after_key: str = "", limit: int) -> Sequence[Enrollment]:
        """A page in key order, starting after `after_key`; raises CorruptRecord, StoreUnavailable."""
        return await self._ask(
            partial(enrollments.page, kind=kind, after_key=after_key, limit=limit, digest=self._digest)
        )

    async def update_enrollment(self, enrollment: Enrollment, *, if_match: str | None, audit: AuditRecord) -> None:
        """Replace; raises RecordNotFound, EtagMismatch, InvalidArgument (a group's certificate), StoreUnavailable."""
        row = rows.enrollment_row(enrollment, self._digest)
        hashes = enrollments.subject_hashes(enrollment)
        await self._mutate(
            partial(enrollments.replace, row=row, hashes=hashes, if_match=if_match, digest=self._digest), audit
        )

    async def delete_enrollment(
        self, kind: EnrollmentKind, key: str, *, if_match: str | None, audit: AuditRecord
    ) -> None:
        """Remove; raises RecordNotFound, EtagMismatch, StoreUnavailable."""
        await self._mutate(
            partial(enrollments.remove, kind=kind, key=key, if_match=if_match, digest=self._digest), audit
        )

    async def get_registration(self, key: str) -> Registration | None:
        """One record, or None; raises CorruptRecord, StoreUnavailable."""
        return await self._ask(partial(registrations.load, key=key, digest=self._digest))

    async def list_registrations(
        self,
        *,
        after_key: str = "",
        limit: int,
        enrollment_id: str | None = None,
        status: RegistrationStatus | None = None,
        hub: str | None = None,
    ) -> Sequence[Registration]:
        """A page in key order, starting after `after_key`; raises CorruptRecord, StoreUnavailable."""
        return await self._ask(
            partial(
                registrations.page,
                after_key=after_key,
                limit=limit,
                enrollment_key=None if enrollment_id is None else enrollment_id.lower(),
                status=status,
                hub=hub,
                digest=self._digest,
            )
        )

    async def delete_registration(self, key: str, *, if_match: str | None, audit: AuditRecord) -> None:
        """Remove; raises RecordNotFound, EtagMismatch, StoreUnavailable."""
        await self._mutate(partial(registrations.remove, key=key, if_match=if_match, digest=self._digest), audit)

    async def get_audit(self, tracking_id: str) -> AuditRecord | None:
        """The newest row of a tracking id, or None; raises CorruptRecord, StoreUnavailable."""
        return await self._ask(partial(audit.load, tracking_id=tracking_id))

    async def list_audit(
        self, *, after: int = 0, limit: int, registration_key: str | None = None
    ) -> Sequence[tuple[int, AuditRecord]]:
        """Rows with their sequence numbers, oldest first; raises CorruptRecord, StoreUnavailable."""
        return await self._ask(partial(audit.page, after=after, limit=limit, registration_key=registration_key))

    async def count_registrations(self) -> dict[str, int]:
        """Registrations by status, from counters."""
        totals: dict[str, int] = {}
        for status, _, total in await self._ask(registrations.count):
            totals[status] = totals.get(status, 0) + total
        return totals

    async def count_assigned_by_hub(self) -> dict[str, int]:
        """Assigned and assigning registrations by hub name, from counters."""
        totals: dict[str, int] = {}
        for status, hub, total in await self._ask(registrations.count):
            if hub and status in (RegistrationStatus.ASSIGNED, RegistrationStatus.ASSIGNING):
                totals[hub] = totals.get(hub, 0) + total
        return totals
