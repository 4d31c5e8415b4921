"""What the pipeline asks of the store."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from provisiond.model import AuditRecord, Enrollment, PendingDevice, Registration, Retirement


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFacts:
    """What the store knows about a request; the pipeline adds the hubs."""

    individual: Enrollment | None = None
    groups: tuple[Enrollment, ...] = ()
    registration: Registration | None = None
    endorsement_key_owner: str | None = None
    registered_group: Enrollment | None = None
    draining_hubs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class FactsQuery:
    """What a request claims, as the store looks it up.

    Args:
        registration_key: lower-case registration id.
        issuer_hashes: SHA-256 of the DER Name of the subject and of the issuer of every presented certificate; a CA
            group is found when its certificate's subject hash is among them.
        symmetric_key_groups: also return the symmetric-key groups.
        tpm_groups: also return the TPM groups.
        endorsement_key_hash: also say which registration has this endorsement key.
        registered_group: also return the group that the registration says let it in.
    """

    registration_key: str
    issuer_hashes: frozenset[bytes] = frozenset()
    symmetric_key_groups: bool = False
    tpm_groups: bool = False
    endorsement_key_hash: bytes | None = None
    registered_group: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One decision's writes: they are committed together or not at all.

    Args:
        registration: record to insert (expected_version 0) or replace.
        expected_version: the version that was read.
        audit: row to append.
        guard: an enrollment that must still be there with this etag; otherwise it is a VersionConflict.
        retire: an identity that is to go from a hub. A retirement of the identity that the registration has now, should
            there be one, is void with this write.
        made_at: when the registration was made at its hub: what it has left elsewhere stays for its grace from then on.
    """

    registration: Registration | None = None
    expected_version: int = 0
    audit: AuditRecord | None = None
    guard: Enrollment | None = None
    retire: Retirement | None = None
    made_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChallenge:
    """A challenge that was taken out: it serves this one try. Whether it has expired is the caller's to judge.

    Args:
        challenge: what `put_challenge` was given, a JSON text.
        expires_at: aware UTC.
    """

    challenge: bytes
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingLimits:
    """How many unknown devices may wait for an operator, and how long after they were last seen."""

    devices: int = 1000
    ttl_s: float = 7 * 86400.0


class DecisionStore(Protocol):
    """What the pipeline needs of the store."""

    async def facts(self, query: FactsQuery) -> StoredFacts:
        """Read everything about a request in one transaction.

        Raises:
            StoreUnavailable: the database cannot be read.
        """
        ...

    async def commit(self, write: Write) -> None:
        """Make a decision durable: on disk (synchronous=FULL) when this returns.

        Writes in flight together share one transaction; a conflict in one does not touch the others.

        Raises:
            VersionConflict: the record's version is not `expected_version`; nothing of this write was stored.
            StoreUnavailable: nothing of this write was stored.
        """
        ...

    async def put_challenge(self, *, key: str, challenge: bytes, expires_at: datetime) -> None:
        """Keep a challenge under a key of the caller's; it replaces an older one of the same key.

        Raises:
            StoreUnavailable: it was not stored.
        """
        ...

    async def take_challenge(self, key: str) -> StoredChallenge | None:
        """Take the challenge of a key out, durably, so that it serves one try, right or wrong.

        Raises:
            StoreUnavailable: it may still be there; nothing may be verified with it.
        """
        ...

    async def purge_challenges(self, now: datetime) -> int:
        """Forget the challenges that nobody can answer any more; how many are left, of every daemon's.

        Raises:
            StoreUnavailable: nothing is known.
        """
        ...

    async def put_pending(self, device: PendingDevice, *, limits: PendingLimits) -> bool:
        """Have an unknown device wait for an operator; False when there is no room for another.

        Raises:
            StoreUnavailable: it was not stored.
        """
        ...
