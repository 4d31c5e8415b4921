import hmac

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from provisiond.attestation.tpm_algorithms import SHA256, SHA384, ObjectAttributes
from provisiond.attestation.tpm_credential import DUPLICATE, agree_seed, kdfa
from provisiond.attestation.tpm_duplication import HMAC_KEY_ATTRIBUTES, duplicate, hmac_key, seal_duplicate
from provisiond.attestation.tpm_structures import parse_public
from tests.attestation.software_tpm import CountingEntropy, encode_oaep, import_object
from tests.attestation.tpm_vectors import load, octets, section


def inner_key_of(vector):
    return None if vector["inner_key"] is None else octets(vector, "inner_key")


@pytest.mark.parametrize("vector", section("import"))
def test_a_key_object_is_the_one_that_a_tpm_loaded(vector):
    expected = parse_public(octets(vector, "object_tpm2b_public"))
    made = hmac_key(
        octets(vector, "key"),
        seed_value=octets(vector, "seed_value"),
        scheme_hash=expected.template.scheme.hash,
        name_hash=expected.name_hash,
        attributes=expected.attributes,
    )
    assert made.public == expected
    assert made.public.name == octets(vector, "object_name")
    assert made.sensitive == octets(vector, "sensitive_tpmt")
    signature = hmac.digest(octets(vector, "key"), octets(vector, "message"), expected.template.scheme.hash.name)
    assert signature == octets(vector, "hmac")


@pytest.mark.parametrize("vector", section("import"))
def test_a_duplicate_is_the_one_that_a_tpm_imported(vector):
    parent = parse_public(octets(vector, "parent_tpm2b_public"))
    public = parse_public(octets(vector, "object_tpm2b_public"))
    seed = octets(vector, "derived_seed")
    private = seal_duplicate(
        parent=parent,
        public=public,
        sensitive=octets(vector, "sensitive_tpmt"),
        inner_key=inner_key_of(vector),
        seed=seed,
    )
    name_hash = parent.name_hash
    assert kdfa(name_hash, seed, b"INTEGRITY\0", b"", b"", name_hash.digest_size_bytes * 8) == octets(
        vector, "hmac_key"
    )
    assert private == octets(vector, "duplicate_tpm2b")


@pytest.mark.parametrize("vector", section("import"))
def test_a_duplicates_seed_travels_as_a_tpm_took_it(vector):
    parent = parse_public(octets(vector, "parent_tpm2b_public"))
    if "ephemeral_private" in vector:
        ephemeral_key = ec.derive_private_key(int(vector["ephemeral_private"], 16), parent.template.curve.primitive)
        agreed = agree_seed(parent, DUPLICATE, ephemeral_key)
        assert agreed.seed == octets(vector, "derived_seed")
        assert agreed.encrypted_secret == octets(vector, "in_sym_seed_tpm2b")
        return
    size_bytes = parent.template.key_bits // 8
    message = encode_oaep(
        octets(vector, "seed"), octets(vector, "oaep_seed"), parent.name_hash, DUPLICATE.octets, size_bytes
    )
    numbers = parent.key.public_numbers()
    cipher = pow(int.from_bytes(message, "big"), numbers.e, numbers.n).to_bytes(size_bytes, "big")
    assert size_bytes.to_bytes(2, "big") + cipher == octets(vector, "in_sym_seed_tpm2b")


@pytest.mark.parametrize("vector", section("software_ek"))
@pytest.mark.parametrize("inner_key", [None, bytes(range(16)), bytes(range(32))], ids=["bare", "aes128", "aes256"])
def test_the_holder_of_the_parent_imports_a_duplicate(vector, inner_key):
    private_key = serialization.load_der_private_key(octets(vector, "private_pkcs8_der"), password=None)
    parent = parse_public(octets(vector, "tpm2b_public"))
    key = hmac_key(b"a hub key of thirty-two octets!!", seed_value=bytes(32))
    made = duplicate(
        parent=parent, public=key.public, sensitive=key.sensitive, inner_key=inner_key, entropy=CountingEntropy()
    )
    imported = import_object(private_key, parent, key.public, made.private, made.encrypted_seed, inner_key)
    assert imported == key.sensitive


def test_a_hub_key_cannot_leave_by_policy():
    key = hmac_key(b"key", seed_value=bytes(32))
    assert key.public.template.authorization_policy == b""
    assert int(key.public.attributes) == 0x00040440


def test_a_hub_key_does_not_show_in_a_representation():
    assert "hub key" not in repr(hmac_key(b"hub key", seed_value=bytes(32)))


@pytest.mark.parametrize(
    ("key", "seed_value"), [(b"", bytes(32)), (bytes(65), bytes(32)), (b"key", b""), (b"key", bytes(16))]
)
def test_a_key_that_a_tpm_would_refuse_is_not_made(key, seed_value):
    with pytest.raises(ValueError, match="HMAC keys are 1 to 64 octets"):
        hmac_key(key, seed_value=seed_value)


def test_keys_may_be_as_long_as_a_block():
    assert len(hmac_key(bytes(64), seed_value=bytes(32)).sensitive) == 2 + 2 + 34 + 66
    long = hmac_key(bytes(128), seed_value=bytes(48), scheme_hash=SHA384, name_hash=SHA384)
    assert long.public.name_hash is SHA384


def test_attributes_are_under_the_name():
    plain = hmac_key(b"key", seed_value=bytes(32))
    attributes = HMAC_KEY_ATTRIBUTES | ObjectAttributes.ENCRYPTED_DUPLICATION
    encrypted = hmac_key(b"key", seed_value=bytes(32), attributes=attributes)
    assert plain.public.name != encrypted.public.name
    assert plain.public.name_hash is SHA256


def test_a_parent_must_store():
    note = next(vector for vector in load()["public"] if vector["note"] == "ak-ecc256")
    key = hmac_key(b"key", seed_value=bytes(32))
    with pytest.raises(ValueError, match="not a storage key"):
        duplicate(
            parent=parse_public(octets(note, "tpm2b_public")),
            public=key.public,
            sensitive=key.sensitive,
            inner_key=None,
            entropy=CountingEntropy(),
        )
