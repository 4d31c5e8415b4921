"""Small fakes at the ports, for tests of the adapters and use cases around them."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from provisiond.errors import ConnectRefused
from provisiond.model import ConnectAttempt, Connection, Message, RegistrationId, Role
from tests.noticing import Noticing


@dataclass
class EchoGatekeeper(Noticing):
    """A `ports.Gatekeeper` that answers every message with its own payload, and remembers all it was asked.

    The role is told by the user name: `{scope}/registrations/{id}/…` is dps, `{hub}/{id}/…` is iothub, `operator` is
    operator, none is native.
    Set `admit_gate` or `handle_gate` to an Event to hold the service there; `refusals` maps client ids to return codes.
    """

    attempts: list[ConnectAttempt] = field(default_factory=list)
    admitted: list[Connection] = field(default_factory=list)
    messages: list[tuple[Connection, Message]] = field(default_factory=list)
    handled: list[Message] = field(default_factory=list)
    ended: list[Connection] = field(default_factory=list)
    subscriptions: list[tuple[Connection, dict[str, int]]] = field(default_factory=list)
    outstanding: set[str] = field(default_factory=set)
    refusals: dict[str, int] = field(default_factory=dict)
    admit_gate: asyncio.Event | None = None
    handle_gate: asyncio.Event | None = None
    reply: Callable[[Message], Message | None] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def admit(self, attempt: ConnectAttempt) -> Connection:
        self._note(self.attempts, attempt)
        if self.admit_gate is not None:
            await self.admit_gate.wait()
        if attempt.client_id in self.refusals:
            raise ConnectRefused("the test says so", return_code=self.refusals[attempt.client_id])
        connection = Connection(
            connection_id=attempt.connection_id,
            role=_role(attempt.username),
            claimed_id=RegistrationId.parse(attempt.client_id or "anonymous"),
            listener=attempt.listener,
            remote_address=attempt.remote_address,
            unverified_chain=attempt.unverified_chain,
        )
        self._note(self.admitted, connection)
        return connection

    async def handle(self, connection: Connection, message: Message) -> Message | None:
        self._note(self.messages, (connection, message))
        if self.handle_gate is not None:
            await self.handle_gate.wait()
        self._note(self.handled, message)
        if self.reply is not None:
            return self.reply(message)
        topic = "$dps/registrations/res/200/?$rid=1"
        if connection.role is Role.NATIVE:
            topic = message.topic.replace("/req/", "/res/")
        return Message(topic=topic, payload=message.payload)

    async def subscriptions_changed(self, connection: Connection, granted: Mapping[str, int]) -> None:
        self._note(self.subscriptions, (connection, dict(granted)))

    def has_outstanding_operation(self, connection: Connection) -> bool:
        return connection.connection_id in self.outstanding

    async def closed(self, connection: Connection) -> None:
        self._note(self.ended, connection)

    def _note(self, where: list, what: object) -> None:
        where.append(what)
        self.changed.set()


def _role(username: str | None) -> Role:
    if username is None:
        return Role.NATIVE
    if username == "operator":
        return Role.OPERATOR
    return Role.DPS if "/registrations/" in username else Role.IOTHUB
