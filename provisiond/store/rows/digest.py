"""The digest of a row, and the error for one that is not what was written."""

import sqlite3
from hashlib import blake2b
from typing import Final

from provisiond.errors import CorruptRecord

ENROLLMENT: Final = b"enrollment"
REGISTRATION: Final = b"registration"


class RowDigest:
    """BLAKE2b-64 over a row's table, key and record, keyed with the database's own secret.

    It notices accidents (a flipped bit, an edit by hand), with a miss in 2**64. It stops no attacker: the secret is in
    the same file, for there is no better place on a gateway without a TPM.
    """

    def __init__(self, key: bytes) -> None:
        self._base = blake2b(key=key, digest_size=8)

    def of(self, table: bytes, key: bytes, *parts: bytes) -> bytes:
        """Digest of a row, 16 lower-case hexadecimal digits. No part but the last may contain the octet 0x1f."""
        digest = self._base.copy()
        digest.update(b"\x1f".join((table, key, *parts)))
        return digest.hexdigest().encode()

    def check(self, stored: bytes, table: bytes, key: bytes, *parts: bytes) -> None:
        """Compare.

        Raises:
            CorruptRecord: the row is not what was written.
        """
        if self.of(table, key, *parts) != stored:
            raise corrupt(table, key)


def read_digest_key(connection: sqlite3.Connection) -> bytes:
    """The database's own secret for the row digests.

    Raises:
        CorruptRecord: it is not there.
    """
    found = connection.execute("SELECT value FROM meta WHERE name = 'digest_key'").fetchone()
    if found is None or not isinstance(found[0], bytes) or len(found[0]) != 32:
        raise CorruptRecord("meta", "digest_key")
    return found[0]


def corrupt(table: bytes, key: bytes) -> CorruptRecord:
    """The error for a row, whatever its key has become."""
    return CorruptRecord(table.decode(), key.decode(errors="backslashreplace"))
