"""What happens before a database is used: the file, its mode, its schema, and a write that proves it can be written."""

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

from provisiond.errors import StoreUnavailable
from provisiond.store import rows, schema
from provisiond.store.connection import transaction

_ACCESSIBLE_TO_OTHERS: Final = 0o007


def require_file(path: Path, *, create: bool) -> None:
    """Make the file when it may be made, and see that it is nobody else's to read.

    Raises:
        StoreUnavailable: it is not there, cannot be made, or is accessible to everyone.
    """
    try:
        if create:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        mode = path.stat().st_mode
    except OSError as error:
        raise StoreUnavailable(f"the database {path} cannot be opened: {error.strerror}") from error
    if mode & _ACCESSIBLE_TO_OTHERS:
        raise StoreUnavailable(f"the database {path} holds keys and is accessible to everyone: chmod o= {path}")


def set_up(connection: sqlite3.Connection, *, path: Path, write: bool, migrate: bool, quick_check: bool) -> bytes:
    """Check, migrate, probe; gives the digest key."""
    if quick_check:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != b"ok":
            raise StoreUnavailable(f"the database {path} is damaged: {verdict.decode(errors='backslashreplace')}")
    known = len(schema.migrations())
    if migrate:
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
