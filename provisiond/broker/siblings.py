"""A simple client's other connections: who asks with one program and listens with another.

`mosquitto_sub` waits for what `mosquitto_pub` has asked for. A reply goes to the connection that asked; and to others
of the same registration id that have subscribed to it, when they come from the same address: whoever has that address
can do no more to the device than before, and a stranger elsewhere hears nothing, whatever id it claims.
"""

from typing import Final, Protocol

from provisiond.model import Connection, Message, Role

_SIBLINGS_MAX: Final = 4
"""One listens; a person may open a second window. Without a bound one reply could become a thousand."""


class Listening(Protocol):
    """A connection that may have subscribed to a message."""

    def overhear(self, message: Message) -> bool:
        """Send it, if this connection has subscribed to it."""
        ...


class Siblings:
    """Native connections by registration id, as it is spelt, and address."""

    def __init__(self) -> None:
        self._families: dict[tuple[str, str], dict[str, Listening]] = {}

    def __len__(self) -> int:
        return len(self._families)

    def enter(self, connection: Connection, handler: Listening) -> None:
        """Remember a connection."""
        if connection.role is Role.NATIVE:
            self._families.setdefault(_family(connection), {})[connection.connection_id] = handler

    def leave(self, connection: Connection) -> None:
        """Forget a connection."""
        family = self._families.get(_family(connection), {})
        family.pop(connection.connection_id, None)
        if not family:
            self._families.pop(_family(connection), None)

    def tell(self, connection: Connection, reply: Message) -> None:
        """Have the others hear a reply to this connection, the newest of them first."""
        told = 0
        family = self._families.get(_family(connection), {}) if connection.role is Role.NATIVE else {}
        for connection_id, handler in reversed(family.items()):
            if told >= _SIBLINGS_MAX:
                return
            if connection_id != connection.connection_id and handler.overhear(reply):
                told += 1


def _family(connection: Connection) -> tuple[str, str]:
    return connection.claimed_id.text, connection.remote_address
