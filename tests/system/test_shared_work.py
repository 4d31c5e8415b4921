"""Two daemons at one broker share the work on one store; one that dies in the middle of it costs a device a retry."""

import asyncio
import base64
import json
import secrets
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
import tomlkit

from provisiond.device import Endpoint, Patience, ProvisioningClient, SymmetricKeyCredential
from provisiond.device.dialect import NativeDialect
from tests.mosquitto import run_mosquitto
from tests.system.daemon import ID_SCOPE, Daemon, Service, run_daemon

pytestmark = pytest.mark.mosquitto

DEVICES = 120
AT_ONCE = 30
ASSIGNED_BEFORE_THE_KILL = 40
HUBS = ("hub-a", "hub-b", "hub-c")
PATIENCE = Patience(connect_s=60, request_s=2, total_s=120, poll_s=0.2, backoff_s=0.2, jitter=0.5)


def make_service(directory: Path, url: str) -> tuple[Service, bytes]:
    """A service behind a broker, with three hubs and a group of symmetric keys."""
    service, key = Service(directory / "provisiond"), secrets.token_bytes(64)
    document: Any = tomlkit.parse(service.config_file.read_text())
    del document["broker"]["listeners"]
    document["broker"] |= {"mode": "external", "external": {"url": url}}
    document["metrics"] = {"enabled": False}
    document["hubs"] = [{"name": name, "type": "embedded", "host": f"{name}.test"} for name in HUBS]
    service.config_file.write_text(tomlkit.dumps(document))
    path = directory / "group.key"
    path.touch(mode=0o600)
    path.write_text(base64.b64encode(key).decode())
    service.enroll_group("group", primary_key_file=path)
    return service, key


async def register_all(key: bytes, port: int, *, on_assigned: Any = None) -> dict[str, str]:
    """The hub of every device, each of which asks until it is assigned."""
    heard: dict[str, str] = {}
    waiting = asyncio.Semaphore(AT_ONCE)

    async def visit(name: str) -> None:
        async with (
            waiting,
            ProvisioningClient(
                Endpoint(host="127.0.0.1", port=port, plaintext=True),
                id_scope=ID_SCOPE,
                registration_id=name,
                credential=SymmetricKeyCredential.from_group_key(key, name),
                dialect=NativeDialect(),
                patience=PATIENCE,
            ) as client,
        ):
            heard[name] = (await client.register()).assigned_hub
        if on_assigned is not None:
            on_assigned(len(heard))

    async with asyncio.TaskGroup() as group:
        for number in range(DEVICES):
            group.create_task(visit(f"device-{number}"), name=f"device-{number}")
    return heard


def count_answers(daemon: Daemon) -> int:
    return daemon.text_log.count('"answer assigned"')


async def test_kill_9_of_one_of_two_daemons_leaves_every_device_assigned_once(tmp_path: Path) -> None:
    async with run_mosquitto(tmp_path) as broker, aiomqtt.Client("127.0.0.1", broker.port) as operator:
        service, key = await asyncio.to_thread(make_service, tmp_path, broker.url)
        with Daemon(service) as killed, run_daemon(service) as survivor:
            await operator.subscribe("provisiond/v1/_status", qos=1)

            def kill(assigned: int) -> None:
                if assigned >= ASSIGNED_BEFORE_THE_KILL:
                    killed.process.kill()

            heard = await register_all(key, broker.port, on_assigned=kill)
            assert await asyncio.to_thread(killed.process.wait, 60) == -9
            assert heard.keys() == {f"device-{number}" for number in range(DEVICES)}
            assert count_answers(killed) > 0
            assert count_answers(survivor) > 0
            assert await register_all(key, broker.port) == heard
            rows = await asyncio.to_thread(service.command, "registration", "list", "-o", "json", "--top", 2 * DEVICES)
            # The one that died says so by its last will; the one that runs puts it right.
            said: list[bool] = []
            async with asyncio.timeout(60):
                while said[-2:] != [False, True]:
                    said.append(json.loads((await anext(operator.messages)).payload)["running"])
    assert {row["registrationId"]: row["assignedHub"] for row in rows} == heard
    assert len(rows) == DEVICES
    assert {row["substatus"] for row in rows} == {"initialAssignment"}
