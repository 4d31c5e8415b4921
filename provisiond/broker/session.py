"""The session amqtt keeps for a connected client, without what provisioning never uses."""

import asyncio
from typing import Final

from amqtt.session import Session


class _Connected:
    """Stands for the state machine of a stock session: 146 us to make, for a state that never changes here."""

    state: Final = "connected"

    def is_connected(self) -> bool:
        """True: a session exists exactly as long as its connection."""
        return True


class DeviceSession(Session):
    """A session that is born with its connection and dies with it.

    Nothing is kept here for the client's next connection: no will, no queue, no certificate. What a device at its hub
    stays subscribed to is the hub's to know.
    amqtt knows it by its connection id, so that no client can name another's.

    Args:
        connection_id: its key in the broker's table of sessions.
    """

    transitions = _Connected()  # type: ignore[assignment]  # all that amqtt asks of its Machine
    clean_session = True
    will_flag = False
    is_anonymous = True

    def __init__(self, connection_id: str) -> None:
        self.client_id = connection_id
        self._packet_id = 0
        self.unacknowledged: set[int] = set()
        self.awaited: dict[int, asyncio.Future[bool]] = {}

    def take_packet_id(self) -> int:
        """The next free packet id, 1 to 65,535; it waits for its PUBACK in `unacknowledged`."""
        while True:
            self._packet_id = self._packet_id % 0xFFFF + 1
            if self._packet_id not in self.unacknowledged:
                self.unacknowledged.add(self._packet_id)
                return self._packet_id

    def acknowledge(self, packet_id: int) -> None:
        """Note a PUBACK; one that was not expected changes nothing."""
        self.unacknowledged.discard(packet_id)
        _settle(self.awaited.pop(packet_id, None), acknowledged=True)

    def end(self) -> None:
        """Whoever still waits for an acknowledgement waits in vain."""
        for future in self.awaited.values():
            _settle(future, acknowledged=False)
        self.awaited.clear()

    def clear_queues(self) -> None:
        """Nothing: there are no queues."""


def _settle(future: "asyncio.Future[bool] | None", *, acknowledged: bool) -> None:
    if future is not None and not future.done():
        future.set_result(acknowledged)
