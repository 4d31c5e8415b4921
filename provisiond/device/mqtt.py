"""One MQTT 3.1.1 connection of a device: aiomqtt with a deadline on everything and nothing left behind.

aiomqtt waits without end in places, and when a connection attempt fails it leaves the socket to the garbage collector;
both are mended here.
"""

import asyncio
import contextlib
import ipaddress
import logging
import math
import socket
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

_LOGGER: Final = logging.getLogger("provisiond.device.mqtt")
_LOGGER.addHandler(logging.NullHandler())  # a library does not write to stderr by itself

# Nagle's algorithm and delayed acknowledgements together cost 40 ms and more a round trip.
_SOCKET_OPTIONS: Final = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
_KEEP_ALIVE_S: Final = 60
_DISCONNECT_DEADLINE_S: Final = 2.0  # it is written to a socket that is there; nobody answers it
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
            context = ssl.create_default_context(cafile=self.ca_file)
        except (ssl.SSLError, OSError) as error:
            raise CredentialError(f"cannot use the CA file {self.ca_file}: {error}") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.sslsocket_class = _ClosingSocket
        credential.load_into(context)
        return context


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its very name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class _ClosingSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails: paho drops such a socket without closing it."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


class _Client(aiomqtt.Client):
    """An aiomqtt client that can be let go of in any state, and notices at once when it is turned away."""

    def limit_connecting(self, deadline_s: float) -> None:
        """Bound TCP connect and TLS handshake, which run in a thread."""
        self._client.connect_timeout = deadline_s

    def _on_disconnect(self, *arguments: Any) -> None:
        """Aiomqtt passes over a connection that ends before its CONNACK, and waits for that in vain."""
        if self._connected.done():
            super()._on_disconnect(*arguments)
        else:
            self._connected.set_exception(aiomqtt.MqttError("the server closed the connection"))

    def drop(self, connecting: "asyncio.Task[Any]") -> None:
        """Close the socket once the attempt is over, whether it succeeded, failed or was given up."""
        if not connecting.cancelled():
            connecting.exception()  # seen, so that the loop does not report it as unretrieved
        self._client._sock_close()  # noqa: SLF001 - paho has no public way to end an attempt that was not acknowledged

    def forget_disconnection(self) -> None:
        """Mark the reason of a lost connection as seen, so that the loop does not report it as unretrieved."""
        if self._disconnected.done() and not self._disconnected.cancelled():
            self._disconnected.exception()


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
    client = _Client(
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
        socket_options=_SOCKET_OPTIONS,
        max_queued_incoming_messages=_QUEUED_MESSAGES_LIMIT,
        logger=_LOGGER,
    )
    client.limit_connecting(deadline_s)
    await _connect(client, endpoint, deadline_s)
    client.timeout = math.inf  # the session's own deadlines are what counts from here on
    try:
        yield Session(client)
    finally:
        await _disconnect(client)


async def _connect(client: _Client, endpoint: Endpoint, deadline_s: float) -> None:
    # aiomqtt connects in a thread, which cannot be cancelled. The attempt is a task of its own, so that whoever stops
    # waiting for it leaves behind what ends soon (every step of it has a deadline) and then closes its socket.
    connecting = asyncio.create_task(client.__aenter__(), name=f"mqtt-connect {client.identifier}")
    try:
        async with asyncio.timeout(deadline_s):
            await asyncio.shield(connecting)
    except BaseException as error:
        connecting.add_done_callback(client.drop)
        if isinstance(error, (aiomqtt.MqttError, OSError)):
            raise _connection_error(error, endpoint, deadline_s) from error
        raise


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


async def _disconnect(client: _Client) -> None:
    with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
        async with asyncio.timeout(_DISCONNECT_DEADLINE_S):
            await client.__aexit__(None, None, None)
    client.forget_disconnection()
