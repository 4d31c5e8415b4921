"""Unmodified Azure device SDKs at the hub they were assigned to: the second half of Azure's tutorial."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from provisiond.protocols import iothub
from tests.system import sdk
from tests.system.conftest import Fleet
from tests.system.daemon import ID_SCOPE, Daemon

pytestmark = [pytest.mark.sdk, pytest.mark.xdist_group("port 8883")]

Connect = Callable[[], sdk.HubDevice]
TWIN = '{"interval_s": 10}'


class Consumer:
    """Debian's mosquitto_sub with the operator's token: a local consumer of telemetry."""

    def __init__(self, daemon: Daemon, port: int) -> None:
        token = (daemon.service.directory / "state" / "operator.token").read_text().strip()
        self._process = subprocess.Popen(
            [
                *("mosquitto_sub", "-h", "localhost", "-p", str(port), "--cafile", daemon.service.ca_file),
                *("-u", "operator", "-P", token, "-q", "1", "-F", "%j", "-W", "280"),
                *("-t", "devices/+/messages/events/#", "-t", "provisiond/v1/_status"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.next_message()[0] == "provisiond/v1/_status"  # so it has subscribed

    def next_message(self) -> tuple[str, Any]:
        line = self._process.stdout.readline()
        assert line, "mosquitto_sub has ended"
        message = json.loads(line)
        return message["topic"], message["payload"]

    def end(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._process.stdout.close()


@contextmanager
def consumer(daemon: Daemon) -> Iterator[Consumer]:
    opened = Consumer(daemon, daemon.port(tls=True))
    try:
        yield opened
    finally:
        opened.end()


def credential_of(device: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in device.items() if name != "registration_id"}


def register(daemon: Daemon, which: str, device: dict[str, Any]) -> dict[str, Any]:
    common = {"host": "localhost", "id_scope": ID_SCOPE, "ca_file": daemon.service.ca_file}
    if which == "node":
        outcome = sdk.register_with_node(**common, **device)
    else:
        outcome = sdk.register_with_python(client="sync", **common, **device)
    assert outcome.get("status") == "assigned", outcome
    return outcome


def set_initial_twin(daemon: Daemon, kind: str, device: dict[str, Any]) -> None:
    if kind.endswith("_of_group"):
        group = "keyed-group" if kind.startswith("keyed") else "certified-group"
        daemon.service.command("enrollment-group", "update", group, "--initial-twin-properties", TWIN)
    else:
        daemon.service.command("enrollment", "update", device["registration_id"], "--initial-twin-properties", TWIN)


@pytest.fixture
def assigned(daemon: Daemon, fleet: Fleet, which: str, kind: str) -> dict[str, Any]:
    """A registered device, whose twin starts with what its enrollment says."""
    device = getattr(fleet, kind)
    set_initial_twin(daemon, kind, device)
    return register(daemon, which, device)


@pytest.fixture
def connect(daemon: Daemon, fleet: Fleet, which: str, kind: str, assigned: dict[str, Any]) -> Connect:
    """Connects the device to its hub."""
    return partial(
        sdk.HubDevice,
        which,
        host=assigned["assignedHub"],
        device_id=assigned["deviceId"],
        ca_file=daemon.service.ca_file,
        **credential_of(getattr(fleet, kind)),
    )


@pytest.mark.mosquitto
@pytest.mark.parametrize(("which", "kind"), [("python", "keyed"), ("node", "certified_of_group")])
def test_a_device_is_heard_and_spoken_to(daemon: Daemon, assigned: dict[str, Any], connect: Connect) -> None:
    device_id, command = assigned["deviceId"], daemon.service.command
    with consumer(daemon) as listener, connect() as live:
        twin = live.expect("twin")["twin"]
        assert twin == {"desired": {"interval_s": 10, "$version": 1}, "reported": {"$version": 1}}
        live.expect("ready")

        topic, payload = listener.next_message()
        assert payload == '{"t":21.5}'
        properties = iothub.parse(device_id, topic).properties
        system = {"$.mid": "m-1", "$.ct": "application/json", "$.ce": "utf-8"}
        assert (system | {"line": "4 & 5/6"}).items() <= properties.items()

        shown = command("device", "show", device_id)
        assert (shown["status"], shown["connectionState"], shown["hub"]) == ("enabled", "Connected", "local")
        assert command("device", "twin", "show", device_id)["properties"]["reported"] == {"rpm": 900, "$version": 2}

        arguments = [
            "--data",
            "hello",
            "--property",
            "key=a b/c",
            "--content-type",
            "text/plain",
            "--message-id",
            "m-9",
        ]
        command("device", "send", device_id, *arguments)
        message = live.expect("message")
        assert (message["payload"], message["messageId"], message["contentType"]) == ("hello", "m-9", "text/plain")
        assert message["properties"]["key"] == "a b/c"

        command("device", "twin", "update", device_id, "--desired", '{"interval_s": null, "on": true}')
        assert live.expect("desired")["patch"] == {"interval_s": None, "on": True, "$version": 2}

        answer = command("device", "invoke-method", device_id, "reboot", "--payload", '{"in": 5}')
        assert answer == {"status": 200, "payload": {"rebooting": True}}
        assert live.expect("method")["payload"] == {"in": 5}


def test_a_device_still_hears_after_it_has_renewed_its_token(daemon: Daemon, fleet: Fleet) -> None:
    """The SDK connects again with the new one, and does not subscribe again."""
    assigned = register(daemon, "python", fleet.keyed)
    device_id, command = assigned["deviceId"], daemon.service.command
    common = {"host": "localhost", "device_id": device_id, "ca_file": daemon.service.ca_file}
    with sdk.HubDevice("python", token_lifetime_s=135, **common, **credential_of(fleet.keyed)) as live:
        live.expect("ready")
        live.expect("disconnected")
        live.expect("connected")
        command("device", "send", device_id, "--data", "after")
        assert live.expect("message")["payload"] == "after"
        assert command("device", "invoke-method", device_id, "reboot")["status"] == 200


@pytest.mark.parametrize(("which", "kind"), [("node", "keyed_of_group"), ("python", "certified")])
def test_a_device_is_at_its_hub_until_it_is_disabled(
    daemon: Daemon, kind: str, assigned: dict[str, Any], connect: Connect
) -> None:
    device_id, command = assigned["deviceId"], daemon.service.command
    with connect() as live:
        live.expect("ready")
        receipt = command("device", "disable", device_id)
        assert receipt["outcome"] == ("judged" if kind == "certified" else "proved"), receipt
        live.expect("disconnected")
    with connect() as refused, pytest.raises(AssertionError, match="error"):
        refused.expect("ready")
    command("device", "enable", device_id)
    with connect() as again:
        again.expect("ready")
    kept = command("audit", "list", "--registration-id", assigned["deviceId"], "-o", "json")
    assert receipt["trackingId"] in {record["trackingId"] for record in kept}


@pytest.mark.parametrize("which", ["python", "node"])
def test_a_device_with_a_wrong_key_is_refused_and_the_true_one_stays(daemon: Daemon, fleet: Fleet, which: str) -> None:
    assigned = register(daemon, which, fleet.keyed)
    common = {"host": "localhost", "device_id": assigned["deviceId"], "ca_file": daemon.service.ca_file}
    with sdk.HubDevice(which, **common, **credential_of(fleet.keyed)) as true:
        true.expect("ready")
        wrong = sdk.HubDevice(which, **common, **credential_of(fleet.keyed_wrongly))
        with wrong, pytest.raises(AssertionError, match="error"):
            wrong.expect("ready")
        daemon.service.command("device", "send", assigned["deviceId"], "--data", "still there")
        assert true.expect("message")["payload"] == "still there"


def test_the_newer_connection_of_a_device_takes_over(daemon: Daemon, fleet: Fleet) -> None:
    assigned = register(daemon, "python", fleet.keyed)
    common = {"host": "localhost", "device_id": assigned["deviceId"], "ca_file": daemon.service.ca_file}
    with sdk.HubDevice("python", **common, **credential_of(fleet.keyed)) as older:
        older.expect("ready")
        with sdk.HubDevice("node", **common, **credential_of(fleet.keyed)) as newer:
            newer.expect("ready")
            older.expect("disconnected")
