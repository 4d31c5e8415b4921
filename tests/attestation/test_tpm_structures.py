import contextlib

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key
from hypothesis import given
from hypothesis import strategies as st

from provisiond.attestation.tpm_algorithms import ATTRIBUTES_MASK, CURVES, HASHES, ObjectAttributes, TpmAlgorithm
from provisiond.attestation.tpm_public import NULL_SCHEME, TpmScheme, TpmTemplate
from provisiond.attestation.tpm_structures import encode_public, encode_template, parse_public, parse_template
from provisiond.errors import MalformedRequest, TpmStructureError
from tests.attestation.tpm_vectors import load, octets, public_named, section

ATTRIBUTE_NAMES = {
    "fixedTPM": ObjectAttributes.FIXED_TPM,
    "fixedParent": ObjectAttributes.FIXED_PARENT,
    "sensitiveDataOrigin": ObjectAttributes.SENSITIVE_DATA_ORIGIN,
    "userWithAuth": ObjectAttributes.USER_WITH_AUTH,
    "adminWithPolicy": ObjectAttributes.ADMIN_WITH_POLICY,
    "noDA": ObjectAttributes.NO_DA,
    "restricted": ObjectAttributes.RESTRICTED,
    "decrypt": ObjectAttributes.DECRYPT,
    "sign": ObjectAttributes.SIGN,
}

# --- vectors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", section("public"))
def test_the_name_is_the_one_that_the_tpm_gives(vector):
    public = parse_public(octets(vector, "tpm2b_public"))
    assert public.name == octets(vector, "name")


@pytest.mark.parametrize("vector", section("public"))
def test_the_attributes_are_the_ones_that_the_tpm_gives(vector):
    public = parse_public(octets(vector, "tpm2b_public"))
    assert f"{int(public.attributes):08x}" == vector["attributes"]
    expected = ObjectAttributes(0)
    for name in vector["attribute_names"]:
        expected |= ATTRIBUTE_NAMES[name]
    assert public.attributes == expected


@pytest.mark.parametrize("vector", section("public"))
def test_a_public_area_is_written_as_it_was_read(vector):
    public = parse_public(octets(vector, "tpm2b_public"))
    assert encode_public(public.template, public.unique) == public.tpm2b == octets(vector, "tpm2b_public")


@pytest.mark.parametrize("vector", section("malformed_public"))
def test_a_malformed_public_area_is_refused(vector):
    with pytest.raises(TpmStructureError):
        parse_public(octets(vector, "tpm2b_public"))


@pytest.mark.parametrize("vector", section("software_ek"))
def test_the_key_of_a_public_area_is_the_one_of_its_private_key(vector):
    public = parse_public(octets(vector, "tpm2b_public"))
    assert public.name == octets(vector, "name")
    assert load_der_public_key(public.spki_der) == public.key


@pytest.mark.parametrize("vector", [v for v in section("certify") if "object_spki_der" in v.values[0]])
def test_a_certified_keys_spki_is_the_one_for_its_certificate(vector):
    assert parse_public(octets(vector, "object_tpm2b_public")).spki_der == octets(vector, "object_spki_der")


# --- one fault each --------------------------------------------------------------------------------------------------


def changed(note, offset, octets_):
    tpm2b = bytearray(public_named(note))
    offset %= len(tpm2b)
    tpm2b[offset : offset + len(octets_)] = octets_
    return bytes(tpm2b)


def test_an_even_modulus_is_no_key():
    with pytest.raises(TpmStructureError, match="even or short"):
        parse_public(changed("srk-rsa2048", -1, b"\x00"))


def test_a_modulus_with_a_leading_zero_is_no_key():
    with pytest.raises(TpmStructureError, match="even or short"):
        parse_public(changed("srk-rsa2048", -256, b"\x00"))


@pytest.mark.parametrize(
    ("offset", "octets_", "reason"),
    [
        (2, b"\x00\x24", "unknown object type"),
        (4, b"\x00\x12", "hash"),
        (6, b"\x00\x00\x00\x01", "reserved"),
        (10, b"\x00\x01", "authPolicy of 1 octets"),
        (12, b"\x00\x06\x00\x81", "not AES-CFB"),
        (12, b"\x00\x06\x00\x80\x00\x42", "not AES-CFB"),
        (12, b"\x00\x26", "not AES-CFB"),
        (18, b"\x00\x18", "unknown scheme"),
        (20, b"\x04\x01", "RSA key of"),
    ],
)
def test_a_field_out_of_its_range_is_refused(offset, octets_, reason):
    with pytest.raises(TpmStructureError, match=reason):
        parse_public(changed("srk-rsa2048", offset, octets_))


def test_an_unknown_curve_is_refused():
    with pytest.raises(TpmStructureError, match="unknown curve"):
        parse_public(changed("srk-ecc256", 20, b"\x00\x10"))


def test_an_exponent_that_makes_no_key_is_refused():
    with pytest.raises(TpmStructureError, match="not a key"):
        parse_public(changed("srk-rsa2048", 22, b"\x00\x00\x00\x02"))


def test_a_public_area_longer_than_any_tpms_is_refused():
    with pytest.raises(TpmStructureError, match="at most 1024"):
        parse_public((1025).to_bytes(2, "big") + bytes(1025))


