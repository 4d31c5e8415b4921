"""The embedded MQTT broker: amqtt, entered through a door of our own, with its gaps closed.

    socket → Listener → ClientConnection → Broker.external_connected → CONNECT → Gatekeeper.admit → DeviceHandler

What stock amqtt does that this class does not: it resumes a session with the TLS identity of an earlier connection; it
deletes sessions, takes connections over and keeps entries before it has authenticated anybody; it publishes wills past
every filter, shows retained messages to who never subscribed, ends the loop of who publishes to `$…`, and has no
deadline and no limit. `tests/broker/test_amqtt_contract.py` holds each of these against both.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final, cast

from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType

from provisiond.broker import access, packets
from provisiond.broker.connection import ClientConnection, ClientGone
from provisiond.broker.handler import DeviceHandler
from provisiond.broker.limits import BrokerLimits
from provisiond.broker.listener import Door, Listener, ListenerSpec
from provisiond.broker.offences import BrokerStatistics, OffenceLog, Reason, quote
from provisiond.broker.packets import ConnectRequest, ProtocolViolation
from provisiond.broker.session import DeviceSession
from provisiond.broker.siblings import Siblings
from provisiond.errors import ConfigurationError, ConnectRefused
from provisiond.model import ConnectAttempt, Connection, Message, Role
from provisiond.ports import Gatekeeper

__all__ = ["BrokerLimits", "BrokerStatistics", "EmbeddedBroker", "ListenerSpec"]

logger = logging.getLogger("provisiond.broker")

# CONNACK return codes, MQTT 3.1.1 table 3.1.
_ACCEPTED: Final = 0
_IDENTIFIER_REJECTED: Final = 2
_SERVER_UNAVAILABLE: Final = 3
_NOT_AUTHORIZED: Final = 5


class _WrongVersion(ConnectRefused):
    """The client is of an MQTT version that is not spoken here; `packet` tells it so in its own format."""

    def __init__(self, reason: str, packet: bytes) -> None:
        super().__init__(reason)
        self.packet = packet


class EmbeddedBroker(Broker):
    """An MQTT 3.1.1 broker whose only subscriber is the service. Implements `ports.Transport`.

    Every client gets its replies through its own connection; nothing is ever routed by topic, retained, queued or kept
    for a later connection. Sessions are keyed by connection id.

    Args:
        gatekeeper: judges every CONNECT and answers every PUBLISH.
        listeners: where to listen; names are unique.
        limits: how long and how much.

    Raises:
        ConfigurationError: no listener, or two of one name.
    """

    def __init__(
        self, *, gatekeeper: Gatekeeper, listeners: Sequence[ListenerSpec], limits: BrokerLimits | None = None
    ) -> None:
        names = [spec.name for spec in listeners]
        if not names or len(set(names)) != len(names):
            raise ConfigurationError("broker.listeners: at least one, each with a name of its own")
        _quieten("amqtt", "transitions")
        external = ListenerConfig(type=ListenerType.EXTERNAL)
        super().__init__(BrokerConfig(listeners=dict.fromkeys(["default", *names], external), plugins={}))
        self.statistics = BrokerStatistics()
        self._gatekeeper = gatekeeper
        self._limits = limits or BrokerLimits()
        self._specs = tuple(listeners)
        self._listeners: list[Listener] = []
        self._offences = OffenceLog(self.statistics, self._loop.time)
        self._door = Door(self._limits, self.statistics, self._offences, self._serve_in_task)
        # Not a TaskGroup: one client's fault must never cancel the others.
        self._tasks: set[asyncio.Task[None]] = set()
        self._holders: dict[tuple[Role, str], str] = {}
        self._siblings = Siblings()

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bind every listener, then accept.

        Raises:
            ConfigurationError: a certificate cannot be used or an address not be bound; nothing is left open.
        """
        try:
            for spec in self._specs:
                listener = Listener(spec, self._door, self._offences)
                self._listeners.append(listener)
                await listener.bind()
            await super().start()
        except BaseException:
            self._close_listeners()
            raise
        for listener in self._listeners:
            listener.accept()

    async def stop(self, grace_s: float) -> None:
        """Accept nobody, let requests that are being handled finish for `grace_s` seconds, close every connection."""
        self._close_listeners()
        for client in list(self._door.clients):
            client.finish()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in list(self._door.clients):
            client.shut()
        await self._door.wait_empty()
        await super().shutdown()

    @property
    def addresses(self) -> Mapping[str, tuple[str, int]]:
        """Address and port of every listener, as really bound."""
        return {listener.spec.name: listener.address for listener in self._listeners}

    def reload_certificates(self) -> None:
        """Read every listener's certificate again; handshakes from now on use the new ones.

        Raises:
            ConfigurationError: one cannot be used; all listeners keep what they had (CVE-2017-7652).
        """
        contexts = [listener.spec.load_context() for listener in self._listeners]
        for listener, context in zip(self._listeners, contexts, strict=True):
            listener.context = context

    def reload_limits(self, limits: BrokerLimits) -> None:
        """Bound connections by other limits from now on; those that are open keep theirs."""
        self._limits = self._door.limits = limits

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    async def _session_monitor(self) -> None:
        """Nothing: a session ends with its connection, so there is none to look for every second."""

    # --- ports.Transport ----------------------------------------------------------------------------------------------

    async def send(self, connection_id: str, message: Message) -> bool:
        """Send to one connection; False when it is gone or has too many messages unacknowledged."""
        handler = self._handler(connection_id)
        return handler is not None and handler.deliver(message)

    def post(self, connection_id: str, message: Message) -> bool:
        """`send`, for who cannot wait: it never does."""
        handler = self._handler(connection_id)
        return handler is not None and handler.deliver(message)

    async def deliver(self, connection_id: str, message: Message, *, deadline_s: float) -> bool:
        """Send to one connection, and wait until it is acknowledged; False when it was not, for whatever reason."""
        handler = self._handler(connection_id)
        acknowledged = None if handler is None else handler.deliver_awaited(message)
        if acknowledged is None:
            return False
        try:
            async with asyncio.timeout(deadline_s):
                return await acknowledged
        except TimeoutError:
            return False

    def disconnect(self, connection_id: str, reason: str) -> None:
        """Cut a connection; what is being handled for it is finished, its reply is dropped."""
        handler = self._handler(connection_id)
        if handler is not None:
            handler.disconnect(Reason.DISCONNECTED, reason)

    def _handler(self, connection_id: str) -> DeviceHandler | None:
        _, handler = self._sessions.get(connection_id, (None, None))
        return cast("DeviceHandler | None", handler)

    # --- one client ---------------------------------------------------------------------------------------------------

    def _serve_in_task(self, client: ClientConnection) -> None:
        serving = self.external_connected(client, client, client.listener)
        task = self._loop.create_task(serving, name=f"mqtt connection {client.connection_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _client_connected(self, listener_name: str, reader: ReaderAdapter, writer: WriterAdapter) -> None:  # noqa: ARG002 - reader and writer are one
        """Serve one client from its CONNECT to its end, in place of amqtt's own."""
        client = cast("ClientConnection", reader)
        try:
            await self._serve(client)
        except ClientGone:
            pass
        except ProtocolViolation as violation:
            self._offences.report(Reason.PROTOCOL, client.remote[0], str(violation))
        except Exception:
            logger.exception("connection %s from %s failed", client.connection_id, client.remote[0])
        finally:
            client.shut()

    async def _serve(self, client: ClientConnection) -> None:
        request = packets.parse_connect(await client.read_connect())
        try:
            connection = await self._admit(client, request)
        except _WrongVersion as refusal:
            self._offences.report(Reason.CONNECT, client.remote[0], str(refusal))
            client.write(refusal.packet)
            return
        except ConnectRefused as refusal:
            self._offences.report(Reason.CONNECT, client.remote[0], f"{quote(request.client_id)}: {refusal}")
            client.write(packets.encode_connack(refusal.return_code))
            return
        session = DeviceSession(connection.connection_id)
        handler = DeviceHandler(
            connection=connection,
            client=client,
            session=session,
            gatekeeper=self._gatekeeper,
            limits=self._limits,
            offences=self._offences,
            keep_alive_s=request.keep_alive_s,
            siblings=self._siblings,
        )
        self._enter(connection, session, handler)
        try:
            client.write(packets.encode_connack(_ACCEPTED, session_present=bool(connection.resumed)))
            await handler.start()
            client.shut(says_goodbye=False)
        finally:
            self._leave(connection)
            session.end()
            client.shut()
            await self._gatekeeper.closed(connection)

    async def _admit(self, client: ClientConnection, request: ConnectRequest) -> Connection:
        """Judge a CONNECT; until this returns, nothing that another client could notice has changed."""
        _check_version(request)
        if not request.client_id and not request.clean_session:
            raise ConnectRefused("no client id and no clean session [MQTT-3.1.3-8]", return_code=_IDENTIFIER_REJECTED)
        if not client.unverified_chain and self._demands_certificate(client.listener):
            raise ConnectRefused("no client certificate, which this listener requires", return_code=_NOT_AUTHORIZED)
        attempt = ConnectAttempt(
            connection_id=client.connection_id,
            listener=client.listener,
            remote_address=client.remote[0],
            tls=client.is_tls,
            unverified_chain=client.unverified_chain,
            client_id=request.client_id,
            username=request.username,
            password=request.password,
            clean_session=request.clean_session,
        )
        try:
            async with asyncio.timeout(self._limits.admit_timeout_s):
                return await self._gatekeeper.admit(attempt)
        except TimeoutError as error:
            raise ConnectRefused("not judged in time", return_code=_SERVER_UNAVAILABLE) from error

    def _demands_certificate(self, listener_name: str) -> bool:
        return any(
            spec.client_certificates == "required" and spec.tls for spec in self._specs if spec.name == listener_name
        )

    def _enter(self, connection: Connection, session: DeviceSession, handler: DeviceHandler) -> None:
        if access.takes_over(connection.role):
            holder = (connection.role, connection.claimed_id.key)
            older = self._handler(self._holders.get(holder, ""))
            if older is not None:
                older.disconnect(Reason.TAKEN_OVER, f"{quote(connection.claimed_id.text)} connected again")
            self._holders[holder] = connection.connection_id
        self._sessions[connection.connection_id] = (session, handler)
        self._siblings.enter(connection, handler)

    def _leave(self, connection: Connection) -> None:
        del self._sessions[connection.connection_id]
        self._siblings.leave(connection)
        holder = (connection.role, connection.claimed_id.key)
        if self._holders.get(holder) == connection.connection_id:
            del self._holders[holder]


def _check_version(request: ConnectRequest) -> None:
    name, level = request.protocol_name, request.protocol_level
    if (name, level) == ("MQTT", packets.MQTT_3_1_1):
        return
    if (name, level) == ("MQTT", packets.MQTT_5):
        raise _WrongVersion("MQTT 5 is not spoken here", packets.UNSUPPORTED_BY_MQTT_5)
    raise _WrongVersion(f"MQTT 3.1.1 only, not {quote(name)} level {level}", packets.UNSUPPORTED_BY_MQTT_3)


def _quieten(*names: str) -> None:
    """Keep a library's loggers at WARNING or above: below, clients decide how much is logged, passwords included."""
    for name in names:
        library = logging.getLogger(name)
        library.setLevel(max(library.level, logging.WARNING))
