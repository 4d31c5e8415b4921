"""MQTT connections of our own to hubs: as an administrator, and as a device would."""

import logging
import math
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
from provisiond.mqtt_client import SOCKET_OPTIONS, Client, verifying_tls

_LOGGER: Final = logging.getLogger("provisiond.hubs.mqtt")
_LOGGER.addHandler(logging.NullHandler())  # aiomqtt logs what is also raised
_KEEP_ALIVE_S: Final = 30
_CONNECT_DEADLINE_S: Final = 5.0
"""For TCP, TLS and CONNACK each: a hub that takes longer is as good as down."""
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
            return verifying_tls(self.ca_file, self.cert_file, self.key_file)
        except (ssl.SSLError, OSError) as error:
            raise HubUnavailable(f"the TLS files for {self.url} cannot be used: {error}") from error


class MqttClient(Client):
    """A client that can forget what has come while nobody listened."""

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
        socket_options=SOCKET_OPTIONS,
        max_queued_incoming_messages=_QUEUED_MAX,
        logger=_LOGGER,
    )
    await _open(client, f"{host}:{port}")
    client.timeout = math.inf  # the caller's deadlines are what counts from here on
    try:
        yield client
    finally:
        await client.close()


async def _open(client: MqttClient, where: str) -> None:
    try:
        await client.open(deadline_s=_CONNECT_DEADLINE_S)
    except MqttConnectError as error:
        raise _connack_error(error, where) from error
    except (aiomqtt.MqttError, OSError) as error:
        raise HubUnavailable(f"cannot connect to {where}: {str(error) or 'no answer'}") from error


def _connack_error(error: MqttConnectError, where: str) -> HubUnavailable | HubUnauthorized:
    reason_code: Any = getattr(error.rc, "value", error.rc)
    return_code = _RETURN_CODES.get(reason_code, reason_code)
    if return_code in _NOT_AUTHORISED:
        return HubUnauthorized(f"{where} refused the connection (CONNACK {return_code})")
    return HubUnavailable(f"{where} does not take connections now (CONNACK {return_code})")
