"""Time that passes when a test says so, however long this machine takes over it."""

import asyncio


def pass_time(seconds: float) -> None:
    """Let so many seconds pass at once for everything that waits in this event loop, now and later."""
    loop = asyncio.get_running_loop()
    before = loop.time
    loop.time = lambda: before() + seconds
