import base64
import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.attestation.tpm import (
    check_certified_key,
    derive_registration_id,
    endorsement_key_hash,
    parse_attestation_key,
    parse_endorsement_key,
    parse_storage_root_key,
)
from provisiond.attestation.tpm_algorithms import SHA1, SHA256, ObjectAttributes
from provisiond.attestation.tpm_public import TpmScheme, TpmTemplate
from provisiond.attestation.tpm_structures import encode_public, parse_public
from provisiond.errors import AttestationError, TpmStructureError
from provisiond.model import RegistrationId
from tests.attestation.test_roca import vulnerable_modulus
from tests.attestation.tpm_vectors import load, octets, public_named, section

PARSERS = {"ek": parse_endorsement_key, "srk": parse_storage_root_key, "ak": parse_attestation_key}
FINDINGS = {
    ("ek", "template"): "endorsement-key-template",
    ("srk", "template"): "storage-root-key-template",
    ("ak", "ak_not_tpm_resident"): "attestation-key-not-resident",
    ("ak", "ak_not_restricted"): "attestation-key-not-restricted",
    ("ak", "ak_usage"): "attestation-key-usage",
    ("ak", "ak_scheme"): "attestation-key-scheme",
    ("ak", "ak_scheme_hash"): "attestation-key-scheme-hash",
    ("ak", "weak_name_alg"): "attestation-key-name-algorithm",
}
CERTIFIED = bytes.fromhex(load()["certify"][0]["object_tpm2b_public"])


@pytest.mark.parametrize("vector", section("attribute_checks"))
def test_a_key_is_taken_or_refused_in_its_role_as_the_vector_says(vector):
    parse, tpm2b = PARSERS[vector["role"]], octets(vector, "tpm2b_public")
    if vector["expect"] == "ok":
        assert parse(tpm2b) == parse_public(tpm2b)
        return
    with pytest.raises(AttestationError) as caught:
        parse(tpm2b)
    assert caught.value.finding == FINDINGS[vector["role"], vector["expect"]]
    assert caught.value.clause


@pytest.mark.parametrize("vector", section("malformed_public"))
@pytest.mark.parametrize("parse", PARSERS.values())
def test_a_malformed_key_is_malformed_in_every_role(vector, parse):
    with pytest.raises(TpmStructureError):
        parse(octets(vector, "tpm2b_public"))


@given(junk=st.binary(max_size=400), parse=st.sampled_from(list(PARSERS.values())))
def test_any_octets_give_a_key_or_a_documented_error(junk, parse):
    for tpm2b in (junk, len(junk).to_bytes(2, "big") + junk):
        with pytest.raises((TpmStructureError, AttestationError)):
            parse(tpm2b)


@given(
    note=st.sampled_from(["ek-rsa2048-L1", "srk-ecc256", "ak-ecc384"]),
    parse=st.sampled_from(list(PARSERS.values())),
    position=st.integers(0, 10_000),
    octet=st.integers(0, 255),
)
def test_any_changed_octet_gives_a_key_or_a_documented_error(note, parse, position, octet):
    tpm2b = bytearray(public_named(note))
    tpm2b[position % len(tpm2b)] = octet
    with contextlib.suppress(TpmStructureError, AttestationError):
        assert parse(bytes(tpm2b)).tpm2b == bytes(tpm2b)


@pytest.mark.parametrize("vector", section("azure_activation"))
def test_the_registration_id_is_the_one_that_the_sdks_derive(vector):
    endorsement_key = octets(vector, "ek_tpm2b_public")
    derived = derive_registration_id(endorsement_key)
    assert derived == vector["registration_id"]
    assert RegistrationId.parse(derived).key == derived
    padded = base64.b32decode(derived.upper() + "=" * (-len(derived) % 8))
    assert padded == endorsement_key_hash(endorsement_key) == hashlib.sha256(endorsement_key).digest()


def with_modulus(tpm2b, modulus):
    public = parse_public(tpm2b)
    return encode_public(public.template, (modulus.to_bytes(len(public.unique[0]), "big"),))


@pytest.mark.parametrize(
    ("role", "note"), [("ek", "ek-rsa2048-L1"), ("srk", "srk-rsa2048"), ("ak", "ak-rsa2048"), ("ek", "ek-rsa3072-H6")]
)
def test_a_key_that_can_be_factored_is_refused_in_every_role(role, note):
    bits = 3072 if "3072" in note else 2048
    with pytest.raises(AttestationError) as caught:
        PARSERS[role](with_modulus(public_named(note), vulnerable_modulus(bits)))
    assert caught.value.finding == "roca"


def retemplated(tpm2b, **changes):
    public = parse_public(tpm2b)
    fields = {name: getattr(public.template, name) for name in TpmTemplate.__slots__}
    return parse_public(encode_public(TpmTemplate(**(fields | changes)), public.unique))


def test_an_attestation_key_with_a_small_exponent_is_refused():
    weak = retemplated(public_named("ak-rsa2048"), exponent=3)
    with pytest.raises(AttestationError) as caught:
        parse_attestation_key(weak.tpm2b)
    assert caught.value.finding == "attestation-key-strength"


def test_a_restricted_hmac_key_is_no_attestation_key():
    vector = load()["import"][0]
    public = parse_public(octets(vector, "object_tpm2b_public"))
    attributes = ObjectAttributes.RESIDENT | ObjectAttributes.RESTRICTED | ObjectAttributes.SIGN
    with pytest.raises(AttestationError) as caught:
        parse_attestation_key(retemplated(public.tpm2b, attributes=attributes).tpm2b)
    assert caught.value.finding == "attestation-key-scheme"


def test_a_certified_key_is_taken():
    check_certified_key(parse_public(CERTIFIED))


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"name_hash": SHA1}, "certified-key-name-algorithm"),
        ({"attributes": ObjectAttributes.SIGN}, "certified-key-not-resident"),
        (
            {"attributes": ObjectAttributes.RESIDENT | ObjectAttributes.SIGN | ObjectAttributes.RESTRICTED},
            "certified-key-restricted",
        ),
        (
            {"attributes": ObjectAttributes.RESIDENT | ObjectAttributes.SIGN | ObjectAttributes.DECRYPT},
            "certified-key-usage",
        ),
    ],
)
def test_a_certified_key_of_another_kind_is_refused(changes, finding):
    with pytest.raises(AttestationError) as caught:
        check_certified_key(retemplated(CERTIFIED, **changes))
    assert caught.value.finding == finding
    assert str(caught.value).startswith("the certified key ")


def test_a_certified_key_must_be_asymmetric():
    vector = load()["import"][0]
    public = parse_public(octets(vector, "object_tpm2b_public"))
    attributes = ObjectAttributes.RESIDENT | ObjectAttributes.SIGN
    symmetric = retemplated(
        public.tpm2b, attributes=attributes, scheme=TpmScheme(algorithm=public.template.scheme.algorithm, hash=SHA256)
    )
    with pytest.raises(AttestationError) as caught:
        check_certified_key(symmetric)
    assert caught.value.finding == "certified-key-strength"
