"""How many newcomers a listener has at a time: whoever is let in gets on at once, and the rest wait in the kernel."""

import asyncio
from collections.abc import Callable
from typing import Final

from provisiond.broker.connection import ClientConnection

ARRIVING_MAX: Final = 512
"""Clients that were accepted and have not said CONNECT. A second's work; with round trips of a second, still as many
handshakes a second as one core can do."""
PATIENCE_S: Final = 3.0
"""Whoever has not said CONNECT after this holds nobody up, however much it has said: small devices need seconds for a
signature, and who sends an octet now and then would keep the place until its deadline."""
STANDSTILL_S: Final = 0.5
"""How often it is seen whether newcomers are being served."""
SERVED_MIN: Final = 8
"""Fewer than this in `STANDSTILL_S` are no storm that is being served: nobody holds anybody up. A core serves two
hundred in that time, a very busy one a tenth of it; a thousand idle or dripping sockets cost others one second."""


class Arrivals:
    """The newcomers of one listener.

    Ten thousand devices at once, all let in, would get on all together: each step of the first would wait for ten
    thousand others, until deadlines pass that no device is to blame for. In the kernel's queue no deadline runs.

    Args:
        on_room: called when there is room again after there was none.
    """

    def __init__(self, on_room: Callable[[], None]) -> None:
        self._on_room = on_room
        self._clients: dict[ClientConnection, float] = {}
        self._served = 0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def room(self) -> int:
        """How many more may come."""
        return ARRIVING_MAX - len(self._clients)

    def enter(self, client: ClientConnection) -> None:
        """A client was accepted."""
        self._clients[client] = self._loop.time()

    def leave(self, client: ClientConnection, *, was_served: bool = False) -> None:
        """A client has begun its CONNECT (`was_served`), or is gone."""
        if self._clients.pop(client, None) is not None:
            self._served += was_served
        if self._timer is not None and 2 * len(self._clients) <= ARRIVING_MAX:
            self._open()

    def wait(self) -> None:
        """There is no room: call `on_room` when there is, at the latest when hardly anybody is served any more."""
        if self._timer is None:
            self._served = 0
            self._timer = self._loop.call_later(STANDSTILL_S, self._look)

    def close(self) -> None:
        """Wait no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        is_moving, self._served = self._served >= SERVED_MIN, 0
        since = self._loop.time() - PATIENCE_S
        self._clients = {one: at for one, at in self._clients.items() if is_moving and at >= since}
        if self.room > 0:
            self._open()
        else:
            self._timer = self._loop.call_later(STANDSTILL_S, self._look)

    def _open(self) -> None:
        self.close()
        self._on_room()
