"""The sockets clients connect to: TLS on any address, plaintext on loopback only, and who is let in at all."""

import asyncio
import errno
import itertools
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any, Final

from OpenSSL import SSL

from provisiond.broker.arrivals import Arrivals
from provisiond.broker.connection import READ_BYTES, ClientConnection
from provisiond.broker.limits import BrokerLimits
from provisiond.broker.offences import BrokerStatistics, OffenceLog, Reason
from provisiond.broker.tls import ClientCertificates, load_context
from provisiond.broker.transport import SocketTransport
from provisiond.errors import ConfigurationError, binding_error

BACKLOG: Final = 16_384
"""Connections the kernel holds for us in a burst, if net.core.somaxconn lets it; Linux's default is 4,096, and whoever
comes beyond that is not refused, but tries again by itself after one, three, seven seconds (TCP)."""
ACCEPT_BATCH: Final = 32
"""Connections accepted at one go, so that those already in get on before more come in: in a storm the rest wait in
the kernel, where their deadlines do not run."""
_PAUSE_S: Final = 1.0
_NO_LINGER: Final = struct.pack("ii", 1, 0)
_RESOURCE_ERRORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSpec:
    """A listener as configured.

    Args:
        name: unique.
        host: address or name to bind.
        port: 0 takes a free one.
        tls: False is allowed on loopback only.
        certificate_path: PEM, the server's certificate with its intermediates; needed with TLS.
        key_path: PEM, unencrypted; needed with TLS.
        client_certificates: `none` does not ask for one; `optional` asks; `required` refuses the CONNECT without.

    Raises:
        ConfigurationError: plaintext on an address that is not loopback, or TLS without its files.
    """

    name: str
    host: str
    port: int
    tls: bool = True
    certificate_path: Path | None = None
    key_path: Path | None = None
    client_certificates: ClientCertificates = "optional"

    def __post_init__(self) -> None:
        if self.tls and (self.certificate_path is None or self.key_path is None):
            raise ConfigurationError(f"listener {self.name}: tls needs cert_file and key_file")
        self.check_address(self.host)
        if not self.tls and self.client_certificates == "required":
            raise ConfigurationError(f"listener {self.name}: client_certs = required needs tls = true")

    def check_address(self, host: str) -> None:
        """Refuse plaintext on what is not loopback.

        Raises:
            ConfigurationError: names the listener and the address.
        """
        if not self.tls and not _is_loopback(host):
            raise ConfigurationError(
                f"listener {self.name}: plaintext on {host} is not allowed; bind 127.0.0.1, or set tls = true"
            )

    def load_context(self) -> SSL.Context | None:
        """Its TLS context from its files as they are now, None for plaintext.

        Raises:
            ConfigurationError: the files cannot be used; names the listener.
        """
        if self.certificate_path is None or self.key_path is None or not self.tls:
            return None
        try:
            return load_context(self.certificate_path, self.key_path, self.client_certificates)
        except ConfigurationError as error:
            raise ConfigurationError(f"listener {self.name}: {error}") from error


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


class Door:
    """Counts who is in, in all and by address, and makes their connections.

    Args:
        limits: how many may be in.
        statistics: where they are counted.
        offences: where refusals are reported.
        on_arrival: called when the first bytes of MQTT of a client are there.
    """

    def __init__(
        self,
        limits: BrokerLimits,
        statistics: BrokerStatistics,
        offences: OffenceLog,
        on_arrival: Callable[[ClientConnection], None],
    ) -> None:
        self.limits = limits
        self._statistics = statistics
        self._offences = offences
        self._on_arrival = on_arrival
        self._by_address: dict[str, int] = {}
        self._read_buffer = memoryview(bytearray(READ_BYTES))
        self._connection_ids = itertools.count(1)
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._arrivals: dict[str, Arrivals] = {}
        self.clients: set[ClientConnection] = set()

    def open(self, listener: str, on_room: Callable[[], None]) -> Arrivals:
        """The newcomers of a listener, none yet; `on_room` is called as `Arrivals` says."""
        arrivals = self._arrivals[listener] = Arrivals(on_room)
        return arrivals

    def enter(self, remote_address: str) -> bool:
        """Take a place for an address; False when there is none."""
        key = _address_key(remote_address)
        count = self._by_address.get(key, 0)
        if self._statistics.connections >= self.limits.max_connections:
            self._offences.report(Reason.CONNECTION_LIMIT, remote_address, "all connections are taken")
            return False
        if count >= self.limits.max_connections_per_address:
            self._offences.report(Reason.ADDRESS_LIMIT, remote_address, f"{count} connections from there already")
            return False
        self._by_address[key] = count + 1
        self._statistics.connections += 1
        self._statistics.connections_total += 1
        self._is_empty.clear()
        return True

    def leave(self, remote_address: str) -> None:
        """Give a place back."""
        key = _address_key(remote_address)
        if self._by_address[key] == 1:
            del self._by_address[key]
        else:
            self._by_address[key] -= 1
        self._statistics.connections -= 1
        if not self._statistics.connections:
            self._is_empty.set()

    def connect(self, listener: str, remote: tuple[str, int], context: SSL.Context | None) -> ClientConnection:
        """The protocol of a client that has a place."""
        client = ClientConnection(
            connection_id=str(next(self._connection_ids)),
            listener=listener,
            remote=remote,
            context=context,
            limits=self.limits,
            offences=self._offences,
            read_buffer=self._read_buffer,
            on_arrival=self._arrived,
            on_gone=self._gone,
        )
        self.clients.add(client)
        self._arrivals[listener].enter(client)
        return client

    async def wait_empty(self) -> None:
        """Wait until nobody is in."""
        await self._is_empty.wait()

    def _arrived(self, client: ClientConnection) -> None:
        self._arrivals[client.listener].leave(client, was_served=True)
        self._on_arrival(client)

    def _gone(self, client: ClientConnection) -> None:
        self.clients.discard(client)
        self._arrivals[client.listener].leave(client)
        self.leave(client.remote[0])


