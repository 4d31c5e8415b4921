"""The requests of one connection to the site's broker: handled side by side, acknowledged in order."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import aiomqtt
from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from provisiond.broker.offences import BrokerStatistics
from provisiond.model import Connection, Message, RegistrationId, Role
from provisiond.mqtt_client import Client
from provisiond.ports import Gatekeeper
from provisiond.protocols.native_topics import claimed_id_of, own_response_topic

logger = logging.getLogger("provisiond.broker")

LISTENER: Final = "external"
"""What this broker is called where a listener's name would stand."""

_HANDLE_DEADLINE_S: Final = 30.0
"""Longer than anything that a request waits for; a device waits no longer."""
_PENDING_MAX: Final = 2_000
"""Requests in memory where the broker has no window of its own (MQTT 3.1.1); at 64 KiB each they still fit."""


class Ignored(StrEnum):
    """Why a message of the broker, or a wish in it, was passed over."""

    RETAINED = "retained"
    NO_REGISTRATION_ID = "no-registration-id"
    RESPONSE_TOPIC = "response-topic"
    OVERFLOW = "overflow"
    UNSENT_REPLY = "unsent-reply"
    UNSENT_EVENT = "unsent-event"


@dataclass(slots=True)
class ExternalStatistics(BrokerStatistics):
    """Plain counters, for metrics.

    Args:
        connections: 1 while there is a connection to the broker.
        connections_total: times that it came about.
        ignored: messages and wishes that were passed over, by reason.
    """

    ignored: Counter[Ignored] = field(default_factory=Counter)


class ServiceClient(Client):
    """The service's own connection: what arrives is handed on at once, and acknowledged when the service says so."""

    on_message: Callable[[MQTTMessage], None] | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._client.manual_ack_set(True)

    def acknowledge(self, packet_id: int) -> None:
        """Send the PUBACK of a message that arrived at QoS 1; nothing when the connection is gone."""
        if not self.lost.done():
            self._client.ack(packet_id, 1)

    def _on_message(self, client: Any, userdata: Any, message: MQTTMessage) -> None:
        """Aiomqtt would queue it without end, or drop it."""
        del client, userdata
        if self.on_message is not None:
            self.on_message(message)


@dataclass(slots=True)
class _Receipt:
    packet_id: int
    is_due: bool = False


class RequestStream:
    """See the module.

    Args:
        client: connected.
        gatekeeper: answers every request.
        statistics: where is counted what was passed over.
        tasks: outlives the connection: what has begun is finished, whoever hears of it.
        inflight: requests in progress at once.
    """

    def __init__(
        self,
        client: ServiceClient,
        gatekeeper: Gatekeeper,
        *,
        statistics: ExternalStatistics,
        tasks: asyncio.TaskGroup,
        inflight: int,
    ) -> None:
        self._client = client
        self._gatekeeper = gatekeeper
        self._statistics = statistics
        self._tasks = tasks
        self._slots = asyncio.Semaphore(inflight)
        self._receipts: deque[_Receipt] = deque()
        self._running: set[asyncio.Task[None]] = set()

    def receive(self, message: MQTTMessage) -> None:
        """Take a request of the broker."""
        if len(self._running) >= _PENDING_MAX:
            self._statistics.ignored[Ignored.OVERFLOW] += 1
            return  # not acknowledged: the broker has it still
        receipt = _Receipt(message.mid)
        if message.qos:
            self._receipts.append(receipt)
        topic = topic_of(message)
        claimed_id = None if topic is None else claimed_id_of(topic)
        if topic is None or claimed_id is None or message.retain:
            self._statistics.ignored[Ignored.RETAINED if message.retain else Ignored.NO_REGISTRATION_ID] += 1
            self._settle(receipt)
            return
        work = self._serve(message, Message(topic=topic, payload=bytes(message.payload)), claimed_id, receipt)
        task = self._tasks.create_task(work, name=f"request of {claimed_id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def finish(self, grace_s: float) -> None:
        """Wait until nothing is in progress; what still is after `grace_s` seconds is given up."""
        if self._running:
            await asyncio.wait(self._running, timeout=grace_s)
        for task in self._running:
            task.cancel()

    async def _serve(
        self, message: MQTTMessage, request: Message, claimed_id: RegistrationId, receipt: _Receipt
    ) -> None:
        # The broker knows more than it says: to us every request is a connection of its own, without an address.
        connection = Connection(
            connection_id="", role=Role.NATIVE, claimed_id=claimed_id, listener=LISTENER, remote_address=""
        )
        try:
            async with self._slots, asyncio.timeout(_HANDLE_DEADLINE_S):
                reply = await self._gatekeeper.handle(connection, request)
            if reply is not None:
                await self._reply(message, reply, claimed_id)
        except (aiomqtt.MqttError, TimeoutError):
            self._statistics.ignored[Ignored.UNSENT_REPLY] += 1
        except Exception:
            logger.exception("a request of %s failed", claimed_id)
        self._settle(receipt)

    async def _reply(self, message: MQTTMessage, reply: Message, claimed_id: RegistrationId) -> None:
        wishes = getattr(message, "properties", None)
        wanted = getattr(wishes, "ResponseTopic", None)
        own = own_response_topic(wanted, claimed_id)
        if wanted is not None and own is None:
            self._statistics.ignored[Ignored.RESPONSE_TOPIC] += 1
        correlation = getattr(wishes, "CorrelationData", None)
        properties: Any = None
        if correlation is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho sets by name
            properties.CorrelationData = correlation
        await self._client.publish(own or reply.topic, reply.payload, qos=1, properties=properties)

    def _settle(self, receipt: _Receipt) -> None:
        """Acknowledge what is due, in the order in which it came (MQTT-4.6.0-2)."""
        receipt.is_due = True
        while self._receipts and self._receipts[0].is_due:
            self._client.acknowledge(self._receipts.popleft().packet_id)


def topic_of(message: MQTTMessage) -> str | None:
    """The topic of a message, when it is UTF-8 as it must be."""
    try:
        return message.topic
    except UnicodeDecodeError:
        return None
