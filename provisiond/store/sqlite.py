"""SqliteStore: the store ports on one SQLite file."""

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from provisiond.errors import ProvisiondError, StoreUnavailable
from provisiond.model import (
    AuditRecord,
    CloudMessage,
    DevicePresence,
    DeviceTwin,
    Enrollment,
    EnrollmentKind,
    JSONValue,
    PendingDevice,
    Registration,
    RegistrationStatus,
    Retirement,
)
from provisiond.ports import FactsQuery, PendingLimits, StoredChallenge, StoredFacts, Write
from provisiond.store import (
    audit,
    backup,
    challenges,
    devices,
    enrollments,
    hubs,
    opening,
    pending,
    registrations,
    rows,
)
from provisiond.store.audit import AuditVerdict
from provisiond.store.connection import (
    BUSY_TIMEOUT_S,
    FATAL_CODES,
    Connection,
    connect,
    primary_code,
    transaction,
    unavailable,
)
from provisiond.store.facts import FactsReader
from provisiond.store.grouping import GroupedCalls
from provisiond.store.writer import DecisionItem, MutationItem, WriteItem, write_group

T = TypeVar("T")

_AT_A_HUB: Final = (RegistrationStatus.ASSIGNED, RegistrationStatus.ASSIGNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Counters since the store was opened, for metrics.

    Args:
        transactions: groups of writes that were committed or refused.
        rows: writes in them, conflicting and refused ones included; rows / transactions is what grouping saves.
        largest_group: writes in the largest.
        writes_waiting, reads_waiting: now.
        reads: facts that were read.
        read_groups: statements that it took.
    """

    transactions: int
    rows: int
    largest_group: int
    writes_waiting: int
    reads_waiting: int
    reads: int
    read_groups: int


class SqliteStore:
    """`ports.DecisionStore`, `AdminStore` and `DeviceStore` on one file, which other processes may have open as well.

    Three connections, each on a thread of its own: one commits writes in groups, one answers facts in groups, and one
    reads for operators, so that a long list holds up no device. Build it with `open`.

    `fatal` is set when the disk fails or the file turns out to be damaged. From then on nothing is written, for a
    second fsync may lie about the first: the process had better end and be started again.
    """

    def __init__(
        self,
        *,
        path: Path,
        digest: rows.RowDigest,
        writer: Connection | None,
        reader: Connection,
        operator: Connection,
        opened: AsyncExitStack,
    ) -> None:
        self.path = path
        self.fatal = asyncio.Event()
        self.fatal_reason = ""
        self._digest = digest
        self._operator = operator
        self._reader = reader
        self._opened = opened
        facts = FactsReader(digest)
        self._reads: GroupedCalls[FactsQuery, StoredFacts] = GroupedCalls(
            lambda queries: reader.call(partial(facts.read, queries=queries)), self._explain
        )
        self._writes: GroupedCalls[WriteItem, Any] = GroupedCalls(partial(_start_writing, writer), self._explain)
        if writer is None:
            self._writes.refuse("the database was opened for reading only")

    # --- opening and closing -----------------------------------------------------------------------------------------

    @classmethod
    async def open(
        cls,
        path: Path | str,
        *,
        create: bool = True,
        read_only: bool = False,
        migrate: bool = True,
        quick_check: bool = False,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> Self:
        """Open the database; a new file is made with mode 0600, in a directory that is made with 0700.

        A counter is written, so that a file system that has become read-only is noticed now.

        Args:
            path: the file; its write-ahead log lies beside it while it is open.
            create: make it when it is not there.
            read_only: write nothing, not even the probe.
            migrate: bring an older schema up to date, after copying the file to `NAME.before-N`.
            quick_check: look at every page first; takes about a second per 500 MB.
            busy_timeout_s: how long a write waits for another process's.

        Raises:
            SchemaTooNew: it was written by a newer provisiond.
            StoreUnavailable: it is not there, not ours, readable by everyone, damaged, locked, or cannot be written;
                or its schema is older and may not be migrated.
        """
        path = Path(path)
        opening.require_file(path, create=create and not read_only)
        async with AsyncExitStack() as stack:

            async def opened(*, read_only: bool) -> Connection:
                connection = await connect(path, read_only=read_only, busy_timeout_s=busy_timeout_s)
                stack.push_async_callback(connection.close)
                return connection

            writer = None if read_only else await opened(read_only=False)
            operator = writer or await opened(read_only=True)
            set_up = partial(
                opening.set_up,
                path=path,
                write=not read_only,
                migrate=migrate and not read_only,
                quick_check=quick_check,
            )
            try:
                digest_key = await operator.call(set_up)
            except sqlite3.Error as error:
                raise unavailable(error) from error
            return cls(
                path=path,
                digest=rows.RowDigest(digest_key),
                writer=writer,
                reader=await opened(read_only=True),
                operator=await opened(read_only=True) if writer else operator,
                opened=stack.pop_all(),
            )

    async def close(self) -> None:
        """Finish what waits, then close; safe to call twice."""
        await self._writes.drain()
        await self._reads.drain()
        self._writes.refuse("the database is closed")
        self._reads.refuse("the database is closed")
        await self._opened.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def statistics(self) -> Statistics:
        """Counters, now."""
        writes, reads = self._writes.statistics, self._reads.statistics
        return Statistics(
            transactions=writes.groups,
            rows=writes.items,
            largest_group=writes.largest,
            writes_waiting=self._writes.waiting,
            reads_waiting=self._reads.waiting,
            reads=reads.items,
            read_groups=reads.groups,
        )

    # --- ports.DecisionStore -----------------------------------------------------------------------------------------

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

    # --- ports.AdminStore --------------------------------------------------------------------------------------------

    async def create_enrollment(self, enrollment: Enrollment, audit: AuditRecord) -> None:
        """Insert; raises AlreadyExists, InvalidArgument (a group's certificate), StoreUnavailable."""
        row = rows.enrollment_row(enrollment, self._digest)
        hashes = enrollments.subject_hashes(enrollment)
        await self._mutate(partial(enrollments.insert, row=row, hashes=hashes), audit)

    async def get_enrollment(self, kind: EnrollmentKind, key: str) -> Enrollment | None:
        """One record, or None; raises CorruptRecord, StoreUnavailable."""
        return await self._ask(partial(enrollments.load, kind=kind, key=key, digest=self._digest))

    async def list_enrollments(self, kind: EnrollmentKind, *, after_key: str = "", limit: int) -> Sequence[Enrollment]:
        """A page in key order, starting after `after_key`; raises CorruptRecord, StoreUnavailable."""
        return await self._ask(
            partial(enrollments.page, kind=kind, after_key=after_key, limit=limit, digest=self._digest)
        )

    async def update_enrollment(self, enrollment: Enrollment, *, if_match: str | None, audit: AuditRecord) -> None:
        """Replace; raises RecordNotFound, EtagMismatch, InvalidArgument (a group's certificate), StoreUnavailable."""
        row = rows.enrollment_row(enrollment, self._digest)
        hashes = enrollments.subject_hashes(enrollment)
        await self._mutate(
            partial(enrollments.replace, row=row, hashes=hashes, if_match=if_match, digest=self._digest), audit
        )

    async def delete_enrollment(
        self, kind: EnrollmentKind, key: str, *, if_match: str | None, audit: AuditRecord
    ) -> None:
        """Remove; raises RecordNotFound, EtagMismatch, StoreUnavailable."""
        await self._mutate(
            partial(enrollments.remove, kind=kind, key=key, if_match=if_match, digest=self._digest), audit
        )

    async def get_registration(self, key: str) -> Registration | None:
        """One record, or None; raises CorruptRecord, StoreUnavailable."""
        return await self._ask(partial(registrations.load, key=key, digest=self._digest))

    async def list_registrations(
        self,
        *,
        after_key: str = "",
        limit: int,
        enrollment_id: str | None = None,
        status: RegistrationStatus | None = None,
        hub: str | None = None,
    ) -> Sequence[Registration]:
        """A page in key order, starting after `after_key`; raises CorruptRecord, StoreUnavailable."""
        return await self._ask(
            partial(
                registrations.page,
                after_key=after_key,
                limit=limit,
                enrollment_key=None if enrollment_id is None else enrollment_id.lower(),
                status=status,
                hub=hub,
                digest=self._digest,
            )
        )

    async def delete_registration(self, key: str, *, if_match: str | None, audit: AuditRecord) -> None:
        """Remove; raises RecordNotFound, EtagMismatch, StoreUnavailable."""
        await self._mutate(partial(registrations.remove, key=key, if_match=if_match, digest=self._digest), audit)

    async def get_audit(self, tracking_id: str) -> AuditRecord | None:
        """The newest row of a tracking id, or None; raises CorruptRecord, StoreUnavailable."""
        return await self._ask(partial(audit.load, tracking_id=tracking_id))

    async def list_audit(
        self, *, after: int = 0, limit: int, registration_key: str | None = None
    ) -> Sequence[tuple[int, AuditRecord]]:
        """Rows with their sequence numbers, oldest first; raises CorruptRecord, StoreUnavailable."""
        return await self._ask(partial(audit.page, after=after, limit=limit, registration_key=registration_key))

    async def count_registrations(self) -> dict[str, int]:
        """Registrations by status, from counters."""
        totals: dict[str, int] = {}
        for status, _, total in await self._ask(registrations.count):
            totals[status] = totals.get(status, 0) + total
        return totals

    async def count_assigned_by_hub(self) -> dict[str, int]:
        """Assigned and assigning registrations by hub name, from counters."""
        totals: dict[str, int] = {}
        for status, hub, total in await self._ask(registrations.count):
            if hub and status in (RegistrationStatus.ASSIGNED, RegistrationStatus.ASSIGNING):
                totals[hub] = totals.get(hub, 0) + total
        return totals

    # --- ports.DeviceStore -------------------------------------------------------------------------------------------

    async def find_device(self, device_key: str) -> Registration | None:
        """The registration of a device id, or None; raises CorruptRecord, StoreUnavailable."""
        return await self._look(partial(registrations.find_device, device_key=device_key, digest=self._digest))

    async def find_enrollment(self, kind: EnrollmentKind, key: str) -> Enrollment | None:
        """As `get_enrollment`, ahead of what operators read; raises CorruptRecord, StoreUnavailable."""
        return await self._look(partial(enrollments.load, kind=kind, key=key, digest=self._digest))

    async def get_twin(self, device_key: str) -> DeviceTwin | None:
        """A device's twin, or None; raises CorruptRecord, StoreUnavailable."""
        return await self._look(partial(devices.load_twin, device_key=device_key, digest=self._digest))

    async def change_twin(self, device_key: str, change: devices.TwinChange) -> tuple[DeviceTwin | None, DeviceTwin]:
        """Replace a twin by what `change` makes of it; raises what that raises, CorruptRecord, StoreUnavailable."""
        apply = partial(devices.change_twin, device_key=device_key, change=change, digest=self._digest)
        changed: tuple[DeviceTwin | None, DeviceTwin] = await self._writes.call(MutationItem(apply=apply))
        return changed

    async def queue_message(self, device_key: str, message: CloudMessage, *, limit: int) -> int | None:
        """Append to a device's queue; None when it is full, else its length; raises StoreUnavailable."""
        apply = partial(devices.queue_message, device_key=device_key, message=message, limit=limit, digest=self._digest)
        length: int | None = await self._writes.call(MutationItem(apply=apply))
        return length

    async def take_turn(self, device_key: str, *, now: datetime, deliveries_max: int) -> CloudMessage | None:
        """The first message of a queue, its delivery counted; raises CorruptRecord, StoreUnavailable."""
        apply = partial(
            devices.take_turn, device_key=device_key, now=now, deliveries_max=deliveries_max, digest=self._digest
        )
        message: CloudMessage | None = await self._writes.call(MutationItem(apply=apply))
        return message

    async def remove_message(self, sequence: int) -> None:
        """Remove a message that was acknowledged; raises StoreUnavailable."""
        await self._writes.call(MutationItem(apply=partial(devices.remove_message, sequence=sequence)))

    async def put_presence(self, presences: Sequence[DevicePresence]) -> None:
        """Write who is connected and was last seen when; raises StoreUnavailable."""
        await self._writes.call(MutationItem(apply=partial(devices.put_presence, presences=tuple(presences))))

    async def reset_presence(self, now: datetime) -> None:
        """Nobody is connected; raises StoreUnavailable."""
        await self._writes.call(MutationItem(apply=partial(devices.reset_presence, now=now)))

    async def list_presence(self, device_keys: Sequence[str]) -> Mapping[str, DevicePresence]:
        """Presence by lower-case device id; raises StoreUnavailable."""
        return await self._ask(partial(devices.list_presence, device_keys=tuple(device_keys)))

    async def count_access_changes(self) -> int:
        """Changes whenever an enrollment changes or a registration is removed; raises StoreUnavailable."""
        return await self._look(devices.count_access_changes)

    # --- ports.OutboxStore -------------------------------------------------------------------------------------------

    async def list_retirements(
        self, hub: str, *, due_by: datetime, after_device: str = "", limit: int
    ) -> Sequence[Retirement]:
        """What is to go from a hub and is due, by device id; raises StoreUnavailable."""
        return await self._ask(
            partial(hubs.list_retirements, hub=hub, due_by=due_by, after_device=after_device, limit=limit)
        )

    async def put_retirement(self, retirement: Retirement, audit: AuditRecord | None = None) -> None:
        """Have an identity go from a hub; raises StoreUnavailable."""
        put = partial(hubs.put_retirements, retirements=(retirement,))
        await self._writes.call(MutationItem(apply=put, audit=None if audit is None else rows.audit_row(audit)))

    async def expedite_retirements(self, registration_id: str, at: datetime) -> None:
        """Have everything of a registration that is to go from a hub go at this time; raises StoreUnavailable."""
        expedite = partial(hubs.expedite_retirements, registration_id=registration_id, at=at)
        await self._writes.call(MutationItem(apply=expedite))

    async def finish_retirement(self, retirement: Retirement, audit: AuditRecord) -> bool:
        """Forget one that is done; False when the device has come back meanwhile; raises StoreUnavailable."""
        finish = partial(hubs.finish_retirement, retirement=retirement)
        finished: bool = await self._writes.call(MutationItem(apply=finish, audit=rows.audit_row(audit)))
        return finished

    async def departures_of(self, registration_key: str) -> Sequence[Retirement]:
        """What a registration still has at hubs that it is to go from; raises StoreUnavailable."""
        return await self._look(partial(hubs.departures_of, registration_key=registration_key))

    async def departing_devices(self, hub_names: Collection[str]) -> frozenset[str]:
        """Lower-case ids of the devices that are to go from these hubs; raises StoreUnavailable."""
        return await self._ask(partial(hubs.departing_devices, hub_names=tuple(hub_names)))

    async def awaited_arrivals(self, hub: str, *, limit: int) -> Sequence[Retirement]:
        """What goes elsewhere as soon as its device was seen at this hub; raises StoreUnavailable."""
        return await self._ask(partial(hubs.awaited, hub=hub, limit=limit))

    async def note_arrivals(self, hub: str, registration_keys: Collection[str], at: datetime) -> int:
        """Have what these have left elsewhere go now; nearly always that is nothing. Raises StoreUnavailable."""
        if not await self._ask(hubs.anybody_is_awaited):
            return 0
        note = partial(hubs.note_arrivals, hub=hub, registration_keys=tuple(registration_keys), at=at)
        noted: int = await self._writes.call(MutationItem(apply=note))
        return noted

    async def count_by_hub(self) -> Mapping[str, Mapping[RegistrationStatus, int]]:
        """Registrations by hub name and status, from counters; raises StoreUnavailable."""
        return await self._ask(hubs.count)

    async def draining_hubs(self) -> frozenset[str]:
        """Names of the hubs that operators drain; raises StoreUnavailable."""
        return await self._ask(hubs.draining)

    async def set_hub_draining(self, name: str, wanted: bool, audit: AuditRecord) -> bool:
        """Drain a hub, or no longer; whether that was a change; raises StoreUnavailable."""
        change = partial(hubs.set_draining, name=name, wanted=wanted)
        changed: bool = await self._writes.call(MutationItem(apply=change, audit=rows.audit_row(audit)))
        return changed

    async def put_hub_observation(self, name: str, observed: Mapping[str, JSONValue]) -> None:
        """Say what was seen of a hub; raises StoreUnavailable."""
        await self._writes.call(MutationItem(apply=partial(hubs.put_observation, name=name, observed=observed)))

    async def hub_observations(self) -> Mapping[str, Mapping[str, JSONValue]]:
        """What was last seen of each hub; raises StoreUnavailable."""
        return await self._ask(hubs.observations)

    async def revoke_certificate(self, issuer_hash: str, serial: int, at: datetime) -> None:
        """Have a certificate in its issuer's revocation list; raises StoreUnavailable."""
        revoke = partial(hubs.revoke_certificate, issuer_hash=issuer_hash, serial=serial, at=at)
        await self._writes.call(MutationItem(apply=revoke))

    async def revoked_certificates(self, issuer_hash: str) -> Mapping[int, datetime]:
        """Serial numbers of an issuer's revoked certificates, and since when; raises StoreUnavailable."""
        return await self._ask(partial(hubs.revoked_certificates, issuer_hash=issuer_hash))

    # --- care --------------------------------------------------------------------------------------------------------

    async def backup(self, target: Path | str) -> None:
        """Write a sound copy of the database as it is now, while it is in use.

        Raises:
            InvalidArgument: the target is the database itself.
            StoreUnavailable: the copy could not be made; a file of that name is as it was.
        """
        await self._aside(partial(backup.write_backup, database=self.path, target=Path(target)))

    async def check(self) -> tuple[str, ...]:
        """What is wrong with the database, at most 100 lines for the operator; raises StoreUnavailable."""
        return await self._aside(backup.problems)

    async def verify_audit(self) -> AuditVerdict:
        """Walk along the audit chain; raises StoreUnavailable."""

        def verify(connection: sqlite3.Connection) -> AuditVerdict:
            with transaction(connection, "DEFERRED"):
                return audit.verify(connection)

        return await self._aside(verify)

    # --- hops --------------------------------------------------------------------------------------------------------

    async def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function of this package with the operators' reading connection; raises StoreUnavailable."""
        return await self._ask(function)

    async def read_aside(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """The same on a connection of its own, for what takes minutes; raises StoreUnavailable."""
        return await self._aside(function)

    async def write(self, apply: Callable[[sqlite3.Connection], T], record: AuditRecord | None = None) -> T:
        """Run a function of this package in the writer's next transaction, with its audit record.

        Raises:
            AdminError, StoreError: what the function raised; then nothing of it is stored.
        """
        item = MutationItem(apply=apply, audit=None if record is None else rows.audit_row(record))
        result: T = await self._writes.call(item)
        return result

    @property
    def digest(self) -> rows.RowDigest:
        """What rows are digested with."""
        return self._digest

    async def _mutate(self, apply: Callable[[sqlite3.Connection], None], record: AuditRecord) -> None:
        await self._writes.call(MutationItem(apply=apply, audit=rows.audit_row(record)))

    async def _look(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """On the connection that answers devices."""
        try:
            return await self._reader.call(function)
        except sqlite3.Error as error:
            raise self._explain(error) from error

    async def _ask(self, function: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._operator.call(function)
        except sqlite3.Error as error:
            raise self._explain(error) from error

    async def _aside(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """On a connection of its own: it may take minutes."""
        connection = await connect(self.path, read_only=True)
        try:
            return await connection.call(function)
        except (sqlite3.Error, OSError) as error:
            raise unavailable(error) from error
        finally:
            await connection.close()

    def _explain(self, error: BaseException) -> Exception:
        if isinstance(error, ProvisiondError):
            return error
        explained = unavailable(error)
        if primary_code(error) in FATAL_CODES and not self.fatal.is_set():
            self.fatal_reason = str(explained)
            self.fatal.set()
            self._writes.refuse(f"nothing is written any more: {explained}")
        return explained


def _identity_of(registration: Registration | None) -> tuple[str, str] | None:
    """Hub and device id of the identity that a registration needs."""
    if registration is None or registration.hub is None or registration.status not in _AT_A_HUB:
        return None
    return rows.storable(registration.hub), rows.storable(registration.device_id)


def _start_writing(writer: Connection | None, items: list[WriteItem]) -> asyncio.Future[list[Any]]:
    if writer is None:
        raise StoreUnavailable("the database was opened for reading only")
    return writer.call(partial(write_group, items=items))
