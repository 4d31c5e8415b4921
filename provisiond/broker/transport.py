"""A socket under a `ClientConnection`, on the event loop's readers and writers.

asyncio's own transport costs a task, a future and six turns of the loop for every accepted socket before the first
byte is read; that is a twentieth of a registration. This one does what the connection asks of it, and no more.
"""

import asyncio
import socket


class SocketTransport(asyncio.Transport):
    """An accepted, non-blocking socket. Reads at once; tells its protocol everything that asyncio's would.

    `connection_lost` comes in a turn of the loop of its own, exactly once. Where the write buffer exceeds its limit,
    `pause_writing` is called; there is no `resume_writing`, for the connection is cut off then.

    Args:
        accepted: the socket; closed by the transport.
        protocol: hears of it.
    """

    def __init__(self, accepted: socket.socket, protocol: asyncio.BufferedProtocol) -> None:
        super().__init__()
        self._socket = accepted
        self._descriptor = accepted.fileno()
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._waiting = bytearray()
        self._limit_bytes = 0
        self._is_closing = False
        self._has_ended = False
        protocol.connection_made(self)
        self.resume_reading()

    def get_extra_info(self, name: str, default: object = None) -> object:
        """The `socket`, and nothing else."""
        return self._socket if name == "socket" else default

    # --- reading ------------------------------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Leave what comes in the kernel."""
        self._loop.remove_reader(self._descriptor)

    def resume_reading(self) -> None:
        """Read again, unless it is closing."""
        if not self._is_closing:
            self._loop.add_reader(self._descriptor, self._read)

    def _read(self) -> None:
        if self._is_closing:
            return
        try:
            size_bytes = self._socket.recv_into(self._protocol.get_buffer(-1))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end_soon(error)
            return
        try:
            self._take(size_bytes)
        except BaseException as error:
            self._end_soon(error if isinstance(error, Exception) else None)
            raise

    def _take(self, size_bytes: int) -> None:
        if size_bytes:
            self._protocol.buffer_updated(size_bytes)
            return
        self.pause_reading()
        if not self._protocol.eof_received():
            self.close()

    # --- writing ------------------------------------------------------------------------------------------------------

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:  # noqa: ARG002 - asyncio's signature
        """Call `pause_writing` when more than `high` bytes wait to be sent."""
        self._limit_bytes = high or 0

    def get_write_buffer_size(self) -> int:
        """Bytes that wait to be sent."""
        return len(self._waiting)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send at once what the kernel takes, the rest as it takes it."""
        if self._is_closing or self._has_ended:
            return
        if not self._waiting:
            sent_bytes = self._send(data)
            if sent_bytes is None or sent_bytes == len(data):
                return
            data = data[sent_bytes:]
            self._loop.add_writer(self._descriptor, self._flush)
        self._waiting += data
        if len(self._waiting) > self._limit_bytes:
            self._protocol.pause_writing()

    def _send(self, data: bytes | bytearray | memoryview) -> int | None:
        try:
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._end_soon(error)
            return None

    def _flush(self) -> None:
        sent_bytes = self._send(self._waiting)
        if sent_bytes is None:
            return
        del self._waiting[:sent_bytes]
        if not self._waiting:
            self._loop.remove_writer(self._descriptor)
            if self._is_closing:
                self._end_soon(None)

    # --- the end ------------------------------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._is_closing

    def close(self) -> None:
        """Send what waits, then close."""
        if self._is_closing:
            return
        self._is_closing = True
        self._loop.remove_reader(self._descriptor)
        if not self._waiting:
            self._end_soon(None)

    def abort(self) -> None:
        """Close at once; what waits is lost."""
        self._end_soon(None)

    def _end_soon(self, error: Exception | None) -> None:
        if self._has_ended:
            return
        self._has_ended = self._is_closing = True
        self._loop.remove_reader(self._descriptor)
        if self._waiting:
            self._waiting.clear()
            self._loop.remove_writer(self._descriptor)
        self._loop.call_soon(self._end, error)

    def _end(self, error: Exception | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._socket.close()
