import hashlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from provisiond.attestation.tpm import parse_endorsement_key
from provisiond.attestation.tpm_algorithms import HASHES_BY_NAME
from provisiond.attestation.tpm_credential import (
    DUPLICATE,
    IDENTITY,
    agree_seed,
    kdfa,
    kdfe,
    make_credential,
    seal_credential,
    transport_seed,
)
from provisiond.attestation.tpm_duplication import hmac_key
from provisiond.attestation.tpm_structures import parse_public
from tests.attestation.software_tpm import CountingEntropy, ScriptedEntropy, activate, encode_oaep, open_seed
from tests.attestation.tpm_vectors import load, octets, section

NAME = b"\x00\x0b" + hashlib.sha256(b"an object").digest()


def software_key(vector):
    private_key = serialization.load_der_private_key(octets(vector, "private_pkcs8_der"), password=None)
    return private_key, parse_public(octets(vector, "tpm2b_public"))


def ephemeral_of(vector, endorsement_key):
    return ec.derive_private_key(int(vector["ephemeral_private"], 16), endorsement_key.template.curve.primitive)


@pytest.mark.parametrize("vector", section("kdfa"))
def test_kdfa_gives_the_vector(vector):
    derived = kdfa(
        HASHES_BY_NAME[vector["hash"]],
        octets(vector, "key"),
        octets(vector, "label_with_nul"),
        octets(vector, "context_u"),
        octets(vector, "context_v"),
        vector["bits"],
    )
    assert derived == octets(vector, "out")


@pytest.mark.parametrize("vector", section("kdfe"))
def test_kdfe_gives_the_vector(vector):
    derived = kdfe(
        HASHES_BY_NAME[vector["hash"]],
        octets(vector, "z"),
        octets(vector, "label_with_nul"),
        octets(vector, "party_u"),
        octets(vector, "party_v"),
        vector["bits"],
    )
    assert derived == octets(vector, "out")


@pytest.mark.parametrize("vector", section("make_credential"))
def test_a_credential_is_the_one_that_a_tpm_activated(vector):
    endorsement_key = parse_endorsement_key(octets(vector, "ek_tpm2b_public"))
    name_hash = endorsement_key.name_hash
    name, seed = octets(vector, "object_name"), octets(vector, "derived_seed")

    assert kdfa(name_hash, seed, b"STORAGE\0", name, b"", endorsement_key.template.symmetric_key_bits) == octets(
        vector, "symmetric_key"
    )
    assert kdfa(name_hash, seed, b"INTEGRITY\0", b"", b"", name_hash.digest_size_bytes * 8) == octets(
        vector, "hmac_key"
    )
    assert seal_credential(endorsement_key, name, octets(vector, "secret"), seed) == octets(vector, "id_object_tpm2b")


@pytest.mark.parametrize("vector", [v for v in section("make_credential") if "ephemeral_private" in v.values[0]])
def test_an_agreed_seed_is_the_one_that_a_tpm_agreed_on(vector):
    endorsement_key = parse_endorsement_key(octets(vector, "ek_tpm2b_public"))
    agreed = agree_seed(endorsement_key, IDENTITY, ephemeral_of(vector, endorsement_key))
    assert agreed.seed == octets(vector, "derived_seed")
    assert agreed.encrypted_secret == octets(vector, "encrypted_secret_tpm2b")