def _address_key(address: str) -> str:
    """What counts as one address: an IPv4 address, or an IPv6 /64, for that is what one host is given (RFC 4291)."""
    if ":" not in address:
        return address
    parsed = IPv6Address(address.partition("%")[0])
    return str(parsed.ipv4_mapped) if parsed.ipv4_mapped else parsed.packed[:8].hex()


class Listener:
    """One configured listener: its sockets and its TLS context.

    Args:
        spec: as configured.
        door: who is let in.
        offences: where running out of files is reported.
    """

    def __init__(self, spec: ListenerSpec, door: Door, offences: OffenceLog) -> None:
        self.spec = spec
        self.context = spec.load_context()
        self._door = door
        self._offences = offences
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._resume: asyncio.TimerHandle | None = None
        self._arrivals = door.open(spec.name, self.accept)

    @property
    def address(self) -> tuple[str, int]:
        """The address and port that were really bound."""
        host, port = self._sockets[0].getsockname()[:2]
        return host, port

    async def bind(self) -> None:
        """Bind every address of the host.

        Raises:
            ConfigurationError: it cannot be bound (AddressUnavailable: not now); names the listener and the address.
        """
        spec, port = self.spec, self.spec.port
        try:
            found = await self._loop.getaddrinfo(spec.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, _, _, _, address in dict.fromkeys(found):
                spec.check_address(str(address[0]))
                self._sockets.append(_bind(family, (address[0], port, *address[2:])))
                port = self.address[1]
        except OSError as error:
            reason = f"listener {spec.name}: cannot bind {spec.host}:{spec.port}: {error.strerror}"
            raise binding_error(reason, error) from error

    def accept(self) -> None:
        """Begin to accept."""
        self._resume = None
        for bound in self._sockets:
            self._loop.add_reader(bound.fileno(), self._accept, bound)

    def close(self) -> None:
        """Accept nobody any more."""
        self._pause()
        self._arrivals.close()
        for bound in self._sockets:
            bound.close()
        self._sockets.clear()

    def _pause(self) -> None:
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        for bound in self._sockets:
            self._loop.remove_reader(bound.fileno())

    def _accept(self, bound: socket.socket) -> None:
        for _ in range(min(ACCEPT_BATCH, self._arrivals.room)):
            try:
                accepted, address = bound.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._out_of_resources(error)
                return
            accepted.setblocking(False)
            remote = (str(address[0]), int(address[1]))
            if self._door.enter(remote[0]):
                self._welcome(accepted, remote)
            else:
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                accepted.close()
        if self._arrivals.room <= 0:
            self._pause()
            self._arrivals.wait()

    def _out_of_resources(self, error: OSError) -> None:
        if error.errno not in _RESOURCE_ERRORS:
            raise error
        self._offences.report(Reason.FILE_LIMIT, self.spec.name, f"cannot accept: {error.strerror}")
        self._pause()
        self._resume = self._loop.call_later(_PAUSE_S, self.accept)

    def _welcome(self, accepted: socket.socket, remote: tuple[str, int]) -> None:
        client = self._door.connect(self.spec.name, remote, self.context)
        try:
            SocketTransport(accepted, client)
        except OSError as error:  # the kernel watches no more files
            accepted.close()
            client.connection_lost(error)


def _bind(family: int, address: tuple[Any, ...]) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets have it from this one; asyncio sets it only on those whose protocol number says TCP. Without
        # it a message that nobody has asked for waits 40 ms for the acknowledgement of the one before.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.setblocking(False)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound
