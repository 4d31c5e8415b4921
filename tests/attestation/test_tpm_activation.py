import base64
import hashlib
import hmac
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import serialization

from provisiond.attestation.tpm import derive_registration_id, parse_endorsement_key, parse_storage_root_key
from provisiond.attestation.tpm_activation import activation_blob
from provisiond.attestation.tpm_credential import encrypt_cfb
from provisiond.attestation.tpm_duplication import seal_duplicate
from provisiond.attestation.tpm_structures import parse_public
from tests.attestation.software_tpm import CountingEntropy, ScriptedEntropy, activate, import_object, take
from tests.attestation.tpm_vectors import load, octets, public_named, section


def take_apart(blob):
    fields = []
    for _ in range(6):
        content, blob = take(blob)
        fields.append(len(content).to_bytes(2, "big") + content)
    assert blob == b""
    return fields


def blob_of(vector):
    """Our blob on the vector's random inputs; the RSA paddings are the library's own."""
    return activation_blob(
        endorsement_key=parse_endorsement_key(octets(vector, "ek_tpm2b_public")),
        storage_root_key=parse_storage_root_key(octets(vector, "srk_tpm2b_public")),
        key=octets(vector, "key"),
        entropy=ScriptedEntropy(
            octets(vector, "inner_key"),
            octets(vector, "seed_value"),
            octets(vector["credential_inputs"], "seed"),
            octets(vector["duplication_inputs"], "seed"),
        ),
    )


@pytest.mark.parametrize("vector", [v for v in section("azure_activation") if v.id == "empty-policy"])
def test_the_blob_is_the_one_that_the_clients_take(vector):
    ours, theirs = take_apart(blob_of(vector)), take_apart(base64.b64decode(vector["authentication_key_b64"]))
    assert len(blob_of(vector)) == 766
    assert [len(field) for field in ours] == [54, 258, 144, 258, 50, 2]
    for field in (0, 2, 4):
        assert ours[field] == theirs[field]


@pytest.mark.parametrize("vector", section("azure_activation"))
def test_the_vectors_blob_has_the_six_fields(vector):
    names = ("id_object", "enc_secret", "duplicate", "sym_seed", "public", "enc_uri")
    fields = take_apart(base64.b64decode(vector["authentication_key_b64"]))
    assert fields == [octets(vector["parts"], name) for name in names]
    assert blob_of(vector)[:54] == fields[0]


@pytest.mark.parametrize("vector", section("azure_activation"))
def test_other_blobs_of_the_field_are_understood(vector):
    """The emulators' policy and data field: not what we make, but the same wrapping."""
    public = parse_public(octets(vector["parts"], "public"))
    key, seed_value = octets(vector, "key"), octets(vector, "seed_value")
    assert public.unique[0] == hashlib.sha256(seed_value + key).digest()
    sensitive = b"\x00\x08\x00\x00" + b"\x00\x20" + seed_value + len(key).to_bytes(2, "big") + key
    private = seal_duplicate(
        parent=parse_storage_root_key(octets(vector, "srk_tpm2b_public")),
        public=public,
        sensitive=sensitive,
        inner_key=octets(vector, "inner_key"),
        seed=octets(vector["duplication_inputs"], "seed"),
    )
    assert private == octets(vector["parts"], "duplicate")
    if vector["id"] == "azure-policy":
        uri = encrypt_cfb(octets(vector, "inner_key"), octets(vector, "uri"))
        assert octets(vector["parts"], "enc_uri") == len(uri).to_bytes(2, "big") + uri


@pytest.mark.parametrize("vector", section("azure_activation"))
def test_the_key_signs_the_vectors_token(vector):
    assert vector["registration_id"] == derive_registration_id(octets(vector, "ek_tpm2b_public"))
    signature = hmac.digest(octets(vector, "key"), vector["sas_string_to_sign"].encode(), "sha256")
    token = parse_qs(vector["sas_token"].removeprefix("SharedAccessSignature "))
    assert base64.b64decode(token["sig"][0]) == signature


@pytest.mark.parametrize("vector", section("software_ek"))
def test_one_tpm_opens_the_blob_and_gets_the_key(vector):
    """Endorsement and storage key are one software key here; the fields do not notice."""
    private_key = serialization.load_der_private_key(octets(vector, "private_pkcs8_der"), password=None)
    endorsement_key = parse_endorsement_key(octets(vector, "tpm2b_public"))
    blob = activation_blob(
        endorsement_key=endorsement_key,
        storage_root_key=endorsement_key,
        key=b"a hub key",
        entropy=CountingEntropy(),
    )
    id_object, encrypted_secret, private, encrypted_seed, public, data = take_apart(blob)
    inner_key = activate(private_key, endorsement_key, endorsement_key.name, id_object, encrypted_secret)
    assert len(inner_key) == 16
    sensitive = import_object(private_key, endorsement_key, parse_public(public), private, encrypted_seed, inner_key)
    assert sensitive.endswith(b"\x00\x09a hub key")
    assert data == b"\x00\x00"


def test_the_blob_never_holds_the_key_in_clear():
    key = bytes(range(100, 132))
    blob = activation_blob(
        endorsement_key=parse_endorsement_key(public_named("ek-p384-H3")),
        storage_root_key=parse_storage_root_key(public_named("srk-ecc256")),
        key=key,
        entropy=CountingEntropy(),
    )
    assert key not in blob


def test_a_key_longer_than_a_tpm_takes_is_refused():
    vector = load()["azure_activation"][0]
    storage_root_key = parse_storage_root_key(octets(vector, "srk_tpm2b_public"))
    with pytest.raises(ValueError, match="1 to 64 octets"):
        activation_blob(
            endorsement_key=parse_endorsement_key(octets(vector, "ek_tpm2b_public")),
            storage_root_key=storage_root_key,
            key=bytes(65),
            entropy=CountingEntropy(),
        )
