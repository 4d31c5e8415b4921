"""How many newcomers a listener has at a time: whoever is let in gets on at once, and the rest wait in the kernel."""

import asyncio
from collections.abc import Callable
from typing import Final

from provisiond.broker.connection import ClientConnection

ARRIVING_MAX: Final = 512
"""Clients that were accepted and have not said CONNECT. A second's work; with round trips of a second, still as many
handshakes a second as one core can do."""
SILENCE_S: Final = 3.0
"""After this a silent newcomer holds nobody up: small devices need seconds for a signature."""
STANDSTILL_S: Final = 0.5
"""When no newcomer has said a word for so long, none holds anybody up: a thousand idle sockets cost others one
second and not six."""


class Arrivals:
    """The newcomers of one listener.

    Ten thousand devices at once, all let in, would get on all together: each step of the first would wait for ten
    thousand others, until deadlines pass that no device is to blame for. In the kernel's queue no deadline runs.

    Args:
        on_room: called when there is room again after there was none.
    """

    def __init__(self, on_room: Callable[[], None]) -> None:
        self._on_room = on_room
        self._clients: set[ClientConnection] = set()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def room(self) -> int:
        """How many more may come."""
        return ARRIVING_MAX - len(self._clients)

    def enter(self, client: ClientConnection) -> None:
        """A client was accepted."""
        self._clients.add(client)

    def leave(self, client: ClientConnection) -> None:
        """A client has said CONNECT, or is gone."""
        self._clients.discard(client)
        if self._timer is not None and 2 * len(self._clients) <= ARRIVING_MAX:
            self._open()

    def wait(self) -> None:
        """There is no room: call `on_room` when there is, at the latest when those inside have fallen silent."""
        if self._timer is None:
            self._timer = self._loop.call_later(STANDSTILL_S, self._look)

    def close(self) -> None:
        """Wait no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        heard_at = max((client.last_received_at for client in self._clients), default=0.0)
        now = self._loop.time()
        since = now if heard_at < now - STANDSTILL_S else now - SILENCE_S
        self._clients = {client for client in self._clients if client.last_received_at >= since}
        if self.room > 0:
            self._open()
        else:
            self._timer = self._loop.call_later(STANDSTILL_S, self._look)

    def _open(self) -> None:
        self.close()
        self._on_room()
