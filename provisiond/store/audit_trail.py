"""The audit trail for operators: searched, signed, kept for as long as they want, and checked.

Functions on a connection run inside the caller's transaction; `AuditTrail` is what the rest of the program uses.
"""

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from provisiond.errors import CorruptRecord, StoreUnavailable
from provisiond.model import AuditRecord
from provisiond.private_files import create_private
from provisiond.store import audit, checkpoints, rows
from provisiond.store.audit import AuditVerdict
from provisiond.store.checkpoints import Checkpoint, CheckpointSigner, CheckpointVerifier
from provisiond.store.connection import transaction
from provisiond.store.sqlite import SqliteStore

HEAD_FILE_NAME: Final = "audit-head.json"
"""Beside the database: the newest checkpoint and the count of revocations, for a database that is lost."""

_RETAIN_BATCH: Final = 1000
"""Rows removed in one transaction; devices wait for it for some milliseconds."""
_HEAD_FILE_LIMIT_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuery:
    """Which rows; what is None does not matter.

    Args:
        registration_id: of a device, without case.
        code: of a refusal.
        since, until: aware UTC, whole seconds; both included.
        after, before: sequence numbers, not included.
        newest: the last `limit` of them instead of the first; they come oldest first all the same.
        limit: rows.
    """

    registration_id: str | None = None
    code: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: int = 0
    before: int | None = None
    newest: bool = False
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainHead:
    """Where the chain stands, and how often anything was taken away from a device.

    Args:
        base_seq, base_hash: what the chain begins after; 0 and zeros unless retention has removed rows.
        seq, hash: of the newest row.
    """

    base_seq: int
    base_hash: bytes
    seq: int
    hash: bytes
    revocations: int


def read_head(connection: sqlite3.Connection) -> ChainHead:
    """The head of a database of this schema."""
    base_seq, base_hash, seq, hash_ = connection.execute(
        "SELECT base_seq, base_hash, head_seq, head_hash FROM audit_chain"
    ).fetchone()
    revocations = connection.execute("SELECT value FROM meta WHERE name = 'revocations'").fetchone()
    return ChainHead(
        base_seq=base_seq, base_hash=base_hash, seq=seq, hash=hash_, revocations=revocations[0] if revocations else 0
    )


def find(connection: sqlite3.Connection, query: AuditQuery) -> list[tuple[int, AuditRecord]]:
    """Rows with their sequence numbers, oldest first.

    Raises:
        CorruptRecord: one cannot be read.
    """
    clauses: list[str] = ["seq > ?"]
    values: list[Any] = [query.after]
    for clause, value in (
        ("registration_key = ?", query.registration_id and rows.storable(query.registration_id.lower())),
        ("code = ?", query.code),
        ("at_s >= ?", query.since and int(query.since.timestamp())),
        ("at_s <= ?", query.until and int(query.until.timestamp())),
        ("seq < ?", query.before),
    ):
        if value is not None:
            clauses.append(clause)
            values.append(value)
    found = connection.execute(
        f"SELECT seq, record FROM audit WHERE {' AND '.join(clauses)}"  # noqa: S608 - the clauses are constants
        f" ORDER BY seq {'DESC' if query.newest else 'ASC'} LIMIT ?",
        (*values, query.limit),
    ).fetchall()
    return [(seq, _decode(seq, record)) for seq, record in (reversed(found) if query.newest else found)]


def remove_older(connection: sqlite3.Connection, cutoff: datetime, *, signer: CheckpointSigner, now: datetime) -> int:
    """Remove up to 1,000 rows from the beginning of the chain that are older than `cutoff`; how many it were.

    The base moves to the last row that goes, and a checkpoint signs the cut: a chain that begins later without one was
    cut by somebody else.

    Raises:
        CorruptRecord: one of them is not what was written; nothing is removed.
    """
    seq, hash_ = connection.execute("SELECT base_seq, base_hash FROM audit_chain").fetchone()
    last: tuple[int, bytes] | None = None
    count = 0
    found = connection.execute("SELECT seq, record, hash FROM audit ORDER BY seq LIMIT ?", (_RETAIN_BATCH,))
    for row_seq, record, row_hash in found.fetchall():
        # Of the record itself, and in the chain: whoever could write a column could have it removed and signed.
        if row_seq != seq + 1 or audit.chain_hash(hash_, row_seq, record) != row_hash:
            raise CorruptRecord("audit", str(row_seq))
        if _decode(row_seq, record).at >= cutoff:
            break
        seq, hash_ = last = row_seq, row_hash
        count += 1
    if last is None:
        return 0
    checkpoints.store(connection, signer.sign(seq=last[0], hash_=last[1], at=now, is_cut=True))
    connection.execute("UPDATE audit_chain SET base_seq = ?, base_hash = ?", last)
    connection.execute("DELETE FROM audit WHERE seq <= ?", (last[0],))
    connection.execute("DELETE FROM audit_checkpoint WHERE seq < ?", (last[0],))
    return count


