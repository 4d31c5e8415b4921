import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.attestation.tpm_structures import parse_public
from provisiond.attestation.tpm_templates import (
    ENDORSEMENT_TEMPLATES,
    POLICY_A,
    STORAGE_TEMPLATES,
    match_template,
)
from provisiond.errors import TpmStructureError
from tests.attestation.tpm_vectors import load, octets, public_named

KNOWN = {
    known.id: known
    for by_size in (ENDORSEMENT_TEMPLATES, STORAGE_TEMPLATES)
    for group in by_size.values()
    for known in group
}
ENDORSEMENT_KEYS = [
    "ek-rsa2048-L1",
    "ek-p256-L2",
    "ek-rsa2048-H1",
    "ek-p256-H2",
    "ek-p384-H3",
    "ek-p521-H4",
    "ek-rsa3072-H6",
]


@pytest.mark.parametrize(("name", "prefix"), load()["templates"].items())
def test_a_template_is_the_profiles(name, prefix):
    expected = bytes.fromhex(prefix)
    assert KNOWN[name].prefix[2 : 2 + len(expected)] == expected
    assert len(KNOWN[name].prefix) - 2 in {len(expected), len(expected) + 2}  # RSA vectors hold the modulus' size


def test_every_template_has_a_vector():
    assert set(KNOWN) == set(load()["templates"])


def test_policy_a_is_policy_secret_of_the_endorsement_hierarchy():
    """TPM 2.0 Part 3 TPM2_PolicySecret: extend by command code and entity name, then by the empty policyRef."""
    first = hashlib.sha256(bytes(32) + bytes.fromhex("000001514000000b")).digest()
    assert hashlib.sha256(first).digest() == POLICY_A


@pytest.mark.parametrize("note", ENDORSEMENT_KEYS)
def test_the_fast_way_gives_what_the_full_reading_gives(note):
    tpm2b = public_named(note)
    matched = match_template(tpm2b, ENDORSEMENT_TEMPLATES)
    assert matched == parse_public(tpm2b)
    assert matched.key == parse_public(tpm2b).key


@pytest.mark.parametrize("note", ["srk-rsa2048", "srk-ecc256"])
def test_storage_keys_are_matched_and_are_no_endorsement_keys(note):
    tpm2b = public_named(note)
    assert match_template(tpm2b, STORAGE_TEMPLATES) == parse_public(tpm2b)
    assert match_template(tpm2b, ENDORSEMENT_TEMPLATES) is None


@given(note=st.sampled_from(ENDORSEMENT_KEYS), position=st.integers(0, 10_000), octet=st.integers(0, 255))
def test_what_the_fast_way_takes_the_full_reading_takes(note, position, octet):
    tpm2b = bytearray(public_named(note))
    tpm2b[position % len(tpm2b)] = octet
    changed = bytes(tpm2b)
    try:
        matched = match_template(changed, ENDORSEMENT_TEMPLATES)
    except TpmStructureError:
        with pytest.raises(TpmStructureError):
            parse_public(changed)
    else:
        assert matched is None or matched == parse_public(changed)


@given(junk=st.binary(max_size=700))
def test_any_octets_match_nothing(junk):
    assert match_template(junk, ENDORSEMENT_TEMPLATES) is None


def test_a_template_with_a_point_off_the_curve_is_malformed():
    vector = next(v for v in load()["malformed_public"] if v["id"] == "point-not-on-curve")
    with pytest.raises(TpmStructureError, match="not a key"):
        match_template(octets(vector, "tpm2b_public"), ENDORSEMENT_TEMPLATES)
