import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.attestation.tpm_transcript import proof, quote_extra_data, transcript, verify_proof
from provisiond.errors import AttestationError
from provisiond.model import Trace

FIELDS = {
    "id_scope": "0ne0LOCAL01",
    "registration_id": "device-1",
    "challenge_id": "c-1",
    "connection_id": "s-1",
    "request": b"{}",
}
SECRET = bytes(range(32))


def test_the_transcript_is_the_fields_with_their_lengths():
    assert transcript(**FIELDS) == (
        b"\x00\x0b0ne0LOCAL01\x00\x08device-1\x00\x03c-1\x00\x03s-1\x00\x20" + hashlib.sha256(b"{}").digest()
    )


def test_the_proof_is_an_hmac_of_its_own_context():
    octets = transcript(**FIELDS)
    assert proof(SECRET, octets) == hmac.digest(SECRET, b"provisiond-tpm-v1" + octets, "sha256")


def test_the_quotes_extra_data_is_of_another_context():
    octets = transcript(**FIELDS)
    nonce = bytes(32)
    assert quote_extra_data(octets, nonce) == hashlib.sha256(b"provisiond-quote-v1" + octets + nonce).digest()


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_is_bound(field):
    value = FIELDS[field]
    other = value + (b"x" if isinstance(value, bytes) else "x")
    changed = transcript(**(FIELDS | {field: other}))
    assert changed != transcript(**FIELDS)
    trace = Trace()
    with pytest.raises(AttestationError) as caught:
        verify_proof(proof(SECRET, transcript(**FIELDS)), secret=SECRET, transcript_octets=changed, trace=trace)
    assert caught.value.finding == "credential-proof"
    assert not trace.snapshot()[0].passed


@given(first=st.tuples(*[st.text(max_size=5)] * 4), second=st.tuples(*[st.text(max_size=5)] * 4))
def test_no_two_challenges_share_a_transcript(first, second):
    names = ("id_scope", "registration_id", "challenge_id", "connection_id")
    left = transcript(**dict(zip(names, first, strict=True)), request=b"")
    right = transcript(**dict(zip(names, second, strict=True)), request=b"")
    assert (left == right) == (first == second)


def test_the_right_proof_is_taken():
    octets, trace = transcript(**FIELDS), Trace()
    verify_proof(proof(SECRET, octets), secret=SECRET, transcript_octets=octets, trace=trace)
    assert [(check.name, check.passed) for check in trace.snapshot()] == [("credential-proof", True)]


@pytest.mark.parametrize("answer", [b"", bytes(31), bytes(32), bytes(33)])
def test_another_answer_is_refused(answer):
    with pytest.raises(AttestationError):
        verify_proof(answer, secret=SECRET, transcript_octets=transcript(**FIELDS), trace=Trace())


def test_a_field_too_long_for_its_length_is_refused():
    with pytest.raises(ValueError, match="65535"):
        transcript(**(FIELDS | {"challenge_id": "x" * 65536}))
