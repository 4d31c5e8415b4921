"""What the pipeline asks before it decides: one group of questions, one statement, one snapshot."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

from provisiond.errors import CorruptRecord
from provisiond.model import Enrollment, EnrollmentKind, Registration
from provisiond.ports import FactsQuery, StoredFacts
from provisiond.store import rows
from provisiond.store.connection import transaction

T = TypeVar("T")

# One statement sees one state of the database, so this needs no BEGIN and COMMIT; and 64 questions in one statement
# take a tenth of the time of 64 statements.
_FACTS: Final = """
SELECT 'generation', value, NULL, NULL, NULL FROM meta WHERE name = 'generation'
UNION ALL
SELECT 'individual', key, NULL, digest, record FROM enrollment
    WHERE kind = 'individual' AND key IN (SELECT value FROM json_each(?1))
UNION ALL
SELECT 'registration', key, version, digest, record FROM registration
    WHERE key IN (SELECT value FROM json_each(?1))
UNION ALL
SELECT 'draining', name, NULL, NULL, NULL FROM draining_hub
"""

_MORE_FACTS: Final = f"""{_FACTS}
UNION ALL
SELECT 'issuer', e.key, c.subject_hash, e.digest, NULL
    FROM enrollment_certificate c JOIN enrollment e ON e.id = c.enrollment
    WHERE c.subject_hash IN (SELECT value FROM json_each(?2))
UNION ALL
SELECT 'owner', key, endorsement_key_hash, NULL, NULL FROM registration
    WHERE endorsement_key_hash IN (SELECT value FROM json_each(?3))
UNION ALL
SELECT 'registered', e.key, r.key, e.digest, NULL
    FROM registration r JOIN enrollment e ON e.kind = 'group' AND e.key = r.group_key
    WHERE r.key IN (SELECT value FROM json_each(?4))
"""  # noqa: S608 - constants

_GROUPS: Final = """
SELECT key, attestation_type, digest, record FROM enrollment
    WHERE kind = 'group' AND key IN (SELECT value FROM json_each(?)) ORDER BY key
"""

_SHARED_GROUPS: Final = """
SELECT key, attestation_type, digest, record FROM enrollment
    WHERE kind = 'group' AND attestation_type IN ('symmetricKey', 'tpm') ORDER BY key
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
        self._generation = -1
        self._symmetric_key: Groups = ()
        self._tpm: Groups = ()

    def read(self, connection: sqlite3.Connection, queries: Sequence[FactsQuery]) -> list[StoredFacts | Exception]:
        """Answer each question, or say why it cannot be: a damaged row harms only those who need it.

        Raises:
            sqlite3.Error: the database cannot be read.
        """
        snapshot = _Snapshot(connection, queries)
        if not self._knows(snapshot):
            with transaction(connection, "DEFERRED"):  # the groups and what refers to them, of one state
                snapshot = _Snapshot(connection, queries)
                self._learn(connection, snapshot)
        return [self._answer(snapshot, query) for query in queries]

    def _knows(self, snapshot: "_Snapshot") -> bool:
        if snapshot.wants_shared and snapshot.generation != self._generation:
            return False
        return all(self._remembered.get(key, (b"",))[0] == digest for key, digest in snapshot.groups.items())

    def _learn(self, connection: sqlite3.Connection, snapshot: "_Snapshot") -> None:
        if len(self._remembered) > _GROUPS_REMEMBERED_MAX:
            self._remembered.clear()
        missing = [key for key, digest in snapshot.groups.items() if self._remembered.get(key, (b"",))[0] != digest]
        for key, _, digest, record in connection.execute(_GROUPS, (_json_array(missing),)):
            self._remembered[key] = (digest, self._group(key, digest, record))
        if snapshot.wants_shared and snapshot.generation != self._generation:
            shared = connection.execute(_SHARED_GROUPS).fetchall()
            parsed = [(kind, self._group(key, digest, record)) for key, kind, digest, record in shared]
            self._symmetric_key = tuple(group for kind, group in parsed if kind == b"symmetricKey")
            self._tpm = tuple(group for kind, group in parsed if kind == b"tpm")
            self._generation = snapshot.generation

    def _group(self, key: bytes, digest: bytes, record: bytes) -> Enrollment | CorruptRecord:
        try:
            self._digest.check(digest, rows.ENROLLMENT, key, b"group", record)
        except CorruptRecord as error:
            return error
        return rows.enrollment(EnrollmentKind.GROUP, record)

    def _answer(self, snapshot: "_Snapshot", query: FactsQuery) -> StoredFacts | Exception:
        key = query.registration_key.encode()
        try:
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

    def _groups(self, snapshot: "_Snapshot", query: FactsQuery) -> tuple[Enrollment, ...]:
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

    def _registered_group(self, snapshot: "_Snapshot", query: FactsQuery, key: bytes) -> Enrollment | None:
        group_key = snapshot.registered_groups.get(key) if query.registered_group else None
        if group_key is None:
            return None
        (group,) = _sound([self._remembered[group_key][1]])
        return group


