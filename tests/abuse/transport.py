"""Abuse of sockets and TLS: cases 1 to 6."""

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable

from tests.abuse.site import Site, Stranger, case, connect_from, token
from tests.broker import wire

HALF_CONNECT = wire.connect("half")[:12]
DRIPPERS = 600  # more than are let in at a time
NO_LINGER = struct.pack("ii", 1, 0)


async def _slowest(site: Site, deadline_s: float, say: Callable[[Stranger], Awaitable[None]]) -> str:
    """Thirty strangers say the same; all of them must be cut off in time."""

    async def one() -> float:
        async with site.stranger() as stranger:
            await say(stranger)
            return await stranger.closed(deadline_s)

    seconds = await asyncio.gather(*(one() for _ in range(30)))
    return f"closed after {max(seconds):.1f} s (limit {deadline_s:g} s)"


@case(1, "idle socket")
async def idle(site: Site) -> str:
    async def say(_: Stranger) -> None:
        """Nothing."""

    return await _slowest(site, site.connect_s, say)


@case(2, "half a CONNECT, one byte a second")
async def half_connect(site: Site) -> str:
    async def say(stranger: Stranger) -> None:
        async def drip() -> None:
            for byte in HALF_CONNECT:
                stranger.send(bytes([byte]))
                await asyncio.sleep(min(1.0, site.connect_s / 3))

        stranger.dripping = asyncio.create_task(drip())

    return await _slowest(site, site.connect_s, say)


@case(3, "TLS ClientHello, then silence; others that drip theirs")
async def half_handshake(site: Site) -> str:
    sent = ssl.MemoryBIO()
    hello = site.client_context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    data = sent.read()

    async def one() -> float:
        reader, writer = await asyncio.open_connection(*site.tls)
        try:
            writer.write(data)
            return await Stranger(reader, writer).closed(site.handshake_s)
        finally:
            writer.transport.abort()

    seconds = await asyncio.gather(*(one() for _ in range(30)))
    newcomer_s = await _newcomer_among_drippers(site, data)
    return (
        f"closed after {max(seconds):.1f} s (limit {site.handshake_s:g} s); among {DRIPPERS:,} that drip theirs, a newcomer is "
        f"assigned after {newcomer_s:.1f} s"
    )


async def _newcomer_among_drippers(site: Site, hello: bytes) -> float:
    """How long it takes a device to connect and to be assigned; AssertionError when it is cut off or refused."""

    async def drip(number: int) -> None:
        with contextlib.suppress(ConnectionError, OSError):
            _, writer = await connect_from(f"127.0.3.{1 + number % 10}", site.tls)
            try:
                writer.write(hello[:60])
                for octet in hello[60:]:
                    await asyncio.sleep(0.25)
                    writer.write(bytes([octet]))
            finally:
                writer.transport.abort()

    dripping = [asyncio.create_task(drip(number)) for number in range(DRIPPERS)]
    try:
        await asyncio.sleep(1)  # they are all there
        began_at = time.monotonic()
        password = token("tls-newcomer", site.device_of_group("tls-newcomer")).encode()
        async with site.device("tls-newcomer", tls=site.client_context(), password=password) as device:
            assert (await device.register())[0] == 200
        return time.monotonic() - began_at
    finally:
        for task in dripping:
            task.cancel()
        await asyncio.gather(*dripping, return_exceptions=True)


@case(4, "plain bytes on the TLS port")
async def plain_on_tls(site: Site) -> str:
    reader, writer = await asyncio.open_connection(*site.tls)
    writer.write(wire.connect("plain"))
    seconds = await Stranger(reader, writer).closed(1.0)
    writer.transport.abort()
    return f"closed after {seconds:.2f} s"


@case(5, "more idle sockets than an address may have")
async def crowd(site: Site) -> str:
    cap = 1000 if site.large else 200
    sockets = [socket.socket() for _ in range((5 if site.large else 2) * cap)]
    try:
        await asyncio.to_thread(_connect_all, sockets, site.plain)
        refused = 0
        async with asyncio.timeout(60):
            while refused < len(sockets) - cap:
                await asyncio.sleep(0.1)  # the daemon comes to them in its turn
                refused = sum(map(_is_reset, sockets))
        async with site.device("newcomer", address="127.0.0.10") as device:
            status, _ = await device.register()
    finally:
        for one in sockets:
            one.close()
    assert status == 200
    return f"{refused} of {len(sockets)} refused; another address is assigned meanwhile"


def _connect_all(sockets: list[socket.socket], address: tuple[str, int]) -> None:
    for one in sockets:
        one.bind(("127.0.0.9", 0))
        with contextlib.suppress(ConnectionError):
            one.connect(address)
        one.setblocking(False)


def _is_reset(one: socket.socket) -> bool:
    try:
        return one.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:  # reset, or never connected
        return True


@case(6, "reset storm, half-closed sockets")
async def resets(site: Site) -> str:
    before, count = site.files, 5000 if site.large else 500
    await asyncio.to_thread(_storm, site.plain, count)
    async with asyncio.timeout(site.connect_s + 60):
        while site.files > before + 5:  # noqa: ASYNC110 - the files are another process's
            await asyncio.sleep(0.05)
    return f"{count} connections, no file left open"


def _storm(address: tuple[str, int], count: int) -> None:
    for number in range(count):
        with contextlib.suppress(ConnectionError), socket.create_connection(address) as one:
            if number % 3:
                one.send(HALF_CONNECT[: number % len(HALF_CONNECT)])
            if number % 2:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            else:
                one.shutdown(socket.SHUT_WR)
