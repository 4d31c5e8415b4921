"""A SQLite connection on a thread of its own, which runs a whole transaction in one hop.

aiosqlite hops between the event loop and its thread for every statement; a registration would pay six hops instead of
its share of one. `Connection.call` is the one thing added.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, Self, TypeVar
from urllib.parse import quote

import aiosqlite

from provisiond.errors import StoreUnavailable

T = TypeVar("T")

BUSY_TIMEOUT_S: Final = 5.0
"""How long a statement waits for another process's transaction; an import's batches take milliseconds."""

_SQLITE_FLOOR: Final = (3, 37, 0)
"""The first with STRICT tables; RETURNING is from 3.35."""

_PRAGMAS: Final = (
    "PRAGMA trusted_schema=OFF",  # a crafted file's views and triggers call no functions
    "PRAGMA cell_size_check=ON",  # damage is noticed where it is, not where it spreads to
    "PRAGMA foreign_keys=ON",
    "PRAGMA secure_delete=ON",  # deleted keys do not stay in free pages
    "PRAGMA synchronous=FULL",  # COMMIT returns when the write-ahead log is on disk
    "PRAGMA cache_size=-8192",  # KiB; the inner pages of a million rows, and bounded
    "PRAGMA journal_size_limit=67108864",  # a checkpoint after a large import gives the log's space back
)

FATAL_CODES: Final = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
"""After these nothing that this process believes about the file holds: a second fsync may lie about the first."""

_ENVIRONMENT: Final = {
    sqlite3.SQLITE_BUSY: "the database is locked by another process",
    sqlite3.SQLITE_LOCKED: "the database is locked",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "the database is read-only",
    sqlite3.SQLITE_PERM: "the database may not be accessed",
    sqlite3.SQLITE_CANTOPEN: "the database cannot be opened",
    sqlite3.SQLITE_NOMEM: "SQLite is out of memory",
    sqlite3.SQLITE_IOERR: "the disk failed",
    sqlite3.SQLITE_CORRUPT: "the database is damaged; `provisiond db restore` brings a backup back",
    sqlite3.SQLITE_NOTADB: "the file is no database, or is damaged; `provisiond db restore` brings a backup back",
}


class Connection(aiosqlite.Connection):
    """An aiosqlite connection that runs a function with the raw connection, on its thread."""

    async def opened(self) -> Self:
        """Start the thread and open the file; when that fails, the thread has ended when this returns."""
        try:
            await self
        except BaseException:
            self._thread.join()  # it has nothing left to do, and would outlive the event loop that it reports to
            raise
        return self

    def call(self, function: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Run `function(connection)` on the connection's thread; calls run one after the other, in order.

        Cancelling the future does not stop the function.

        Raises:
            StoreUnavailable: the connection is closed.
        """
        if not self._running or self._connection is None:
            raise StoreUnavailable("the database connection is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._tx.put_nowait((future, partial(function, self._connection)))
        return future


async def connect(path: Path, *, read_only: bool, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Connection:
    """Open an existing database file, with the PRAGMAs that every connection has.

    Raises:
        StoreUnavailable: it cannot be opened, or the SQLite library is older than 3.37.
    """
    connection = Connection(partial(connect_here, path, read_only=read_only, busy_timeout_s=busy_timeout_s), 64)
    try:
        return await connection.opened()
    except UnicodeDecodeError as error:
        raise unreadable(path) from error
    except sqlite3.Error as error:
        raise unavailable(error) from error


def connect_here(path: Path, *, read_only: bool, busy_timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """The same on the calling thread. Transactions are begun by hand, and text comes back as UTF-8 bytes.

    Bytes, because a flipped bit may make text that is not UTF-8: the digest is to notice it, for that row alone.

    Raises:
        sqlite3.Error: it cannot be opened.
        StoreUnavailable: the SQLite library is older than 3.37.
    """
    if sqlite3.sqlite_version_info < _SQLITE_FLOOR:
        raise StoreUnavailable(f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or newer is needed")
    uri = f"file:{quote(str(path.absolute()))}?mode={'ro' if read_only else 'rw'}"
    connection = sqlite3.connect(uri, uri=True, timeout=busy_timeout_s, isolation_level=None)
    try:
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        if not read_only:
            connection.execute("PRAGMA journal_mode=WAL")
    except BaseException:
        connection.close()
        raise
    connection.text_factory = bytes
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection, mode: str = "IMMEDIATE") -> Iterator[None]:
    """COMMIT at the end, ROLLBACK on any exception; `mode` is IMMEDIATE to write, DEFERRED to read."""
    connection.execute(f"BEGIN {mode}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors have rolled back already
            with suppress(sqlite3.Error):  # the first error is the one to tell
                connection.execute("ROLLBACK")
        raise


def primary_code(error: BaseException) -> int:
    """The SQLite primary result code, or -1 for an error of another kind."""
    return getattr(error, "sqlite_errorcode", -1) & 0xFF if isinstance(error, sqlite3.Error) else -1


def is_environmental(error: BaseException) -> bool:
    """Whether the file or the machine failed, rather than one statement's values."""
    return primary_code(error) in _ENVIRONMENT


def unreadable(path: Path) -> StoreUnavailable:
    """What is said where SQLite names a table or a column whose name is damaged: its message is no text then."""
    return StoreUnavailable(f"{_ENVIRONMENT[sqlite3.SQLITE_CORRUPT]} (the schema in {path} cannot be read)")


def no_backup(source: Path, error: sqlite3.Error) -> StoreUnavailable:
    """What is said of a file that was to be restored and is not what it should be: not that the database is damaged."""
    if primary_code(error) not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return unavailable(error)
    return StoreUnavailable(f"{source} is damaged, or no backup, and was not restored ({error})")


def unavailable(error: BaseException) -> StoreUnavailable:
    """What the callers hear of it."""
    what = _ENVIRONMENT.get(primary_code(error), "the database did not do what was asked")
    if getattr(error, "sqlite_errorcode", -1) == sqlite3.SQLITE_IOERR_SHMSIZE:  # even reading needs an index of the log
        what = "the disk is full"
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return StoreUnavailable(f"{what} ({name}: {error})")
