"""SqliteStore: the store ports on one SQLite file."""

import sqlite3
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from provisiond.store import audit, backup, opening, rows
from provisiond.store.admin_store import SqliteAdminStore
from provisiond.store.audit import AuditVerdict
from provisiond.store.connection import BUSY_TIMEOUT_S, Connection, connect, transaction, unavailable, unreadable
from provisiond.store.decision_store import SqliteDecisionStore
from provisiond.store.device_store import SqliteDeviceStore
from provisiond.store.outbox_store import SqliteOutboxStore


class SqliteStore(SqliteDecisionStore, SqliteAdminStore, SqliteDeviceStore, SqliteOutboxStore):
    """`ports.DecisionStore`, `AdminStore`, `DeviceStore` and `OutboxStore` on one file, which others may have open too.

    Three connections, each on a thread of its own: one commits writes in groups, one answers facts in groups, and one
    reads for operators, so that a long list holds up no device. Build it with `open`.

    `fatal` is set when the disk fails or the file turns out to be damaged. From then on nothing is written, for a
    second fsync may lie about the first: the process had better end and be started again.
    """

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
        set_up = partial(
            opening.set_up,
            path=path,
            write=not read_only,
            migrate=migrate and not read_only,
            quick_check=quick_check,
        )
        async with AsyncExitStack() as stack:
            connection = partial(_opened, stack, path, busy_timeout_s=busy_timeout_s)
            writer = None if read_only else await connection(read_only=False)
            operator = writer or await connection(read_only=True)
            return cls(
                path=path,
                digest=await _digest(operator, path, set_up),
                writer=writer,
                reader=await connection(read_only=True),
                operator=await connection(read_only=True) if writer else operator,
                opened=stack.pop_all(),
            )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def backup(self, target: Path | str) -> None:
        """Write a sound copy of the database as it is now, while it is in use.

        Raises:
            InvalidArgument: the target is the database itself.
            StoreUnavailable: the copy could not be made; a file of that name is as it was.
        """
        await self._aside(partial(backup.write_backup, database=self.path, target=Path(target)))

    async def check(self, *, sample: bool = False) -> tuple[str, ...]:
        """What is wrong with the database, or a sample of it, at most 100 lines; raises StoreUnavailable."""
        return await self._aside(backup.sample_problems if sample else backup.problems)

    async def verify_audit(self) -> AuditVerdict:
        """Walk along the audit chain; raises StoreUnavailable."""

        def verify(connection: sqlite3.Connection) -> AuditVerdict:
            with transaction(connection, "DEFERRED"):
                return audit.verify(connection)

        return await self._aside(verify)


async def _opened(stack: AsyncExitStack, path: Path, *, read_only: bool, busy_timeout_s: float) -> Connection:
    connection = await connect(path, read_only=read_only, busy_timeout_s=busy_timeout_s)
    stack.push_async_callback(connection.close)
    return connection


async def _digest(connection: Connection, path: Path, set_up: Callable[[sqlite3.Connection], bytes]) -> rows.RowDigest:
    try:
        return rows.RowDigest(await connection.call(set_up))
    except UnicodeDecodeError as error:
        raise unreadable(path) from error
    except sqlite3.Error as error:
        raise unavailable(error) from error
