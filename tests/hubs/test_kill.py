"""A daemon that is killed at any step of the outbox leaves a device that ends on exactly one hub.

The hub is a webhook in this process: it kills the daemon (SIGKILL) at the step that a test is about.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field

import pytest

from provisiond.device.errors import DeviceError
from tests.hubs.gateways import Gateway, events, register, write_secret
from tests.hubs.services import json_answer, run_service
from tests.noticing import Noticing

KEY = b"the key of the device, 32 octets"
STEPS = ["on created, before it is done", "on created, after it is done", "on probe"]


@dataclass
class FatalHub(Noticing):
    """Does what it is told, and kills the daemon once, at a step."""

    step: str = ""
    daemon: object = None
    devices: list = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request):
        event = request.headers["x-provisiond-event"]
        if event == "created" and self.step == STEPS[0]:
            return self._kill()
        if event == "created":
            self.devices.append(request.json["deviceId"])
        if event == "deleted":
            self.devices = [one for one in self.devices if one != request.json["deviceId"]]
        self.changed.set()
        if (event, self.step) in (("created", STEPS[1]), ("probe", STEPS[2])):
            return self._kill()
        return json_answer({})

    def _kill(self):
        if self.daemon is None:
            return json_answer({}, 503)  # it is not ready yet: it comes again
        self.step = ""
        self.daemon.process.kill()
        return json_answer({}, 503)


@pytest.fixture
def hub():
    return FatalHub()


async def make_gateway(tmp_path, *services):
    hubs = [
        {
            "name": name,
            "type": "webhook",
            "host": f"{name}.example",
            "options": {"url": service.url, "secret_file": "webhook.secret"},
        }
        for name, service in zip("ab", services, strict=False)
    ]
    gateway = await asyncio.to_thread(Gateway, tmp_path, hubs)
    write_secret(gateway.directory, "webhook.secret", "secret")
    await gateway.enroll("pump", KEY)
    return gateway


async def killed(daemon):
    await asyncio.to_thread(daemon.process.wait, 120)


@contextlib.asynccontextmanager
async def asking(daemon):
    """A device that registers meanwhile, and is cut off when the daemon dies."""
    task = asyncio.create_task(register(daemon, "pump", KEY))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(DeviceError, asyncio.CancelledError):
            await task


@pytest.mark.parametrize("step", STEPS)
async def test_a_daemon_that_is_killed_at_a_step_is_followed_by_one_that_goes_on(tmp_path, hub, step):
    async with run_service(hub.answer) as service:
        gateway = await make_gateway(tmp_path, service)
        hub.step = step
        async with gateway.running() as daemon:
            hub.daemon = daemon
            async with asking(daemon):
                await killed(daemon)
        async with gateway.running() as daemon:
            await register(daemon, "pump", KEY)
            assert (await gateway.registration("pump"))["assignedHub"] == "a.example"
        assert set(hub.devices) == {"pump"}


async def test_a_daemon_that_is_killed_after_the_answer_has_the_device_once(tmp_path, hub):
    async with run_service(hub.answer) as service:
        gateway = await make_gateway(tmp_path, service)
        async with gateway.running() as daemon, asking(daemon):
            await hub.until(lambda: hub.devices == ["pump"])
            daemon.process.kill()  # its answer is on the way; whether it was written down, nobody knows
            await killed(daemon)
        async with gateway.running() as daemon:
            await gateway.until_assigned("pump")
        assert set(hub.devices) == {"pump"}


async def test_a_device_that_moves_while_the_daemon_is_killed_ends_on_one_hub(tmp_path):
    one, other = FatalHub(), FatalHub()
    async with run_service(one.answer) as first, run_service(other.answer) as second:
        gateway = await make_gateway(tmp_path, first, second)
        async with gateway.running() as daemon:
            await register(daemon, "pump", KEY)
        name = (await gateway.registration("pump"))["assignedHub"].partition(".")[0]
        here, there = (one, other) if name == "a" else (other, one)
        assert (here.devices, there.devices) == (["pump"], [])
        await gateway.command("hub", "drain", name)
        gateway.service.configure(retire_after="0s")
        there.step = STEPS[1]
        async with gateway.running() as daemon:
            there.daemon = daemon
            async with asking(daemon):
                await killed(daemon)
        async with gateway.running() as daemon:
            await register(daemon, "pump", KEY)
            await here.until(lambda: here.devices == [])
        assert set(there.devices) == {"pump"}
        assert (await gateway.registration("pump"))["substatus"] == "deviceDataMigrated"


async def test_two_daemons_on_one_store_make_a_device_once(tmp_path, hub):
    async with run_service(hub.answer) as service:
        gateway = await make_gateway(tmp_path, service)
        async with gateway.running() as first, gateway.running() as second:
            await asyncio.gather(register(first, "pump", KEY), register(second, "pump", KEY))
            assert not [event for event in events(second) if event.get("level") == "error"]
        assert hub.devices == ["pump"]
