"""What the pipeline asks of the store, on SQLite."""

from datetime import datetime
from functools import partial
from typing import Final

from provisiond.model import PendingDevice, Registration, RegistrationStatus
from provisiond.ports import FactsQuery, PendingLimits, StoredChallenge, StoredFacts, Write
from provisiond.store import challenges, pending, rows
from provisiond.store.hops import Hops
from provisiond.store.writer import DecisionItem, MutationItem

_AT_A_HUB: Final = (RegistrationStatus.ASSIGNED, RegistrationStatus.ASSIGNING)


class SqliteDecisionStore(Hops):
    """`ports.DecisionStore` on one file."""

    async def facts(self, query: FactsQuery) -> StoredFacts:
        """Read everything about a request in one statement; questions that wait together share it.

        Raises:
            CorruptRecord: a record that the answer needs is damaged.
            StoreUnavailable: the database cannot be read.
        """
        return await self._reads.call(query)

    async def commit(self, write: Write) -> None:
        """Make a decision durable: on disk (synchronous=FULL) when this returns.

        Raises:
            VersionConflict: the record's version is not `expected_version`; nothing of this write was stored.
            StoreUnavailable: nothing was acknowledged. After a disk failure the write may turn out to be there when
                the database is opened again; asking again is safe.
            StoreError: a value cannot be stored.
        """
        registration, record = write.registration, write.audit
        await self._writes.call(
            DecisionItem(
                registration=None if registration is None else rows.registration_row(registration, self._digest),
                expected_version=write.expected_version,
                audit=None if record is None else rows.audit_row(record),
                guard=None if write.guard is None else rows.enrollment_guard(write.guard),
                identity=_identity_of(registration),
                retire=write.retire,
                made_at=write.made_at,
            )
        )

    async def put_challenge(self, *, key: str, challenge: bytes, expires_at: datetime) -> None:
        """Keep a challenge, at most an hour; raises StoreUnavailable."""
        put = partial(challenges.put, key=key, challenge=challenge, expires_at=expires_at)
        await self._writes.call(MutationItem(apply=put))

    async def take_challenge(self, key: str) -> StoredChallenge | None:
        """Take a challenge out, durably; raises StoreUnavailable."""
        taken: StoredChallenge | None = await self._writes.call(MutationItem(apply=partial(challenges.take, key=key)))
        return taken

    async def purge_challenges(self, now: datetime) -> int:
        """Forget the challenges that have expired, count those that are left; raises StoreUnavailable."""
        left: int = await self._writes.call(MutationItem(apply=partial(challenges.purge, now=now)))
        return left

    async def put_pending(self, device: PendingDevice, *, limits: PendingLimits) -> bool:
        """Have an unknown device wait for an operator; raises StoreUnavailable."""
        stored: bool = await self._writes.call(MutationItem(apply=partial(pending.put, device=device, limits=limits)))
        return stored


def _identity_of(registration: Registration | None) -> tuple[str, str] | None:
    """Hub and device id of the identity that a registration needs."""
    if registration is None or registration.hub is None or registration.status not in _AT_A_HUB:
        return None
    return rows.storable(registration.hub), rows.storable(registration.device_id)
