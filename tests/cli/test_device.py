"""`provisiond device` on a database whose daemon does not run; with one, tests/system has the whole story."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from provisiond.model import Retirement
from tests.embedded_hub.gateway import make_registration
from tests.enrollment_factory import group, individual


@pytest.fixture
def devices(gateway):
    gateway("enrollment", "create", "Dev-1", "--attestation-type", "symmetricKey", "--device-id", "Pump-7")
    gateway("enrollment-group", "create", "keys", "--attestation-type", "symmetricKey")
    gateway.store(
        make_registration(individual("Dev-1", device_id="Pump-7"), "Dev-1"), make_registration(group("keys"), "Dev-2")
    )
    return gateway


def test_devices_are_listed_and_nobody_is_connected_while_the_daemon_does_not_run(devices):
    ended = devices("device", "list")
    assert [(row["deviceId"], row["status"], row["connectionState"]) for row in ended.json] == [
        ("Pump-7", "enabled", "Disconnected"),
        ("Dev-2", "enabled", "Disconnected"),
    ]
    assert "run" in ended.stderr
    assert devices("device", "list", "--connected").json == []
    assert devices("device", "list", "--top", 1).json[0]["registrationId"] == "Dev-1"


def test_of_a_hub_that_is_not_ours_it_is_not_said_who_is_connected(devices):
    devices("hub", "add", "line-2", "--type", "mosquitto", "--host", "mqtt.local")
    devices.store(replace(make_registration(individual("Dev-3"), "Dev-3"), hub="line-2"))
    assert devices("device", "show", "Dev-3").json["connectionState"] == "Unknown"


def test_a_device_is_shown_by_its_device_id(devices):
    shown = devices("device", "show", "pump-7").json
    assert (shown["registrationId"], shown["hub"], shown["assignedHub"]) == ("Dev-1", "one", "one.test")
    assert devices("device", "show", "Dev-1", expect=3).stderr


def test_what_a_device_has_left_at_another_hub_is_shown_and_explained(devices):
    due_at = datetime(2026, 9, 1, tzinfo=UTC)
    left = Retirement(hub="far", device_id="Pump-7", registration_id="Dev-1", due_at=due_at, grace_s=60, reason="moved")
    devices.store(replace(make_registration(individual("Dev-1", device_id="Pump-7"), "Dev-1"), version=2), retire=left)
    (shown,) = devices("device", "show", "pump-7").json["leaving"]
    assert (shown["hub"], shown["until"], shown["orOnceSeenAtItsNewHub"]) == (
        "far",
        "2026-09-01T00:00:00.0000000Z",
        True,
    )
    assert devices("explain", "--registration-id", "Dev-1").json["leaving"] == [shown]
    told = devices("explain", "--registration-id", "Dev-1", "-o", "table").stdout
    assert "far, where it is let in until 2026-09-01" in told


@pytest.mark.parametrize(
    "arguments",
    [
        ("send", "Pump-7", "--data", "x"),
        ("twin", "show", "Pump-7"),
        ("twin", "update", "Pump-7", "--desired", "{}"),
        ("invoke-method", "Pump-7", "reboot"),
    ],
)
def test_what_needs_the_daemon_says_how_to_start_it(devices, arguments):
    ended = devices("device", *arguments, expect=69)
    assert f"provisiond -c {devices.config} run" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("send", "Pump-7", "--property", "x"), "NAME=VALUE"),
        (("send", "Pump-7", "--property", "$.mid=1"), "system"),
        (("send", "a/b", "--data", "x"), "device"),
        (("twin", "update", "Pump-7"), "nothing to change"),
        (("twin", "update", "Pump-7", "--desired", "{"), "--desired"),
        (("invoke-method", "Pump-7", "a/b"), "method"),
        (("invoke-method", "Pump-7", "reboot", "--payload", "{"), "--payload"),
    ],
)
def test_what_cannot_be_meant_is_said_before_the_daemon_is_asked(devices, arguments, reason):
    assert reason in devices("device", *arguments, expect=2).stderr


def test_disabling_works_without_the_daemon_and_says_that_it_was_not_tried(devices):
    ended = devices("device", "disable", "Pump-7")
    assert ended.json["event"] == "device.disable"
    assert ended.json["outcome"] != "proved"
    assert devices("device", "show", "Pump-7").json["status"] == "disabled"
    assert devices("enrollment", "show", "Dev-1").json["provisioningStatus"] == "disabled"
    assert devices("device", "enable", "Pump-7").json["status"] == "enabled"


def test_deleting_takes_the_device_out_of_the_list(devices):
    devices("device", "delete", "Dev-2", "--yes")
    assert [row["deviceId"] for row in devices("device", "list").json] == ["Pump-7"]
    assert devices("enrollment", "show", "Dev-2").json["provisioningStatus"] == "disabled"