def test_the_error_is_the_devices_own_and_says_where_the_rule_is():
    with pytest.raises(MalformedRequest) as caught:
        parse_public(b"\x00")
    assert caught.value.status == 400
    assert caught.value.clause == "TPM 2.0 Part 2 TPM2B_PUBLIC"
    assert caught.value.finding == "tpm-structure"
    assert "TPM" not in caught.value.public_message


def test_a_keyed_hash_object_has_no_spki():
    vector = load()["import"][0]
    with pytest.raises(TpmStructureError, match="not an asymmetric key"):
        _ = parse_public(octets(vector, "object_tpm2b_public")).spki_der


# --- any octets ------------------------------------------------------------------------------------------------------

hashes = st.sampled_from(list(HASHES.values()))
symmetric_bits = st.sampled_from([0, 128, 192, 256])
kdfs = st.sampled_from([TpmAlgorithm.MGF1, TpmAlgorithm.KDF1_SP800_56A, TpmAlgorithm.KDF2, TpmAlgorithm.KDF1_SP800_108])
attributes = st.integers(0, 2**32 - 1).map(lambda bits: ObjectAttributes(bits & ATTRIBUTES_MASK))


def schemes(*algorithms):
    return st.none().map(lambda _: NULL_SCHEME) | st.builds(
        TpmScheme, algorithm=st.sampled_from(algorithms), hash=hashes
    )


def heads(name_hash):
    policies = st.sampled_from([b"", bytes(range(name_hash.digest_size_bytes))])
    return {"name_hash": st.just(name_hash), "attributes": attributes, "authorization_policy": policies}


def templates_named(name_hash):
    head = heads(name_hash)
    rsae = st.just(TpmScheme(algorithm=TpmAlgorithm.RSAES))
    ecdaa = st.builds(TpmScheme, algorithm=st.just(TpmAlgorithm.ECDAA), hash=hashes, count=st.integers(0, 65535))
    xor = st.builds(TpmScheme, algorithm=st.just(TpmAlgorithm.XOR), hash=hashes, kdf=kdfs)
    return st.one_of(
        st.builds(
            TpmTemplate,
            object_type=st.just(TpmAlgorithm.RSA),
            **head,
            symmetric_key_bits=symmetric_bits,
            scheme=schemes(TpmAlgorithm.RSASSA, TpmAlgorithm.RSAPSS, TpmAlgorithm.OAEP) | rsae,
            key_bits=st.sampled_from([1024, 2048, 3072, 4096]),
            exponent=st.integers(0, 2**32 - 1),
        ),
        st.builds(
            TpmTemplate,
            object_type=st.just(TpmAlgorithm.ECC),
            **head,
            symmetric_key_bits=symmetric_bits,
            scheme=schemes(TpmAlgorithm.ECDSA, TpmAlgorithm.ECDH) | ecdaa,
            curve=st.sampled_from(list(CURVES.values())),
            kdf=st.just(NULL_SCHEME) | st.builds(TpmScheme, algorithm=kdfs, hash=hashes),
        ),
        st.builds(
            TpmTemplate, object_type=st.just(TpmAlgorithm.KEYEDHASH), **head, scheme=schemes(TpmAlgorithm.HMAC) | xor
        ),
        st.builds(TpmTemplate, object_type=st.just(TpmAlgorithm.SYMCIPHER), **head, symmetric_key_bits=symmetric_bits),
    )


templates = hashes.flatmap(templates_named)


@given(template=templates)
def test_a_template_is_read_as_it_was_written(template):
    assert parse_template(encode_template(template)) == template


@given(template=templates, data=st.data())
def test_a_written_public_area_is_read_back_or_is_no_key(template, data):
    if template.object_type is TpmAlgorithm.RSA:
        size_bytes, fields = template.key_bits // 8, 1
    elif template.curve is not None:
        size_bytes, fields = template.curve.coordinate_size_bytes, 2
    else:
        size_bytes, fields = template.name_hash.digest_size_bytes, 1
    unique = tuple(data.draw(st.binary(min_size=size_bytes, max_size=size_bytes)) for _ in range(fields))
    tpm2b = encode_public(template, unique)
    try:
        public = parse_public(tpm2b)
    except TpmStructureError:
        assert template.object_type in {TpmAlgorithm.RSA, TpmAlgorithm.ECC}
    else:
        assert (public.template, public.unique, public.tpm2b) == (template, unique, tpm2b)


@given(junk=st.binary(max_size=700))
def test_any_octets_give_a_public_area_or_the_one_error(junk):
    for tpm2b in (junk, len(junk).to_bytes(2, "big") + junk):
        with contextlib.suppress(TpmStructureError):
            assert parse_public(tpm2b).tpm2b == tpm2b


@given(vector=st.sampled_from(load()["public"]), position=st.integers(0, 10_000), octet=st.integers(0, 255))
def test_any_changed_octet_gives_another_name_or_the_one_error(vector, position, octet):
    original = octets(vector, "tpm2b_public")
    tpm2b = bytearray(original)
    tpm2b[position % len(tpm2b)] = octet
    try:
        public = parse_public(bytes(tpm2b))
    except TpmStructureError:
        return
    assert (public.name == octets(vector, "name")) == (bytes(tpm2b) == original)


@given(vector=st.sampled_from(load()["public"]), size=st.integers(0, 700))
def test_any_truncation_is_refused(vector, size):
    original = octets(vector, "tpm2b_public")
    if size < len(original):
        with pytest.raises(TpmStructureError):
            parse_public(original[:size])
