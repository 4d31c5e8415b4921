import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.attestation.tpm import parse_attestation_key
from provisiond.attestation.tpm_certify import verify_certify
from provisiond.attestation.tpm_structures import parse_public
from provisiond.errors import AttestationError, TpmStructureError
from provisiond.model import Trace
from tests.attestation.tpm_vectors import load, octets, public_named, section

GOOD = next(vector for vector in load()["certify"] if vector["id"] == "ecc256/ecdsa-sha256/endorsement")


def verify(vector, *, trace=None, certified_key=None, **changes):
    return verify_certify(
        parse_attestation_key(octets(vector, "ak_tpm2b_public")),
        attest=changes.get("attest", octets(vector, "attest")),
        signature=changes.get("signature", octets(vector, "signature_tpmt")),
        extra_data=changes.get("extra_data", octets(vector, "nonce")),
        certified_key=certified_key or parse_public(octets(vector, "object_tpm2b_public")),
        trace=Trace() if trace is None else trace,
    )


@pytest.mark.parametrize("vector", section("certify"))
def test_a_certification_is_taken_or_refused_as_the_vector_says(vector):
    if vector["expect"] == "attest_type":
        with pytest.raises(AttestationError) as caught:
            verify(vector)
        assert caught.value.finding == "attest-type"
        return
    trace = Trace()
    certified = verify(vector, trace=trace)
    assert certified.spki_der == octets(vector, "object_spki_der")
    assert certified.public.name == octets(vector, "object_name")
    assert certified.qualified_name == octets(vector, "object_qualified_name")
    assert [check.name for check in trace.snapshot()][-2:] == ["certify-name", "certified-key"]


def test_another_key_than_the_certified_one_is_refused():
    with pytest.raises(AttestationError) as caught:
        verify(GOOD, certified_key=parse_public(public_named("ak-ecc256")))
    assert caught.value.finding == "certify-name"


def test_a_certification_for_another_challenge_is_refused():
    with pytest.raises(AttestationError) as caught:
        verify(GOOD, extra_data=bytes(32))
    assert caught.value.finding == "attest-extra-data"


@given(junk=st.binary(max_size=200))
def test_any_octets_give_a_documented_error(junk):
    for change in ({"attest": junk}, {"signature": junk}):
        with pytest.raises((AttestationError, TpmStructureError)):
            verify(GOOD, **change)
