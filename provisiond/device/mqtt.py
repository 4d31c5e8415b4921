"""One MQTT 3.1.1 connection of a device, with a deadline on everything."""

import asyncio
import contextlib
import ipaddress
import logging
import math
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiomqtt
from aiomqtt.exceptions import MqttConnectError

from provisiond.device.credentials import Credential
from provisiond.device.errors import CannotConnect, ConnectionLost, CredentialError, Refused, TimedOut
from provisiond.model import Message
from provisiond.mqtt_client import SOCKET_OPTIONS, Client, verifying_tls

_LOGGER: Final = logging.getLogger("provisiond.device.mqtt")
_LOGGER.addHandler(logging.NullHandler())  # a library does not write to stderr by itself

_KEEP_ALIVE_S: Final = 60
_QUEUED_MESSAGES_LIMIT: Final = 64  # one request is answered at a time; the rest is a server gone wild
# paho gives CONNACK return codes of MQTT 3.1.1 (table 3.1) as the reason codes of MQTT 5 that mean the same.
_RETURN_CODES: Final = {132: 1, 133: 2, 136: 3, 134: 4, 135: 5}
_NOT_OUR_IDENTITY: Final = frozenset({2, 4, 5})  # identifier rejected, bad user name or password, not authorised


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a service or hub listens.

    Args:
        host: name or address; over TLS the server's certificate must carry it.
        ca_file: PEM certificates that the server's must chain to; None for those the system trusts.
        plaintext: no TLS; for loopback only.
        user_name, password: what a broker of the site's wants of a device; None for what the protocol has. A password
            alone is that of a user with the name of the registration id.
    """

    host: str
    port: int = 8883
    ca_file: Path | None = None
    plaintext: bool = False
    user_name: str | None = None
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.plaintext and not is_loopback(self.host):
            raise CredentialError(
                f"{self.host} is not this machine: without TLS the credential would be seen by others"
            )

    def tls_context(self, credential: Credential) -> ssl.SSLContext | None:
        """Verify the server and present the credential; None for plaintext.

        Raises:
            CredentialError: the CA file or the credential cannot be used.
        """
        if self.plaintext:
            return None
        try:
            context = verifying_tls(self.ca_file)
        except (ssl.SSLError, OSError) as error:
            raise CredentialError(f"cannot use the CA file {self.ca_file}: {error}") from error
        credential.load_into(context)
        return context


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its very name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Session:
    """An acknowledged connection. Make one with `connect`."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client
        self._messages = client.messages

    async def subscribe(self, topic_filter: str, *, deadline_s: float) -> None:
        """Subscribe at QoS 1; a refusal is not an error, as Azure SDKs see it.

        Raises:
            ConnectionLost: the connection ended.
            TimedOut: no SUBACK.
        """
        with _translated("subscribe"):
            async with asyncio.timeout(deadline_s):
                await self._client.subscribe(topic_filter, qos=1)

    async def publish(self, message: Message, *, deadline_s: float) -> None:
        """Publish and, at QoS 1, wait for the PUBACK.

        Raises:
            ConnectionLost: the connection ended.
            TimedOut: no PUBACK.
        """
        with _translated("publish"):
            async with asyncio.timeout(deadline_s):
                await self._client.publish(message.topic, message.payload, qos=message.qos)

    async def receive(self, *, deadline_s: float) -> Message:
        """The next message.

        Raises:
            ConnectionLost: the connection ended.
            TimedOut: none came.
        """
        with _translated("wait for a reply"):
            async with asyncio.timeout(deadline_s):
                received = await anext(self._messages)
        payload = received.payload if isinstance(received.payload, bytes) else b""
        return Message(topic=str(received.topic), payload=payload, qos=received.qos)


@contextlib.contextmanager
def _translated(action: str) -> Any:
    try:
        yield
    except aiomqtt.MqttError as error:
        raise ConnectionLost(f"cannot {action}: the connection was lost: {error.__cause__ or error}") from error
    except TimeoutError as error:
        raise TimedOut(f"cannot {action}: no answer in time") from error


@asynccontextmanager
async def connect(
    endpoint: Endpoint,
    *,
    credential: Credential,
    client_id: str,
    user_name: str | None,
    password: str | None,
    deadline_s: float,
) -> AsyncIterator[Session]:
    """Connect, and disconnect when the block ends.

    Raises:
        CannotConnect: TCP, TLS or MQTT did not come about within `deadline_s`.
        Refused: the server acknowledged the CONNECT with a refusal of this identity.
        CredentialError: the CA file or the credential cannot be used.
    """
    client = Client(
        endpoint.host,
        endpoint.port,
        identifier=client_id,
        username=user_name,
        password=password,
        protocol=aiomqtt.ProtocolVersion.V311,
        clean_session=True,
        keepalive=_KEEP_ALIVE_S,
        timeout=deadline_s,
        tls_context=endpoint.tls_context(credential),
        socket_options=SOCKET_OPTIONS,
        max_queued_incoming_messages=_QUEUED_MESSAGES_LIMIT,
        logger=_LOGGER,
    )
    try:
        await client.open(deadline_s=deadline_s)
    except (aiomqtt.MqttError, OSError) as error:
        raise _connection_error(error, endpoint, deadline_s) from error
    client.timeout = math.inf  # the session's own deadlines are what counts from here on
    try:
        yield Session(client)
    finally:
        await client.close()


def _connection_error(error: Exception, endpoint: Endpoint, deadline_s: float) -> CannotConnect | Refused:
    where = f"{endpoint.host}:{endpoint.port}"
    if isinstance(error, MqttConnectError):
        reason_code: Any = getattr(error.rc, "value", error.rc)
        return _connack_error(_RETURN_CODES.get(reason_code, reason_code), where)
    if isinstance(error, TimeoutError):
        return CannotConnect(f"cannot connect to {where}: no answer within {deadline_s:g} s")
    hint = "; is --ca-file the root of the server's certificate?" if "CERTIFICATE_VERIFY_FAILED" in str(error) else ""
    return CannotConnect(f"cannot connect to {where}: {error}{hint}")


def _connack_error(return_code: Any, where: str) -> CannotConnect | Refused:
    if return_code not in _NOT_OUR_IDENTITY:
        return CannotConnect(f"{where} does not take connections now (CONNACK {return_code})")
    message = "The server refused the connection: client id, user name or credential are not accepted"
    return Refused(
        f"{where} refused the connection (CONNACK {return_code})",
        status=401,
        body={"message": message, "connackReturnCode": return_code},
    )
