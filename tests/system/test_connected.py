"""Devices that are connected, found by an operator among those that are not."""

import asyncio
import base64
import time
from pathlib import Path

import pytest

from provisiond.device import Endpoint, ProvisioningClient, SymmetricKeyCredential, connect_hub
from tests.ports import free_port
from tests.system.daemon import ID_SCOPE, Daemon, Service, run_daemon

IN_TIME_S = 60
KEY = SymmetricKeyCredential(key=b"k" * 32)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A service with three devices."""
    made = Service(tmp_path / "provisiond")
    made.configure(tls_port=free_port(), reply="immediate")
    key_file = tmp_path / "device.key"
    key_file.touch(mode=0o600)
    key_file.write_bytes(base64.b64encode(KEY.key))
    for registration_id in ("a-1", "b-2", "c-3"):
        made.enroll(registration_id, primary_key_file=key_file)
    return made


def connected(service: Service, *arguments: object) -> list[str]:
    found = service.command("device", "list", "--connected", *arguments)
    return [one["deviceId"] for one in found]


async def play(daemon: Daemon) -> None:
    service = daemon.service
    endpoint = Endpoint(host="localhost", port=daemon.port(tls=True), ca_file=service.ca_file)
    for registration_id in ("a-1", "b-2", "c-3"):
        async with ProvisioningClient(
            endpoint, id_scope=ID_SCOPE, registration_id=registration_id, credential=KEY
        ) as client:
            await client.register()
    hub = f"localhost:{endpoint.port}"
    async with (
        connect_hub(endpoint, assigned_hub=hub, device_id="b-2", credential=KEY),
        connect_hub(endpoint, assigned_hub=hub, device_id="c-3", credential=KEY),
    ):
        deadline = time.monotonic() + IN_TIME_S  # that they are here is written down a moment later
        while await asyncio.to_thread(connected, service) != ["b-2", "c-3"]:
            assert time.monotonic() < deadline, daemon.text_log
        assert await asyncio.to_thread(connected, service, "--top", 1) == ["b-2"]
        assert await asyncio.to_thread(connected, service, "--top", 1, "--after", "b-2") == ["c-3"]
        assert await asyncio.to_thread(connected, service, "--hub", "nowhere") == []


def test_connected_devices_are_found_behind_those_that_are_not(service: Service) -> None:
    with run_daemon(service) as daemon:
        asyncio.run(play(daemon))
