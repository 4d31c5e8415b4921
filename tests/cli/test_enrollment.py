"""`provisiond enrollment`."""

import base64
import json

import pytest

from provisiond.attestation.tpm import derive_registration_id
from tests.attestation import tpm_vectors
from tests.certificates import make_ca, make_leaf
from tests.store.records import make_registration

KEY = base64.b64encode(b"k" * 32).decode()
OTHER_KEY = base64.b64encode(b"o" * 64).decode()


@pytest.fixture
def key_file(tmp_path):
    file = tmp_path / "device.key"
    file.write_text(KEY + "\n")
    return file


def keys_of(ended):
    return ended.json["attestation"].get("symmetricKey")


def test_generated_keys_are_shown_once(gateway):
    created = gateway("enrollment", "create", "Sensor-7", "--attestation-type", "symmetricKey")
    assert len(base64.b64decode(keys_of(created)["primaryKey"])) == 64
    assert "generated keys are shown this once" in created.stderr
    assert f"provisiond -c {gateway.config} registration show Sensor-7" in created.stderr
    assert keys_of(gateway("enrollment", "show", "sensor-7")) is None
    assert keys_of(gateway("enrollment", "show", "sensor-7", "--show-keys")) == keys_of(created)


def test_given_keys_are_taken_from_files_and_not_shown(gateway, key_file):
    created = gateway(
        "enrollment", "create", "a", "--primary-key-file", key_file, "--secondary-key-file", "-", stdin=OTHER_KEY
    )
    assert keys_of(created) is None
    shown = gateway("enrollment", "show", "a", "--show-keys")
    assert keys_of(shown) == {"primaryKey": KEY, "secondaryKey": OTHER_KEY}


def test_an_empty_key_file_is_a_mistake_and_no_wish_for_a_generated_key(gateway, tmp_path):
    (tmp_path / "empty").write_text("\n")
    arguments = ("enrollment", "create", "sensor-7", "--attestation-type", "symmetricKey", "--primary-key-file")
    assert "empty" in gateway(*arguments, tmp_path / "empty", expect=2).stderr
    assert "empty" in gateway(*arguments, "-", stdin="", expect=2).stderr
    gateway("enrollment", "show", "sensor-7", expect=3)


def test_a_key_on_the_command_line_is_no_option(gateway):
    ended = gateway("enrollment", "create", "a", "--primary-key", KEY, expect=2)
    assert "--primary-key-file" in ended.stderr


@pytest.mark.parametrize("form", ["pem", "der"])
def test_a_certificate_is_enrolled_from_a_pem_or_a_cer_file(gateway, tmp_path, form):
    leaf, second = make_leaf("sensor-7"), make_leaf("sensor-7")
    (tmp_path / "a.cer").write_bytes(leaf.pem if form == "pem" else leaf.der)
    (tmp_path / "b.cer").write_bytes(second.der)
    created = gateway(
        "enrollment", "create", "--registration-id", "sensor-7", "--attestation-type", "x509",
        "--certificate-path", tmp_path / "a.cer", "--secondary-certificate-path", tmp_path / "b.cer",
    )  # fmt: skip
    certificates = created.json["attestation"]["x509"]["clientCertificates"]
    assert certificates["primary"]["info"]["subjectName"] == "CN=sensor-7"
    removed = gateway("enrollment", "update", "sensor-7", "--remove-secondary-certificate")
    assert list(removed.json["attestation"]["x509"]["clientCertificates"]) == ["primary"]


def test_a_tpm_is_enrolled_by_its_endorsement_key(gateway, tmp_path):
    key = tpm_vectors.octets(tpm_vectors.load()["azure_activation"][0], "ek_tpm2b_public")
    text = base64.b64encode(key).decode()
    created = gateway("enrollment", "create", "tpm-1", "--attestation-type", "tpm", "--endorsement-key", text)
    assert created.json["attestation"] == {"type": "tpm", "tpm": {"endorsementKey": text}}
    for name, content in {"ek.b64": text.encode() + b"\n", "ek.pub": key}.items():
        (tmp_path / name).write_bytes(content)
        created = gateway("enrollment", "create", "--endorsement-key", tmp_path / name)
        assert created.json["registrationId"] == derive_registration_id(key)
        gateway("enrollment", "delete", derive_registration_id(key))
    assert "not base64" in gateway("enrollment", "create", "b", "--endorsement-key", "junk!", expect=2).stderr