@pytest.mark.parametrize("vector", [v for v in section("make_credential") if "oaep_seed" in v.values[0]])
def test_a_seed_under_rsa_travels_as_a_tpm_took_it(vector):
    """The library draws its own OAEP seed; that hash, mask, label and key are the TPM's shows with the vector's."""
    endorsement_key = parse_endorsement_key(octets(vector, "ek_tpm2b_public"))
    size_bytes = endorsement_key.template.key_bits // 8
    message = encode_oaep(
        octets(vector, "seed"),
        octets(vector, "oaep_seed"),
        endorsement_key.name_hash,
        IDENTITY.octets,
        size_bytes,
    )
    numbers = endorsement_key.key.public_numbers()
    cipher = pow(int.from_bytes(message, "big"), numbers.e, numbers.n).to_bytes(size_bytes, "big")
    assert size_bytes.to_bytes(2, "big") + cipher == octets(vector, "encrypted_secret_tpm2b")
    credential = make_credential(
        endorsement_key,
        octets(vector, "object_name"),
        octets(vector, "secret"),
        entropy=ScriptedEntropy(octets(vector, "seed")),
    )
    assert credential.id_object == octets(vector, "id_object_tpm2b")
    assert len(credential.encrypted_secret) == 2 + size_bytes


@pytest.mark.parametrize("vector", section("software_ek"))
@pytest.mark.parametrize("size_bytes", [1, 16, 32])
def test_the_holder_of_the_endorsement_key_opens_a_credential(vector, size_bytes):
    private_key, public = software_key(vector)
    secret = bytes(range(size_bytes))
    credential = make_credential(public, NAME, secret, entropy=CountingEntropy())
    assert activate(private_key, public, NAME, credential.id_object, credential.encrypted_secret) == secret


@pytest.mark.parametrize("vector", section("software_ek"))
def test_a_credential_for_another_name_does_not_open(vector):
    private_key, public = software_key(vector)
    credential = make_credential(public, NAME, b"secret", entropy=CountingEntropy())
    with pytest.raises(AssertionError):
        activate(private_key, public, NAME[:-1] + b"\0", credential.id_object, credential.encrypted_secret)


@pytest.mark.parametrize("vector", section("software_ek"))
def test_seeds_for_identity_and_duplicate_do_not_mix(vector):
    private_key, public = software_key(vector)
    transported = transport_seed(public, DUPLICATE, CountingEntropy())
    assert open_seed(private_key, public, b"DUPLICATE\0", transported.encrypted_secret) == transported.seed
    try:
        assert open_seed(private_key, public, b"IDENTITY\0", transported.encrypted_secret) != transported.seed
    except ValueError:
        assert isinstance(transported.seed, bytes)  # RSA-OAEP refuses the label itself


def test_two_credentials_share_nothing():
    _, public = software_key(load()["software_ek"][1])
    first = make_credential(public, NAME, b"secret", entropy=CountingEntropy())
    second = make_credential(public, NAME, b"secret", entropy=CountingEntropy())
    assert first.encrypted_secret != second.encrypted_secret
    assert first.id_object != second.id_object


@pytest.mark.parametrize("secret", [b"", bytes(33)])
def test_a_secret_that_a_tpm_would_refuse_is_not_sealed(secret):
    _, public = software_key(load()["software_ek"][0])
    with pytest.raises(ValueError, match="1 to 32 octets"):
        make_credential(public, NAME, secret, entropy=CountingEntropy())


def test_a_key_that_stores_nothing_seals_nothing():
    attestation_key = parse_public(
        bytes.fromhex(next(v["tpm2b_public"] for v in load()["public"] if v["note"] == "ak-ecc256"))
    )
    with pytest.raises(ValueError, match="not a storage key"):
        make_credential(attestation_key, NAME, b"secret", entropy=CountingEntropy())


def test_only_asymmetric_keys_take_seeds():
    symmetric = hmac_key(b"key", seed_value=bytes(32)).public
    with pytest.raises(ValueError, match="RSA or ECC"):
        transport_seed(symmetric, IDENTITY, CountingEntropy())
    with pytest.raises(ValueError, match="not an ECC key"):
        agree_seed(symmetric, IDENTITY, ec.generate_private_key(ec.SECP256R1()))


def test_a_seed_does_not_show_in_a_representation():
    _, public = software_key(load()["software_ek"][0])
    transported = transport_seed(public, IDENTITY, ScriptedEntropy(b"\xaa" * 32))
    assert repr(b"\xaa" * 32) not in repr(transported)
