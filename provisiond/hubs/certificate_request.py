"""Whether a TLS listener asks its clients for a certificate: one that does not cannot know a device by its own."""

import asyncio
import math
import socket
import struct
import time
from typing import Final

from OpenSSL import SSL

from provisiond.errors import HubRefused
from provisiond.hubs.mqtt import MqttEndpoint

_DEADLINE_S: Final = 5.0
_BELIEVED_S: Final = 60.0
"""How long it is believed that a listener asks for certificates: a handshake for each device would be too many."""


class CertificateListener:
    """Where devices connect, as far as those with a certificate are concerned.

    Args:
        url: `mqtts://HOST[:PORT]`; of `mqtt://` nothing is known, for devices may have another listener.
    """

    def __init__(self, url: str) -> None:
        self._endpoint = MqttEndpoint(url=url)
        self._looked_at_s = -math.inf

    async def require(self) -> None:
        """Look whether it asks for certificates; a device that comes by one must not be assigned into a void.

        Raises:
            HubRefused: it does not. Where nobody answers, that is not said.
        """
        if not self._endpoint.url.startswith("mqtts:") or time.monotonic() - self._looked_at_s < _BELIEVED_S:
            return
        host, port = self._endpoint.address
        if await asks_for_certificate(host, port) is False:
            raise HubRefused(
                f"the listener at {host}:{port} asks for no certificate, so that the device could not connect: "
                "`require_certificate true` and `use_identity_as_username true` are missing in mosquitto.conf, or "
                'x509 = "password" in the options of the hub'
            )
        self._looked_at_s = time.monotonic()


async def asks_for_certificate(host: str, port: int) -> bool | None:
    """Begin a TLS handshake without a certificate, and see whether one is asked for; None when nobody answers.

    Nothing is sent but the handshake, so it is all the same who answers: the server's certificate is not looked at.
    """
    return await asyncio.to_thread(_look, host, port)


def _look(host: str, port: int) -> bool | None:
    states: list[bytes] = []
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    context.set_info_callback(lambda connection, _where, _value: states.append(connection.get_state_string()))
    try:
        with socket.create_connection((host, port), timeout=_DEADLINE_S) as raw:
            raw.setblocking(True)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(_DEADLINE_S), 0))
            connection = SSL.Connection(context, raw)
            connection.set_tlsext_host_name(host.encode("idna"))
            connection.set_connect_state()
            connection.do_handshake()
    except (OSError, UnicodeError):
        return None
    except SSL.Error:
        # One that insists on a certificate ends the handshake of TLS 1.2 for want of it.
        return True if _asked(states) else None
    return _asked(states)


def _asked(states: list[bytes]) -> bool:
    return any(b"certificate request" in state for state in states)
