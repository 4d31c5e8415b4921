import dataclasses
import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from provisiond.attestation.tpm import parse_attestation_key
from provisiond.attestation.tpm_algorithms import SHA384, TpmAlgorithm
from provisiond.attestation.tpm_attest import (
    PcrSlot,
    QuoteBody,
    TpmSignature,
    encode_attest,
    encode_signature,
    parse_attest,
    parse_signature,
)
from provisiond.attestation.tpm_pcr_policy import PcrPolicy
from provisiond.attestation.tpm_quote import verify_quote
from provisiond.attestation.tpm_structures import encode_public, parse_public
from provisiond.errors import AttestationError, TpmStructureError
from provisiond.model import Trace
from tests.attestation.tpm_vectors import load, octets, section

FINDINGS = {
    "nonce": "attest-extra-data",
    "signature": "attest-signature",
    "pcr_digest": "quote-pcr-digest",
    "signature_scheme": "attest-signature-scheme",
    "ak_not_restricted": "attestation-key-not-restricted",
}
GOOD = [vector for vector in section("quote") if vector.values[0]["expect"] == "ok"]
ENDORSEMENT = next(v for v in load()["quote"] if v["expect"] == "ok" and v["ak_hierarchy"] == "endorsement")
OWNER = next(v for v in load()["quote"] if v["expect"] == "ok" and v["ak_hierarchy"] == "owner")
ECC = next(v for v in load()["quote"] if v["expect"] == "ok" and v["id"].startswith("ecc384"))
FIRMWARE = ENDORSEMENT["firmware_version"]


def pcr_values(vector):
    values = {}
    for name, value in vector["pcrs"].items():
        bank, index = name.split(":")
        values[PcrSlot(bank, int(index))] = bytes.fromhex(value)
    return values


def verify(vector, *, trace=None, values=None, **arguments):
    return verify_quote(
        parse_attestation_key(octets(vector, "ak_tpm2b_public")),
        attest=arguments.pop("attest", octets(vector, "attest")),
        signature=arguments.pop("signature", octets(vector, "signature_tpmt")),
        extra_data=octets(vector, "nonce"),
        pcr_values=pcr_values(vector) if values is None else values,
        trace=Trace() if trace is None else trace,
        **arguments,
    )


def refused(vector, **arguments):
    trace = Trace()
    with pytest.raises(AttestationError) as caught:
        verify(vector, trace=trace, **arguments)
    assert not trace.snapshot()[-1].passed
    return caught.value.finding


@pytest.mark.parametrize("vector", section("quote"))
def test_a_quote_is_taken_or_refused_as_the_vector_says(vector):
    if vector["expect"] != "ok":
        with pytest.raises(AttestationError) as caught:
            verify(vector)
        assert caught.value.finding == FINDINGS[vector["expect"]]
        return
    quote = verify(vector)
    assert quote.reset_count == vector["reset_count"]
    assert quote.restart_count == vector["restart_count"]
    assert quote.clock_ms == vector["clock"]
    assert quote.firmware_version == vector["firmware_version"]
    assert quote.in_endorsement_hierarchy != vector["counters_obfuscated"]
    assert dict(quote.pcr_values) == pcr_values(vector)


@pytest.mark.parametrize("vector", GOOD)
def test_every_check_is_in_the_trace(vector):
    trace = Trace()
    verify(
        vector,
        trace=trace,
        policy=PcrPolicy(allowed={slot: frozenset({value}) for slot, value in pcr_values(vector).items()}),
    )
    names = [check.name for check in trace.snapshot()]
    assert all(check.passed and check.clause for check in trace.snapshot())
    assert {"attest-signature", "attest-extra-data", "quote-pcr-digest", "pcr-sha256:7"} <= set(names)


def test_a_policy_that_the_platform_meets_is_met():
    value = pcr_values(ENDORSEMENT)[PcrSlot("sha256", 7)]
    policy = PcrPolicy(
        allowed={PcrSlot("sha256", 7): frozenset({bytes(32), value})},
        firmware_version_min=FIRMWARE,
        require_safe_clock=True,
    )
    assert verify(ENDORSEMENT, policy=policy, previous_reset_count=1).clock_safe


@pytest.mark.parametrize("vector", GOOD)
def test_a_register_with_another_value_is_refused(vector):
    policy = PcrPolicy(allowed={PcrSlot("sha256", 7): frozenset({bytes(32)})})
    assert refused(vector, policy=policy) == "quote-pcr-value"


def test_a_register_that_was_not_quoted_is_refused():
    policy = PcrPolicy(allowed={PcrSlot("sha256", 23): frozenset({bytes(32)})})
    assert refused(ENDORSEMENT, policy=policy) == "quote-pcr-missing"


def test_an_older_firmware_is_refused():
    assert refused(ENDORSEMENT, policy=PcrPolicy(firmware_version_min=FIRMWARE + 1)) == "quote-firmware"


def test_a_tpm_set_back_is_refused():
    assert refused(ENDORSEMENT, previous_reset_count=2) == "quote-reset-count"


@pytest.mark.parametrize("arguments", [{"policy": PcrPolicy(firmware_version_min=0)}, {"previous_reset_count": 0}])
def test_obfuscated_counters_are_not_believed(arguments):
    assert refused(OWNER, **arguments) == "attest-hierarchy"
    assert verify(ENDORSEMENT, **arguments).in_endorsement_hierarchy


