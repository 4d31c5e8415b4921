"""The load: many devices at once from one thread, every one with a full handshake of its own.

Non-blocking sockets, pyOpenSSL and epoll, without an event loop, so that the generator costs the machine as little as
Python can. The same code drives provisiond and mosquitto: only the conversation after the handshake differs.
"""

import select
import socket
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import count, islice

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from tests.bench import packets
from tests.bench.devices import Device

STALL_TIMEOUT_S = 30  # as the SDKs give a request
READ, WRITE = select.EPOLLIN, select.EPOLLOUT
BEGIN_AT_A_TIME = 32  # a device in the middle of a handshake has a processor of its own, and waits for no beginner


_numbers = count()


class Link:
    """One device's connection. Its generators yield the epoll event that they wait for."""

    def __init__(self, address: tuple[str, int], context: SSL.Context, device: Device) -> None:
        self.device = device
        self.number = next(_numbers)
        self.started = time.monotonic()
        self.round_trips_s: list[float] = []
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(address)
        self.tls: SSL.Connection
        self._context = context
        self._buffer = bytearray()

    def shake_hands(self) -> Generator[int, None, None]:
        yield WRITE
        self.tls = SSL.Connection(self._context, self.socket)
        if self.device.certificate is not None:
            self.tls.use_certificate(self.device.certificate)
            self.tls.use_privatekey(self.device.key)
        self.tls.set_connect_state()
        while True:
            try:
                return self.tls.do_handshake()
            except SSL.WantReadError:
                yield READ

    def send(self, data: bytes) -> None:
        self.tls.sendall(data)  # a few hundred bytes always fit into an empty socket buffer

    def expect(self, wanted_type: int) -> Generator[int, None, bytes]:
        while (packet := packets.split_packet(self._buffer)) is None:
            try:
                self._buffer += self.tls.recv(4096)
            except SSL.WantReadError:
                yield READ
        packet_type, body = packet
        if packet_type != wanted_type:
            raise ValueError(f"packet of type {packet_type} instead of {wanted_type}: {body!r}")
        return body

    def describe(self) -> str:
        tls = self.tls
        return f"{tls.get_protocol_version_name()} {tls.get_cipher_name()} {tls.get_group_name()}"


Conversation = Callable[[Link], Generator[int, None, None]]


def connect_only(link: Link) -> Generator[int, None, None]:
    """Handshake, CONNECT, CONNACK, DISCONNECT."""
    yield from link.shake_hands()
    link.send(link.device.connect)
    connack = yield from link.expect(packets.CONNACK)
    if connack != b"\x00\x00":
        raise ValueError(f"CONNECT was refused: {connack!r}")
    link.send(packets.DISCONNECT)


def register(link: Link) -> Generator[int, None, None]:
    """Handshake, CONNECT, SUBSCRIBE, register, assigned, DISCONNECT; each step waits for its answer, as the SDKs do."""
    yield from link.shake_hands()
    link.send(link.device.connect)
    yield from link.expect(packets.CONNACK)
    link.send(link.device.subscribe)
    yield from link.expect(packets.SUBACK)
    link.send(link.device.register)
    yield from link.expect(packets.PUBACK)
    topic, packet_id, payload = packets.split_publish((yield from link.expect(packets.PUBLISH)))
    if not topic.startswith("$dps/registrations/res/200/") or b'"assignedHub"' not in payload:
        raise ValueError(f"not assigned: {topic} {payload!r}")
    link.send(packets.encode_puback(packet_id) + packets.DISCONNECT)


def stay(link: Link) -> Generator[int, None, None]:
    """Handshake, CONNECT, SUBSCRIBE, and not another word."""
    yield from link.shake_hands()
    link.send(link.device.connect)
    yield from link.expect(packets.CONNACK)
    link.send(link.device.subscribe)
    yield from link.expect(packets.SUBACK)


