"""Unmodified Azure device SDKs register with the real daemon over TLS on port 8883."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.system import sdk
from tests.system.conftest import Fleet
from tests.system.daemon import ID_SCOPE, Daemon

pytestmark = pytest.mark.sdk

Register = Callable[[dict[str, Any]], dict[str, Any]]

SDK_POLL_PAUSE_S = 2  # both SDKs wait at least so long before they ask again


@pytest.fixture(params=["python-sync", "python-aio", "node"])
def register(request: pytest.FixtureRequest, daemon: Daemon) -> Register:
    """Registers a device with one of the SDKs."""
    common = {"host": "localhost", "id_scope": ID_SCOPE, "ca_file": daemon.service.ca_file}
    if request.param == "node":
        return lambda device: sdk.register_with_node(**common, **device)
    client = request.param.removeprefix("python-")
    return lambda device: sdk.register_with_python(client=client, **common, **device)


def assert_assigned(outcome: dict[str, Any], device: dict[str, Any]) -> None:
    assert outcome.get("status") == "assigned", outcome
    assert outcome["deviceId"].lower() == device["registration_id"].lower()
    assert outcome["assignedHub"] == "localhost"
    assert outcome["substatus"] == "initialAssignment"


def assert_unauthorised(outcome: dict[str, Any]) -> None:
    if outcome["error"] == "ClientError":  # the Python SDK keeps only the status
        assert "401" in outcome["cause"]
    else:
        assert outcome["error"] == "UnauthorizedError"
        assert outcome["result"]["errorCode"] == 401002
        assert outcome["result"]["trackingId"]


@pytest.mark.parametrize("kind", ["keyed", "keyed_of_group", "certified", "certified_of_group"])
def test_an_enrolled_device_is_assigned_without_a_poll(register: Register, fleet: Fleet, kind: str) -> None:
    device, took_s = getattr(fleet, kind), []
    while not took_s or (min(took_s) >= SDK_POLL_PAUSE_S and len(took_s) < 5):  # a busy machine is as slow now and then
        outcome = register(device)
        assert_assigned(outcome, device)
        took_s.append(outcome["elapsed_s"])
    assert min(took_s) < SDK_POLL_PAUSE_S


def test_a_device_that_sends_a_payload_is_assigned(register: Register, fleet: Fleet) -> None:
    device = fleet.keyed_of_group | {"payload": '{"model": "T-1000", "position": [52.5, 13.4], "name": "Fühler"}'}
    assert_assigned(register(device), device)


@pytest.mark.parametrize("kind", ["keyed_wrongly", "certified_by_stranger", "unknown"])
def test_a_device_that_cannot_prove_itself_hears_401(register: Register, fleet: Fleet, kind: str) -> None:
    assert_unauthorised(register(getattr(fleet, kind)))


def test_a_disabled_device_hears_that_it_is_disabled(register: Register, fleet: Fleet) -> None:
    outcome = register(fleet.keyed_disabled)
    assert "disabled" in f"{outcome['message']} {outcome.get('cause')}", outcome


def test_the_record_tells_what_the_device_heard(daemon: Daemon, fleet: Fleet) -> None:
    register = partial(sdk.register_with_python, client="sync", host="localhost", ca_file=daemon.service.ca_file)
    heard = register(id_scope=ID_SCOPE, **fleet.keyed)
    record = daemon.service.command("registration", "show", "keyed", "-o", "json")
    assert record["status"] == heard["status"] == "assigned"
    assert record["assignedHub"] == heard["assignedHub"]
    assert record["deviceId"] == heard["deviceId"]
    assert record["etag"] == heard["etag"]
