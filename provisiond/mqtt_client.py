"""aiomqtt, with a deadline on everything and nothing left behind; for devices and for the service alike.

aiomqtt waits without end in places, and when a connection attempt fails it leaves the socket to the garbage collector;
both are mended here.
"""

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path
from typing import Any, Final

import aiomqtt

# Nagle's algorithm and delayed acknowledgements together cost 40 ms and more a round trip.
SOCKET_OPTIONS: Final = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
_DISCONNECT_DEADLINE_S: Final = 2.0  # it is written to a socket that is there; nobody answers it


class ClosingSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails: paho drops such a socket without closing it."""

    def do_handshake(self, block: bool = False) -> None:
        """See ssl.SSLSocket."""
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def verifying_tls(ca_file: Path | None, cert_file: Path | None = None, key_file: Path | None = None) -> ssl.SSLContext:
    """TLS 1.2 or newer to a server whose certificate is verified.

    Args:
        ca_file: PEM certificates that it must chain to; None for those the system trusts.
        cert_file: what is presented to it, PEM, ours first.
        key_file: its private key, PEM; None when that is in `cert_file`.

    Raises:
        ssl.SSLError, OSError: a file cannot be used.
    """
    context = ssl.create_default_context(cafile=ca_file)
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = ClosingSocket
    return context


class Client(aiomqtt.Client):
    """An aiomqtt client that can be let go of in any state, and notices at once when it is turned away."""

    async def open(self, *, deadline_s: float) -> None:
        """Connect; TCP, TLS and CONNACK together within the deadline.

        Raises:
            aiomqtt.MqttError: the connection did not come about; an `MqttConnectError` when the server said so.
            OSError: neither did TCP or TLS; a `TimeoutError` at the deadline.
        """
        self._client.connect_timeout = deadline_s  # TCP connect and TLS handshake run in a thread
        # The thread cannot be cancelled. The attempt is a task of its own, so that whoever stops waiting for it leaves
        # behind what ends soon (every step of it has a deadline) and then closes its socket.
        connecting = asyncio.create_task(self.__aenter__(), name=f"mqtt-connect {self.identifier}")
        try:
            async with asyncio.timeout(deadline_s):
                await asyncio.shield(connecting)
        except BaseException:
            connecting.add_done_callback(self._drop)
            raise

    async def close(self) -> None:
        """Disconnect, whatever state the connection is in."""
        with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
            async with asyncio.timeout(_DISCONNECT_DEADLINE_S):
                await self.__aexit__(None, None, None)
        if self._disconnected.done() and not self._disconnected.cancelled():
            self._disconnected.exception()  # seen, so that the loop does not report it as unretrieved

    @property
    def lost(self) -> "asyncio.Future[None]":
        """Done when the connection has ended."""
        return self._disconnected

    def _on_disconnect(self, *arguments: Any) -> None:
        """Aiomqtt passes over a connection that ends before its CONNACK, and waits for that in vain."""
        if self._connected.done():
            super()._on_disconnect(*arguments)
        else:
            self._connected.set_exception(aiomqtt.MqttError("the server closed the connection"))

    def _on_socket_register_write(self, client: Any, userdata: Any, sock: Any) -> None:
        """Aiomqtt registers the socket's number, which another file may have by the time that its loop does so."""
        del userdata
        self._loop.call_soon_threadsafe(self._watch_for_writing, client, sock)

    def _watch_for_writing(self, client: Any, sock: Any) -> None:
        if sock.fileno() >= 0:
            self._loop.add_writer(sock.fileno(), self._write, client)

    def _write(self, client: Any) -> None:
        try:
            client.loop_write()
        except Exception as error:  # noqa: BLE001 - whatever it is, the connection is lost
            if not self._disconnected.done():
                self._disconnected.set_exception(error)

    def _drop(self, connecting: "asyncio.Task[Any]") -> None:
        """Close the socket once the attempt is over, whether it succeeded, failed or was given up."""
        if not connecting.cancelled():
            connecting.exception()  # seen, so that the loop does not report it as unretrieved
        self._client._sock_close()  # noqa: SLF001 - paho has no public way to end an attempt that was not acknowledged