def verify(
    connection: sqlite3.Connection,
    verifier: CheckpointVerifier | None,
    kept_elsewhere: Sequence[Checkpoint] = (),
    *,
    newest: int | None = None,
) -> AuditVerdict:
    """Walk along the chain, and hold it against its checkpoints when there is a key to check them with.

    Args:
        connection: reads.
        verifier: of the key; None checks the hashes alone.
        kept_elsewhere: checkpoints that are not in the database, which whoever rewrote it could not take out.
        newest: walk along the last rows only, so many; every checkpoint is looked at all the same.
    """
    with transaction(connection, "DEFERRED"):
        verdict = audit.verify(connection, newest=newest)
        if verdict.problem is not None or verifier is None:
            return verdict
        head = read_head(connection)
        signed = checkpoints.load_all(connection)
        outside = [checkpoint for checkpoint in kept_elsewhere if checkpoint.seq >= head.base_seq]
        hashes = {head.base_seq: head.base_hash}
        hashes.update(_hashes(connection, {checkpoint.seq for checkpoint in (*signed, *outside)}))
    problem = check_signed(signed, hashes, verifier, base_seq=head.base_seq, kept_elsewhere=outside)
    return AuditVerdict(count=verdict.count, last_seq=verdict.last_seq, problem=problem)


def check_signed(
    signed: Sequence[Checkpoint],
    hashes: Mapping[int, bytes],
    verifier: CheckpointVerifier,
    *,
    base_seq: int,
    kept_elsewhere: Sequence[Checkpoint] = (),
) -> str | None:
    """What is wrong with the checkpoints of a chain whose own hashes are right; None when nothing is.

    Args:
        signed: the checkpoints that come with the chain.
        hashes: of the rows that they are about, as far as they are there, and of the base.
        verifier: of the key.
        base_seq: where the chain begins.
        kept_elsewhere: checkpoints that do not come with it; of rows from the base on.
    """
    cuts = [checkpoint for checkpoint in signed if base_seq and checkpoint.seq == base_seq]
    for checkpoint in (*signed, *kept_elsewhere):
        problem = verifier.check(checkpoint, is_cut=checkpoint in cuts)
        if problem is not None and checkpoint in cuts and verifier.check(checkpoint) is None:
            return f"the chain begins after row {base_seq}, which was signed as one of many and not as its beginning"
        if problem is not None:
            return problem
        if hashes.get(checkpoint.seq) != checkpoint.hash:
            return f"row {checkpoint.seq} is not the one that was signed on {checkpoint.at:%Y-%m-%d %H:%M}Z"
    if base_seq and not cuts:
        return f"the chain begins after row {base_seq}, and no checkpoint says that this is right"
    return None


