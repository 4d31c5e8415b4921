"""A broker that the site runs already: provisiond is one of its clients, and answers native requests.

    request → pseudo connection, claimed id from the topic → Gatekeeper.handle → reply → acknowledgement of the request

* A request is acknowledged after its reply has been. So the broker's own window bounds what is in progress, and a
  broker that can do so gives another daemon what this one left behind.
* Several daemons share the work by `$share`. Nothing of a request is kept in this process: challenges are rows.
* The session is clean: a request that nobody has taken when the connection ends is lost, and its device asks again.
  What a persistent session would keep for this daemon, it would keep from the others.
"""

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiomqtt
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from provisiond.broker.external_requests import (
    LISTENER,
    ExternalStatistics,
    Ignored,
    RequestStream,
    ServiceClient,
    topic_of,
)
from provisiond.errors import ConfigurationError, MalformedRequest
from provisiond.model import Message
from provisiond.mqtt_client import SOCKET_OPTIONS, verifying_tls
from provisiond.ports import Gatekeeper
from provisiond.protocols.json_body import parse_json
from provisiond.protocols.native_topics import REQUEST_FILTER
from provisiond.protocols.operator import STATUS_TOPIC

logger = logging.getLogger("provisiond.broker")
_PAHO: Final = logging.getLogger("provisiond.broker.paho")
_PAHO.setLevel(logging.ERROR)  # what it warns of is also raised; below, every packet is a line

