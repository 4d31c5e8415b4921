"""The machine: its clock and randomness, what it grants a process, and its service manager."""

import asyncio
import gc
import os
import resource
import secrets
import socket
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

_COLLECTOR_THRESHOLDS: Final = (10_000, 20, 20)
"""Objects that are new, and younger collections to an older one; Python's own are 700, 10 and 10."""


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


def raise_file_limit(max_connections: int) -> None:
    """Allow a file descriptor for each connection, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max_connections + 256
    if soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (min(wanted, hard) if hard != resource.RLIM_INFINITY else wanted, hard)
        )


def spare_the_collector() -> None:
    """Have the garbage collector leave alone what the start has made, and look less often at what is new.

    A connection leaves no cycles behind, so that nearly nothing is ever found: 2 % of a registration.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTOR_THRESHOLDS)