def test_values_that_were_not_quoted_are_refused():
    values = pcr_values(ENDORSEMENT) | {PcrSlot("sha256", 23): bytes(32)}
    assert refused(ENDORSEMENT, values=values) == "quote-selection"


def test_quoted_registers_without_a_value_are_refused():
    values = pcr_values(ENDORSEMENT)
    values.popitem()
    assert refused(ENDORSEMENT, values=values) == "quote-selection"
    assert refused(ENDORSEMENT, values={}) == "quote-selection"


@pytest.mark.parametrize("slot", [PcrSlot("md5", 0), PcrSlot("sha256", 99)])
def test_values_of_no_register_are_refused(slot):
    assert refused(ENDORSEMENT, values=pcr_values(ENDORSEMENT) | {slot: bytes(32)}) == "quote-selection"


def test_digits_cannot_move_between_registers():
    """The digest is over the concatenation: 33 and 31 octets would give what 32 and 32 give."""
    values = pcr_values(ENDORSEMENT)
    values[PcrSlot("sha256", 0)] += values[PcrSlot("sha256", 1)][:1]
    values[PcrSlot("sha256", 1)] = values[PcrSlot("sha256", 1)][1:]
    assert refused(ENDORSEMENT, values=values) == "quote-selection"


def test_a_certification_is_no_quote():
    certify = load()["certify"][0]
    assert refused(certify | {"pcrs": {}}) == "attest-type"


def quote_of_software(**changes):
    """A quote as a TPM would sign it, by a key of our own: for what no vector says."""
    key = ec.generate_private_key(ec.SECP384R1())
    numbers = key.public_key().public_numbers()
    template = parse_public(octets(ECC, "ak_tpm2b_public")).template
    attestation_key = encode_public(template, (numbers.x.to_bytes(48, "big"), numbers.y.to_bytes(48, "big")))
    attest = encode_attest(dataclasses.replace(parse_attest(octets(ECC, "attest")), **changes))
    r, s = decode_dss_signature(key.sign(attest, ec.ECDSA(hashes.SHA384())))
    values = (r.to_bytes(48, "big"), s.to_bytes(48, "big"))
    signature = encode_signature(TpmSignature(algorithm=TpmAlgorithm.ECDSA, hash=SHA384, values=values))
    return ECC | {"ak_tpm2b_public": attestation_key.hex(), "attest": attest.hex(), "signature_tpmt": signature.hex()}


def test_an_unsafe_clock_is_refused_when_the_policy_asks():
    unsafe = quote_of_software(clock_safe=False)
    assert not verify(unsafe).clock_safe
    assert refused(unsafe, policy=PcrPolicy(require_safe_clock=True)) == "quote-clock"
    assert verify(quote_of_software(clock_safe=True), policy=PcrPolicy(require_safe_clock=True)).clock_safe


def test_a_quote_of_nothing_proves_no_register():
    digest = hashlib.sha384(b"").digest()
    empty = quote_of_software(body=QuoteBody(selection=(), pcr_digest=digest))
    assert verify(empty, values={}).pcr_values == {}
    policy = PcrPolicy(allowed={PcrSlot("sha256", 7): frozenset({bytes(32)})})
    assert refused(empty, values={}, policy=policy) == "quote-pcr-missing"


def test_a_signature_of_another_key_is_refused():
    other = next(v for v in load()["quote"] if v["id"] == "ecc256/ecdsa-sha256/owner")
    endorsement = next(v for v in load()["quote"] if v["id"] == "ecc256/ecdsa-sha256/endorsement")
    assert refused(endorsement, signature=octets(other, "signature_tpmt")) == "attest-signature"


@pytest.mark.parametrize("values", [(b"", b""), (b"\0" * 48, b"\0" * 48), (b"\xff" * 66, b"\xff" * 66)])
def test_degenerate_signatures_are_refused(values):
    signature = parse_signature(octets(ECC, "signature_tpmt"))
    forged = type(signature)(algorithm=signature.algorithm, hash=signature.hash, values=values)
    assert refused(ECC, signature=encode_signature(forged)) == "attest-signature"


@given(position=st.integers(0, 1000), bit=st.integers(0, 7), part=st.sampled_from(["attest", "signature_tpmt"]))
def test_any_flipped_bit_is_refused(position, bit, part):
    changed = bytearray(octets(ECC, part))
    changed[position % len(changed)] ^= 1 << bit
    argument = {"attest" if part == "attest" else "signature": bytes(changed)}
    with pytest.raises((AttestationError, TpmStructureError)):
        verify(ECC, **argument)


@given(junk=st.binary(max_size=200))
def test_any_octets_give_a_documented_error(junk):
    for argument in ({"attest": junk}, {"signature": junk}, {"attest": junk, "signature": junk}):
        with pytest.raises((AttestationError, TpmStructureError)):
            verify(ECC, **argument)


def test_a_key_without_a_scheme_verifies_nothing():
    unsigned = next(v for v in load()["attribute_checks"] if v["id"] == "ak-no-scheme")
    with pytest.raises(AttestationError) as caught:
        verify_quote(
            parse_public(octets(unsigned, "tpm2b_public")),
            attest=encode_attest(parse_attest(octets(ECC, "attest"))),
            signature=octets(ECC, "signature_tpmt"),
            extra_data=octets(ECC, "nonce"),
            pcr_values=pcr_values(ECC),
            trace=Trace(),
        )
    assert caught.value.finding == "attest-signature-scheme"
