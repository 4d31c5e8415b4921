"""The machine's own clock and randomness, and its service manager."""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime


class SystemClock:
    """`ports.Clock` on this machine."""

    def now(self) -> datetime:
        """Wall time, aware UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()


class SystemEntropy:
    """`ports.Entropy` from the kernel."""

    def token_bytes(self, size_bytes: int) -> bytes:
        """Cryptographically random bytes."""
        return secrets.token_bytes(size_bytes)


@asynccontextmanager
async def background(work: Coroutine[object, object, None], *, name: str) -> AsyncIterator[None]:
    """Have work going on until the block ends; should it fail, the block is cancelled and the failure raised.

    What the block or the work raises comes out as it is: who catches a ConfigurationError knows nothing of groups.
    """
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work, name=name)
            try:
                yield
            finally:
                task.cancel()
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures.exceptions[0].__cause__


def notify_service_manager(state: str) -> bool:
    """Tell the service manager how the service is doing (sd_notify(3)).

    Args:
        state: lines such as `READY=1` or `STOPPING=1`.

    Returns:
        Whether a service manager is listening.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notification:
        try:
            notification.sendto(state.encode(), address)
        except OSError:
            # A service manager that went away is no reason to stop serving devices.
            return False
    return True