class AuditTrail:
    """The audit trail of an open store."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def find(self, query: AuditQuery) -> Sequence[tuple[int, AuditRecord]]:
        """Rows with their sequence numbers, oldest first; raises CorruptRecord, StoreUnavailable."""
        return await self._store.read(partial(find, query=query))

    async def head(self) -> ChainHead:
        """Where the chain stands; raises StoreUnavailable."""
        return await self._store.read(read_head)

    async def verify(
        self,
        verifier: CheckpointVerifier | None,
        kept_elsewhere: Sequence[Checkpoint] = (),
        *,
        newest: int | None = None,
    ) -> AuditVerdict:
        """Walk along the chain, or its `newest` rows, and its checkpoints; raises StoreUnavailable."""
        walk = partial(verify, verifier=verifier, kept_elsewhere=kept_elsewhere, newest=newest)
        return await self._store.read_aside(walk)

    async def newest_checkpoint(self) -> Checkpoint | None:
        """The newest one, or None; raises StoreUnavailable."""
        found = await self._store.read(checkpoints.load_all)
        return found[-1] if found else None

    async def sign_head(
        self, signer: CheckpointSigner, now: datetime, *, is_restored: bool = False
    ) -> Checkpoint | None:
        """Sign the newest row, and say so in the file beside the database; None when there is no row.

        Args:
            signer: the key.
            now: aware UTC.
            is_restored: the database is an older one, knowingly; else what was signed last must still be in it.

        Raises:
            StoreUnavailable: it was not stored, or the trail is not the one that was signed before.
        """
        before = None if is_restored else read_head_file(self._store.path.parent)

        def sign(connection: sqlite3.Connection) -> tuple[Checkpoint, ChainHead] | None:
            head = read_head(connection)
            if before is not None:
                _require_going_on(connection, head, before[1], signer.verifier)
            if head.seq == head.base_seq:
                return None
            checkpoint = signer.sign(seq=head.seq, hash_=head.hash, at=now)
            checkpoints.store(connection, checkpoint)
            return checkpoint, head

        signed = await self._store.write(sign)
        if signed is None:
            return None
        checkpoint, head = signed
        write_head_file(self._store.path.parent, head, checkpoint)
        return checkpoint

    async def remove_older(self, cutoff: datetime, *, signer: CheckpointSigner, now: datetime) -> int:
        """Remove rows that are older, batch by batch; how many it were; raises StoreUnavailable."""
        removed = 0
        while count := await self._store.write(partial(remove_older, cutoff=cutoff, signer=signer, now=now)):
            removed += count
        return removed


def _require_going_on(
    connection: sqlite3.Connection, head: ChainHead, before: Checkpoint, verifier: CheckpointVerifier
) -> None:
    """Sign no chain that was put in the place of another one: the new signature would hide it."""
    if before.seq < head.base_seq or verifier.check(before) is not None:
        return
    hashes = {head.base_seq: head.base_hash, **dict(_hashes(connection, {before.seq}))}
    if hashes.get(before.seq) != before.hash:
        raise StoreUnavailable(
            f"the audit trail was altered: row {before.seq} is not the one that was signed on "
            f"{before.at:%Y-%m-%d %H:%M}Z; it is not signed any more, see `provisiond audit verify`"
        )


def write_head_file(directory: Path, head: ChainHead, checkpoint: Checkpoint) -> None:
    """Say beside the database how far it was.

    Raises:
        StoreUnavailable: the file cannot be written.
    """
    path = directory / HEAD_FILE_NAME
    part = directory / f".{HEAD_FILE_NAME}.{os.getpid()}.part"
    body = {"revocations": head.revocations, "checkpoint": checkpoint.to_json()}
    try:
        with suppress(FileNotFoundError):
            part.unlink()
        descriptor = create_private(part)
        try:
            os.write(descriptor, json.dumps(body, indent=2).encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        part.replace(path)
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be written: {error.strerror}") from error


def read_head_file(directory: Path) -> tuple[int, Checkpoint] | None:
    """Revocations and the checkpoint of the file beside the database; None when it is not there or not readable."""
    try:
        with (directory / HEAD_FILE_NAME).open("rb") as stream:
            body = json.loads(stream.read(_HEAD_FILE_LIMIT_BYTES))
        return int(body["revocations"]), Checkpoint.from_json(body["checkpoint"])
    except Exception:  # noqa: BLE001 - a hint that cannot be read is no hint; the database has the truth
        return None


def signed_rows(connection: sqlite3.Connection) -> Iterator[tuple[int, bytes, bytes]]:
    """Sequence number, record and hash of every row, in order."""
    yield from connection.execute("SELECT seq, record, hash FROM audit ORDER BY seq")


def _hashes(connection: sqlite3.Connection, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    yield from connection.execute(
        "SELECT seq, hash FROM audit WHERE seq IN (SELECT value FROM json_each(?))", (json.dumps(sorted(wanted)),)
    )


def _decode(seq: int, record: bytes) -> AuditRecord:
    try:
        return rows.audit_record(record)
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptRecord("audit", str(seq)) from error
