"""Commands as they are typed for `az iot dps` do the same here."""

import pytest

from provisiond.cli.az_habits import translate


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["--edge-enabled"], ["--edge-enabled"]),
        (["--edge-enabled", "True", "a"], ["--edge-enabled", "a"]),
        (["--ee", "false"], ["--no-edge-enabled"]),
        (["--edge-enabled=false", "true"], ["--no-edge-enabled", "true"]),
        (["--edge-enabled", "sensor-7"], ["--edge-enabled", "sensor-7"]),
        (["--no-edge-enabled"], ["--no-edge-enabled"]),
        (["--", "--ee", "false"], ["--", "--ee", "false"]),
        (["--device-id", "true"], ["--device-id", "true"]),
        ([], []),
    ],
)
def test_whether_it_is_an_edge_device_is_a_flag_or_has_a_value(typed, expected):
    assert translate(typed) == expected


@pytest.mark.parametrize(("value", "is_edge"), [([], True), (["true"], True), (["false"], False)])
def test_an_edge_device_is_enrolled_either_way(gateway, value, is_edge):
    words = ["enrollment", "create", "--enrollment-id", "edge-1", "--attestation-type", "symmetricKey"]
    assert gateway(*words, "--edge-enabled", *value).json["capabilities"] == {"iotEdge": is_edge}


@pytest.mark.parametrize("option", ["--primary-key", "--pk", "--secondary-key", "--sk", "--primary-key=c2VjcmV0"])
def test_a_key_on_the_command_line_is_refused_with_the_way_out(gateway, option):
    stderr = gateway("enrollment", "create", "a", "--at", "symmetricKey", option, "c2VjcmV0", expect=2).stderr
    assert "-key-file" in stderr and "c2VjcmV0" not in stderr


def test_every_flag_of_azs_is_taken(gateway, tmp_path):
    (tmp_path / "key").write_text("a" * 21 + "Q==")
    key = tmp_path / "key"
    text = " ".join(
        f"""enrollment create --enrollment-id a --attestation-type symmetrickey --primary-key-file {key}
        --secondary-key-file {key} --device-id d --allocation-policy static --iot-hubs local --provisioning-status disabled
        --initial-twin-tags {{"a":1}} --initial-twin-properties {{"b":2}} --reprovision-policy reprovisionandresetdata
        --edge-enabled true --show-keys""".split()
    )
    body = gateway(*text.split(" ")).json
    assert body["attestation"]["symmetricKey"]["primaryKey"] == "a" * 21 + "Q=="
    assert (body["deviceId"], body["provisioningStatus"], body["iotHubs"]) == ("d", "disabled", ["local"])
    assert body["initialTwin"] == {"tags": {"a": 1}, "properties": {"desired": {"b": 2}}}
    assert body["reprovisionPolicy"] == {"updateHubAssignment": True, "migrateDeviceData": False}
