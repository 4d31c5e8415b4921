"""Configuration as code: making the enrollments what the configuration declares, all of them or nothing."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from provisiond.admin.rules import CaIdentity, ca_identities, check_enrollment
from provisiond.admin.use_cases import BOOKKEEPING, Admin
from provisiond.errors import AdminError, AlreadyExists
from provisiond.model import AuditRecord, Enrollment, EnrollmentKind, Hub, SymmetricKeyMaterial, TpmMaterial
from provisiond.ports import EnrollmentChange

CONFIG: Final = "config"
_ANY_KEY: Final = bytes(64)


class PlannedAction(StrEnum):
    """What is to be done."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


Removal = tuple[Enrollment, AuditRecord]
"""An enrollment that is not declared any more, and the record of its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One step of a plan.

    Args:
        before: as it is, None for what is to be created.
        after: as it is to be, None for what is to go.
        differences: names of what changes.
    """

    action: PlannedAction
    before: Enrollment | None = None
    after: Enrollment | None = None
    change: EnrollmentChange | None = None
    removal: Removal | None = None
    differences: tuple[str, ...] = ()

    @property
    def subject(self) -> Enrollment:
        """What it is about."""
        found = self.after or self.before
        assert found is not None  # noqa: S101 - one of the two is always there
        return found


