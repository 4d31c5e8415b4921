"""What the broker's edge asks of the service, and the service of the edge."""

from collections.abc import Mapping
from typing import Protocol

from provisiond.model import ConnectAttempt, Connection, Message


class Gatekeeper(Protocol):
    """What the broker's edge asks of the service: the only way in."""

    async def admit(self, attempt: ConnectAttempt) -> Connection:
        """Judge a CONNECT.

        Raises:
            ConnectRefused: with the CONNACK return code.
        """
        ...

    async def handle(self, connection: Connection, message: Message) -> Message | None:
        """Answer a PUBLISH of an admitted connection that its access rules allow; never raises on bad input.

        The reply is for this connection alone. None: nothing to say (the connection is told nothing).
        The broker acknowledges the PUBLISH after this returns and before it sends the reply.
        """
        ...

    async def subscriptions_changed(self, connection: Connection, granted: Mapping[str, int]) -> None:
        """A hub device or an operator has subscribed or unsubscribed; told after its SUBACK or UNSUBACK.

        Args:
            connection: whose.
            granted: every filter that it has now, with its QoS; it changes with the connection, so copy what you keep.
        """
        ...

    def has_outstanding_operation(self, connection: Connection) -> bool:
        """Whether an operation of this connection has been accepted but not yet reported final."""
        ...

    async def closed(self, connection: Connection) -> None:
        """The connection is gone."""
        ...


class Transport(Protocol):
    """Sending to devices that did not just ask."""

    async def send(self, connection_id: str, message: Message) -> bool:
        """Send to one connection; False when it is gone."""
        ...

    def post(self, connection_id: str, message: Message) -> bool:
        """`send`, without waiting for anything."""
        ...

    async def deliver(self, connection_id: str, message: Message, *, deadline_s: float) -> bool:
        """Send to one connection and wait for its acknowledgement; False when there is none within the deadline."""
        ...

    def disconnect(self, connection_id: str, reason: str) -> None:
        """Cut a connection; does nothing when it is gone."""
        ...