class _Snapshot:
    """The rows of one statement, by key."""

    __slots__ = (
        "draining_hubs",
        "generation",
        "groups",
        "groups_by_issuer",
        "individuals",
        "owners",
        "registered_groups",
        "registrations",
        "wants_shared",
    )

    def __init__(self, connection: sqlite3.Connection, queries: Sequence[FactsQuery]) -> None:
        keys = _json_array({query.registration_key for query in queries})
        registered = {query.registration_key for query in queries if query.registered_group}
        issuers = {issuer for query in queries for issuer in query.issuer_hashes}
        endorsement_keys = {query.endorsement_key_hash for query in queries if query.endorsement_key_hash is not None}
        self.wants_shared = any(query.symmetric_key_groups or query.tpm_groups for query in queries)
        self.generation = -1
        draining: list[str] = []
        self.individuals: dict[bytes, tuple[bytes, bytes]] = {}
        self.registrations: dict[bytes, tuple[int, bytes, bytes]] = {}
        self.groups: dict[bytes, bytes] = {}
        self.groups_by_issuer: dict[bytes, list[bytes]] = {}
        self.owners: dict[bytes, list[bytes]] = {}
        self.registered_groups: dict[bytes, bytes] = {}
        more = (_hex_array(issuers), _hex_array(endorsement_keys), _json_array(registered))
        found = (
            connection.execute(_MORE_FACTS, (keys, *more))
            if issuers or endorsement_keys or registered
            else connection.execute(_FACTS, (keys,))
        )
        for what, key, detail, digest, record in found.fetchall():
            if what == b"individual":
                self.individuals[key] = (digest, record)
            elif what == b"registration":
                self.registrations[key] = (detail, digest, record)
            elif what == b"issuer":
                self.groups[key] = digest
                self.groups_by_issuer.setdefault(detail, []).append(key)
            elif what == b"owner":
                self.owners.setdefault(detail, []).append(key)
            elif what == b"registered":
                self.groups[key] = digest
                self.registered_groups[detail] = key
            elif what == b"draining":
                draining.append(key.decode())
            else:
                self.generation = key
        self.draining_hubs = frozenset(draining)

    def endorsement_key_owner(self, query: FactsQuery) -> str | None:
        """Which registration has the endorsement key; another one than the query's own before that."""
        if query.endorsement_key_hash is None:
            return None
        keys = [key.decode(errors="replace") for key in self.owners.get(query.endorsement_key_hash.hex().encode(), ())]
        return min(keys, key=lambda key: (key == query.registration_key, key), default=None)


def _sound(groups: Iterable[Enrollment | CorruptRecord]) -> Iterable[Enrollment]:
    for group in groups:
        if isinstance(group, CorruptRecord):
            raise group  # fail closed: the damaged one may be the one that is disabled
        yield group


def _hex_array(hashes: Iterable[bytes]) -> str:
    return json.dumps([value.hex() for value in hashes])


def _json_array(values: Iterable[str | bytes]) -> str:
    return json.dumps([value.decode() if isinstance(value, bytes) else value for value in values])
