"""Every side effect, as a Protocol: what the use cases ask of the world.

Adapters (`store/`, `broker/`, `hubs/`) implement these; tests bring small fakes.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from provisiond.errors import ConnectRefused
from provisiond.model import (
    AllocationRequest,
    AuditRecord,
    CloudMessage,
    ConnectAttempt,
    Connection,
    CustomAllocation,
    Decision,
    DevicePresence,
    DeviceTwin,
    Enrollment,
    EnrollmentKind,
    Hub,
    HubView,
    JSONValue,
    Message,
    PendingDevice,
    Registration,
    RegistrationStatus,
    Retirement,
)


class Clock(Protocol):
    """The time."""

    def now(self) -> datetime:
        """Wall time, aware UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...


class Entropy(Protocol):
    """Unguessable bytes."""

    def token_bytes(self, size_bytes: int) -> bytes:
        """Cryptographically random bytes."""
        ...


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


class DeviceStore(Protocol):
    """What the embedded hub needs of the store. `device_key` arguments are lower-case device ids.

    All raise StoreUnavailable; those that read a record raise CorruptRecord when it is damaged.
    """

    async def facts(self, query: FactsQuery) -> StoredFacts:
        """As `DecisionStore.facts`."""
        ...

    async def find_enrollment(self, kind: EnrollmentKind, key: str) -> Enrollment | None:
        """One enrollment or group, or None."""
        ...

    async def find_device(self, device_key: str) -> Registration | None:
        """The registration that a device id belongs to; the oldest, should two have it."""
        ...

    async def get_twin(self, device_key: str) -> DeviceTwin | None:
        """A device's twin, or None when nobody has looked for it yet."""
        ...

    async def change_twin(
        self, device_key: str, change: Callable[[DeviceTwin | None], DeviceTwin]
    ) -> tuple[DeviceTwin | None, DeviceTwin]:
        """Replace a twin by what `change` makes of it, in one transaction; give what was there, and what is there now.

        Args:
            device_key: whose.
            change: pure; runs on another thread. Any ProvisiondError that it raises is the caller's.
        """
        ...

    async def queue_message(self, device_key: str, message: CloudMessage, *, limit: int) -> int | None:
        """Append a message to a device's queue, durably; None when `limit` are there, else how many are now."""
        ...

    async def take_turn(self, device_key: str, *, now: datetime, deliveries_max: int) -> CloudMessage | None:
        """The first message of a device's queue, with this delivery counted; those that are of no use are removed."""
        ...

    async def remove_message(self, sequence: int) -> None:
        """Remove a message that was acknowledged."""
        ...

    async def put_presence(self, presences: Sequence[DevicePresence]) -> None:
        """Write who is connected and was last seen when."""
        ...

    async def reset_presence(self, now: datetime) -> None:
        """Nobody is connected: the service has only just begun."""
        ...

    async def list_presence(self, device_keys: Sequence[str]) -> Mapping[str, DevicePresence]:
        """Presence of those devices that have ever connected."""
        ...

    async def count_access_changes(self) -> int:
        """A number that changes whenever an enrollment changes or a registration is removed, by any process."""
        ...

    async def departures_of(self, registration_key: str) -> Sequence[Retirement]:
        """What a registration still has at hubs that it is to go from."""
        ...

    async def departing_devices(self, hub_names: Collection[str]) -> frozenset[str]:
        """Lower-case ids of the devices that are to go from any of these hubs."""
        ...

    async def list_retirements(
        self, hub: str, *, due_by: datetime, after_device: str = "", limit: int
    ) -> Sequence[Retirement]:
        """As `OutboxStore.list_retirements`."""
        ...

    async def finish_retirement(self, retirement: Retirement, audit: AuditRecord) -> bool:
        """As `OutboxStore.finish_retirement`."""
        ...

    async def note_arrivals(self, hub: str, registration_keys: Collection[str], at: datetime) -> int:
        """As `OutboxStore.note_arrivals`."""
        ...


class OutboxStore(Protocol):
    """What the assigner needs of the store: the rows that are its queues. All raise StoreUnavailable."""

    async def commit(self, write: Write) -> None:
        """As `DecisionStore.commit`."""
        ...

    async def get_registration(self, key: str) -> Registration | None:
        """As `AdminStore.get_registration`."""
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
        """As `AdminStore.list_registrations`."""
        ...

    async def list_retirements(
        self, hub: str, *, due_by: datetime, after_device: str = "", limit: int
    ) -> Sequence[Retirement]:
        """What is to go from a hub and is due, by device id, starting after `after_device`.

        What a device has left that waits to be made at its new hub, or was refused there, is not due: it has no other.
        """
        ...

    async def awaited_arrivals(self, hub: str, *, limit: int) -> Sequence[Retirement]:
        """What devices have left elsewhere that goes as soon as they were seen at this hub."""
        ...

    async def note_arrivals(self, hub: str, registration_keys: Collection[str], at: datetime) -> int:
        """Have what these registrations have left elsewhere go now, if they are at this hub; how much that is."""
        ...

    async def put_retirement(self, retirement: Retirement, audit: AuditRecord | None = None) -> None:
        """Have an identity go from a hub; it replaces what was to become of it."""
        ...

    async def finish_retirement(self, retirement: Retirement, audit: AuditRecord) -> bool:
        """Forget a retirement that is done; False when it is not there any more: the device has come back."""
        ...

    async def count_by_hub(self) -> Mapping[str, Mapping[RegistrationStatus, int]]:
        """Registrations by hub name and status."""
        ...

    async def draining_hubs(self) -> frozenset[str]:
        """Names of the hubs that operators drain."""
        ...

    async def put_hub_observation(self, name: str, observed: Mapping[str, JSONValue]) -> None:
        """Say what was seen of a hub."""
        ...

    async def hub_observations(self) -> Mapping[str, Mapping[str, JSONValue]]:
        """What was last seen of each hub, by name."""
        ...


