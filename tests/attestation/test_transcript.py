import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.attestation import tpm_transcript
from provisiond.attestation.transcript import Mechanism, Transcript, frame, request_digest

FIELDS = st.fixed_dictionaries(
    {
        "id_scope": st.text(max_size=12),
        "registration_id": st.text(max_size=12),
        "challenge_id": st.text(max_size=12),
        "session_id": st.text(max_size=12),
        "nonce": st.binary(max_size=4),
        "request_sha256": st.binary(max_size=4),
    }
)


def unframe(octets):
    fields, position = [], 0
    while position < len(octets):
        end = position + 2 + int.from_bytes(octets[position : position + 2], "big")
        fields.append(octets[position + 2 : end])
        position = end
    assert position == len(octets)
    return fields


@given(FIELDS, st.sampled_from(Mechanism))
def test_every_field_can_be_read_back(fields, mechanism):
    octets = Transcript(**fields).message_octets(mechanism)
    texts = [fields[name].encode() for name in ("id_scope", "registration_id", "challenge_id", "session_id")]
    assert unframe(octets) == [
        b"provisiond-native-v1",
        mechanism.encode(),
        *texts,
        fields["request_sha256"],
        fields["nonce"],
    ]


@given(FIELDS, FIELDS)
def test_two_challenges_share_no_transcript(one, other):
    same = Transcript(**one).message_octets(Mechanism.X509) == Transcript(**other).message_octets(Mechanism.X509)
    assert same == (one == other)


def test_the_mechanisms_share_no_transcript():
    transcript = Transcript(
        id_scope="s", registration_id="r", challenge_id="c", session_id="", nonce=b"n", request_sha256=b"d"
    )
    assert transcript.message_octets(Mechanism.X509) != transcript.message_octets(Mechanism.SYMMETRIC_KEY)


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20), st.text(max_size=20), st.binary(max_size=99))
def test_the_challenge_part_is_what_a_tpm_answers(id_scope, registration_id, challenge_id, session_id, request):
    transcript = Transcript(
        id_scope=id_scope,
        registration_id=registration_id,
        challenge_id=challenge_id,
        session_id=session_id,
        nonce=b"",
        request_sha256=request_digest(request),
    )
    assert transcript.challenge_octets == tpm_transcript.transcript(
        id_scope=id_scope,
        registration_id=registration_id,
        challenge_id=challenge_id,
        connection_id=session_id,
        request=request,
    )


def test_a_field_takes_as_much_as_its_length_can_say():
    assert len(frame(bytes(0xFFFF))) == 2 + 0xFFFF
    with pytest.raises(ValueError, match="65535"):
        frame(bytes(0x10000))