def test_everything_that_az_can_say_is_kept(gateway, tmp_path):
    (tmp_path / "tags.json").write_text('{"site": "north"}')
    created = gateway(
        "enrollment", "create", "a", "--attestation-type", "symmetrickey", "--device-id", "pump",
        "--allocation-policy", "static", "--iot-hubs", "local", "--provisioning-status", "disabled",
        "--initial-twin-tags", f"@{tmp_path}/tags.json", "--initial-twin-properties", '{"interval": 5}',
        "--reprovision-policy", "reprovisionandresetdata", "--edge-enabled",
    ).json  # fmt: skip
    assert created["deviceId"] == "pump"
    assert (created["allocationPolicy"], created["iotHubs"]) == ("static", ["local"])
    assert created["provisioningStatus"] == "disabled"
    assert created["initialTwin"] == {"tags": {"site": "north"}, "properties": {"desired": {"interval": 5}}}
    assert created["reprovisionPolicy"] == {"updateHubAssignment": True, "migrateDeviceData": False}
    assert created["capabilities"] == {"iotEdge": True}


def test_an_update_changes_what_is_given_and_leaves_the_rest(gateway, key_file):
    gateway("enrollment", "create", "a", "--primary-key-file", key_file, "--device-id", "pump", "--iot-hubs", "local")
    changed = gateway("enrollment", "update", "a", "--initial-twin-tags", '{"x": 1}', "--no-edge-enabled").json
    assert (changed["deviceId"], changed["iotHubs"], changed["initialTwin"]["tags"]) == ("pump", ["local"], {"x": 1})
    cleared = gateway("enrollment", "update", "a", "--device-id", "", "--iot-hubs", "", "--show-keys").json
    assert "deviceId" not in cleared
    assert "iotHubs" not in cleared
    assert cleared["initialTwin"]["tags"] == {"x": 1}
    assert cleared["attestation"]["symmetricKey"]["primaryKey"] == KEY


def test_a_key_is_rolled_over(gateway, key_file):
    gateway("enrollment", "create", "a", "--primary-key-file", key_file, "--secondary-key-file", key_file)
    changed = keys_of(gateway("enrollment", "update", "a", "--regenerate-secondary-key"))
    assert changed["primaryKey"] == KEY
    assert changed["secondaryKey"] != KEY


def test_an_update_may_change_the_attestation_type(gateway, tmp_path, key_file):
    gateway("enrollment", "create", "a", "--primary-key-file", key_file)
    (tmp_path / "a.pem").write_bytes(make_leaf("a").pem)
    changed = gateway("enrollment", "update", "a", "--certificate-path", tmp_path / "a.pem").json
    assert changed["attestation"]["type"] == "x509"


def test_an_update_with_an_old_etag_is_refused(gateway):
    created = gateway("enrollment", "create", "a", "--attestation-type", "symmetricKey").json
    changed = gateway("enrollment", "update", "a", "--device-id", "x", "--etag", created["etag"]).json
    assert (
        "its etag is"
        in gateway("enrollment", "update", "a", "--device-id", "y", "--etag", created["etag"], expect=4).stderr
    )
    gateway("enrollment", "delete", "a", "--etag", created["etag"], expect=4)
    gateway("enrollment", "disable", "a", "--etag", created["etag"], expect=4)
    gateway("enrollment", "update", "a", "--device-id", "y", "--etag", "*")
    assert changed["deviceId"] == "x"


def test_enable_and_disable(gateway):
    gateway("enrollment", "create", "a", "--attestation-type", "symmetricKey")
    assert gateway("enrollment", "disable", "a").json["provisioningStatus"] == "disabled"
    assert gateway("enrollment", "enable", "--enrollment-id", "a").json["provisioningStatus"] == "enabled"


