"""Small fakes at the ports: a store in memory, a clock that is told the time, entropy that can be repeated."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import shake_256

from provisiond.attestation import x509
from provisiond.errors import StoreUnavailable, VersionConflict
from provisiond.model import AttestationType, AuditRecord, Enrollment, EnrollmentKind, Hub, Registration
from provisiond.ports import FactsQuery, StoredChallenge, StoredFacts, Write

# The certificate factory makes certificates that are valid today.
NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass
class FakeClock:
    """A clock that stands still until it is moved."""

    time: datetime = NOW
    elapsed_s: float = 0.0

    def now(self):
        return self.time

    def monotonic(self):
        return self.elapsed_s

    def advance(self, seconds):
        self.time += timedelta(seconds=seconds)
        self.elapsed_s += seconds


@dataclass
class FakeEntropy:
    """Distinct bytes that are the same in every run."""

    drawn: int = 0

    def token_bytes(self, size_bytes):
        self.drawn += 1
        return shake_256(str(self.drawn).encode()).digest(size_bytes)


@dataclass
class FakeDecisionStore:
    """`ports.DecisionStore` in memory. `conflicts`: how many commits lose a race first. `broken`: nothing works."""

    enrollments: list[Enrollment] = field(default_factory=list)
    registrations: dict[str, Registration] = field(default_factory=dict)
    audit: list[AuditRecord] = field(default_factory=list)
    conflicts: int = 0
    broken: bool = False
    challenges: dict[str, StoredChallenge] = field(default_factory=dict)

    async def facts(self, query: FactsQuery) -> StoredFacts:
        if self.broken:
            raise StoreUnavailable("the disk is on fire")
        return StoredFacts(
            individual=next(
                (
                    e
                    for e in self.enrollments
                    if e.kind is EnrollmentKind.INDIVIDUAL and e.key == query.registration_key
                ),
                None,
            ),
            groups=tuple(e for e in self.enrollments if e.kind is EnrollmentKind.GROUP and self._claims(e, query)),
            registration=self.registrations.get(query.registration_key),
            endorsement_key_owner=next(
                (
                    r.key
                    for r in self.registrations.values()
                    if query.endorsement_key_hash is not None and r.endorsement_key_hash == query.endorsement_key_hash
                ),
                None,
            ),
            registered_group=self._registered_group(query),
        )

    def _registered_group(self, query: FactsQuery) -> Enrollment | None:
        registration = self.registrations.get(query.registration_key)
        if registration is None or not query.registered_group:
            return None
        of_group = (
            e for e in self.enrollments if e.kind is EnrollmentKind.GROUP and e.id == registration.enrollment_id
        )
        return next(of_group, None)

    async def commit(self, write: Write) -> None:
        if self.broken:
            raise StoreUnavailable("the disk is on fire")
        if self.conflicts:
            self.conflicts -= 1
            raise VersionConflict("somebody else was first")
        if write.registration is not None:
            current = self.registrations.get(write.registration.key)
            if (current.version if current else 0) != write.expected_version:
                raise VersionConflict(write.registration.key)
            self.registrations[write.registration.key] = write.registration
        if write.audit is not None:
            self.audit.append(write.audit)

    async def put_challenge(self, *, key, challenge, expires_at):
        self.challenges[key] = StoredChallenge(challenge=challenge, expires_at=expires_at)

    async def take_challenge(self, key):
        return self.challenges.pop(key, None)

    async def purge_challenges(self, now):
        self.challenges = {key: stored for key, stored in self.challenges.items() if stored.expires_at > now}
        return len(self.challenges)

    @staticmethod
    def _claims(group: Enrollment, query: FactsQuery) -> bool:
        match group.attestation_type:
            case AttestationType.X509:
                return any(x509.subject_hash(der) in query.issuer_hashes for der in group.attestation.certificates)
            case AttestationType.SYMMETRIC_KEY:
                return query.symmetric_key_groups
            case AttestationType.TPM:
                return query.tpm_groups


@dataclass
class RecordingObserver:
    """`ports.Observer` that keeps what it is told."""

    refused: list = field(default_factory=list)
    decisions: list = field(default_factory=list)
    failures: list = field(default_factory=list)

    def connect_refused(self, attempt, error):
        self.refused.append((attempt, error))

    def decided(self, connection, decision, *, event, elapsed_s):
        self.decisions.append((event, decision))

    def failed(self, connection, error, *, tracking_id):
        self.failures.append((error, tracking_id))


HUBS = (Hub(name="one", host="one.example"), Hub(name="two", host="two.example"))
