"""What operators and their imports ask of the store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from provisiond.model import AuditRecord, Enrollment, EnrollmentKind, Registration, RegistrationStatus


class AdminStore(Protocol):
    """What operators need of the store. `key` arguments are lower-case ids."""

    async def create_enrollment(self, enrollment: Enrollment, audit: AuditRecord) -> None:
        """Insert; raises AlreadyExists, StoreUnavailable."""
        ...

    async def get_enrollment(self, kind: EnrollmentKind, key: str) -> Enrollment | None:
        """One record, or None."""
        ...

    async def list_enrollments(self, kind: EnrollmentKind, *, after_key: str = "", limit: int) -> Sequence[Enrollment]:
        """A page in key order, starting after `after_key`."""
        ...

    async def update_enrollment(self, enrollment: Enrollment, *, if_match: str | None, audit: AuditRecord) -> None:
        """Replace; `if_match` None or `*` means whatever is there. Raises RecordNotFound, EtagMismatch."""
        ...

    async def delete_enrollment(
        self, kind: EnrollmentKind, key: str, *, if_match: str | None, audit: AuditRecord
    ) -> None:
        """Remove; raises RecordNotFound, EtagMismatch."""
        ...

    async def get_registration(self, key: str) -> Registration | None:
        """One record, or None."""
        ...

    async def list_registrations(
        self,
        *,
        after_key: str = "",
        limit: int,
        enrollment_id: str | None = None,
        status: RegistrationStatus | None = None,
        hub: str | None = None,
    ) -> Sequence[Registration]:
        """A page in key order, starting after `after_key`; filters are exact (enrollment id without case)."""
        ...

    async def delete_registration(self, key: str, *, if_match: str | None, audit: AuditRecord) -> None:
        """Remove; raises RecordNotFound, EtagMismatch."""
        ...

    async def get_audit(self, tracking_id: str) -> AuditRecord | None:
        """The row of a tracking id, or None."""
        ...

    async def list_audit(
        self, *, after: int = 0, limit: int, registration_key: str | None = None
    ) -> Sequence[tuple[int, AuditRecord]]:
        """Rows with their sequence numbers, oldest first, starting after sequence `after`."""
        ...

    async def count_registrations(self) -> dict[str, int]:
        """Registrations by status."""
        ...

    async def count_assigned_by_hub(self) -> dict[str, int]:
        """Assigned and assigning registrations by hub name."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollmentChange:
    """An enrollment to be created or replaced, ready to be stored.

    Args:
        enrollment: complete, checked, with its new etag.
        replaces: etag of the record that it replaces; None for a new one.
        audit: row to append.
    """

    enrollment: Enrollment
    replaces: str | None = None
    audit: AuditRecord


class BulkStore(Protocol):
    """What an import needs of the store."""

    async def get_enrollments(self, kind: EnrollmentKind, keys: Sequence[str]) -> Mapping[str, Enrollment]:
        """Those of the records that are there, by key."""
        ...

    async def apply_enrollments(self, changes: Sequence[EnrollmentChange]) -> Sequence[Exception | None]:
        """Store each change that can be, in few transactions; what stopped each of the others.

        Raises:
            StoreUnavailable: nothing is known of what was stored.
        """
        ...


class Staging(Protocol):
    """Where changes wait until all of them are known to be right."""

    def claim(self, kind: EnrollmentKind, key: str, number: int) -> int | None:
        """Note which row a key is from; the number of the row that had it before, or None."""
        ...

    def add(self, changes: Sequence[EnrollmentChange]) -> None:
        """Have changes wait."""
        ...

    async def apply(self) -> None:
        """Store all of them in one transaction, or none.

        Raises:
            AlreadyExists, EtagMismatch, RecordNotFound: a record was changed meanwhile.
            StoreUnavailable: nothing was stored.
        """
        ...