class DeclaredStore(Protocol):
    """What config as code needs of the store."""

    async def get_enrollments(self, kind: EnrollmentKind, keys: Sequence[str]) -> Mapping[str, Enrollment]:
        """Those of the records that are there, by key."""
        ...

    async def list_declared(self) -> Sequence[Enrollment]:
        """Every record that was declared in the configuration."""
        ...

    async def list_groups(self) -> Sequence[Enrollment]:
        """Every enrollment group."""
        ...

    async def apply_declared(self, changes: Sequence[EnrollmentChange], removals: Sequence[Removal]) -> None:
        """Store all of it in one transaction, or nothing; raises EtagMismatch and the like when somebody was first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """An enrollment as the configuration has it; keys that are to be generated are empty.

    Args:
        where: file and line, for the operator.
        sets_status: whether the configuration says if it is enabled; else an operator's word holds.
    """

    enrollment: Enrollment
    where: str
    sets_status: bool = True


class DeclarationError(AlreadyExists):
    """Declarations cannot be had; each line of the message begins with file and line of one."""


def problems_of(declarations: Sequence[Declaration], *, hubs: Sequence[Hub], now: datetime) -> Sequence[str]:
    """What is wrong with declarations by themselves, whatever is enrolled; each line begins with file and line.

    Args:
        declarations: keys that are to be generated are empty.
        hubs: the linked hubs.
        now: aware UTC; certificates are judged at this time.
    """
    problems: list[str] = []
    owners: dict[CaIdentity, str] = {}
    for one in declarations:
        enrollment = one.enrollment
        if isinstance(material := enrollment.attestation, SymmetricKeyMaterial):
            keys = (material.primary_key or _ANY_KEY, material.secondary_key or _ANY_KEY)
            attestation = SymmetricKeyMaterial(primary_key=keys[0], secondary_key=keys[1])
            enrollment = replace(enrollment, attestation=attestation)
        try:
            check_enrollment(enrollment, hubs=hubs, now=now)
        except AdminError as error:
            problems.append(f"{one.where}: {error}")
            continue
        for identity in ca_identities(enrollment):
            owner = owners.setdefault(identity, enrollment.id)
            if owner != enrollment.id:
                problems.append(f"{one.where}: enrollment group {owner} has the CA of {enrollment.id} already")
    return problems


async def plan(
    admin: Admin, store: DeclaredStore, declarations: Sequence[Declaration], *, adopt: bool = False
) -> tuple[Planned, ...]:
    """What has to be done so that the enrollments are what the configuration declares; nothing is stored.

    Args:
        admin: checks and completes enrollments.
        store: what there is.
        declarations: what there shall be; records that were declared before and are not any more go.
        adopt: take over enrollments of the same id that were made by hand, instead of refusing.

    Raises:
        DeclarationError: an enrollment made by hand is in the way, a CA would have two groups, or it cannot
            be enrolled.
    """
    steps: list[Planned] = []
    problems: list[str] = []
    kept: set[tuple[EnrollmentKind, str]] = set()
    for kind in EnrollmentKind:
        of_kind = [one for one in declarations if one.enrollment.kind is kind]
        known = await store.get_enrollments(kind, [one.enrollment.key for one in of_kind])
        for one in of_kind:
            kept.add((kind, one.enrollment.key))
            try:
                steps += _step(admin, one, known.get(one.enrollment.key), adopt=adopt)
            except AdminError as error:
                problems.append(f"{one.where}: {error}")
    if problems:
        raise DeclarationError("\n".join(problems))
    for gone in await store.list_declared():
        if (gone.kind, gone.key) not in kept:
            removal = (gone, admin.audit_removal(gone))
            steps.append(Planned(action=PlannedAction.DELETE, before=gone, removal=removal))
    await _refuse_shared_cas(store, steps, declarations)
    return tuple(steps)


async def apply(store: DeclaredStore, steps: Sequence[Planned]) -> None:
    """Carry out a plan, in one transaction.

    Raises:
        EtagMismatch, AlreadyExists, RecordNotFound: something was changed since it was made; nothing was stored.
        StoreUnavailable: nothing was stored.
    """
    if steps:
        changes = [step.change for step in steps if step.change is not None]
        await store.apply_declared(changes, [step.removal for step in steps if step.removal is not None])


def _step(admin: Admin, one: Declaration, current: Enrollment | None, *, adopt: bool) -> Iterable[Planned]:
    if current is None:
        change = admin.prepare_enrollment(one.enrollment)
        return [Planned(action=PlannedAction.CREATE, after=change.enrollment, change=change)]
    if current.origin != CONFIG and not adopt:
        raise AlreadyExists(
            f"{current.id} is enrolled by hand; delete it, or take it over with `provisiond apply --adopt`"
        )
    change = admin.prepare_enrollment(_merged(one, current), current=current)
    differences = _differences(current, change.enrollment)
    if not differences:
        return []
    return [
        Planned(
            action=PlannedAction.UPDATE,
            before=current,
            after=change.enrollment,
            change=change,
            differences=differences,
        )
    ]


def _merged(one: Declaration, current: Enrollment) -> Enrollment:
    """The declaration, with what it leaves to others: generated keys, a recorded storage root key, the status."""
    enrollment = replace(one.enrollment, id=current.id)
    if not one.sets_status:
        enrollment = replace(enrollment, provisioning_status=current.provisioning_status)
    new, old = enrollment.attestation, current.attestation
    if isinstance(new, SymmetricKeyMaterial) and isinstance(old, SymmetricKeyMaterial):
        new = SymmetricKeyMaterial(
            primary_key=new.primary_key or old.primary_key, secondary_key=new.secondary_key or old.secondary_key
        )
    elif isinstance(new, TpmMaterial) and isinstance(old, TpmMaterial) and new.endorsement_key == old.endorsement_key:
        new = replace(new, storage_root_key=new.storage_root_key or old.storage_root_key)
    return replace(enrollment, attestation=new)


def _differences(before: Enrollment, after: Enrollment) -> tuple[str, ...]:
    names = [field.name for field in dataclasses.fields(Enrollment) if field.name not in BOOKKEEPING]
    return tuple(name for name in names if getattr(before, name) != getattr(after, name))


async def _refuse_shared_cas(
    store: DeclaredStore, steps: Sequence[Planned], declarations: Sequence[Declaration]
) -> None:
    """One CA in two groups would leave open which of them decides; as the groups will be after the plan."""
    if not any(ca_identities(step.after) for step in steps if step.after is not None):
        return
    after = {group.key: group for group in await store.list_groups()}
    for step in steps:
        if step.subject.kind is EnrollmentKind.GROUP:
            after.pop(step.subject.key, None)
            if step.after is not None:
                after[step.subject.key] = step.after
    places = {one.enrollment.key: one.where for one in declarations if one.enrollment.kind is EnrollmentKind.GROUP}
    owners: dict[CaIdentity, str] = {}
    # Groups made by hand first, so that the error names the line of the declared one.
    for group in sorted(after.values(), key=lambda group: group.key in places):
        for identity in ca_identities(group):
            owner = owners.setdefault(identity, group.id)
            if owner != group.id:
                where = places.get(group.key, "the database")
                raise DeclarationError(f"{where}: enrollment group {owner} has the CA of {group.id} already")
