"""The audit table: append-only, chained by hashes in commit order.

    hash(n) = SHA-256( hash(n - 1) || n, 8 octets big-endian || record, UTF-8 JSON )

A row that was changed, removed or moved breaks every hash after it, and rows missing at the end are seen because the
head of the chain is kept apart. Whoever can write the file can compute a new chain: against that, checkpoints of the
head have to be kept elsewhere.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from provisiond.errors import CorruptRecord
from provisiond.model import AuditRecord
from provisiond.store import rows
from provisiond.store.inserting import insert_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditVerdict:
    """What a walk along the chain found.

    Args:
        count: rows whose hashes are right, from the first on.
        last_seq: sequence number of the last of them, 0 when there is none.
        problem: what is wrong after that row; None when the chain is whole.
    """

    count: int
    last_seq: int
    problem: str | None = None


def chain_hash(previous: bytes, seq: int, record: bytes) -> bytes:
    """Hash of a row, 32 octets."""
    return sha256(previous + seq.to_bytes(8, "big") + record).digest()


def append(connection: sqlite3.Connection, records: Sequence[rows.AuditRow]) -> None:
    """Append in order, and move the head of the chain."""
    if not records:
        return
    seq, head = connection.execute("SELECT head_seq, head_hash FROM audit_chain").fetchone()
    values = []
    for row in records:
        seq += 1
        head = chain_hash(head, seq, row.record.encode())
        values.append((seq, row.at_s, row.tracking_id, row.registration_key, row.code, row.record, head))
    insert_rows(connection, "INSERT INTO audit (seq, at_s, tracking_id, registration_key, code, record, hash)", values)
    connection.execute("UPDATE audit_chain SET head_seq = ?, head_hash = ?", (seq, head))


def load(connection: sqlite3.Connection, tracking_id: str) -> AuditRecord | None:
    """The newest row of a tracking id, or None.

    Raises:
        CorruptRecord: it cannot be read.
    """
    found = connection.execute(
        "SELECT seq, record FROM audit WHERE tracking_id = ? ORDER BY seq DESC LIMIT 1", (rows.storable(tracking_id),)
    ).fetchone()
    return None if found is None else _decode(*found)


def page(
    connection: sqlite3.Connection, *, after: int, limit: int, registration_key: str | None
) -> list[tuple[int, AuditRecord]]:
    """Up to `limit` rows, oldest first, after sequence number `after`.

    Raises:
        CorruptRecord: one cannot be read.
    """
    if registration_key is None:
        found = connection.execute("SELECT seq, record FROM audit WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit))
    else:
        found = connection.execute(
            "SELECT seq, record FROM audit WHERE registration_key = ? AND seq > ? ORDER BY seq LIMIT ?",
            (rows.storable(registration_key), after, limit),
        )
    return [(seq, _decode(seq, record)) for seq, record in found]


def verify(connection: sqlite3.Connection, *, newest: int | None = None) -> AuditVerdict:
    """Walk along the chain from its base to its head, in one transaction of the caller's.

    Args:
        connection: reads.
        newest: walk along so many rows only, the last ones.
    """
    seq, head, head_seq, head_hash = connection.execute(
        "SELECT base_seq, base_hash, head_seq, head_hash FROM audit_chain"
    ).fetchone()
    walked = ""
    if newest is not None and head_seq - newest > seq:
        begin = connection.execute("SELECT seq, hash FROM audit WHERE seq = ?", (head_seq - newest,)).fetchone()
        if begin is None:
            return AuditVerdict(count=0, last_seq=seq, problem=f"row {head_seq - newest} is missing")
        seq, head = begin
        walked = f"WHERE seq > {seq:d} "
    count = 0
    for row_seq, record, row_hash, *columns in connection.execute(
        f"SELECT seq, record, hash, at_s, tracking_id, registration_key, code FROM audit {walked}ORDER BY seq"  # noqa: S608 - a number
    ):
        if row_seq != seq + 1:
            return AuditVerdict(count=count, last_seq=seq, problem=f"row {seq + 1} is missing")
        if chain_hash(head, row_seq, record) != row_hash:
            return AuditVerdict(count=count, last_seq=seq, problem=f"row {row_seq} is not what was written")
        if not columns_agree(record, *columns):
            problem = f"row {row_seq}: what it is found by is not what was written"
            return AuditVerdict(count=count, last_seq=seq, problem=problem)
        seq, head, count = row_seq, row_hash, count + 1
    if (seq, head) != (head_seq, head_hash):
        missing = f"rows {seq + 1} to {head_seq} are missing at the end"
        problem = missing if head_seq > seq else f"the chain ends with row {seq}, and says that it ends otherwise"
        return AuditVerdict(count=count, last_seq=seq, problem=problem)
    return AuditVerdict(count=count, last_seq=seq)


def columns_agree(record: bytes, at_s: int, tracking_id: bytes, registration_key: bytes, code: int | None) -> bool:
    """Whether the columns say what the record says, which alone the hash covers."""
    try:
        expected = rows.audit_columns(rows.decode(record))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return False
    return expected == (at_s, tracking_id.decode(errors="replace"), registration_key.decode(errors="replace"), code)


def _decode(seq: int, record: bytes) -> AuditRecord:
    try:
        return rows.audit_record(record)
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptRecord("audit", str(seq)) from error
