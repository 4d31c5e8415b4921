"""The audit trail as a file of lines, which anybody can check without the database.

{"type": "header", "format": "provisiond-audit", "version": 1, "baseSeq", "baseHash", "publicKey"}
{"type": "record", "seq", "record", "hash"}          `record` is the very text that the hash covers
{"type": "checkpoint", "seq", "hash", "at", "keyId", "signature"}
{"type": "end", "headSeq", "headHash"}

hash(n) = SHA-256( hash(n - 1) || n, 8 octets big-endian || record, UTF-8 )
"""

import json
import sqlite3
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from provisiond.errors import InvalidArgument
from provisiond.store import checkpoints
from provisiond.store.audit import AuditVerdict, chain_hash
from provisiond.store.audit_trail import check_signed, read_head, signed_rows
from provisiond.store.checkpoints import Checkpoint, CheckpointVerifier
from provisiond.store.connection import transaction

FORMAT: Final = "provisiond-audit"
LINE_LIMIT_BYTES: Final = 1024 * 1024
"""A record is a few KiB; a line that is longer is none of ours."""


def write_export(connection: sqlite3.Connection, write: Callable[[str], object], *, public_key: bytes | None) -> int:
    """Write every row and checkpoint of one state of the database; how many rows.

    Args:
        connection: nobody else's; it reads for as long as it takes.
        write: takes a line with its end.
        public_key: of the checkpoints, 32 octets; None when there is none.
    """
    with transaction(connection, "DEFERRED"):
        head = read_head(connection)
        signed = {checkpoint.seq: checkpoint for checkpoint in checkpoints.load_all(connection)}
        header = {
            "type": "header",
            "format": FORMAT,
            "version": 1,
            "baseSeq": head.base_seq,
            "baseHash": head.base_hash.hex(),
            "publicKey": None if public_key is None else b64encode(public_key).decode("ascii"),
        }
        write(_line(header))
        _write_checkpoint(signed.get(head.base_seq), write)
        count = 0
        for seq, record, hash_ in signed_rows(connection):
            write(_line({"type": "record", "seq": seq, "record": record.decode(), "hash": hash_.hex()}))
            _write_checkpoint(signed.get(seq), write)
            count += 1
        write(_line({"type": "end", "headSeq": head.seq, "headHash": head.hash.hex()}))
    return count


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportVerdict:
    """What a walk along an export found.

    Args:
        chain: rows that are right, and what is wrong after them.
        checkpoints: how many were checked.
        signed_up_to: row of the newest of them; 0 when there is none.
        key_id: of the key that they were checked with; None when there was none.
    """

    chain: AuditVerdict
    checkpoints: int
    signed_up_to: int
    key_id: str | None


def verify_export(lines: Iterable[bytes], *, public_key: bytes | None = None) -> ExportVerdict:
    """Check an export, line by line, in flat memory but for its checkpoints.

    Args:
        lines: of the file, with their ends.
        public_key: of the checkpoints, from elsewhere; without it, the one that the export brings, which proves only
            that nothing was damaged by accident.

    Raises:
        InvalidArgument: it is no export.
    """
    return _Walk(lines, public_key).run()


@dataclass(slots=True)
class _Walk:
    lines: Iterable[bytes]
    public_key: bytes | None
    seq: int = 0
    head: bytes = b""
    base_seq: int = 0
    count: int = 0
    names_another_key: bool = False
    signed: list[Checkpoint] = field(default_factory=list)
    hashes: dict[int, bytes] = field(default_factory=dict)

    def run(self) -> ExportVerdict:
        bodies = _bodies(self.lines)
        self._begin(next(bodies, {}))
        verifier = None if self.public_key is None else CheckpointVerifier(self.public_key)
        problem = self._follow(bodies)
        if problem is None and verifier is not None:
            problem = check_signed(self.signed, self.hashes, verifier, base_seq=self.base_seq)
        if problem is None and self.names_another_key:
            problem = "the export names another key than the one that was given"
        return ExportVerdict(
            chain=AuditVerdict(count=self.count, last_seq=self.seq, problem=problem),
            checkpoints=len(self.signed),
            signed_up_to=max((checkpoint.seq for checkpoint in self.signed), default=0),
            key_id=verifier.key_id if verifier else None,
        )

    def _begin(self, header: Mapping[str, Any]) -> None:
        if header.get("type") != "header" or header.get("format") != FORMAT or header.get("version") != 1:
            raise InvalidArgument("this is no audit export of version 1; `provisiond audit export` makes one")
        try:
            self.base_seq = self.seq = int(header["baseSeq"])
            self.head = bytes.fromhex(header["baseHash"])
            named = None if header.get("publicKey") is None else b64decode(header["publicKey"], validate=True)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidArgument(f"the header of the export is damaged: {error!r}") from error
        self.names_another_key = None not in (named, self.public_key) and named != self.public_key
        self.public_key = self.public_key or named
        self.hashes[self.seq] = self.head

    def _follow(self, bodies: Iterator[Mapping[str, Any]]) -> str | None:
        """Walk to the end; what is wrong there, or None."""
        for body in bodies:
            try:
                ended, problem = self._take(body)
            except (KeyError, TypeError, ValueError, OverflowError, InvalidArgument):
                return f"the line after row {self.seq} is damaged"
            if problem is not None or ended:
                return problem or ("there is more after the end" if next(bodies, None) is not None else None)
        return f"the export was cut off after row {self.seq}"

    def _take(self, body: Mapping[str, Any]) -> tuple[bool, str | None]:
        match body["type"]:
            case "record":
                return False, self._take_record(body)
            case "checkpoint":
                checkpoint = Checkpoint.from_json(body)
                if {"type": "checkpoint", **checkpoint.to_json()} != body:
                    raise ValueError  # the same in another spelling is not what was written
                self.signed.append(checkpoint)
                self.hashes[self.seq] = self.head
                return False, None
            case "end":
                if (body["headSeq"], body["headHash"]) != (self.seq, self.head.hex()):
                    return True, f"rows {self.seq + 1} to {body['headSeq']} are missing at the end"
                return True, None
            case _:
                raise ValueError

    def _take_record(self, body: Mapping[str, Any]) -> str | None:
        seq = int(body["seq"])
        if seq != self.seq + 1:
            return f"row {self.seq + 1} is missing"
        hash_ = chain_hash(self.head, seq, body["record"].encode())
        if hash_.hex() != body["hash"]:
            return f"row {seq} is not what was written"
        self.seq, self.head, self.count = seq, hash_, self.count + 1
        return None


def _bodies(lines: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        try:
            body = json.loads(line) if len(line) <= LINE_LIMIT_BYTES else None
        except (ValueError, RecursionError):
            body = None
        yield body if isinstance(body, dict) else {}


def _write_checkpoint(checkpoint: Checkpoint | None, write: Callable[[str], object]) -> None:
    if checkpoint is not None:
        write(_line({"type": "checkpoint", **checkpoint.to_json()}))


def _line(body: Mapping[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False) + "\n"
