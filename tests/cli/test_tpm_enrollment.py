"""Enrolling TPMs: by endorsement key, or by their maker."""

import base64

import pytest

from provisiond.attestation.tpm import derive_registration_id
from tests.attestation import tpm_vectors

ACTIVATION = tpm_vectors.load()["azure_activation"][0]
KEY = tpm_vectors.octets(ACTIVATION, "ek_tpm2b_public")
STORAGE = tpm_vectors.octets(ACTIVATION, "srk_tpm2b_public")
KEY_TEXT = base64.b64encode(KEY).decode()
STORAGE_TEXT = base64.b64encode(STORAGE).decode()
POLICY = '{"pcrs": {"sha256": {"7": ["' + "ab" * 32 + '"]}}}'


@pytest.fixture(params=["base64", "a file of base64", "a file of the octets"])
def key_argument(request, tmp_path):
    if request.param == "base64":
        return KEY_TEXT
    path = tmp_path / "ek"
    path.write_bytes(KEY if request.param.endswith("octets") else f"{KEY_TEXT}\n".encode())
    return path


def test_an_endorsement_key_is_given_in_base64_or_in_a_file(gateway, key_argument):
    created = gateway(
        "enrollment", "create", "pump-1", "--attestation-type", "tpm", "--endorsement-key", key_argument
    ).json
    assert created["attestation"] == {"type": "tpm", "tpm": {"endorsementKey": KEY_TEXT}}


def test_the_id_of_a_tpm_is_derived_when_it_is_left_out(gateway, key_argument):
    created = gateway("enrollment", "create", "--endorsement-key", key_argument).json
    assert created["registrationId"] == derive_registration_id(KEY)


def test_a_storage_root_key_and_a_pcr_policy_go_with_it_and_come_off_again(gateway):
    created = gateway(
        "enrollment", "create", "pump-1", "--ek", KEY_TEXT, "--storage-root-key", STORAGE_TEXT, "--pcr-policy", POLICY
    ).json["attestation"]["tpm"]
    assert created["storageRootKey"] == STORAGE_TEXT
    assert created["pcrPolicy"] == {"pcrs": {"sha256": {"7": ["ab" * 32]}}}
    gateway("enrollment", "update", "pump-1", "--storage-root-key", "", "--pcr-policy", "")
    shown = gateway("enrollment", "show", "pump-1", "-o", "json").json
    assert shown["attestation"]["tpm"] == {"endorsementKey": KEY_TEXT}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--attestation-type", "tpm"], "needs --endorsement-key"),
        (["--endorsement-key", "?"], "--endorsement-key '?', which is no file: not base64"),
        (["--endorsement-key", STORAGE_TEXT], "follows no known template"),
        (["--endorsement-key", KEY_TEXT, "--storage-root-key", KEY_TEXT], "storage root key"),
        (["--endorsement-key", KEY_TEXT, "--pcr-policy", "{}x"], "--pcr-policy"),
        (["--endorsement-key", KEY_TEXT, "--pcr-policy", '{"pcrs": {"md5": {}}}'], "PCR policy, pcrs.md5"),
        (["--endorsement-key", KEY_TEXT, "--primary-key-file", "k"], "one attestation type"),
    ],
)
def test_what_cannot_be_enrolled_is_refused_with_the_reason(gateway, arguments, said):
    assert said in gateway("enrollment", "create", "pump-1", *arguments, expect=2).stderr


def test_a_group_of_tpms_may_list_the_ids_that_they_may_claim(gateway, tmp_path):
    ids = tmp_path / "ids"
    ids.write_text("# the pumps of line 4\nPump-1\npump-2  # spare\n\n")
    created = gateway("enrollment-group", "create", "pumps", "--attestation-type", "tpm", "--allowed-ids", ids).json
    assert created["attestation"] == {"type": "tpm", "tpm": {"allowedIds": ["pump-1", "pump-2"]}}
    changed = gateway("enrollment-group", "update", "pumps", "--allowed-ids", "", "--pcr-policy", POLICY).json
    assert "allowedIds" not in changed["attestation"]["tpm"]
    assert changed["attestation"]["tpm"]["pcrPolicy"]


def test_a_group_without_a_list_gives_each_tpm_its_derived_id(gateway):
    created = gateway("enrollment-group", "create", "pumps", "--attestation-type", "tpm").json
    assert created["attestation"] == {"type": "tpm", "tpm": {}}


def test_what_is_no_id_is_not_allowed(gateway):
    refused = gateway("enrollment-group", "create", "pumps", "--allowed-ids", "-", stdin="pump 1\n", expect=2)
    assert "allowed ids: registration id 'pump 1'" in refused.stderr
