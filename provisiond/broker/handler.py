"""Serving one admitted client: its packets, one after the other, on one task."""

import asyncio
from collections import deque
from types import MappingProxyType
from typing import Final

from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.session import OutgoingApplicationMessage

from provisiond.broker import access, packets
from provisiond.broker.access import Verdict
from provisiond.broker.connection import ClientConnection
from provisiond.broker.limits import BrokerLimits
from provisiond.broker.offences import OffenceLog, Reason, quote
from provisiond.broker.packets import ProtocolViolation
from provisiond.broker.session import DeviceSession
from provisiond.broker.siblings import Siblings
from provisiond.model import Connection, Message, Role
from provisiond.ports import Gatekeeper
from provisiond.protocols.topic_filters import matches

_TURN_PACKETS: Final = 16
"""Packets served at one go while others wait; about a millisecond."""
_OUTSTANDING_LOOK_S: Final = 30.0
"""How often an idle connection with an outstanding operation is looked at again."""
_BUSY_LOOK_S: Final = 1.0
"""When a connection whose request is being handled is looked at again: what it sends is not read meanwhile."""


class DeviceHandler(BrokerProtocolHandler):
    """Serves one admitted client.

    amqtt's own handler starts a task for every packet, acknowledges before anything is done, and has no limits. Here
    packets are served in order on the connection's task: what the client sends meanwhile waits in its TCP window, a
    PINGREQ included, and a client that hangs up does not interrupt what the service is doing for it.

    Args:
        connection: who the client is, for ever.
        client: its socket.
        session: what amqtt knows of it.
        gatekeeper: answers its requests.
        limits: how much it may ask.
        offences: where its end is reported.
        keep_alive_s: from its CONNECT.
        siblings: its other connections, which may listen to its replies.
    """

    session: DeviceSession

    def __init__(
        self,
        *,
        connection: Connection,
        client: ClientConnection,
        session: DeviceSession,
        gatekeeper: Gatekeeper,
        limits: BrokerLimits,
        offences: OffenceLog,
        keep_alive_s: int,
        siblings: Siblings | None = None,
    ) -> None:
        # amqtt's __init__ makes two queues, an event, a lock and four tables of futures; nothing here uses them.
        self.connection = connection
        self.session = session
        self.reader = self.writer = self._client = client
        self._gatekeeper = gatekeeper
        self._siblings = siblings
        self._limits = limits
        self._offences = offences
        # The server waits one and a half keep-alive periods (MQTT-3.1.2-24); 0 means no keep-alive, bounded here.
        ceiling_s = limits.keep_alive_ceiling_s
        self._patience_s = 1.5 * (min(keep_alive_s, ceiling_s) if keep_alive_s else ceiling_s)
        judged = {one: access.judge_subscribe(connection, one, qos) for one, qos in connection.resumed}
        self._granted = {one: granted for one, granted in judged.items() if granted != access.REFUSED}
        self._backlog: deque[Message] = deque()
        self._backlog_bytes = 0
        self._is_busy = False
        self._asked_at = client.last_received_at
        if not access.is_provisioning(connection.role):
            is_consumer = connection.role is Role.OPERATOR
            client.widen(
                max_packet_bytes=max(limits.max_hub_packet_bytes, limits.max_packet_bytes),
                write_buffer_bytes=limits.consumer_buffer_bytes if is_consumer else limits.write_buffer_bytes,
            )
        client.set_watch(self._watch)

    # --- receiving ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Serve packets until the client disconnects.

        Raises:
            ProtocolViolation: it broke a rule; the connection is to be closed.
            ClientGone: it went away.
        """
        client, turn = self._client, 0
        if self._granted:
            await self._tell_subscriptions()
        while True:
            packet = client.next_packet()
            if packet is None:
                turn, packet = 0, await client.read_packet()
            elif (turn := turn + 1) >= _TURN_PACKETS:
                turn = 0
                await asyncio.sleep(0)
            header, body = packet
            kind = header >> 4
            if kind == packets.PUBLISH:
                await self._publish(header & 0x0F, body)
            elif kind == packets.DISCONNECT:
                return
            elif self._control(kind, body) and not access.is_provisioning(self.connection.role):
                await self._tell_subscriptions()

    async def _tell_subscriptions(self) -> None:
        await self._gatekeeper.subscriptions_changed(self.connection, MappingProxyType(self._granted))

    async def _publish(self, flags: int, body: bytes) -> None:
        publication = packets.parse_publish(flags, body)
        if publication.qos > access.MAX_QOS:
            raise ProtocolViolation("PUBLISH with QoS 2, which is not offered")
        self._check_size(publication.topic)
        if access.judge_publish(self.connection, publication.topic) is Verdict.CLOSE:
            raise ProtocolViolation(f"{self._name} may not publish to {quote(publication.topic)}")
        message = Message(topic=publication.topic, payload=publication.payload, qos=publication.qos)
        self._is_busy = True
        try:
            reply = await self._gatekeeper.handle(self.connection, message)
        finally:
            self._is_busy = False
            self._asked_at = asyncio.get_running_loop().time()
        if reply is not None and self._siblings is not None:
            self._siblings.tell(self.connection, reply)
        # One write for both; the acknowledgement first, for the C# SDK takes them in no other order.
        data = packets.encode_puback(publication.packet_id) if publication.packet_id else b""
        if reply is not None:
            data += self._encode(reply)
        if data:
            self._client.write(data)

    def _control(self, kind: int, body: bytes) -> bool:
        """Serve any other packet; whether the subscriptions may have changed."""
        match kind:
            case packets.SUBSCRIBE:
                self._subscribe(body)
                return True
            case packets.PUBACK:
                self.session.acknowledge(packets.parse_packet_id(body))
                self._send_backlog()
            case packets.PINGREQ:
                if body:
                    raise ProtocolViolation("PINGREQ with a body", "MQTT 3.1.1 3.12")
                self._client.write(packets.PINGRESP)
            case packets.UNSUBSCRIBE:
                self._unsubscribe(body)
                return True
            case packets.CONNECT:
                raise ProtocolViolation("a second CONNECT", "MQTT-3.1.0-2")
            case _:
                raise ProtocolViolation(f"packet type {kind} of QoS 2, which is not offered")
        return False

    def _subscribe(self, body: bytes) -> None:
        packet_id, filters = packets.parse_subscribe(body, self._limits.max_filters_per_subscribe)
        return_codes = []
        for topic_filter, requested_qos in filters:
            self._check_size(topic_filter)
            granted = access.judge_subscribe(self.connection, topic_filter, requested_qos)
            if len(self._granted) >= access.GRANTED_MAX and topic_filter not in self._granted:
                granted = access.REFUSED
            if granted != access.REFUSED:
                self._granted[topic_filter] = granted
            return_codes.append(granted)
        self._client.write(packets.encode_suback(packet_id, *return_codes))

    def _unsubscribe(self, body: bytes) -> None:
        packet_id, filters = packets.parse_unsubscribe(body, self._limits.max_filters_per_subscribe)
        for topic_filter in filters:
            self._granted.pop(topic_filter, None)
        self._client.write(packets.encode_unsuback(packet_id))

    def _check_size(self, topic: str) -> None:
        if len(topic.encode()) > self._limits.max_topic_bytes or topic.count("/") >= self._limits.max_topic_levels:
            raise ProtocolViolation(f"a topic of {len(topic)} characters and {topic.count('/') + 1} levels")

    @property
    def _name(self) -> str:
        return f"{self.connection.role.value} {quote(self.connection.claimed_id.text)}"

    # --- sending ------------------------------------------------------------------------------------------------------

    def deliver(self, message: Message) -> bool:
        """Send a message to this client alone; False when it cannot take it, or has not asked for it.

        An operator's waits while too many are unacknowledged, up to `consumer_buffer_bytes` of them.
        """
        qos = self._qos_of(message)
        if self._client.is_closing or qos is None:
            return False
        if self._is_full and self.connection.role is Role.OPERATOR and qos:
            return self._put_into_backlog(message)
        if self._is_full:
            return False
        self._client.write(self._encode(message))
        return True

    def overhear(self, message: Message) -> bool:
        """`deliver`, when this client has subscribed to it.

        Half of what may be unacknowledged is kept for its own replies: a client that is full is closed by the next
        one, and another that claims its id must not bring that about.
        """
        if not any(matches(topic_filter, message.topic) for topic_filter in self._granted):
            return False
        if 2 * len(self.session.unacknowledged) >= self._limits.inflight:
            return False
        return self.deliver(message)

    def deliver_awaited(self, message: Message) -> "asyncio.Future[bool] | None":
        """`deliver`; the future says whether it was acknowledged (at QoS 0, written) or the connection ended first.

        None: it was not sent.
        """
        qos = self._qos_of(message)
        if self._client.is_closing or qos is None or self._is_full:
            return None
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if qos:
            packet_id = self.session.take_packet_id()
            self.session.awaited[packet_id] = future
            self._client.write(packets.encode_publish(message.topic, message.payload, packet_id))
        else:
            self._client.write(packets.encode_publish(message.topic, message.payload, 0))
            future.set_result(True)
        return future

    @property
    def _is_full(self) -> bool:
        return len(self.session.unacknowledged) >= self._limits.inflight

    def _qos_of(self, message: Message) -> int | None:
        granted = access.delivery_qos(self.connection, self._granted, message.topic)
        return None if granted is None else min(message.qos, granted)

    def _put_into_backlog(self, message: Message) -> bool:
        size_bytes = len(message.topic) + len(message.payload)
        if self._backlog_bytes + size_bytes > self._limits.consumer_buffer_bytes:
            return False
        self._backlog.append(message)
        self._backlog_bytes += size_bytes
        return True

    def _send_backlog(self) -> None:
        while self._backlog and not self._is_full:
            message = self._backlog.popleft()
            self._backlog_bytes -= len(message.topic) + len(message.payload)
            self._client.write(self._encode(message))

    def _encode(self, message: Message) -> bytes:
        if not self._qos_of(message):
            return packets.encode_publish(message.topic, message.payload, 0)
        if self._is_full:
            raise ProtocolViolation(f"{self._limits.inflight} messages are not acknowledged")
        return packets.encode_publish(message.topic, message.payload, self.session.take_packet_id())

    async def mqtt_publish(
        self,
        topic: str,
        data: bytes | bytearray,
        qos: int | None,
        retain: bool,
        ack_timeout: int | None = None,  # noqa: ARG002 - amqtt's signature; nothing is ever sent twice
    ) -> OutgoingApplicationMessage:
        """`deliver`, for amqtt's plugins; never retained."""
        self.deliver(Message(topic=topic, payload=bytes(data), qos=min(qos or 0, access.MAX_QOS)))
        return OutgoingApplicationMessage(None, topic, qos, data, retain)

    def disconnect(self, reason: Reason, detail: str) -> None:
        """Close the connection at once; what the service is doing for it goes on, and its reply is dropped."""
        self._offences.report(reason, self.connection.remote_address, detail)
        self._client.shut()

    async def stop(self) -> None:
        """Close the connection; what is being served is served to its end."""
        self._client.finish()

    # --- watchdog -----------------------------------------------------------------------------------------------------

    def _watch(self, now: float) -> float | None:
        if self._is_busy:
            return now + _BUSY_LOOK_S
        silent_by = self._client.last_received_at + self._patience_s
        if now >= silent_by:
            self.disconnect(Reason.KEEP_ALIVE, f"silent for {self._patience_s:.1f} s")
            return None
        if not access.is_provisioning(self.connection.role):
            return silent_by
        idle_by = self._asked_at + self._limits.provisioning_idle_s
        if now < idle_by:
            return min(silent_by, idle_by)
        if self._gatekeeper.has_outstanding_operation(self.connection):
            return min(silent_by, now + min(_OUTSTANDING_LOOK_S, self._limits.provisioning_idle_s))
        self.disconnect(Reason.IDLE, f"asked nothing for {self._limits.provisioning_idle_s:.1f} s")
        return None
