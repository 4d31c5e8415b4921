"""The schema: numbered migrations, and the runner that brings a database up to the code's version."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

from provisiond.errors import SchemaTooNew, StoreUnavailable
from provisiond.store.connection import connect_here, transaction
from provisiond.store.new_file import written_beside

APPLICATION_ID: Final = 0x70726F76
"""`prov`, at offset 68 of the file: `file` and this code tell the database from others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One numbered script; `version` is the schema's version after it."""

    version: int
    name: str
    script: str


@cache
def migrations() -> tuple[Migration, ...]:
    """Every migration of this release, in order, without gaps."""
    directory = resources.files("provisiond.store") / "migrations"
    scripts = sorted((entry.name, entry) for entry in directory.iterdir() if entry.name.endswith(".sql"))
    found = tuple(
        Migration(version=int(name.partition("_")[0]), name=name, script=entry.read_text(encoding="utf-8"))
        for name, entry in scripts
    )
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise StoreUnavailable("the migrations of this installation are not complete; install provisiond again")
    return found


def current_version(connection: sqlite3.Connection) -> int:
    """The file's schema version, 0 for an empty file.

    Raises:
        StoreUnavailable: it is the database of another program.
        sqlite3.Error: it cannot be read.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application_id != APPLICATION_ID and (version or application_id or tables):
        raise StoreUnavailable("the file is a database of another program")
    return version


def require_known(version: int, known: int) -> None:
    """Refuse a database from the future.

    Raises:
        SchemaTooNew: it is.
    """
    if version > known:
        raise SchemaTooNew(
            f"the database has schema version {version}, this provisiond knows versions up to {known}: "
            "upgrade provisiond, or restore a backup that this version made (`provisiond db restore FILE`)"
        )


def migrate(connection: sqlite3.Connection, path: Path, steps: Sequence[Migration] | None = None) -> int:
    """Bring the database up to date; before each migration of one that has data, a copy is kept beside it.

    The copy of `provisiond.db` before migration 2 is `provisiond.db.before-2`.

    Returns:
        The schema version that was found.

    Raises:
        SchemaTooNew: the database was written by a newer provisiond.
        StoreUnavailable: it is the database of another program.
        sqlite3.Error: a migration failed; the schema is as it was before that one.
    """
    steps = migrations() if steps is None else steps
    found = current_version(connection)
    require_known(found, len(steps))
    if not found:  # at once: a process that is killed leaves an empty file, or a whole schema
        _apply(connection, steps)
        return found
    for step in steps[found:]:
        _apply(connection, [step], keep=path)
    return found


def _apply(connection: sqlite3.Connection, steps: Sequence[Migration], *, keep: Path | None = None) -> None:
    """Run migrations in one transaction; of the database that is to be kept a copy is made first, within it.

    So of several processes that come at once one copies and migrates, and the others find it done.
    """
    with transaction(connection):
        there = current_version(connection)  # another process may have been first
        for step in (step for step in steps if step.version > there):
            if keep is not None:
                _copy(keep, keep.with_name(f"{keep.name}.before-{step.version}"))
            for statement in _statements(step.script):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={step.version:d}")


def _statements(script: str) -> Iterator[str]:
    """Split a script at its statements: executescript() would commit before it begins."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if any(line.strip() and not line.lstrip().startswith("--") for line in statement.splitlines()):
        raise StoreUnavailable("a migration ends in the middle of a statement; install provisiond again")


def _copy(database: Path, target: Path) -> None:
    """Copy what is committed; the connection that is about to write cannot be copied from."""
    with (
        closing(connect_here(database, read_only=True)) as source,
        written_beside(target, for_service=True) as part,
        closing(sqlite3.connect(part)) as copy,
    ):
        source.backup(copy)
