"""One client's socket: TLS in and out, bytes cut into packets, and a watchdog over all of it.

A `ClientConnection` is asyncio's protocol and amqtt's reader and writer in one object, so that a connection costs one
object, one timer, and nothing else until its CONNECT begins to arrive. What a client sends ahead waits in its TCP
window: at most one packet of the largest size and one socket read are held here.
"""

import asyncio
from collections.abc import Callable
from ssl import SSLObject
from typing import Final, cast

from amqtt.adapters import ReaderAdapter, WriterAdapter
from OpenSSL import SSL

from provisiond.broker.limits import BrokerLimits
from provisiond.broker.offences import OffenceLog, Reason
from provisiond.broker.packets import CONNECT_HEADER, ProtocolViolation, take_packet
from provisiond.broker.tls import TlsFailure, TlsSession
from provisiond.errors import ProvisiondError

READ_BYTES: Final = 64 * 1024
"""One socket read, of a buffer that all connections share: the bytes are taken out before the next read."""
FIRST_READ_BYTES: Final = 4 * 1024
"""One socket read while nobody knows who is there."""
FLUSH_BYTES: Final = 16 * 1024
"""Received TLS bytes after which answers of OpenSSL's own are sent, whether or not data came with them."""
_HEADER_BYTES: Final = 5

Watch = Callable[[float], float | None]
"""Looks at a connection at a time (monotonic seconds): the time to look again, or None when it has ended it."""


class ClientGone(ProvisiondError):
    """No packet will come any more: the client closed, or was closed."""


