"""The hops to the threads that the connections of a store live on."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from provisiond.errors import ProvisiondError, StoreUnavailable
from provisiond.model import AuditRecord
from provisiond.ports import FactsQuery, StoredFacts
from provisiond.store import rows
from provisiond.store.connection import FATAL_CODES, Connection, connect, primary_code, unavailable
from provisiond.store.facts import FactsReader
from provisiond.store.grouping import GroupedCalls
from provisiond.store.lending import Loan
from provisiond.store.writer import MutationItem, WriteItem, write_group

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Counters since the store was opened, for metrics.

    Args:
        transactions: groups of writes that were committed or refused.
        rows: writes in them, conflicting and refused ones included; rows / transactions is what grouping saves.
        largest_group: writes in the largest.
        writes_waiting, reads_waiting: now.
        reads: facts that were read.
        read_groups: statements that it took.
    """

    transactions: int
    rows: int
    largest_group: int
    writes_waiting: int
    reads_waiting: int
    reads: int
    read_groups: int


class Hops:
    """The connections of one store: writes wait for the next group, facts likewise, and what is read goes singly.

    Args:
        path: the file.
        digest: what rows are digested with.
        writer: commits; None when nothing may be written.
        reader: answers devices.
        operator: answers operators.
        opened: closes all of them.
    """

    def __init__(
        self,
        *,
        path: Path,
        digest: rows.RowDigest,
        writer: Connection | None,
        reader: Connection,
        operator: Connection,
        opened: AsyncExitStack,
    ) -> None:
        self.path = path
        self.fatal = asyncio.Event()
        self.fatal_reason = ""
        self._digest = digest
        self._operator = operator
        self._reader = reader
        self._opened = opened
        facts = FactsReader(digest)
        self._reads: GroupedCalls[FactsQuery, StoredFacts] = GroupedCalls(
            partial(_start_reading, reader, facts), self._explain
        )
        self._writes: GroupedCalls[WriteItem, Any] = GroupedCalls(partial(_start_writing, writer), self._explain)
        if writer is None:
            self._writes.refuse("the database was opened for reading only")

    async def close(self) -> None:
        """Finish what waits, then close; safe to call twice."""
        await self._writes.drain()
        await self._reads.drain()
        self._writes.refuse("the database is closed")
        self._reads.refuse("the database is closed")
        await self._opened.aclose()

    @property
    def statistics(self) -> Statistics:
        """Counters, now."""
        writes, reads = self._writes.statistics, self._reads.statistics
        return Statistics(
            transactions=writes.groups,
            rows=writes.items,
            largest_group=writes.largest,
            writes_waiting=self._writes.waiting,
            reads_waiting=self._reads.waiting,
            reads=reads.items,
            read_groups=reads.groups,
        )

    async def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function of this package with the operators' reading connection; raises StoreUnavailable."""
        return await self._ask(function)

    async def read_aside(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """The same on a connection of its own, for what takes minutes; raises StoreUnavailable."""
        return await self._aside(function)

    async def write(self, apply: Callable[[sqlite3.Connection], T], record: AuditRecord | None = None) -> T:
        """Run a function of this package in the writer's next transaction, with its audit record.

        Raises:
            AdminError, StoreError: what the function raised; then nothing of it is stored.
        """
        item = MutationItem(apply=apply, audit=None if record is None else rows.audit_row(record))
        result: T = await self._writes.call(item)
        return result

    @property
    def digest(self) -> rows.RowDigest:
        """What rows are digested with."""
        return self._digest

    async def _mutate(self, apply: Callable[[sqlite3.Connection], None], record: AuditRecord) -> None:
        await self._writes.call(MutationItem(apply=apply, audit=rows.audit_row(record)))

    async def _look(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """On the connection that answers devices."""
        try:
            return await self._reader.call(function)
        except sqlite3.Error as error:
            raise self._explain(error) from error

    async def _ask(self, function: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._operator.call(function)
        except sqlite3.Error as error:
            raise self._explain(error) from error

    async def _aside(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """On a connection of its own: it may take minutes."""
        connection = await connect(self.path, read_only=True)
        try:
            return await connection.call(function)
        except (sqlite3.Error, OSError) as error:
            raise unavailable(error) from error
        finally:
            await connection.close()

    def _explain(self, error: BaseException) -> Exception:
        if isinstance(error, ProvisiondError):
            return error
        explained = unavailable(error)
        if primary_code(error) in FATAL_CODES and not self.fatal.is_set():
            self.fatal_reason = str(explained)
            self.fatal.set()
            self._writes.refuse(f"nothing is written any more: {explained}")
        return explained


def _start_reading(
    reader: Connection, facts: FactsReader, queries: list[FactsQuery]
) -> asyncio.Future[list[StoredFacts | Exception]]:
    loan = Loan()
    answers = reader.call(partial(loan.spend, partial(facts.read, queries=queries)))
    loan.wait()
    return answers


def _start_writing(writer: Connection | None, items: list[WriteItem]) -> asyncio.Future[list[Any]]:
    if writer is None:
        raise StoreUnavailable("the database was opened for reading only")
    loan = Loan()
    results = writer.call(partial(loan.spend, partial(write_group, items=items, written=loan.end)))
    loan.wait()
    return results
