"""Whether something listens where the configuration says; asked from this machine."""

import socket
from typing import Final

from provisiond.settings import Listener
from provisiond.settings.addresses import SocketAddress

# The listener is on this machine: what takes longer is as good as dead.
_TIMEOUT_S: Final = 2.0
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def is_listening(listener: Listener) -> bool:
    """Whether a TCP connection to the listener's address succeeds."""
    return is_open(listener.address)


def is_open(address: SocketAddress) -> bool:
    """Whether a TCP connection to an address of this machine succeeds."""
    if not address.port:
        return False
    try:
        with socket.create_connection((_ANY.get(address.host, address.host), address.port), timeout=_TIMEOUT_S):
            return True
    except OSError:
        return False
