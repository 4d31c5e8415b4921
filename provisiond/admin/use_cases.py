"""The use cases of operators: enrollments, enrollment groups and registrations, each change with its audit record."""

import dataclasses
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Final

from provisiond.admin.rules import KEY_MAX_SIZE_BYTES, ca_identities, check_enrollment, check_id
from provisiond.errors import AlreadyExists, EtagMismatch, RecordNotFound
from provisiond.model import (
    AuditRecord,
    Enrollment,
    EnrollmentKind,
    Hub,
    ProvisioningStatus,
    Registration,
    RegistrationStatus,
    SymmetricKeyMaterial,
    TpmMaterial,
)
from provisiond.ports import AdminStore, Clock, EnrollmentChange, Entropy
from provisiond.protocols.service_api import format_etag

PAGE_MAX: Final = 1000
"""Records in one page; a caller that wants more asks again."""

_NOUNS: Final = {EnrollmentKind.INDIVIDUAL: "enrollment", EnrollmentKind.GROUP: "enrollment-group"}
BOOKKEEPING: Final = {"etag", "updated_at", "created_at"}
"""What a change is not about."""


class Admin:
    """What an operator may do.

    Args:
        store: where records are.
        clock, entropy: the time, and what keys and etags are made of.
        hubs: the linked hubs, which enrollments may name.
        actor: who asks, for the audit log.
    """

    def __init__(self, *, store: AdminStore, clock: Clock, entropy: Entropy, hubs: Sequence[Hub], actor: str) -> None:
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self._hubs = tuple(hubs)
        self._actor = actor

    # --- enrollments -------------------------------------------------------------------------------------------------

    async def create_enrollment(self, enrollment: Enrollment) -> Enrollment:
        """Store a new enrollment or group; symmetric keys that are empty are generated, 64 bytes each.

        Returns:
            What was stored: with its keys, etag and timestamps.

        Raises:
            InvalidArgument: it cannot be enrolled.
            AlreadyExists: its id, or for a group its CA, is enrolled.
            StoreUnavailable: it was not stored.
        """
        now = self._clock.now()
        enrollment = dataclasses.replace(
            self._completed(enrollment), etag=self._new_etag(), created_at=now, updated_at=now
        )
        check_enrollment(enrollment, hubs=self._hubs, now=now)
        await self._refuse_shared_ca(enrollment)
        reason = f"{enrollment.attestation_type}, {enrollment.provisioning_status}"
        await self._store.create_enrollment(enrollment, self._audit("create", enrollment.kind, enrollment.id, reason))
        return enrollment

    def prepare_enrollment(self, enrollment: Enrollment, *, current: Enrollment | None = None) -> EnrollmentChange:
        """Complete and check an enrollment without storing it: what an import or a plan would do.

        Whether another group has its CA is for the caller.

        Args:
            enrollment: new, or what `current` is to become.
            current: the record that it replaces.

        Raises:
            InvalidArgument: it cannot be enrolled.
        """
        now = self._clock.now()
        prepared = dataclasses.replace(
            self._completed(enrollment),
            etag=self._new_etag(),
            created_at=current.created_at if current else now,
            updated_at=now,
        )
        check_enrollment(prepared, hubs=self._hubs, now=now)
        kind, enrolled_id = enrollment.kind, enrollment.id
        if current is None:
            reason = f"{prepared.attestation_type}, {prepared.provisioning_status}"
            return EnrollmentChange(enrollment=prepared, audit=self._audit("create", kind, enrolled_id, reason))
        reason = f"changed: {_differences(current, prepared)}"
        return EnrollmentChange(
            enrollment=prepared, replaces=current.etag, audit=self._audit("update", kind, enrolled_id, reason)
        )

    def audit_removal(self, enrollment: Enrollment) -> AuditRecord:
        """The audit record of an enrollment that goes because it is not declared any more."""
        return self._audit("delete", enrollment.kind, enrollment.id, "not declared any more")

    def record_of(self, event: str, registration_id: str, reason: str) -> AuditRecord:
        """An audit record of what this operator did to a device."""
        record = self._audit("", EnrollmentKind.INDIVIDUAL, registration_id, reason)
        return dataclasses.replace(record, event=event, enrollment_kind=None, enrollment_id=None)

    async def refuse_shared_ca(self, enrollment: Enrollment) -> None:
        """Refuse a group whose CA another group has; raises AlreadyExists."""
        await self._refuse_shared_ca(enrollment)

    @property
    def now(self) -> datetime:
        """Wall time, aware UTC."""
        return self._clock.now()

    async def get_enrollment(self, kind: EnrollmentKind, enrollment_id: str) -> Enrollment:
        """One enrollment or group.

        Raises:
            InvalidArgument: this cannot be an id.
            RecordNotFound: there is none.
        """
        found = await self._store.get_enrollment(kind, check_id(kind, enrollment_id).key)
        if found is None:
            raise RecordNotFound(f"there is no {_NOUNS[kind].replace('-', ' ')} {enrollment_id}")
        return found

    async def list_enrollments(
        self, kind: EnrollmentKind, *, after: str = "", limit: int = PAGE_MAX
    ) -> Sequence[Enrollment]:
        """A page in the order of lower-case ids, starting after the id `after`; at most `PAGE_MAX`."""
        return await self._store.list_enrollments(kind, after_key=after.lower(), limit=min(limit, PAGE_MAX))

    async def change_enrollment(
        self,
        kind: EnrollmentKind,
        enrollment_id: str,
        change: Callable[[Enrollment], Enrollment],
        *,
        if_match: str | None = None,
    ) -> Enrollment:
        """Replace an enrollment by what `change` makes of it; never over somebody else's change.

        Args:
            kind: individual or group.
            enrollment_id: which.
            change: gets the stored record; empty keys in what it returns are generated. The id stays.
            if_match: etag that the record must have now; None or `*` for any.

        Raises:
            InvalidArgument: the result cannot be enrolled.
            RecordNotFound: there is none.
            EtagMismatch: it has another etag, or was changed meanwhile.
            AlreadyExists: a group's new CA is another group's.
        """
        current = await self.get_enrollment(kind, enrollment_id)
        if if_match not in (None, "*", current.etag):
            raise EtagMismatch(f"{enrollment_id} has changed: its etag is {current.etag} now")
        now = self._clock.now()
        changed = dataclasses.replace(
            self._completed(change(current)),
            kind=kind,
            id=current.id,
            etag=self._new_etag(),
            created_at=current.created_at,
            updated_at=now,
        )
        check_enrollment(changed, hubs=self._hubs, now=now)
        if ca_identities(changed) - ca_identities(current):
            await self._refuse_shared_ca(changed)
        audit = self._audit("update", kind, current.id, f"changed: {_differences(current, changed)}")
        await self._store.update_enrollment(changed, if_match=current.etag, audit=audit)
        return changed

    async def set_provisioning_status(
        self, kind: EnrollmentKind, enrollment_id: str, status: ProvisioningStatus, *, if_match: str | None = None
    ) -> Enrollment:
        """Enable or disable; raises as `change_enrollment`."""

        def change(enrollment: Enrollment) -> Enrollment:
            return dataclasses.replace(enrollment, provisioning_status=status)

        return await self.change_enrollment(kind, enrollment_id, change, if_match=if_match)

    async def delete_enrollment(self, kind: EnrollmentKind, enrollment_id: str, *, if_match: str | None = None) -> None:
        """Remove; registrations that it let in stay, and so do the devices at their hubs.

        Raises:
            RecordNotFound, EtagMismatch: nothing was removed.
        """
        key = check_id(kind, enrollment_id).key
        audit = self._audit("delete", kind, enrollment_id, "")
        await self._store.delete_enrollment(kind, key, if_match=if_match, audit=audit)

    # --- registrations -----------------------------------------------------------------------------------------------

    async def find_registration(self, registration_id: str) -> Registration | None:
        """The record of a registration id, or None.

        Raises:
            InvalidArgument: this cannot be an id.
        """
        return await self._store.get_registration(check_id(EnrollmentKind.INDIVIDUAL, registration_id).key)

    async def get_registration(self, registration_id: str) -> Registration:
        """The record of a registration id.

        Raises:
            InvalidArgument: this cannot be an id.
            RecordNotFound: no device has registered under it.
        """
        found = await self.find_registration(registration_id)
        if found is None:
            raise RecordNotFound(f"no device has registered as {registration_id}")
        return found

    async def list_registrations(
        self,
        *,
        after: str = "",
        limit: int = PAGE_MAX,
        enrollment_id: str | None = None,
        status: RegistrationStatus | None = None,
        hub: str | None = None,
    ) -> Sequence[Registration]:
        """A page in the order of lower-case ids, starting after the id `after`; at most `PAGE_MAX`.

        Args:
            after: id, which need not exist.
            limit: records.
            enrollment_id: only what this enrollment group let in.
            status: only those.
            hub: only those on this hub, by name or host; it need not be in the configuration any more.
        """
        return await self._store.list_registrations(
            after_key=after.lower(),
            limit=min(limit, PAGE_MAX),
            enrollment_id=enrollment_id,
            status=status,
            hub=None if hub is None else self._hub_name(hub),
        )

    def _hub_name(self, label: str) -> str:
        names = [hub.name for hub in self._hubs if label.lower() in (hub.name.lower(), hub.host.lower())]
        return names[0] if names else label

    async def delete_registration(self, registration_id: str, *, if_match: str | None = None) -> None:
        """Remove the record: the device's next registration is its first.

        Raises:
            RecordNotFound, EtagMismatch: nothing was removed.
        """
        key = check_id(EnrollmentKind.INDIVIDUAL, registration_id).key
        audit = dataclasses.replace(
            self._audit("delete", EnrollmentKind.INDIVIDUAL, registration_id, ""),
            event="registration.delete",
            enrollment_kind=None,
            enrollment_id=None,
        )
        await self._store.delete_registration(key, if_match=if_match, audit=audit)

    # --- what they share ---------------------------------------------------------------------------------------------

    def _completed(self, enrollment: Enrollment) -> Enrollment:
        """With the keys that were left out, and with ids as they are compared."""
        material = enrollment.attestation
        if isinstance(material, SymmetricKeyMaterial):
            keys = SymmetricKeyMaterial(
                primary_key=material.primary_key or self._entropy.token_bytes(KEY_MAX_SIZE_BYTES),
                secondary_key=material.secondary_key or self._entropy.token_bytes(KEY_MAX_SIZE_BYTES),
            )
            return dataclasses.replace(enrollment, attestation=keys)
        if isinstance(material, TpmMaterial):
            allowed_ids = tuple(dict.fromkeys(allowed.lower() for allowed in material.allowed_ids))
            return dataclasses.replace(enrollment, attestation=dataclasses.replace(material, allowed_ids=allowed_ids))
        return enrollment

    async def _refuse_shared_ca(self, enrollment: Enrollment) -> None:
        """One CA in two groups would leave open which of them decides."""
        identities = ca_identities(enrollment)
        if not identities:
            return
        async for group in self._groups():
            if group.key != enrollment.key and identities & ca_identities(group):
                raise AlreadyExists(
                    f"enrollment group {group.id} has this CA already; change that group, or delete it first"
                )

    async def _groups(self) -> AsyncIterator[Enrollment]:
        after = ""
        while page := await self._store.list_enrollments(EnrollmentKind.GROUP, after_key=after, limit=PAGE_MAX):
            for group in page:
                yield group
            after = page[-1].key

    def _new_etag(self) -> str:
        return format_etag(self._entropy.token_bytes(16))

    def _audit(self, verb: str, kind: EnrollmentKind, enrolled_id: str, reason: str) -> AuditRecord:
        return AuditRecord(
            tracking_id=str(uuid.UUID(bytes=self._entropy.token_bytes(16), version=4)),
            at=self._clock.now(),
            event=f"{_NOUNS[kind]}.{verb}",
            registration_id=enrolled_id if kind is EnrollmentKind.INDIVIDUAL else "",
            outcome="done",
            reason=reason,
            enrollment_kind=kind,
            enrollment_id=enrolled_id,
            actor=self._actor,
        )


def is_unchanged(before: Enrollment, after: Enrollment) -> bool:
    """Whether two records say the same but for etags, timestamps and who declared them."""
    return _differences(before, after) in ("nothing", "origin")


def _differences(before: Enrollment, after: Enrollment) -> str:
    names = [field.name for field in dataclasses.fields(Enrollment) if field.name not in BOOKKEEPING]
    return ", ".join(name for name in names if getattr(before, name) != getattr(after, name)) or "nothing"
