"""A daemon that is told to stop lets the requests in progress finish, within the 10 s of a service manager."""

import asyncio
import base64
import secrets
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import pytest

from tests.bench import packets
from tests.bench.devices import Device, make_symmetric_key_device
from tests.system.daemon import ID_SCOPE, STOP_TIMEOUT_S, Daemon, Service
from tests.system.test_crash import expect

IN_TIME_S = 60
STOP_MAX_S = 10  # what is promised; the rest is the patience of tests


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A service that answers at once."""
    made = Service(tmp_path / "provisiond")
    made.configure(reply="immediate")
    return made


def device_of(key: bytes, registration_id: str) -> Device:
    """A device of the group that has this key."""
    return make_symmetric_key_device(registration_id, key, ID_SCOPE)


@asynccontextmanager
async def connected(device: Device, port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection of a device that has subscribed to its answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        buffer = bytearray()
        for packet, answer in ((device.connect, packets.CONNACK), (device.subscribe, packets.SUBACK)):
            writer.write(packet)
            await expect(reader, buffer, answer)
        yield reader, writer
    finally:
        writer.transport.abort()


async def refuses_connections(port: int) -> None:
    """Wait until nothing listens any more."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            return
        except ConnectionResetError:  # it was still in the queue of the socket that was closed
            continue
        writer.transport.abort()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_registration_in_flight_is_stored_and_answered(
    service: Service, tmp_path: Path, number: signal.Signals
) -> None:
    """Another process holds the database, so that the commit waits; the daemon is told to stop; the lock goes."""
    key, path = secrets.token_bytes(64), tmp_path / "device.key"
    path.touch(mode=0o600)
    device = device_of(key, "pump-1")
    path.write_text(base64.b64encode(key).decode())
    service.enroll_group("group", primary_key_file=path)
    database = service.directory / "state" / "provisiond.db"
    async with AsyncExitStack() as stack:
        daemon = stack.enter_context(Daemon(service))
        lock = stack.enter_context(closing(sqlite3.connect(database, isolation_level=None)))
        port, buffer = daemon.port(tls=False), bytearray()
        reader, writer = await stack.enter_async_context(connected(device, port))
        lock.execute("BEGIN IMMEDIATE")
        writer.write(device.register)
        # The second one is answered, so what came before it is being handled.
        await stack.enter_async_context(connected(device_of(key, "pump-2"), port))
        daemon.process.send_signal(number)
        told_at = time.monotonic()
        async with asyncio.timeout(IN_TIME_S):
            await refuses_connections(port)
        assert daemon.process.poll() is None
        lock.execute("ROLLBACK")
        async with asyncio.timeout(IN_TIME_S):
            await expect(reader, buffer, packets.PUBACK)
            topic, _, payload = packets.split_publish(await expect(reader, buffer, packets.PUBLISH))
        assert topic.startswith("$dps/registrations/res/200/"), payload
        assert await asyncio.to_thread(daemon.process.wait, STOP_TIMEOUT_S) == 0
        assert time.monotonic() - told_at < STOP_MAX_S
    assert service.command("registration", "show", "pump-1")["status"] == "assigned"
    assert service.command("audit", "verify")["ok"]
