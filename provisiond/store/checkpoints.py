"""Signed checkpoints of the audit chain: whoever rewrites the database cannot rewrite them without the key.

    signature = Ed25519( "provisiond audit checkpoint 1" LF || seq, 8 octets big-endian || hash, 32 || time, 8 )

Where retention has cut the chain, "provisiond audit cut 1" LF stands in front instead: no other checkpoint says that
what was before it may be gone.

The key is a file in the state directory, not in the database: a copy of the database cannot be forged with what is in
it. Who can read the key as well can forge everything, unless a checkpoint or the public key is kept elsewhere.
"""

import os
import sqlite3
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from provisiond.errors import InvalidArgument, StoreUnavailable
from provisiond.private_files import create_private

KEY_FILE_NAME: Final = "audit-signing.key"

_DOMAIN: Final = b"provisiond audit checkpoint 1\n"
_CUT_DOMAIN: Final = b"provisiond audit cut 1\n"
_HASH_SIZE_BYTES: Final = 32
_KEY_FILE_LIMIT_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What the chain was at a time, signed.

    Args:
        seq: of the row that it is about.
        hash: of that row, 32 octets.
        at: aware UTC, whole seconds.
        key_id: first 16 hexadecimal digits of SHA-256 of the public key.
        signature: 64 octets.
    """

    seq: int
    hash: bytes
    at: datetime
    key_id: str
    signature: bytes

    def to_json(self) -> dict[str, Any]:
        """As data, for an export or a file that is kept elsewhere."""
        return {
            "seq": self.seq,
            "hash": self.hash.hex(),
            "at": self.at.isoformat(),
            "keyId": self.key_id,
            "signature": b64encode(self.signature).decode("ascii"),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            InvalidArgument: it is something else.
        """
        try:
            checkpoint = cls(
                seq=int(body["seq"]),
                hash=bytes.fromhex(body["hash"]),
                at=datetime.fromisoformat(body["at"]).astimezone(UTC),
                key_id=str(body["keyId"]),
                signature=b64decode(body["signature"], validate=True),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidArgument(f"this is no checkpoint: {error!r}") from error
        if not 0 <= checkpoint.seq < 2**63 or len(checkpoint.hash) != _HASH_SIZE_BYTES:
            raise InvalidArgument("this is no checkpoint: seq or hash is out of range")
        return checkpoint


class CheckpointVerifier:
    """The public half of a checkpoint key."""

    def __init__(self, public_key: bytes) -> None:
        """`public_key`: 32 octets; raises InvalidArgument."""
        try:
            self._key = Ed25519PublicKey.from_public_bytes(public_key)
        except ValueError as error:
            raise InvalidArgument("this is no Ed25519 public key of 32 octets") from error
        self.public_key = public_key
        self.key_id = sha256(public_key).hexdigest()[:16]

    def check(self, checkpoint: Checkpoint, *, is_cut: bool = False) -> str | None:
        """What is wrong with a checkpoint's signature; None when nothing is; `is_cut`: the chain begins after it."""
        if checkpoint.key_id != self.key_id:
            return f"the checkpoint at row {checkpoint.seq} is signed with another key ({checkpoint.key_id})"
        try:
            covered = _covered(checkpoint.seq, checkpoint.hash, checkpoint.at, is_cut=is_cut)
            self._key.verify(checkpoint.signature, covered)
        except InvalidSignature:
            return f"the signature of the checkpoint at row {checkpoint.seq} is not right"
        return None


class CheckpointSigner:
    """A checkpoint key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.verifier = CheckpointVerifier(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    @classmethod
    def load(cls, directory: Path, *, create: bool = True) -> Self:
        """Read the key of a state directory; made there with mode 0600 when it is not there and may be made.

        Raises:
            StoreUnavailable: it cannot be read or made, or is something else.
        """
        path = directory / KEY_FILE_NAME
        try:
            if create and not path.exists():
                _write_new(path, Ed25519PrivateKey.generate())
            with path.open("rb") as stream:
                key = load_pem_private_key(stream.read(_KEY_FILE_LIMIT_BYTES), password=None)
        except OSError as error:
            raise StoreUnavailable(f"the audit key {path} cannot be used: {error.strerror}") from error
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise StoreUnavailable(f"{path} holds no unencrypted private key in PEM") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise StoreUnavailable(f"{path} holds no Ed25519 key")
        return cls(key)

    def sign(self, *, seq: int, hash_: bytes, at: datetime, is_cut: bool = False) -> Checkpoint:
        """A checkpoint for a row; `is_cut`: the last one that retention removes."""
        at = at.replace(microsecond=0)
        signature = self._key.sign(_covered(seq, hash_, at, is_cut=is_cut))
        return Checkpoint(seq=seq, hash=hash_, at=at, key_id=self.verifier.key_id, signature=signature)


def store(connection: sqlite3.Connection, checkpoint: Checkpoint) -> None:
    """Keep a checkpoint; a newer one of the same row replaces it."""
    connection.execute(
        "INSERT OR REPLACE INTO audit_checkpoint (seq, hash, at_s, key_id, signature) VALUES (?, ?, ?, ?, ?)",
        (
            checkpoint.seq,
            checkpoint.hash,
            int(checkpoint.at.timestamp()),
            checkpoint.key_id,
            checkpoint.signature,
        ),
    )


def load_all(connection: sqlite3.Connection) -> list[Checkpoint]:
    """Every checkpoint, oldest first."""
    found = connection.execute("SELECT seq, hash, at_s, key_id, signature FROM audit_checkpoint ORDER BY seq")
    return [
        Checkpoint(
            seq=seq,
            hash=hash_,
            at=datetime.fromtimestamp(at_s, UTC),
            key_id=key_id.decode(errors="replace"),
            signature=signature,
        )
        for seq, hash_, at_s, key_id, signature in found
    ]


def _covered(seq: int, hash_: bytes, at: datetime, *, is_cut: bool) -> bytes:
    return (
        (_CUT_DOMAIN if is_cut else _DOMAIN)
        + seq.to_bytes(8, "big")
        + hash_
        + int(at.timestamp()).to_bytes(8, "big", signed=True)
    )


def _write_new(path: Path, key: Ed25519PrivateKey) -> None:
    """Whole or not at all: a key file that was cut short would stop the daemon for ever."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    descriptor = create_private(part)
    try:
        os.write(descriptor, pem)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        path.hardlink_to(part)  # fails when another process was first: its key is as good
    except FileExistsError:
        pass
    finally:
        part.unlink(missing_ok=True)
