"""The whole way: a device is enrolled, registers, is made at its hub, connects there, is disabled, and is refused."""

import asyncio
import shutil
import time
from dataclasses import replace

import aiomqtt
import pytest

from provisiond.attestation.symmetric_key import generate_sas_token
from provisiond.connectors import TrialOutcome
from provisiond.device.errors import TimedOut
from provisiond.hubs.mosquitto import make_connector
from tests.hubs.conftest import PASSWORD, key_identity
from tests.hubs.devices import consumer, is_cut, next_message, password_device
from tests.hubs.gateways import PATIENCE, Gateway, register

pytestmark = pytest.mark.mosquitto

KEY = b"the key of the device, 32 octets"


def mosquitto_hub(broker, name="line-2", host="localhost"):
    return {
        "name": name,
        "type": "mosquitto",
        "host": host,
        "options": {
            "admin_url": f"mqtt://127.0.0.1:{broker.port}",
            "device_url": f"mqtt://127.0.0.1:{broker.port}",
            "password_file": "admin.password",
        },
    }


@pytest.fixture
async def gateway(tmp_path, broker):
    made = await asyncio.to_thread(Gateway, tmp_path, [mosquitto_hub(broker)])
    shutil.copy(broker.directory / "admin.password", made.directory / "admin.password")
    return made


async def test_a_device_goes_the_whole_way_and_its_revocation_is_proved(gateway, broker):
    await gateway.enroll("pump", KEY)
    async with gateway.running() as daemon:
        result = await register(daemon, "pump", KEY)
        assert (result.assigned_hub, result.device_id) == ("localhost", "pump")
        identity = key_identity("pump", KEY)
        async with consumer(broker, PASSWORD) as listener, password_device(broker, identity) as device:
            await device.publish("devices/pump/messages/events/", b"hello", qos=1)
            assert await next_message(listener) == ("devices/pump/messages/events/", b"hello")
            receipt = await gateway.command("device", "disable", "pump")
            assert await is_cut(device)
        assert receipt["outcome"] == "proved", receipt
        assert any("refused" in check["finding"] for check in receipt["trace"]), receipt
        hub = make_connector(broker.options())
        assert (await hub.try_connect(identity)).outcome is TrialOutcome.REFUSED
        await gateway.command("device", "enable", "pump")
        await gateway.until_assigned("pump")
        async with password_device(broker, identity):
            pass
        await hub.aclose()
        (listed,) = await gateway.command("hub", "list")
        assert (listed["health"], listed["assigned"]) == ("up", 1)


async def test_a_device_that_registers_while_its_hub_is_down_is_assigned_when_it_is_back(gateway, broker):
    await gateway.enroll("pump", KEY)
    await broker.stop()
    async with gateway.running() as daemon:
        registering = asyncio.create_task(register(daemon, "pump", KEY))
        listed = await until_health(gateway, "down")
        assert "refused" in listed["error"]
        await gateway.until_status("pump", "assigning")
        await broker.start()
        await gateway.until_assigned("pump")
        assert (await registering).assigned_hub == "localhost"
    async with password_device(broker, key_identity("pump", KEY)):
        pass


async def test_wrong_credentials_of_ours_are_said_and_devices_wait(gateway, broker):
    (gateway.directory / "admin.password").write_text("wrong")
    await gateway.enroll("pump", KEY)
    async with gateway.running() as daemon:
        listed = await until_health(gateway, "unauthorized")
        assert "CONNACK" in listed["error"]
        with pytest.raises(TimedOut):
            await register(daemon, "pump", KEY, patience=replace(PATIENCE, total_s=2))


async def test_a_hub_that_is_down_is_told_of_a_revocation_when_it_is_back(gateway, broker):
    await gateway.enroll("pump", KEY)
    identity = key_identity("pump", KEY)
    async with gateway.running() as daemon:
        await register(daemon, "pump", KEY)
        await broker.stop()
        receipt = await gateway.command("device", "disable", "pump")
        assert receipt["outcome"] == "not-proved"
        await broker.start()
        # The daemon does it when it comes to ask the hub again; nobody tells.
        hub = make_connector(broker.options())
        async with asyncio.timeout(120):
            while (await hub.try_connect(identity)).outcome is not TrialOutcome.REFUSED:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.2)
        await hub.aclose()


async def test_a_group_is_revoked_device_by_device(gateway, broker):
    await gateway.enroll("pump", KEY)
    async with gateway.running() as daemon:
        await register(daemon, "pump", KEY)
        (receipt,) = await gateway.command("enrollment", "disable", "pump", "--revoke")
        assert receipt["outcome"] == "proved"
    with pytest.raises(aiomqtt.MqttError):
        async with password_device(broker, key_identity("pump", KEY)):
            pass


async def test_a_device_that_moves_is_at_home_in_both_hubs_until_it_was_seen_in_the_new_one(gateway, broker):
    here = {"name": "here", "type": "embedded", "host": "gateway.local"}
    gateway.service.configure(hubs=[here, mosquitto_hub(broker)])
    await gateway.enroll("pump", KEY)
    await gateway.command("hub", "drain", "line-2")
    async with gateway.running() as daemon:
        assert (await register(daemon, "pump", KEY)).assigned_hub == "gateway.local"
        await gateway.command("hub", "drain", "line-2", "--undo")
        await gateway.command("hub", "drain", "here")
        assert (await register(daemon, "pump", KEY)).assigned_hub == "localhost"
        daemon.kill()
    async with gateway.running() as daemon:
        async with at_embedded_hub(daemon) as device:
            (left,) = (await gateway.command("device", "show", "pump"))["leaving"]
            assert (left["hub"], left["orOnceSeenAtItsNewHub"]) == ("here", True)
            async with password_device(broker, key_identity("pump", KEY)) as moved:
                await until_cut(device, moved)
        async with asyncio.timeout(120):
            while "leaving" in await gateway.command("device", "show", "pump"):
                pass
        with pytest.raises(aiomqtt.MqttError):
            async with at_embedded_hub(daemon):
                pass
    records = await gateway.command("audit", "list", "--registration-id", "pump")
    (retired,) = [record for record in records if record["event"] == "retire"]
    assert ", seen there at " in retired["reason"]


async def until_health(gateway, health):
    async with asyncio.timeout(120):
        while True:
            (listed,) = await gateway.command("hub", "list")
            if listed["health"] == health:
                return listed


def at_embedded_hub(daemon):
    token = generate_sas_token(resource="gateway.local/devices/pump", key=KEY, expiry=int(time.time()) + 600)
    return aiomqtt.Client(
        "127.0.0.1",
        daemon.port(tls=False),
        identifier="pump",
        username="gateway.local/pump/?api-version=2021-04-12",
        password=token,
        timeout=60,
    )


async def until_cut(device, moved):
    """Send now and then, as devices do, until the session at the other hub has ended."""
    cut = asyncio.create_task(is_cut(device, within_s=120))
    while not cut.done():
        await moved.publish("devices/pump/messages/events/", b"here I am", qos=1)
        await asyncio.wait({cut}, timeout=0.2)
    assert cut.result()
