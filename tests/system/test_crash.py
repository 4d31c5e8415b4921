"""A daemon that is killed in the middle of things has promised nothing that it does not keep."""

import asyncio
import base64
import json
import secrets
from pathlib import Path

import pytest

from tests.bench import packets
from tests.bench.devices import Device, make_symmetric_key_device
from tests.system.daemon import ID_SCOPE, Daemon, Service, run_daemon

DEVICES = 200
HEARD_BEFORE_THE_KILL = 60
AT_ONCE = 30  # so that no more have heard when the kill comes, however late it is
DEVICE_TIMEOUT_S = 120
HUBS = ("hub-a", "hub-b", "hub-c")


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A service with three hubs."""
    made = Service(tmp_path / "provisiond")
    made.configure(hubs=[{"name": name, "type": "embedded", "host": f"{name}.test"} for name in HUBS])
    return made


@pytest.fixture
def fleet(service: Service, tmp_path: Path) -> list[Device]:
    """200 devices of one symmetric-key group."""
    key, path = secrets.token_bytes(64), tmp_path / "group.key"
    path.touch(mode=0o600)
    path.write_text(base64.b64encode(key).decode())
    service.enroll_group("group", primary_key_file=path)
    return [make_symmetric_key_device(f"device-{n}", key, ID_SCOPE) for n in range(DEVICES)]


async def expect(reader: asyncio.StreamReader, buffer: bytearray, packet_type: int) -> bytes:
    while (packet := packets.split_packet(buffer)) is None:
        data = await reader.read(4096)
        if not data:
            raise ConnectionResetError
        buffer += data
    assert packet[0] == packet_type
    return packet[1]


async def register(device: Device, port: int) -> str:
    """The hub that the device hears it is assigned to; ConnectionError when the connection breaks before."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    buffer = bytearray()
    try:
        for packet, answer in ((device.connect, packets.CONNACK), (device.subscribe, packets.SUBACK)):
            writer.write(packet)
            await expect(reader, buffer, answer)
        writer.write(device.register)
        await expect(reader, buffer, packets.PUBACK)
        topic, _, payload = packets.split_publish(await expect(reader, buffer, packets.PUBLISH))
        assert topic.startswith("$dps/registrations/res/200/"), (topic, payload)
        return json.loads(payload)["registrationState"]["assignedHub"]
    finally:
        writer.transport.abort()


async def register_all(fleet: list[Device], daemon: Daemon, *, kill: bool = False) -> dict[str, str]:
    """What every device heard, many of them at once; with `kill` the daemon dies when enough have heard."""
    heard: dict[str, str] = {}
    port, waiting = daemon.port(tls=False), asyncio.Semaphore(AT_ONCE)

    async def visit(device: Device) -> None:
        try:
            async with waiting, asyncio.timeout(DEVICE_TIMEOUT_S):
                heard[device.registration_id] = await register(device, port)
        except ConnectionError:
            assert kill
        if kill and len(heard) == HEARD_BEFORE_THE_KILL:
            daemon.process.kill()

    async with asyncio.TaskGroup() as group:
        for device in fleet:
            group.create_task(visit(device), name=device.registration_id)
    return heard


async def test_kill_9_loses_no_device_that_has_heard_assigned(service: Service, fleet: list[Device]) -> None:
    with Daemon(service) as daemon:
        heard = await register_all(fleet, daemon, kill=True)
    assert HEARD_BEFORE_THE_KILL <= len(heard) < DEVICES

    with run_daemon(service) as restarted:
        rows = service.command("registration", "list", "-o", "json", "--top", DEVICES)
        kept = {row["registrationId"]: row for row in rows}
        assert len(kept) == len(rows)  # one row, and so one hub, for each
        lost = {name: hub for name, hub in heard.items() if kept.get(name, {}).get("assignedHub") != hub}
        assert lost == {}
        assert {kept[name]["status"] for name in heard} == {"assigned"}

        again = await register_all(fleet, restarted)
    assert again.keys() == {device.registration_id for device in fleet}
    assert {name: again[name] for name in kept} == {name: row["assignedHub"] for name, row in kept.items()}
    assert set(again.values()) == {f"{name}.test" for name in HUBS}
