"""What waits together is done together: group commit, and group read."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

from provisiond.errors import StoreUnavailable

Item = TypeVar("Item")
Result = TypeVar("Result")

GROUP_MAX: Final = 500
"""Items in one group: larger ones save nothing more, and hold other processes off the lock."""

WAITING_MAX: Final = 10_000
"""Items that wait: one for each connection of the default limit; at 4 KiB each 40 MiB."""

ROOM_TIMEOUT_S: Final = 5.0
"""How long a caller waits for room: with a disk so slow, devices had better ask again later."""


REST_S: Final = 0.02
"""From the beginning of one group to the next while callers crowd. Each group costs a change of threads and, inside
SQLite, one for every statement; at 400 registrations/s 8 share them, which saves each about 200 us of CPU time."""

CROWD: Final = 4
"""Callers that make a crowd. Two or three who ask by turns gain nothing by waiting for each other."""

CROWD_S: Final = 1.0
"""How long it counts as one after that: a load that is worth it comes together so often."""


@dataclass(slots=True)
class GroupStatistics:
    """Counters since the store was opened.

    Args:
        groups: groups done.
        items: items in them, failed ones included.
        largest: items in the largest group.
    """

    groups: int = 0
    items: int = 0
    largest: int = 0


class GroupedCalls(Generic[Item, Result]):
    """Callers hand in items one by one; one group of them at a time runs on a connection's thread.

    While one group runs, the next one gathers, so the size of the groups follows the load by itself. While callers
    crowd (`CROWD` of them were waiting or being served within `CROWD_S`), the next group gathers for `rest_s`; a few
    never wait for company. A caller hears the result after its group has ended. A caller that is cancelled while it
    waits takes its item along; one that is cancelled while its group runs does not stop the group.

    Args:
        start: runs a list of items and gives a future of as many results. An exception among them is for the caller
            of its item; when the future itself fails, that is for every caller of the group.
        explain: makes of an exception what one caller hears.
    """

    def __init__(
        self,
        start: Callable[[list[Item]], asyncio.Future[list[Result | Exception]]],
        explain: Callable[[BaseException], Exception],
        *,
        group_max: int = GROUP_MAX,
        waiting_max: int = WAITING_MAX,
        room_timeout_s: float = ROOM_TIMEOUT_S,
        rest_s: float = REST_S,
    ) -> None:
        self._start = start
        self._explain = explain
        self._group_max = group_max
        self._waiting_max = waiting_max
        self._room_timeout_s = room_timeout_s
        self._rest_s = rest_s
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._running = False
        self._being_served = 0
        self._began_at = 0.0
        self._crowded_until = 0.0
        self._refusal: str | None = None
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.statistics = GroupStatistics()

    @property
    def waiting(self) -> int:
        """Items that have not begun."""
        return len(self._waiting)

    async def call(self, item: Item) -> Result:
        """Have an item done with whatever else is waiting.

        Raises:
            StoreUnavailable: refused, or no room for `room_timeout_s`; the item was not begun.
            Exception: what the item's result was, or what `explain` made of the group's failure.
        """
        if len(self._waiting) >= self._waiting_max:
            await self._wait_for_room()
        if self._refusal is not None:
            raise StoreUnavailable(self._refusal)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, future))
        if len(self._waiting) + self._being_served >= CROWD:
            self._crowded_until = loop.time() + CROWD_S
        if not self._running:
            self._running = True
            self._idle.clear()
            self._schedule_group(loop)
        return await future

    def refuse(self, reason: str) -> None:
        """Take nothing more; what waits is refused too when its turn comes."""
        self._refusal = self._refusal or reason

    async def drain(self) -> None:
        """Wait until nothing waits or runs."""
        await self._idle.wait()

    async def _wait_for_room(self) -> None:
        try:
            async with asyncio.timeout(self._room_timeout_s):
                while len(self._waiting) >= self._waiting_max:
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            raise StoreUnavailable(
                f"{len(self._waiting)} requests have waited for the database for {self._room_timeout_s:g} s"
            ) from None

    def _schedule_group(self, loop: asyncio.AbstractEventLoop) -> None:
        now, rested_at = loop.time(), self._began_at + self._rest_s
        if now < rested_at and now < self._crowded_until and len(self._waiting) < self._group_max:
            loop.call_at(rested_at, self._next_group)
        else:
            loop.call_soon(self._next_group)  # what else becomes ready in this turn of the loop joins

    def _next_group(self) -> None:
        loop = asyncio.get_running_loop()
        group: list[tuple[Item, asyncio.Future[Result]]] = []
        while self._waiting and len(group) < self._group_max:
            item, future = self._waiting.popleft()
            if not future.done():  # not cancelled
                group.append((item, future))
        self._room.set()
        if not group:
            self._running = False
            self._idle.set()
            return
        self._began_at = loop.time()
        self._being_served = len(group)
        try:
            done = self._start([item for item, _ in group])
        except Exception as error:  # noqa: BLE001 - whatever it is, these callers are to hear of it
            self._being_served = 0
            self._fail(group, error)
            self._schedule_group(loop)
            return
        done.add_done_callback(partial(self._settle, group))

    def _settle(
        self,
        group: list[tuple[Item, asyncio.Future[Result]]],
        done: asyncio.Future[list[Result | Exception]],
    ) -> None:
        self._being_served = 0
        self.statistics.groups += 1
        self.statistics.items += len(group)
        self.statistics.largest = max(self.statistics.largest, len(group))
        error = done.exception()
        if error is not None:
            self._fail(group, error)
        else:
            for (_, future), result in zip(group, done.result(), strict=True):
                if isinstance(result, Exception):
                    self._raise_to(future, result)
                elif not future.done():
                    future.set_result(result)
        if self._waiting:
            self._schedule_group(asyncio.get_running_loop())
        else:
            self._running = False
            self._room.set()
            self._idle.set()

    def _fail(self, group: list[tuple[Item, asyncio.Future[Result]]], error: BaseException) -> None:
        for _, future in group:
            self._raise_to(future, error)

    def _raise_to(self, future: asyncio.Future[Result], error: BaseException) -> None:
        explained = self._explain(error)  # even when nobody listens any more: it may be fatal
        if not future.done():
            if explained is not error:
                explained.__cause__ = error
            future.set_exception(explained)
