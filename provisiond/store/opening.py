"""What happens before a database is used: the file, its mode, its schema, and a write that proves it can be written."""

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

from provisiond.errors import StoreUnavailable
from provisiond.private_files import create_private, make_private_directory
from provisiond.store import rows, schema
from provisiond.store.connection import transaction

_ACCESSIBLE_TO_OTHERS: Final = 0o007
_HEADER_BYTES: Final = 100


def require_file(path: Path, *, create: bool) -> None:
    """Make the file when it may be made, and see that it is nobody else's to read.

    Raises:
        StoreUnavailable: it is not there, cannot be made or read, is accessible to everyone, or has been cut off.
    """
    try:
        if create:
            make_private_directory(path.parent)
            with suppress(FileExistsError):
                os.close(create_private(path))
        if path.stat().st_mode & _ACCESSIBLE_TO_OTHERS:
            raise StoreUnavailable(f"the database {path} holds keys and is accessible to everyone: chmod o= {path}")
        _require_whole(path)
    except PermissionError as error:
        raise not_for_this_user(path, error) from error
    except OSError as error:
        raise StoreUnavailable(f"the database {path} cannot be opened: {error.strerror}") from error


def not_for_this_user(path: Path, error: PermissionError) -> StoreUnavailable:
    """The error for a user who may not read the database, with the way out."""
    who = "be root, or the user that the service runs as (sudo -u USER provisiond …)"
    return StoreUnavailable(f"the database {path} cannot be opened: {error.strerror}; {who}")


def _require_whole(path: Path) -> None:
    """Compare the size with the number of pages in the header: SQLite takes half a page at the end for zeros.

    Only while there is no write-ahead log: pages that are missing from the file may be in that.
    (SQLite file format 1.3: page size at 16, change counter at 24, pages at 28, valid for change counter at 92.)
    """
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        return
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES or header[24:28] != header[92:96]:
        return  # empty, or for SQLite to judge
    page_bytes = int.from_bytes(header[16:18], "big")
    size_bytes = int.from_bytes(header[28:32], "big") * (65536 if page_bytes == 1 else page_bytes)
    if path.stat().st_size < size_bytes:
        raise StoreUnavailable(
            f"the database {path} is damaged: it has {path.stat().st_size} of {size_bytes} bytes; "
            "`provisiond db restore` brings a backup back"
        )


def set_up(connection: sqlite3.Connection, *, path: Path, write: bool, migrate: bool, quick_check: bool) -> bytes:
    """Check, migrate, probe; gives the digest key."""
    if quick_check:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != b"ok":
            raise StoreUnavailable(f"the database {path} is damaged: {verdict.decode(errors='backslashreplace')}")
    known = len(schema.migrations())
    if migrate or (write and schema.current_version(connection) == 0):  # empty: whoever made the file was killed
        schema.migrate(connection, path)
    version = schema.current_version(connection)
    schema.require_known(version, known)
    if version < known:
        raise StoreUnavailable(
            f"the database {path} has schema version {version}, this provisiond needs {known}: "
            "`provisiond db migrate` brings it up to date"
        )
    if write:
        with transaction(connection):
            connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'opened'")
    return rows.read_digest_key(connection)
