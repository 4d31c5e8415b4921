"""Waiting for what a fake has noticed, and for what nobody tells."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import ClassVar


class Noticing:
    """A fake that sets `changed` whenever it has noticed something."""

    DEADLINE_S: ClassVar[float] = 60
    changed: asyncio.Event

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds; it is looked at whenever something was noticed."""
        async with asyncio.timeout(self.DEADLINE_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


async def until(condition: Callable[[], object]) -> None:
    """Look until `condition` holds: for what happens without an event to wait for."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.001)


async def until_none(ask: Callable[[], Awaitable[object]]) -> None:
    """Ask until there is nothing any more: for rows that somebody else works on, without an event to wait for."""
    async with asyncio.timeout(60):
        while await ask():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)
