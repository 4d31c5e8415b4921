"""The machine's own clock and randomness, and its service manager."""

import os
import secrets
import socket
import time
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