_CONNECT_DEADLINE_S: Final = 10.0
_EXCHANGE_DEADLINE_S: Final = 10.0
"""For the broker to acknowledge a packet."""
_BACKOFF_S: Final = 0.5
_BACKOFF_MAX_S: Final = 30.0
"""A broker that is back is found within half a minute, and is not hammered while it is away."""
_MAX_PACKET_BYTES: Final = 128 * 1024
"""A payload of 64 KiB, its topic, and properties; with MQTT 5 the broker sends nothing longer."""
_NOTICES_MAX: Final = 1_000
"""Events that wait to be published; the audit log is the record."""
_NOTICES_AT_ONCE: Final = 8
"""Events on their way at once: thousands a second at a millisecond each."""
_PENDING_CALLS: Final = 10_000  # aiomqtt warns beyond it, of what is bounded elsewhere
_REFUSED: Final = 0x80  # SUBACK of either version
_MQTT_3_1_1: Final[Mapping[str, Any]] = {"protocol": aiomqtt.ProtocolVersion.V311, "clean_session": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalBrokerSpec:
    """How to reach the broker.

    Args:
        protocol: `3.1.1` or `5`.
        ca_file: PEM authorities of its certificate; None for no TLS.
        password: read at every connection; None when there is none.
        client_id: of this daemon, and of no other.
        share_group: group of `$share`; empty for a subscription of its own.
        inflight: requests in progress at once, 1 to 65535.
    """

    host: str
    port: int
    protocol: str = "5"
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    username: str | None = None
    password: Callable[[], str] | None = field(default=None, repr=False)
    client_id: str
    share_group: str = "provisiond"
    keep_alive_s: int = 30
    inflight: int = 200

    def load_tls(self) -> ssl.SSLContext | None:
        """The TLS context; None for plaintext.

        Raises:
            ConfigurationError: a file cannot be used.
        """
        if self.ca_file is None:
            return None
        try:
            return verifying_tls(self.ca_file, self.cert_file, self.key_file)
        except (ssl.SSLError, OSError) as error:
            raise ConfigurationError(f"[broker.external] a certificate cannot be used: {error}") from error

    @property
    def request_filter(self) -> str:
        """What to subscribe to."""
        return f"$share/{self.share_group}/{REQUEST_FILTER}" if self.share_group else REQUEST_FILTER

    @property
    def is_mqtt_5(self) -> bool:
        """Whether to speak MQTT 5."""
        return self.protocol == "5"


class ExternalBroker:
    """The client of the site's broker; does what the daemon asks of a broker, and implements `ports.Transport`.

    Args:
        gatekeeper: answers every request.
        spec: how to reach the broker.
        status: makes the status message; whether the service runs.
    """

    def __init__(self, *, gatekeeper: Gatekeeper, spec: ExternalBrokerSpec, status: Callable[[bool], Message]) -> None:
        self.statistics = ExternalStatistics()
        self._gatekeeper = gatekeeper
        self._spec = spec
        self._status = status
        self._client: ServiceClient | None = None  # while requests can arrive
        self._tried = asyncio.Event()
        self._stopping = asyncio.Event()
        self._grace_s = 0.0
        self._notices: asyncio.Queue[Message] = asyncio.Queue(_NOTICES_MAX)
        self._running: asyncio.Task[None] | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect; when the broker is away say so, and go on trying.

        Raises:
            ConfigurationError: a certificate or the password cannot be used.
        """
        self.reload_certificates()
        self._running = asyncio.create_task(self._run(), name="external broker")
        await self._tried.wait()

    async def stop(self, grace_s: float) -> None:
        """Take no more requests, let those in progress finish for `grace_s` seconds, say so, disconnect."""
        if self._running is None:
            return
        self._grace_s = grace_s
        self._stopping.set()
        try:
            await asyncio.wait_for(self._running, grace_s + _EXCHANGE_DEADLINE_S)
        except TimeoutError:
            logger.warning("the broker at %s did not let go of us in time", self._where)

    @property
    def addresses(self) -> Mapping[str, tuple[str, int]]:
        """Where the broker is."""
        return {LISTENER: (self._spec.host, self._spec.port)}

    @property
    def is_connected(self) -> bool:
        """Whether requests can arrive."""
        return self._client is not None

    def reload_certificates(self) -> None:
        """See whether certificates and password can be used; the next connection uses them.

        Raises:
            ConfigurationError: one cannot.
        """
        self._spec.load_tls()
        if self._spec.password is not None:
            self._spec.password()

    # --- ports.Transport: devices have no connections here ------------------------------------------------------------

    async def send(self, connection_id: str, message: Message) -> bool:
        """False."""
        return self.post(connection_id, message)

    def post(self, connection_id: str, message: Message) -> bool:
        """False."""
        del connection_id, message
        return False

    async def deliver(self, connection_id: str, message: Message, *, deadline_s: float) -> bool:
        """False."""
        del deadline_s
        return self.post(connection_id, message)

    def disconnect(self, connection_id: str, reason: str) -> None:
        """Nothing."""

    # --- events -------------------------------------------------------------------------------------------------------

    def publish(self, message: Message) -> bool:
        """Have an event or the status published; False when it is lost: there is no connection, or too many wait."""
        if self._client is not None:
            with contextlib.suppress(asyncio.QueueFull):
                self._notices.put_nowait(message)
                return True
        self.statistics.ignored[Ignored.UNSENT_EVENT] += 1
        return False

    async def _publish_notices(self) -> None:
        while True:
            message = await self._notices.get()
            with contextlib.suppress(aiomqtt.MqttError):
                if self._client is not None:
                    retain = message.topic == STATUS_TOPIC
                    await self._client.publish(message.topic, message.payload, qos=1, retain=retain)
                    continue
            self.statistics.ignored[Ignored.UNSENT_EVENT] += 1

    # --- connection ---------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            publishers = [
                tasks.create_task(self._publish_notices(), name=f"event publisher {number}")
                for number in range(_NOTICES_AT_ONCE)
            ]
            try:
                await self._stay_connected(tasks)
            finally:
                for publisher in publishers:
                    publisher.cancel()

    async def _stay_connected(self, tasks: asyncio.TaskGroup) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                await self._serve(tasks)
            except (aiomqtt.MqttError, OSError, ConfigurationError) as error:
                failures = 0 if self.is_connected else failures + 1
                self._report(error)
            except Exception:
                failures += 1
                logger.exception("the connection to the broker at %s failed", self._where)
            finally:
                self._client, self.statistics.connections = None, 0
                self._tried.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _pause_s(failures))

    async def _serve(self, tasks: asyncio.TaskGroup) -> None:
        """One connection, from its CONNECT to its end.

        Raises:
            aiomqtt.MqttError, OSError: it did not come about, or it ended.
        """
        client = self._make_client()
        requests = RequestStream(
            client, self._gatekeeper, statistics=self.statistics, tasks=tasks, inflight=self._spec.inflight
        )
        client.on_message = lambda message: self._receive(client, requests, message)
        await client.open(deadline_s=_CONNECT_DEADLINE_S)
        try:
            await self._introduce(client)
            await self._wait_for_the_end(client)
            await self._say_goodbye(client, requests)
        finally:
            await client.close()

    def _make_client(self) -> ServiceClient:
        spec, will = self._spec, self._status(False)
        client = ServiceClient(
            spec.host,
            spec.port,
            identifier=spec.client_id,
            username=spec.username,
            password=None if spec.password is None else spec.password(),
            keepalive=spec.keep_alive_s,
            timeout=_EXCHANGE_DEADLINE_S,
            tls_context=spec.load_tls(),
            socket_options=SOCKET_OPTIONS,
            will=aiomqtt.Will(will.topic, will.payload, qos=1, retain=True),
            logger=_PAHO,
            **(_mqtt_5(spec.inflight) if spec.is_mqtt_5 else _MQTT_3_1_1),
        )
        client.pending_calls_threshold = _PENDING_CALLS
        return client

    async def _introduce(self, client: ServiceClient) -> None:
        """Take requests, and say that we do.

        Raises:
            aiomqtt.MqttError: the broker does not let us.
        """
        for topic_filter in (self._spec.request_filter, STATUS_TOPIC):
            granted = await client.subscribe(topic_filter, qos=1)
            codes = [code if isinstance(code, int) else code.value for code in granted]
            if any(code >= _REFUSED for code in codes):
                raise aiomqtt.MqttError(f"it refuses the subscription to {topic_filter}; look at its access rules")
        self._client = client
        self.statistics.connections = 1
        self.statistics.connections_total += 1
        self.publish(self._status(True))
        logger.info("connected to the broker at %s, MQTT %s", self._where, self._spec.protocol)
        self._tried.set()

    async def _wait_for_the_end(self, client: ServiceClient) -> None:
        stopping = asyncio.create_task(self._stopping.wait(), name="external broker stop-watch")
        ends: set[asyncio.Future[Any]] = {stopping, client.lost}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if client.lost.done():
            raise aiomqtt.MqttError("the connection was lost") from client.lost.exception()

    async def _say_goodbye(self, client: ServiceClient, requests: RequestStream) -> None:
        await client.unsubscribe(self._spec.request_filter)
        await requests.finish(self._grace_s)
        farewell = self._status(False)
        await client.publish(farewell.topic, farewell.payload, qos=1, retain=True)

    def _receive(self, client: ServiceClient, requests: RequestStream, message: MQTTMessage) -> None:
        if topic_of(message) != STATUS_TOPIC:
            requests.receive(message)
            return
        client.acknowledge(message.mid)
        # Another daemon's last will speaks for the service; who still runs puts it right.
        if _says_stopped(message) and not self._stopping.is_set():
            self.publish(self._status(True))

    @property
    def _where(self) -> str:
        host = f"[{self._spec.host}]" if ":" in self._spec.host else self._spec.host
        return f"{host}:{self._spec.port}"

    def _report(self, error: Exception) -> None:
        if isinstance(error, MqttConnectError):
            logger.error("the broker at %s refuses us: %s", self._where, error)
        elif self.is_connected:
            logger.warning("lost the broker at %s: %s", self._where, error.__cause__ or error)
        else:
            logger.warning("no connection to the broker at %s: %s", self._where, error)


def _mqtt_5(inflight: int) -> dict[str, Any]:
    """MQTT 5 3.1.2.11: the session ends with the connection, and so much may be unacknowledged."""
    properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho sets by name
    properties.ReceiveMaximum = inflight
    properties.MaximumPacketSize = _MAX_PACKET_BYTES
    return {"protocol": aiomqtt.ProtocolVersion.V5, "clean_start": True, "properties": properties}


def _pause_s(failures: int) -> float:
    """Before the next attempt; no two daemons come back at the same moment."""
    longest_s = min(_BACKOFF_MAX_S, _BACKOFF_S * 2.0 ** min(failures, 16))
    return longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret


def _says_stopped(message: MQTTMessage) -> bool:
    try:
        document = parse_json(bytes(message.payload))
    except MalformedRequest:
        return False
    return isinstance(document, dict) and document.get("running") is False
