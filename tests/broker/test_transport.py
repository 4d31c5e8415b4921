"""The transport under a connection does what asyncio's would."""

import asyncio
import socket
import struct

import pytest

from provisiond.broker.transport import SocketTransport

READ_BYTES = 4096
WRITE_LIMIT_BYTES = 64 * 1024
MORE_THAN_A_SOCKET_HOLDS = bytes(8 * 1024 * 1024)


class Recorder(asyncio.BufferedProtocol):
    """Writes down what it hears."""

    def __init__(self):
        self.heard = []
        self.buffer = bytearray(READ_BYTES)
        self.received = bytearray()
        self.changed = asyncio.Event()
        self.lost = asyncio.get_running_loop().create_future()
        self.keeps_half_open = False
        self.fails = False

    def connection_made(self, transport):
        transport.set_write_buffer_limits(high=WRITE_LIMIT_BYTES)
        self.heard.append("made")

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, nbytes):
        if self.fails:
            raise RuntimeError("a bug")
        self.received += self.buffer[:nbytes]
        self.changed.set()

    def eof_received(self):
        self.heard.append("eof")
        self.changed.set()
        return self.keeps_half_open

    def pause_writing(self):
        self.heard.append("pause")

    def connection_lost(self, exc):
        self.heard.append("lost")
        self.lost.set_result(exc)


@pytest.fixture
async def pair():
    """The protocol, its transport, and the other end as a blocking socket."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    protocol = Recorder()
    transport = SocketTransport(ours, protocol)
    with theirs:
        theirs.settimeout(60)
        yield protocol, transport, theirs
        transport.abort()
        await protocol.lost


async def receive_all(theirs):
    def read():
        data = bytearray()
        while chunk := theirs.recv(1 << 20):
            data += chunk
        return bytes(data)

    return await asyncio.to_thread(read)


async def test_it_reads_and_writes_at_once(pair):
    protocol, transport, theirs = pair
    theirs.sendall(b"question")
    await protocol.changed.wait()
    transport.write(b"answer")
    assert (bytes(protocol.received), theirs.recv(100)) == (b"question", b"answer")


async def test_what_the_kernel_does_not_take_waits_and_is_sent_before_it_closes(pair):
    protocol, transport, theirs = pair
    transport.write(MORE_THAN_A_SOCKET_HOLDS)
    assert transport.get_write_buffer_size()
    transport.close()
    transport.write(b"too late")
    assert await receive_all(theirs) == MORE_THAN_A_SOCKET_HOLDS
    assert await protocol.lost is None


async def test_it_says_when_more_waits_than_the_limit(pair):
    protocol, transport, _ = pair
    transport.write(MORE_THAN_A_SOCKET_HOLDS)
    assert "pause" in protocol.heard


async def test_an_abort_loses_what_waits_and_ends_once(pair):
    protocol, transport, theirs = pair
    transport.write(MORE_THAN_A_SOCKET_HOLDS)
    transport.abort()
    transport.abort()
    transport.close()
    await protocol.lost
    assert len(await receive_all(theirs)) < len(MORE_THAN_A_SOCKET_HOLDS)
    assert protocol.heard.count("lost") == 1


async def test_a_paused_one_leaves_what_comes_in_the_kernel(pair):
    protocol, transport, theirs = pair
    transport.pause_reading()
    theirs.sendall(b"question")
    for _ in range(3):
        await asyncio.sleep(0)
    assert not protocol.received
    transport.resume_reading()
    await protocol.changed.wait()
    assert protocol.received == b"question"


@pytest.mark.parametrize("half_open", [False, True])
async def test_who_has_said_all_is_answered_if_the_protocol_wants_so(pair, half_open):
    protocol, transport, theirs = pair
    protocol.keeps_half_open = half_open
    theirs.shutdown(socket.SHUT_WR)
    await protocol.changed.wait()
    assert transport.is_closing() is not half_open
    if half_open:
        transport.write(b"answer")
        transport.close()
    assert await receive_all(theirs) == (b"answer" if half_open else b"")


async def test_a_reset_ends_it_with_the_error():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)
    protocol = Recorder()
    transport = SocketTransport(ours, protocol)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    assert isinstance(await protocol.lost, ConnectionResetError)
    assert transport.is_closing()
    transport.write(b"nothing happens")
    assert protocol.heard == ["made", "lost"]


async def test_a_bug_of_the_protocol_costs_its_connection_and_is_reported(pair):
    protocol, _, theirs = pair
    protocol.fails = True
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    theirs.sendall(b"question")
    error = await protocol.lost
    assert reported == [error]
    assert isinstance(error, RuntimeError)


async def test_it_gives_its_socket_and_closes_it(pair):
    protocol, transport, _ = pair
    accepted = transport.get_extra_info("socket")
    assert transport.get_extra_info("peername", "unknown") == "unknown"
    transport.close()
    await protocol.lost
    await asyncio.sleep(0)
    assert accepted.fileno() == -1