class ClientConnection(asyncio.BufferedProtocol, ReaderAdapter, WriterAdapter):
    """A client from accept to close.

    Args:
        connection_id: unique in this process, never reused.
        listener: name of the listener that accepted it.
        remote: address and port.
        context: TLS context of its listener; None on a plaintext listener.
        limits: how long and how much.
        offences: where refusals are reported.
        read_buffer: of `READ_BYTES`, shared by all connections of the event loop.
        on_arrival: called once, when the first bytes of MQTT are there.
        on_gone: called once, when the socket is closed.
    """

    def __init__(
        self,
        *,
        connection_id: str,
        listener: str,
        remote: tuple[str, int],
        context: SSL.Context | None,
        limits: BrokerLimits,
        offences: OffenceLog,
        read_buffer: memoryview,
        on_arrival: Callable[["ClientConnection"], None],
        on_gone: Callable[["ClientConnection"], None],
    ) -> None:
        self.connection_id = connection_id
        self.listener = listener
        self.remote = remote
        self.is_tls = context is not None
        self.unverified_chain: tuple[bytes, ...] = ()
        self.last_received_at = 0.0
        self._context = context
        self._tls: TlsSession | None = None
        self._limits = limits
        self._offences = offences
        self._read_buffer = read_buffer
        self._on_arrival = on_arrival
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._buffer_limit_bytes = limits.max_connect_bytes + _HEADER_BYTES
        self._max_packet_bytes = limits.max_packet_bytes
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watch: Watch | None = self._watch_arrival
        self._accepted_at = 0.0
        self._established_at: float | None = None
        self._handshake_bytes = 0
        self._unflushed_bytes = 0
        self._has_arrived = False
        self._has_connected = False
        self._has_ended = False
        self._is_paused = False

    @property
    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._transport is None or self._transport.is_closing()

    @property
    def has_ended(self) -> bool:
        """Whether no further packet will be read."""
        return self._has_ended

    # --- asyncio.BufferedProtocol -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock."""
        self._transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(high=self._limits.write_buffer_bytes)
        self._accepted_at = self.last_received_at = self._loop.time()
        if not self.is_tls:
            self._established_at = self._accepted_at
        first_look_s = min(self._limits.connect_timeout_s, self._limits.handshake_timeout_s)
        self._timer = self._loop.call_at(self._accepted_at + first_look_s, self._look)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the size is ours to choose
        """Where the next read goes."""
        return self._read_buffer if self._has_connected else self._read_buffer[:FIRST_READ_BYTES]

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        data = self._read_buffer[:nbytes]
        self.last_received_at = self._loop.time()
        if self._context is None:
            self._receive(data)
            return
        if self._tls is None:  # only now, for it is what costs: an idle socket has none
            self._tls = TlsSession(self._context)
        try:
            self._receive_tls(self._tls, data)
        except TlsFailure as failure:
            self._offences.report(Reason.TLS, self.remote[0], str(failure))
            self._send(self._tls.outgoing())
            self.shut()

    def eof_received(self) -> bool:
        """Let what has arrived be answered before the socket is closed."""
        self.feed_eof()
        if not self._has_arrived:
            self.shut()
        return True

    def pause_writing(self) -> None:
        """Cut off a client that does not read (called when the write buffer is over its limit)."""
        self._offences.report(Reason.SLOW_READER, self.remote[0], "does not read what it asked for")
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - how it went does not matter
        """Let go of everything."""
        self._transport = None
        self._tls = None
        self._watch = None  # it holds this object or its handler: without it nothing waits for the garbage collector
        if self._timer is not None:
            self._timer.cancel()
        self._end()
        self._on_gone(self)

    def _receive_tls(self, tls: TlsSession, data: memoryview) -> None:
        if tls.is_established:
            plaintext = tls.decrypt(data)
            # What OpenSSL answers by itself (no to a renegotiation) would pile up if nothing of ours ever followed.
            self._unflushed_bytes += len(data)
            if not plaintext or self._unflushed_bytes > FLUSH_BYTES:
                self._unflushed_bytes = 0
                self._send(tls.outgoing())
        else:
            self._handshake_bytes += len(data)
            if self._handshake_bytes > self._limits.max_handshake_bytes:
                raise TlsFailure(f"more than {self._limits.max_handshake_bytes} bytes before the handshake ended")
            is_established = tls.handshake(data)
            if not (is_established and tls.client_speaks_next):  # what is left goes with the first answer
                self._send(tls.outgoing())
            if not is_established:
                return
            self._established_at = self.last_received_at
            self.unverified_chain = tls.presented_chain(self._limits.max_chain_certificates)
            plaintext = tls.decrypt()
        if plaintext:
            self._receive(plaintext)
        if tls.is_closed:
            self.feed_eof()
            if not self._has_arrived:
                self.shut()

    def _receive(self, data: bytes | memoryview) -> None:
        if self._has_ended:
            return
        self._buffer += data
        if len(self._buffer) >= self._buffer_limit_bytes and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        if self._has_arrived:
            self._wake()
        else:
            self._has_arrived = True
            self._on_arrival(self)

    # --- packets and amqtt's ReaderAdapter ----------------------------------------------------------------------------

    async def read_connect(self) -> bytes:
        """The body of the first packet.

        Raises:
            ProtocolViolation: it is not a CONNECT, or too long.
            ClientGone: there is none.
        """
        while not self._buffer:
            await self._more()
        if self._buffer[0] != CONNECT_HEADER:
            raise ProtocolViolation("the first packet is not a CONNECT", "MQTT-3.1.0-1")
        _, body = await self._read_packet(self._limits.max_connect_bytes)
        self._buffer_limit_bytes = self._limits.max_packet_bytes + _HEADER_BYTES
        self._watch = self._watch_verdict
        self._has_connected = True
        return body

    def next_packet(self) -> tuple[int, bytes] | None:
        """The next packet (first byte, body), if it has arrived.

        Raises:
            ProtocolViolation: what has arrived is not a packet.
        """
        packet = take_packet(self._buffer, self._max_packet_bytes)
        self._resume()
        return packet

    async def read_packet(self) -> tuple[int, bytes]:
        """The next packet (first byte, body).

        Raises:
            ProtocolViolation: what arrived is not a packet.
            ClientGone: there is none.
        """
        return await self._read_packet(self._max_packet_bytes)

    def widen(self, *, max_packet_bytes: int, write_buffer_bytes: int) -> None:
        """Allow a client that was authenticated more than a stranger."""
        self._max_packet_bytes = max_packet_bytes
        self._buffer_limit_bytes = max_packet_bytes + _HEADER_BYTES
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high=write_buffer_bytes)

    async def _read_packet(self, max_bytes: int) -> tuple[int, bytes]:
        while (packet := take_packet(self._buffer, max_bytes)) is None:
            await self._more()
        self._resume()
        return packet

    async def read(self, n: int = -1) -> bytes:
        """Read `n` bytes, fewer only at the end; with -1 everything until the end (amqtt's ReaderAdapter)."""
        while not self._has_ended and (n < 0 or len(self._buffer) < n):
            try:
                await self._more()
            except ClientGone:
                break
        size = len(self._buffer) if n < 0 else n
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._resume()
        return data

    def feed_eof(self) -> None:
        """No more is coming; what has arrived is still read (amqtt's ReaderAdapter)."""
        self._has_ended = True
        self._wake()

    def _end(self) -> None:
        self._buffer.clear()
        self.feed_eof()

    async def _more(self) -> None:
        if self._has_ended:
            raise ClientGone("the client is gone")
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _resume(self) -> None:
        if self._is_paused and len(self._buffer) < self._buffer_limit_bytes and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()

    # --- sending and amqtt's WriterAdapter ----------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send; silently nothing when the connection is closing."""
        if self.is_closing:
            return
        if self._tls is None:
            self._send(data)
            return
        try:
            self._send(self._tls.encrypt(data))
        except TlsFailure as failure:
            self._offences.report(Reason.TLS, self.remote[0], str(failure))
            self.abort()

    def _send(self, data: bytes) -> None:
        if data and self._transport is not None:
            self._transport.write(data)

    async def drain(self) -> None:
        """Nothing: a client that does not read is cut off, not waited for (amqtt's WriterAdapter)."""

    def get_peer_info(self) -> tuple[str, int]:
        """Remote address and port (amqtt's WriterAdapter)."""
        return self.remote

    def get_ssl_info(self) -> SSLObject | None:
        """None: identity belongs to this connection and never to an amqtt session (amqtt's WriterAdapter)."""
        return None

    async def close(self) -> None:
        """`shut`, for amqtt's WriterAdapter."""
        self.shut()

    def finish(self) -> None:
        """Read no further packet; the one being handled is still answered."""
        self._end()
        if not self._has_arrived:
            self.shut()

    def shut(self, *, says_goodbye: bool = True) -> None:
        """Send what is written, then close; what does not leave within `close_timeout_s` is cut.

        Args:
            says_goodbye: send a TLS close_notify; not worth a record to a client that has just said DISCONNECT.
        """
        self._end()
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._tls is not None and says_goodbye:
            self._send(self._tls.close())
        transport.close()
        if self._timer is not None:
            self._timer.cancel()
        if transport.get_write_buffer_size():
            self._timer = self._loop.call_later(self._limits.close_timeout_s, self.abort)

    def abort(self) -> None:
        """Close at once."""
        self._end()
        if self._transport is not None:
            self._transport.abort()

    # --- watchdog -----------------------------------------------------------------------------------------------------

    def set_watch(self, watch: Watch) -> None:
        """From now on `watch` decides how long the connection lives."""
        if self.is_closing:
            return
        self._watch = watch
        at = watch(self._loop.time())
        # The timer that is running is kept when it comes early enough: it will only be told to look again later.
        if self._timer is not None and at is not None and at < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        again_at = self._watch(self._loop.time()) if self._watch is not None else None
        if again_at is not None:
            self._timer = self._loop.call_at(again_at, self._look)

    def _watch_arrival(self, now: float) -> float | None:
        handshake_by = self._accepted_at + self._limits.handshake_timeout_s
        if self._established_at is None:
            deadline, missing = handshake_by, "TLS handshake"
        else:
            deadline, missing = self._established_at + self._limits.connect_timeout_s, "CONNECT"
            if self.is_tls:
                deadline = min(deadline, handshake_by)
        if now < deadline:
            return deadline
        self._offences.report(Reason.TOO_SLOW, self.remote[0], f"no {missing} in {now - self._accepted_at:.1f} s")
        self.abort()
        return None

    def _watch_verdict(self, now: float) -> float:
        return now + self._limits.admit_timeout_s
