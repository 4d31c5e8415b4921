"""What the pipeline asks before it decides: one group of questions, one statement, one snapshot."""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

from provisiond.errors import CorruptRecord
from provisiond.model import AttestationType, Enrollment, EnrollmentKind, Registration
from provisiond.ports import FactsQuery, StoredFacts
from provisiond.store import rows
from provisiond.store.connection import transaction
from provisiond.store.snapshot import Snapshot, json_array

T = TypeVar("T")

_GROUPS: Final = """
SELECT key, digest, record FROM enrollment
    WHERE kind = 'group' AND key IN (SELECT value FROM json_each(?)) ORDER BY key
"""

_SHARED_GROUPS: Final = """
SELECT key, digest, record FROM enrollment INDEXED BY enrollment_group
    WHERE kind = 'group' AND attestation_type <> 'x509' ORDER BY key
"""

_GROUP_KEYS: Final = """
SELECT key FROM enrollment INDEXED BY enrollment_group WHERE kind = 'group'
"""

_GROUP_KEYS_AGAIN: Final = """
SELECT key FROM enrollment INDEXED BY enrollment_again WHERE kind = 'group'
"""

_GROUPS_REMEMBERED_MAX: Final = 4096
"""Parsed CA groups, about 4 KiB each: more than a site has, and bounded."""

Groups = tuple[Enrollment | CorruptRecord, ...]


class FactsReader:
    """Answers groups of questions; used on one connection's thread only.

    Individual enrollments and registrations are read every time. A CA group is parsed once as long as its row's
    digest is the same; the symmetric-key and TPM groups, which every such request needs all of, are read once as long
    as the generation, which triggers on the enrollment table bump, is the same. Both are compared within the
    statement that answers the question, so nothing is ever older than the question.
    """

    def __init__(self, digest: rows.RowDigest) -> None:
        self._digest = digest
        self._remembered: dict[bytes, tuple[bytes, Enrollment | CorruptRecord]] = {}
        self._generation: int | None = None
        self._symmetric_key: Groups = ()
        self._tpm: Groups = ()

    def read(self, connection: sqlite3.Connection, queries: Sequence[FactsQuery]) -> list[StoredFacts | Exception]:
        """Answer each question, or say why it cannot be: a damaged row harms only those who need it.

        Raises:
            sqlite3.Error: the database cannot be read.
        """
        snapshot = Snapshot(connection, queries)
        if not self._knows(snapshot):
            with transaction(connection, "DEFERRED"):  # the groups and what refers to them, of one state
                snapshot = Snapshot(connection, queries)
                self._learn(connection, snapshot)
        return [self._answer(snapshot, query) for query in queries]

    def _knows(self, snapshot: Snapshot) -> bool:
        if snapshot.wants_shared and snapshot.generation != self._generation:
            return False
        return all(self._remembered.get(key, (b"",))[0] == digest for key, digest in snapshot.groups.items())

    def _learn(self, connection: sqlite3.Connection, snapshot: Snapshot) -> None:
        if len(self._remembered) > _GROUPS_REMEMBERED_MAX:
            self._remembered.clear()
        missing = [key for key, digest in snapshot.groups.items() if self._remembered.get(key, (b"",))[0] != digest]
        for key, digest, record in connection.execute(_GROUPS, (json_array(missing),)):
            self._remembered[key] = (digest, self._group(key, digest, record))
        if snapshot.wants_shared and snapshot.generation != self._generation:
            groups = [self._group(*row) for row in connection.execute(_SHARED_GROUPS).fetchall()]
            if {*connection.execute(_GROUP_KEYS)} != {*connection.execute(_GROUP_KEYS_AGAIN)}:
                groups.append(CorruptRecord("enrollment", "group"))
            self._symmetric_key = tuple(group for group in groups if _is_of(group, AttestationType.SYMMETRIC_KEY))
            self._tpm = tuple(group for group in groups if _is_of(group, AttestationType.TPM))
            self._generation = snapshot.generation

    def _group(self, key: bytes, digest: bytes, record: bytes) -> Enrollment | CorruptRecord:
        try:
            self._digest.check(digest, rows.ENROLLMENT, key, b"group", record)
        except CorruptRecord as error:
            return error
        return rows.enrollment(EnrollmentKind.GROUP, record)

    def _answer(self, snapshot: Snapshot, query: FactsQuery) -> StoredFacts | Exception:
        key = query.registration_key.encode()
        try:
            snapshot.check_absences(query)
            return StoredFacts(
                individual=self._individual(key, snapshot.individuals.get(key)),
                groups=self._groups(snapshot, query),
                registration=self._registration(key, snapshot.registrations.get(key)),
                endorsement_key_owner=snapshot.endorsement_key_owner(query),
                registered_group=self._registered_group(snapshot, query, key),
                draining_hubs=snapshot.draining_hubs,
            )
        except CorruptRecord as error:
            return CorruptRecord(error.table, error.key)  # a fresh one: others may hear of the same group

    def _individual(self, key: bytes, row: tuple[bytes, bytes] | None) -> Enrollment | None:
        if row is None:
            return None
        digest, record = row
        self._digest.check(digest, rows.ENROLLMENT, key, b"individual", record)
        return rows.enrollment(EnrollmentKind.INDIVIDUAL, record)

    def _registration(self, key: bytes, row: tuple[int, bytes, bytes] | None) -> Registration | None:
        if row is None:
            return None
        version, digest, record = row
        self._digest.check(digest, rows.REGISTRATION, key, b"%d" % version, record)
        return rows.registration(record)

    def _groups(self, snapshot: Snapshot, query: FactsQuery) -> tuple[Enrollment, ...]:
        found: list[Enrollment | CorruptRecord] = []
        if query.issuer_hashes:
            keys = {
                key
                for issuer in query.issuer_hashes
                for key in snapshot.groups_by_issuer.get(issuer.hex().encode(), ())
            }
            found += [self._remembered[key][1] for key in sorted(keys)]
        if query.symmetric_key_groups:
            found += self._symmetric_key
        if query.tpm_groups:
            found += self._tpm
        return tuple(_sound(found))

    def _registered_group(self, snapshot: Snapshot, query: FactsQuery, key: bytes) -> Enrollment | None:
        group_key = snapshot.registered_groups.get(key) if query.registered_group else None
        if group_key is None:
            return None
        (group,) = _sound([self._remembered[group_key][1]])
        return group


def _sound(groups: Iterable[Enrollment | CorruptRecord]) -> Iterable[Enrollment]:
    for group in groups:
        if isinstance(group, CorruptRecord):
            raise group  # fail closed: the damaged one may be the one that is disabled
        yield group


def _is_of(group: Enrollment | CorruptRecord, attestation_type: AttestationType) -> bool:
    """Whether a group is of a mechanism; one that cannot be read may be of any."""
    return isinstance(group, CorruptRecord) or group.attestation_type is attestation_type