def test_a_list_has_pages(gateway):
    for name in ("b", "A", "c"):
        gateway("enrollment", "create", name, "--attestation-type", "symmetricKey")
    first = gateway("enrollment", "list", "--top", "2")
    assert [one["registrationId"] for one in first.json] == ["A", "b"]
    assert f"there are more: provisiond -c {gateway.config} enrollment list --top 2 --after b" in first.stderr
    second = gateway("enrollment", "list", "--after", "b")
    assert [one["registrationId"] for one in second.json] == ["c"]
    assert "there are more" not in second.stderr
    assert "symmetricKey" not in second.json[0]["attestation"]
    assert gateway("enrollment", "list", "-o", "tsv").stdout.splitlines()[0].startswith("A\tsymmetricKey\tenabled\t")


def test_an_empty_list_is_empty(gateway):
    assert gateway("enrollment", "list").json == []


def test_showing_an_enrollment_tells_what_became_of_the_device(gateway):
    gateway("enrollment", "create", "Device-1", "--attestation-type", "symmetricKey")
    gateway.store(make_registration("Device-1"))
    assert gateway("enrollment", "show", "device-1").json["registrationState"]["status"] == "assigned"


def test_deleting_leaves_the_registration(gateway):
    gateway("enrollment", "create", "Device-1", "--attestation-type", "symmetricKey")
    gateway.store(make_registration("Device-1"))
    ended = gateway("enrollment", "delete", "Device-1", "--yes")
    assert ended.stdout == ""
    assert "registration records stay" in ended.stderr
    gateway("enrollment", "show", "Device-1", expect=3)
    gateway("registration", "show", "Device-1")


def test_the_audit_log_knows_who_did_what(gateway):
    gateway("enrollment", "create", "a", "--attestation-type", "symmetricKey")
    (record,) = gateway.audit()
    assert record.event == "enrollment.create"
    assert record.actor.startswith("cli:")


