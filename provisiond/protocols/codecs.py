"""The codec of each provisioning role: what the pipeline needs of a wire format, and nothing else."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

from provisiond.model import Connection, IssuedChallenge, Message, RegisterRequest, Reply, Request, Role
from provisiond.protocols import dps, native, native_topics


class Codec(Protocol):
    """A wire format, both ways."""

    def parse(self, connection: Connection, message: Message) -> Request:
        """Read a PUBLISH as a request; raises DeviceFault."""
        ...

    def recall(self, request: RegisterRequest, issued: IssuedChallenge | None) -> RegisterRequest:
        """Add to an answer the challenge that was taken out for it, and what was challenged; raises DeviceFault."""
        ...

    def encode(self, reply: Reply, connection: Connection, message: Message) -> Message | None:
        """Make the reply to a message; None when there is nowhere to send it."""
        ...


class DpsCodec:
    """Azure DPS over MQTT."""

    def parse(self, connection: Connection, message: Message) -> Request:
        """See `Codec`."""
        return dps.parse(connection, message)

    def recall(self, request: RegisterRequest, issued: IssuedChallenge | None) -> RegisterRequest:
        """See `Codec`."""
        return dps.recall(request, issued)

    def encode(self, reply: Reply, connection: Connection, message: Message) -> Message:
        """See `Codec`."""
        del connection
        return dps.encode(reply, rid=dps.request_id(message.topic))


class NativeCodec:
    """Plain topics for any client and any broker."""

    def parse(self, connection: Connection, message: Message) -> Request:
        """See `Codec`."""
        return native.parse(message, connection=connection)

    def recall(self, request: RegisterRequest, issued: IssuedChallenge | None) -> RegisterRequest:
        """See `Codec`."""
        return native.recall(request, issued)

    def encode(self, reply: Reply, connection: Connection, message: Message) -> Message | None:
        """See `Codec`."""
        topic = native_topics.reply_topic(message.topic)
        if topic is None:
            return None
        return native.encode(reply, topic=topic, registration_id=connection.claimed_id)


CODECS: Final[Mapping[Role, Codec]] = MappingProxyType({Role.DPS: DpsCodec(), Role.NATIVE: NativeCodec()})
"""By the role of the connection that a message came on."""
