"""MQTT connections of our own to hubs: as an administrator, and as a device would.

aiomqtt waits without end in places, and leaves the socket of a failed attempt to the garbage collector; both are mended
here. TCP_NODELAY always: without it a round trip takes 40 ms and more.
"""

import asyncio
import contextlib
import logging
import math
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiomqtt
from aiomqtt.exceptions import MqttConnectError

from provisiond.errors import ConfigurationError, HubUnauthorized, HubUnavailable

_LOGGER: Final = logging.getLogger("provisiond.hubs.mqtt")
_LOGGER.addHandler(logging.NullHandler())  # aiomqtt logs what is also raised
_SOCKET_OPTIONS: Final = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
_KEEP_ALIVE_S: Final = 30
_CONNECT_DEADLINE_S: Final = 5.0
"""For TCP, TLS and CONNACK each: a hub that takes longer is as good as down."""
_DISCONNECT_DEADLINE_S: Final = 2.0
_QUEUED_MAX: Final = 1000
"""Replies to other administrators that come while we are not listening; beyond it the newest are dropped."""
_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
# paho gives CONNACK return codes of MQTT 3.1.1 (table 3.1) as the reason codes of MQTT 5 that mean the same.
_RETURN_CODES: Final = {132: 1, 133: 2, 136: 3, 134: 4, 135: 5}
_NOT_AUTHORISED: Final = frozenset({2, 4, 5})


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttEndpoint:
    """Where a hub listens, and who connects.

    Args:
        url: `mqtt://HOST[:PORT]`, which is for loopback or a network of its own, or `mqtts://HOST[:PORT]`.
        ca_file: PEM certificates that the hub's must chain to; None for those the system trusts.
        cert_file, key_file: our own certificate, PEM, where the hub asks for one.
    """

    url: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port.

        Raises:
            ConfigurationError: the URL is none.
        """
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError as error:
            raise ConfigurationError(f"{self.url!r} is not a URL such as mqtts://broker:8883: {error}") from error
        if parts.scheme not in _PORTS or not parts.hostname or parts.path not in ("", "/"):
            raise ConfigurationError(f"{self.url!r} is not a URL such as mqtts://broker:8883")
        return parts.hostname, port or _PORTS[parts.scheme]

    def tls_context(self) -> ssl.SSLContext | None:
        """Verify the hub and present our certificate; None without TLS.

        Raises:
            HubUnavailable: a file cannot be used now.
        """
        if not self.url.startswith("mqtts:"):
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (ssl.SSLError, OSError) as error:
            raise HubUnavailable(f"the TLS files for {self.url} cannot be used: {error}") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.sslsocket_class = _ClosingSocket
        return context


class _ClosingSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails: paho drops such a socket without closing it."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


class MqttClient(aiomqtt.Client):
    """An aiomqtt client that can be let go of in any state, and notices at once when it is turned away."""

    def limit_connecting(self, deadline_s: float) -> None:
        """Bound TCP connect and TLS handshake, which run in a thread."""
        self._client.connect_timeout = deadline_s

    def _on_disconnect(self, *arguments: Any) -> None:
        """Aiomqtt passes over a connection that ends before its CONNACK, and waits for that in vain."""
        if self._connected.done():
            super()._on_disconnect(*arguments)
        else:
            self._connected.set_exception(aiomqtt.MqttError("the hub closed the connection"))

    def drop(self, connecting: "asyncio.Task[Any]") -> None:
        """Close the socket once the attempt is over, whether it succeeded, failed or was given up."""
        if not connecting.cancelled():
            connecting.exception()  # seen, so that the loop does not report it as unretrieved
        self._client._sock_close()  # noqa: SLF001 - paho has no public way to end an attempt that was not acknowledged

    def forget_disconnection(self) -> None:
        """Mark the reason of a lost connection as seen, so that the loop does not report it as unretrieved."""
        if self._disconnected.done() and not self._disconnected.cancelled():
            self._disconnected.exception()

    def drain(self) -> None:
        """Forget the messages that have come while nobody listened."""
        while not self._queue.empty():
            self._queue.get_nowait()


@asynccontextmanager
async def connect(endpoint: MqttEndpoint, *, client_id: str) -> AsyncIterator[MqttClient]:
    """Connect with MQTT 3.1.1, and disconnect when the block ends.

    Raises:
        HubUnavailable: no connection.
        HubUnauthorized: the hub does not take us.
    """
    host, port = endpoint.address
    client = MqttClient(
        host,
        port,
        identifier=client_id,
        username=endpoint.username,
        password=endpoint.password,
        protocol=aiomqtt.ProtocolVersion.V311,
        clean_session=True,
        keepalive=_KEEP_ALIVE_S,
        timeout=_CONNECT_DEADLINE_S,
        tls_context=endpoint.tls_context(),
        socket_options=_SOCKET_OPTIONS,
        max_queued_incoming_messages=_QUEUED_MAX,
        logger=_LOGGER,
    )
    client.limit_connecting(_CONNECT_DEADLINE_S)
    await _connect(client, f"{host}:{port}")
    client.timeout = math.inf  # the caller's deadlines are what counts from here on
    try:
        yield client
    finally:
        await _disconnect(client)


async def _connect(client: MqttClient, where: str) -> None:
    # aiomqtt connects in a thread, which cannot be cancelled. The attempt is a task of its own, so that whoever stops
    # waiting for it leaves behind what ends soon (every step of it has a deadline) and then closes its socket.
    connecting = asyncio.create_task(client.__aenter__(), name=f"hub connect {where}")
    try:
        async with asyncio.timeout(_CONNECT_DEADLINE_S):
            await asyncio.shield(connecting)
    except BaseException as error:
        connecting.add_done_callback(client.drop)
        if isinstance(error, MqttConnectError):
            raise _connack_error(error, where) from error
        if isinstance(error, (aiomqtt.MqttError, OSError)):
            raise HubUnavailable(f"cannot connect to {where}: {error or 'no answer'}") from error
        raise


def _connack_error(error: MqttConnectError, where: str) -> HubUnavailable | HubUnauthorized:
    reason_code: Any = getattr(error.rc, "value", error.rc)
    return_code = _RETURN_CODES.get(reason_code, reason_code)
    if return_code in _NOT_AUTHORISED:
        return HubUnauthorized(f"{where} refused the connection (CONNACK {return_code})")
    return HubUnavailable(f"{where} does not take connections now (CONNACK {return_code})")


async def _disconnect(client: MqttClient) -> None:
    with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
        async with asyncio.timeout(_DISCONNECT_DEADLINE_S):
            await client.__aexit__(None, None, None)
    client.forget_disconnection()
