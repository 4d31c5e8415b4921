"""Importing enrollments: each row judged, and all of them stored or none; or as many as can be, when so asked."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import islice
from typing import Any, Final

from provisiond.admin.rules import CaIdentity, ca_identities
from provisiond.admin.use_cases import Admin, is_unchanged
from provisiond.errors import AdminError, AlreadyExists, EtagMismatch, InvalidArgument
from provisiond.model import Enrollment, EnrollmentKind
from provisiond.ports import BulkStore, EnrollmentChange, Staging
from provisiond.protocols.bulk import Row
from provisiond.protocols.service_api import enrollment_from_json

BATCH: Final = 500
"""Rows judged, and stored, together: one transaction of the store."""

_ID_NAMES: Final = {EnrollmentKind.INDIVIDUAL: "registrationId", EnrollmentKind.GROUP: "enrollmentGroupId"}


class OnConflict(StrEnum):
    """What becomes of a row whose id is enrolled already, and differently."""

    FAIL = "fail"
    SKIP = "skip"
    UPDATE = "update"


class Action(StrEnum):
    """What a row asks for. `refuse`: nothing, for it cannot be had."""

    CREATE = "create"
    UPDATE = "update"
    UNCHANGED = "unchanged"
    SKIP = "skip"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of a row.

    Args:
        row: the record of the file.
        id: as the row has it; empty when it has none.
        action: what it asks for.
        reason: of a refusal, for the operator.
        is_conflict: refused because of what is there already.
    """

    row: Row
    id: str = ""
    action: Action
    reason: str = ""
    is_conflict: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """How to import.

    Args:
        dry_run: judge and store nothing.
        keep_going: store what can be, batch by batch; otherwise all or nothing.
    """

    on_conflict: OnConflict = OnConflict.FAIL
    dry_run: bool = False
    keep_going: bool = False


@dataclass(slots=True, kw_only=True)
class ImportResult:
    """How an import ended.

    Args:
        counts: rows by action.
        conflicts: refused rows whose id, or CA, is there already.
        applied: whether anything was stored, or nothing had to be.
    """

    counts: Counter[Action] = field(default_factory=Counter)
    conflicts: int = 0
    applied: bool = False

    @property
    def rows(self) -> int:
        """All of them."""
        return self.counts.total()


@dataclass(frozen=True, slots=True)
class _Judged:
    verdict: Verdict
    change: EnrollmentChange | None = None


