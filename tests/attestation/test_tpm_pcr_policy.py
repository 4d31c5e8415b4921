import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.attestation.tpm_attest import PcrSlot
from provisiond.attestation.tpm_pcr_policy import PcrPolicy, parse_pcr_policy
from provisiond.errors import InvalidArgument

DIGEST = "ab" * 32


def test_a_policy_is_read():
    policy = parse_pcr_policy(
        {
            "pcrs": {"sha256": {"7": [DIGEST, "CD" * 32], "0": [DIGEST]}, "sha384": {"0": ["00" * 48]}},
            "firmwareVersionMin": "0x2019102300163636",
            "requireSafeClock": True,
        },
    )
    assert policy.allowed == {
        PcrSlot("sha256", 7): frozenset({b"\xab" * 32, b"\xcd" * 32}),
        PcrSlot("sha256", 0): frozenset({b"\xab" * 32}),
        PcrSlot("sha384", 0): frozenset({bytes(48)}),
    }
    assert policy.firmware_version_min == 0x2019102300163636
    assert policy.require_safe_clock
    assert policy.selection == (PcrSlot("sha256", 0), PcrSlot("sha256", 7), PcrSlot("sha384", 0))


def test_an_empty_policy_asks_nothing_of_the_registers():
    assert parse_pcr_policy({}) == PcrPolicy()


def test_a_policy_without_registers_has_one_quoted_for_what_else_a_quote_says():
    policy = parse_pcr_policy({"requireSafeClock": True})
    assert not policy.allowed
    assert policy.selection == (PcrSlot("sha256", 0),)


@pytest.mark.parametrize(("text", "number"), [(7, 7), ("7", 7), ("0x7", 7), ("007", 7), (2**64 - 1, 2**64 - 1)])
def test_a_firmware_version_is_a_number_or_its_text(text, number):
    assert parse_pcr_policy({"firmwareVersionMin": text}).firmware_version_min == number


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"pcr": {}}, "pcr"),
        ({"pcrs": {"sha1": {"0": ["00" * 20]}}}, "pcrs.sha1"),
        ({"pcrs": {"sha256": {"24": [DIGEST]}}}, "pcrs.sha256.24"),
        ({"pcrs": {"sha256": {"00": [DIGEST]}}}, "pcrs.sha256.00"),
        ({"pcrs": {"sha256": {"-1": [DIGEST]}}}, "pcrs.sha256.-1"),
        ({"pcrs": {"sha256": {"0": []}}}, "pcrs.sha256.0"),
        ({"pcrs": {"sha256": {"0": [DIGEST] * 65}}}, "pcrs.sha256.0"),
        ({"pcrs": {"sha256": {"0": ["ab" * 48]}}}, "pcrs.sha256.0"),
        ({"pcrs": {"sha384": {"0": ["a" * 97]}}}, "pcrs.sha384.0"),
        ({"pcrs": {"sha256": {"0": ["zz" * 32]}}}, "pcrs.sha256.0.0"),
        ({"pcrs": {"sha256": {"0": DIGEST}}}, "pcrs.sha256.0"),
        ({"firmwareVersionMin": -1}, "firmwareVersionMin"),
        ({"firmwareVersionMin": 2**64}, "firmwareVersionMin"),
        ({"firmwareVersionMin": "99999999999999999999"}, "firmwareVersionMin"),
        ({"firmwareVersionMin": "7.2"}, "firmwareVersionMin"),
        ({"firmwareVersionMin": True}, "firmwareVersionMin"),
        ({"requireSafeClock": "yes"}, "requireSafeClock"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused_and_the_place_named(document, place):
    with pytest.raises(InvalidArgument) as caught:
        parse_pcr_policy(document)
    assert str(caught.value).startswith(f"PCR policy, {place}")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
keys = st.sampled_from(["pcrs", "firmwareVersionMin", "requireSafeClock", "sha256", "other"])


@given(document=st.dictionaries(keys, json_values | st.dictionaries(keys, json_values, max_size=3), max_size=3))
def test_any_document_gives_a_policy_or_the_one_error(document):
    with contextlib.suppress(InvalidArgument):
        policy = parse_pcr_policy(document)
        assert policy.firmware_version_min is None or 0 <= policy.firmware_version_min < 2**64