@pytest.mark.parametrize(
    ("arguments", "exit_code", "expected"),
    [
        (["create", "a"], 2, "attestation-type is missing"),
        (["create", "--attestation-type", "symmetricKey"], 2, "the registration id is missing"),
        (["create", "a", "--rid", "b", "--attestation-type", "symmetricKey"], 2, "given twice"),
        (["create", "a/b", "--attestation-type", "symmetricKey"], 2, "registration id 'a/b' is not"),
        (["create", "a", "--attestation-type", "x509"], 2, "x509 needs --certificate-path"),
        (["create", "a", "--attestation-type", "tpm"], 2, "tpm needs --endorsement-key"),
        (["create", "a", "--attestation-type", "none"], 2, "none"),
        (["create", "a", "--primary-key-file", "device.key", "--attestation-type", "x509"], 2, "symmetricKey and x509"),
        (["create", "a", "--primary-key-file", "-", "--secondary-key-file", "-"], 2, "only one of"),
        (["create", "a", "--primary-key-file", "junk.key"], 2, "junk.key: not base64"),
        (["create", "a", "--primary-key-file", "short.key"], 2, "a key has 16 to 64"),
        (["create", "a", "--certificate-path", "junk.key"], 2, "junk.key: there is no certificate in it"),
        (["create", "a", "--certificate-path", "ca.pem"], 2, "primary certificate"),
        (["create", "a", "--attestation-type", "symmetricKey", "--iot-hubs", "north"], 2, "there are: local"),
        (["create", "a", "--attestation-type", "symmetricKey", "--allocation-policy", "static"], 2, "exactly one hub"),
        (["create", "a", "--attestation-type", "symmetricKey", "--initial-twin-tags", "{"], 2, "--initial-twin-tags is not JSON"),
        (["create", "a", "--attestation-type", "symmetricKey", "--initial-twin-tags", "list.json"], 2, "not a JSON object"),
        (["create", "a", "--attestation-type", "symmetricKey", "--initial-twin-tags", "[]"], 2, "not a JSON object"),
        (["create", "a", "--attestation-type", "symmetricKey", "--initial-twin-tags", ""], 2, "--initial-twin-tags: empty"),
        (["create", "a", "--attestation-type", "symmetricKey", "--device-id", "a/b"], 2, "device id 'a/b'"),
        (["update", "a"], 2, "there is nothing to change"),
        (["update", "a", "--device-id", "x"], 3, "there is no enrollment a"),
        (["show", "a"], 3, "there is no enrollment a"),
        (["delete", "a"], 3, "a"),
        (["enable", "a"], 3, "there is no enrollment a"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told(gateway, tmp_path, key_file, arguments, exit_code, expected):
    (tmp_path / "junk.key").write_text("not base64!")
    (tmp_path / "short.key").write_text(base64.b64encode(b"short").decode())
    (tmp_path / "ca.pem").write_bytes(make_ca("Root").pem)
    (tmp_path / "list.json").write_text("[]")
    ended = gateway("enrollment", *arguments, expect=exit_code)
    assert expected in ended.stderr.replace("\n", " ")
    assert ended.stdout == ""


def test_an_id_is_enrolled_once(gateway):
    gateway("enrollment", "create", "a", "--attestation-type", "symmetricKey")
    gateway("enrollment", "create", "A", "--attestation-type", "symmetricKey", expect=4)


def test_flags_of_another_attestation_type_are_refused(gateway, tmp_path):
    gateway("enrollment", "create", "a", "--attestation-type", "symmetricKey")
    assert "is symmetricKey" in gateway("enrollment", "update", "a", "--rsc", expect=2).stderr
    (tmp_path / "b.pem").write_bytes(make_leaf("b").pem)
    gateway("enrollment", "create", "b", "--certificate-path", tmp_path / "b.pem")
    assert "is x509" in gateway("enrollment", "update", "b", "--regenerate-primary-key", expect=2).stderr


def test_a_devices_key_is_derived_from_its_groups(gateway, tmp_path):
    # Azure's published vector.
    group_key = "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw=="
    (tmp_path / "group.key").write_text(group_key)
    device, expected = "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6", "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc="
    gateway("enrollment-group", "create", "g", "--primary-key-file", tmp_path / "group.key")
    for words in (
        ("enrollment", "compute-device-key", device, "--group-id", "g"),
        ("enrollment", "compute-device-key", "--registration-id", device, "--enrollment-id", "G"),
        ("enrollment", "compute-device-key", device, "--key-file", tmp_path / "group.key"),
        ("enrollment-group", "compute-device-key", "g", "--registration-id", device),
        ("enrollment-group", "compute-device-key", "--registration-id", device, "--key-file", tmp_path / "group.key"),
    ):
        assert gateway(*words).stdout == expected + "\n"
    as_json = gateway("enrollment", "compute-device-key", device, "--group-id", "g", "-o", "json")
    assert json.loads(as_json.stdout) == expected
    gateway("enrollment", "compute-device-key", device, expect=2)
    gateway("enrollment", "compute-device-key", "a/b", "--group-id", "g", expect=2)
    gateway("enrollment", "compute-device-key", device, "--group-id", "absent", expect=3)


def test_custom_allocation_is_given_its_webhook(gateway, tmp_path):
    words = ("enrollment", "create", "a", "--attestation-type", "symmetricKey", "--allocation-policy", "custom")
    assert "--webhook-url" in gateway(*words, expect=2).stderr
    (tmp_path / "url").write_text("https://allocate.example/hub?code=SECRET\n")
    made = gateway(*words, "--webhook-url", tmp_path / "url").json
    url, version = "https://allocate.example/hub?code=SECRET", "2021-10-01"
    assert made["customAllocationDefinition"] == {"webhookUrl": url, "apiVersion": version}
    changed = gateway("enrollment", "update", "a", "--webhook-url", "http://127.0.0.1:7071/", "--api-version", "x").json
    assert changed["customAllocationDefinition"] == {"webhookUrl": "http://127.0.0.1:7071/", "apiVersion": "x"}
    assert "not encrypted" in gateway("enrollment", "update", "a", "--webhook-url", "http://b.example", expect=2).stderr


def test_a_file_that_is_too_large_is_named_once(gateway, tmp_path):
    large = tmp_path / "large.pem"
    large.write_bytes(bytes(262145))
    ended = gateway(
        "enrollment", "create", "pump-1", "--attestation-type", "x509", "--certificate-path", large, expect=2
    )
    assert ended.stderr == f"error: {large}: longer than 262144 bytes\n"