class Importer:
    """One import.

    Args:
        admin: checks and completes enrollments.
        store: where they go.
        staging: where they wait, and which keys the file has had.
        options: how.
        report: hears of each verdict, in the order of the file.
    """

    def __init__(
        self,
        *,
        admin: Admin,
        store: BulkStore,
        staging: Staging,
        options: ImportOptions,
        report: Callable[[Verdict], object],
    ) -> None:
        self._admin = admin
        self._store = store
        self._staging = staging
        self._options = options
        self._report = report
        self._cas: dict[CaIdentity, str] = {}

    async def run(self, rows: Iterable[Row]) -> ImportResult:
        """Import the rows of a file.

        Raises:
            InvalidArgument: the file cannot be read on.
            AlreadyExists, EtagMismatch, RecordNotFound: a record was changed meanwhile; nothing was stored.
            StoreError: the store failed; of an import that keeps going, earlier batches are stored.
        """
        result = ImportResult()
        source = iter(rows)
        while batch := list(islice(source, BATCH)):
            judged = await self._judge_batch(batch)
            if self._options.keep_going and not self._options.dry_run:
                judged = await self._store_batch(judged)
            elif not self._options.dry_run:
                self._staging.add([one.change for one in judged if one.change is not None])
            for one in judged:
                result.counts[one.verdict.action] += 1
                result.conflicts += one.verdict.is_conflict
                self._report(one.verdict)
        if self._options.dry_run:
            return result
        if not self._options.keep_going:
            if result.counts[Action.REFUSE]:
                return result
            await self._staging.apply()
        result.applied = True
        return result

    async def _judge_batch(self, batch: Sequence[Row]) -> list[_Judged]:
        existing: dict[tuple[EnrollmentKind, str], Enrollment] = {}
        for kind in EnrollmentKind:
            keys = [_id(row).lower() for row in batch if row.body is not None and _kind(row) is kind]
            if keys:
                found = await self._store.get_enrollments(kind, keys)
                existing.update({(kind, key): enrollment for key, enrollment in found.items()})
        return [await self._judge(row, existing) for row in batch]

    async def _judge(self, row: Row, existing: dict[tuple[EnrollmentKind, str], Enrollment]) -> _Judged:
        if row.error is not None or row.body is None:
            return _refused(row, row.error or "it is empty")
        kind, enrolled_id = _kind(row), _id(row)
        current = existing.get((kind, enrolled_id.lower()))
        try:
            parsed = enrollment_from_json(kind, row.body, now=self._admin.now, current=current)
            earlier = self._staging.claim(kind, parsed.key, row.number)
            if earlier is not None:
                raise InvalidArgument(f"row {earlier} has this id already (case does not matter)")
            if current is not None:
                return self._judge_known(row, current, replace(parsed, id=current.id, origin=current.origin))
            change = self._admin.prepare_enrollment(parsed)
            await self._claim_ca(change.enrollment)
        except AdminError as error:
            return _refused(row, str(error), is_conflict=isinstance(error, AlreadyExists | EtagMismatch))
        return _Judged(Verdict(row=row, id=enrolled_id, action=Action.CREATE), change)

    def _judge_known(self, row: Row, current: Enrollment, parsed: Enrollment) -> _Judged:
        change = self._admin.prepare_enrollment(parsed, current=current)
        if is_unchanged(current, change.enrollment):
            return _Judged(Verdict(row=row, id=current.id, action=Action.UNCHANGED))
        match self._options.on_conflict:
            case OnConflict.SKIP:
                return _Judged(Verdict(row=row, id=current.id, action=Action.SKIP))
            case OnConflict.UPDATE:
                return _Judged(Verdict(row=row, id=current.id, action=Action.UPDATE), change)
            case OnConflict.FAIL:
                raise AlreadyExists("it is enrolled already, and differently; --on-conflict skip or update")

    async def _claim_ca(self, enrollment: Enrollment) -> None:
        """A CA vouches for one group, in the database and in the file."""
        await self._admin.refuse_shared_ca(enrollment)
        for identity in ca_identities(enrollment):
            owner = self._cas.setdefault(identity, enrollment.id)
            if owner != enrollment.id:
                raise AlreadyExists(f"enrollment group {owner} of this file has this CA already")

    async def _store_batch(self, judged: list[_Judged]) -> list[_Judged]:
        changes = [one.change for one in judged if one.change is not None]
        errors = dict(
            zip(map(id, changes), await self._store.apply_enrollments(changes) if changes else (), strict=True)
        )
        settled = []
        for one in judged:
            error = errors.get(id(one.change)) if one.change is not None else None
            settled.append(one if error is None else _refused(one.verdict.row, str(error), is_conflict=True))
        return settled


def _refused(row: Row, reason: str, *, is_conflict: bool = False) -> _Judged:
    return _Judged(Verdict(row=row, id=_id(row), action=Action.REFUSE, reason=reason, is_conflict=is_conflict))


def _kind(row: Row) -> EnrollmentKind:
    body: dict[str, Any] = row.body or {}
    return EnrollmentKind.GROUP if _ID_NAMES[EnrollmentKind.GROUP] in body else EnrollmentKind.INDIVIDUAL


def _id(row: Row) -> str:
    found = row.id if row.body is None else row.body.get(_ID_NAMES[_kind(row)])
    return found if isinstance(found, str) else ""