def ask(link: Link) -> Generator[int, None, None]:
    """Register on a connection that is open, and note how long it took."""
    asked_at = time.monotonic()
    link.send(link.device.register)
    yield from link.expect(packets.PUBACK)
    _, packet_id, _ = packets.split_publish((yield from link.expect(packets.PUBLISH)))
    link.round_trips_s.append(time.monotonic() - asked_at)
    link.send(packets.encode_puback(packet_id))


def make_context(intermediates: Sequence[x509.Certificate] = ()) -> SSL.Context:
    """TLS 1.3 with P-256 key exchange, no resumption; sends `intermediates` after each device's own certificate."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_tmp_ecdh(ec.SECP256R1())
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    for certificate in intermediates:
        context.add_extra_chain_cert(certificate)
    return context


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one round of load saw.

    Args:
        latencies_s: wall time of each device from its TCP connect to its DISCONNECT, sorted.
        negotiated: protocol, cipher and key exchange of the last handshake.
    """

    devices: int
    wall_s: float
    latencies_s: tuple[float, ...]
    negotiated: str


class Load:
    """Runs devices through a conversation, `concurrency` of them at a time."""

    def __init__(self, address: tuple[str, int], context: SSL.Context, converse: Conversation) -> None:
        self._address = address
        self._context = context
        self._converse = converse
        self._links: dict[int, tuple[Link, Generator[int, None, None], int]] = {}
        self._latencies_s: list[float] = []
        self._negotiated = ""

    def run(self, devices: Iterable[Device], concurrency: int) -> Round:
        """One round; raises ValueError, TimeoutError or an SSL error when a device is not served."""
        started = time.monotonic()
        queue = iter(devices)
        with select.epoll() as poll:
            for device in islice(queue, concurrency):
                self._start(poll, device)
            while self._links or self._return(poll):
                for descriptor in self._wait(poll):
                    if self._step(poll, descriptor):
                        for device in islice(queue, 1):
                            self._start(poll, device)
        return Round(
            devices=len(self._latencies_s),
            wall_s=time.monotonic() - started,
            latencies_s=tuple(sorted(self._latencies_s)),
            negotiated=self._negotiated,
        )

    def _return(self, poll: select.epoll) -> bool:
        """Let devices that wait try again; whether there are any."""
        return False

    def _wait(self, poll: select.epoll) -> list[int]:
        """The connections that can go on: those that were answered, then some that begin, in the order they came."""
        ready = poll.poll(STALL_TIMEOUT_S, max(1, len(self._links)))
        if not ready:
            raise TimeoutError(f"nothing happened for {STALL_TIMEOUT_S} s on {len(self._links)} connections")
        answered = [descriptor for descriptor, event in ready if event != WRITE]
        connected = [descriptor for descriptor, event in ready if event == WRITE]
        return answered + nsmallest(
            BEGIN_AT_A_TIME, connected, key=lambda descriptor: self._links[descriptor][0].number
        )

    def _start(self, poll: select.epoll, device: Device) -> None:
        link = Link(self._address, self._context, device)
        steps = self._converse(link)
        wanted = next(steps)
        self._links[link.socket.fileno()] = (link, steps, wanted)
        poll.register(link.socket, wanted)

    def _step(self, poll: select.epoll, descriptor: int) -> bool:
        """Take one device as far as it goes without waiting; whether it is done."""
        link, steps, waited = self._links[descriptor]
        try:
            wanted = next(steps)
        except StopIteration:
            self._finish(poll, link)
            return True
        if wanted != waited:
            poll.modify(descriptor, wanted)
            self._links[descriptor] = (link, steps, wanted)
        return False

    def _finish(self, poll: select.epoll, link: Link) -> None:
        self._latencies_s.append(time.monotonic() - link.started)
        self._negotiated = link.describe()
        del self._links[link.socket.fileno()]
        poll.unregister(link.socket)
        link.socket.close()