class HubClaims(Protocol):
    """Which daemon works on which hub's queue: one at a time, and none that has died."""

    def claim(self, hub: str) -> bool:
        """Take the queue of a hub, or say that somebody else has it; a queue that we have, we keep."""
        ...

    def release(self, hub: str) -> None:
        """Let go of it."""
        ...


class Outbox(Protocol):
    """Who works on the rows that a decision left `assigning`."""

    def wake(self, hub: str) -> None:
        """There is something in this hub's queue; must not block."""
        ...


class CustomAllocator(Protocol):
    """Who answers custom allocations."""

    async def allocate(self, request: AllocationRequest) -> CustomAllocation:
        """Ask the webhook of the enrollment, within its deadline; never raises for what it does."""
        ...


class HubDirectory(Protocol):
    """The linked hubs, as they are now."""

    def snapshot(self) -> tuple[Hub, ...]:
        """Every linked hub with its health, weight and load."""
        ...

    def place(self, *, before: str | None, after: str | None) -> None:
        """Count a device on another hub, by name, until the next count of all; None is nowhere."""
        ...


class Gatekeeper(Protocol):
    """What the broker's edge asks of the service: the only way in."""

    async def admit(self, attempt: ConnectAttempt) -> Connection:
        """Judge a CONNECT.

        Raises:
            ConnectRefused: with the CONNACK return code.
        """
        ...

    async def handle(self, connection: Connection, message: Message) -> Message | None:
        """Answer a PUBLISH of an admitted connection that its access rules allow; never raises on bad input.

        The reply is for this connection alone. None: nothing to say (the connection is told nothing).
        The broker acknowledges the PUBLISH after this returns and before it sends the reply.
        """
        ...

    async def subscriptions_changed(self, connection: Connection, granted: Mapping[str, int]) -> None:
        """A hub device or an operator has subscribed or unsubscribed; told after its SUBACK or UNSUBACK.

        Args:
            connection: whose.
            granted: every filter that it has now, with its QoS; it changes with the connection, so copy what you keep.
        """
        ...

    def has_outstanding_operation(self, connection: Connection) -> bool:
        """Whether an operation of this connection has been accepted but not yet reported final."""
        ...

    async def closed(self, connection: Connection) -> None:
        """The connection is gone."""
        ...


class Observer(Protocol):
    """Who watches the decisions: the log and the metrics. Must not block and must not raise."""

    def connect_refused(self, attempt: ConnectAttempt, error: ConnectRefused) -> None:
        """A CONNECT was refused."""
        ...

    def decided(self, connection: Connection, decision: Decision, *, event: str, elapsed_s: float) -> None:
        """A request was decided, and committed if it had to be. `event`: `register`, `poll`, `invalid`."""
        ...

    def failed(self, connection: Connection, error: Exception, *, tracking_id: str) -> None:
        """Our side failed a request; the device heard 500 and the tracking id."""
        ...


class Transport(Protocol):
    """Sending to devices that did not just ask."""

    async def send(self, connection_id: str, message: Message) -> bool:
        """Send to one connection; False when it is gone."""
        ...

    def post(self, connection_id: str, message: Message) -> bool:
        """`send`, without waiting for anything."""
        ...

    async def deliver(self, connection_id: str, message: Message, *, deadline_s: float) -> bool:
        """Send to one connection and wait for its acknowledgement; False when there is none within the deadline."""
        ...

    def disconnect(self, connection_id: str, reason: str) -> None:
        """Cut a connection; does nothing when it is gone."""
        ...


class HubBoard(Protocol):
    """Where what was seen of the hubs is put up, for decisions to look at."""

    def see(self, name: str, view: HubView) -> None:
        """Take over what was seen of a hub."""
        ...

    def count(self, assigned: Mapping[str, int]) -> None:
        """Take over how many devices each hub has, by name."""
        ...


class HubObserver(Protocol):
    """Who watches the work on the hubs: the log and the metrics. Must not block and must not raise."""

    def hub_changed(self, hub: str, *, state: str, error: str) -> None:
        """A hub answers, or does not any more. `state`: `up`, `down`, `unauthorized`."""
        ...

    def hub_worked(self, hub: str, *, action: str, count: int, elapsed_s: float) -> None:
        """A call did something. `action`: `ensure`, `refuse`, `delete`, `disable`, `repair`, `arrive`."""
        ...

    def hub_settled(self, registration: Registration, audit: AuditRecord) -> None:
        """A registration that waited for its hub is finished: `assigned` or `failed`, and that is on disk."""
        ...

    def hub_failed(self, hub: str, error: Exception) -> None:
        """A connector raised what it may not."""
        ...
