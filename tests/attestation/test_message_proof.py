from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from provisiond.attestation.message_proof import (
    SignatureAlgorithm,
    mac_transcript,
    sign_transcript,
    verify_mac,
    verify_signature,
)
from provisiond.attestation.symmetric_key import derive_device_key
from provisiond.attestation.transcript import Mechanism, Transcript
from provisiond.errors import AttestationError
from tests.certificates import make_key, make_leaf

TRANSCRIPT = Transcript(
    id_scope="0ne0",
    registration_id="press-7",
    challenge_id="c-1",
    session_id="s-1",
    nonce=bytes(range(32)),
    request_sha256=b"\x11" * 32,
)
OTHERS = {
    "scope": replace(TRANSCRIPT, id_scope="0ne1"),
    "registration id": replace(TRANSCRIPT, registration_id="press-8"),
    "spelling": replace(TRANSCRIPT, registration_id="Press-7"),
    "challenge": replace(TRANSCRIPT, challenge_id="c-2"),
    "session": replace(TRANSCRIPT, session_id="s-2"),
    "nonce": replace(TRANSCRIPT, nonce=bytes(32)),
    "request": replace(TRANSCRIPT, request_sha256=b"\x12" * 32),
    "field boundaries": replace(TRANSCRIPT, challenge_id="c-", session_id="1s-1"),
}
KINDS = {
    "p256": [SignatureAlgorithm.ES256],
    "p384": [SignatureAlgorithm.ES384],
    "p521": [SignatureAlgorithm.ES512],
    "rsa2048": [SignatureAlgorithm.PS256, SignatureAlgorithm.RS256],
    "ed25519": [SignatureAlgorithm.EDDSA],
}
LEAVES = {kind: make_leaf("press-7", key=make_key(kind, "message proof")) for kind in KINDS}
LEAF = LEAVES["p256"]
FITTING = [(kind, algorithm) for kind, algorithms in KINDS.items() for algorithm in algorithms]
UNFITTING = [(kind, algorithm) for kind in KINDS for algorithm in SignatureAlgorithm if algorithm not in KINDS[kind]]


def refused(leaf=LEAF, algorithm=SignatureAlgorithm.ES256, signature=b"", transcript=TRANSCRIPT):
    with pytest.raises(AttestationError) as caught:
        verify_signature(leaf.der, algorithm=algorithm, signature=signature, transcript=transcript)
    assert caught.value.public_message == "Unauthorized"
    return caught.value.finding


# --- signatures ---


@pytest.mark.parametrize(("kind", "algorithm"), FITTING)
def test_the_holder_of_the_key_is_believed(kind, algorithm):
    chosen, signature = sign_transcript(LEAVES[kind].key, TRANSCRIPT, algorithm=algorithm)
    finding = verify_signature(LEAVES[kind].der, algorithm=chosen, signature=signature, transcript=TRANSCRIPT)
    assert finding.startswith(f"{algorithm} signature")


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_has_an_algorithm_of_its_own(kind):
    chosen, signature = sign_transcript(LEAVES[kind].key, TRANSCRIPT)
    assert chosen is KINDS[kind][0]
    verify_signature(LEAVES[kind].der, algorithm=chosen, signature=signature, transcript=TRANSCRIPT)


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("kind", ["p256", "rsa2048", "ed25519"])
def test_a_signature_over_another_transcript_is_refused(kind, other):
    chosen, signature = sign_transcript(LEAVES[kind].key, OTHERS[other])
    assert refused(LEAVES[kind], chosen, signature) == "signature-invalid"


@pytest.mark.parametrize(("kind", "algorithm"), FITTING)
def test_a_signature_by_another_key_is_refused(kind, algorithm):
    _, signature = sign_transcript(make_key(kind, "another device"), TRANSCRIPT, algorithm=algorithm)
    assert refused(LEAVES[kind], algorithm, signature) == "signature-invalid"


@pytest.mark.parametrize(("kind", "algorithm"), UNFITTING)
def test_an_algorithm_for_another_kind_of_key_is_refused(kind, algorithm):
    _, signature = sign_transcript(LEAVES[kind].key, TRANSCRIPT)
    assert refused(LEAVES[kind], algorithm, signature) == "signature-algorithm"
    with pytest.raises(ValueError, match="not an algorithm for this key"):
        sign_transcript(LEAVES[kind].key, TRANSCRIPT, algorithm=algorithm)


def test_the_paddings_of_rsa_are_not_taken_for_one_another():
    for made, claimed in (("PS256", "RS256"), ("RS256", "PS256")):
        _, signature = sign_transcript(LEAVES["rsa2048"].key, TRANSCRIPT, algorithm=SignatureAlgorithm(made))
        assert refused(LEAVES["rsa2048"], SignatureAlgorithm(claimed), signature) == "signature-invalid"


@pytest.mark.parametrize("salt_size_bytes", [0, 20, 33])
def test_a_salt_of_another_length_is_refused(salt_size_bytes):
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt_size_bytes)
    octets = TRANSCRIPT.message_octets(Mechanism.X509)
    signature = LEAVES["rsa2048"].key.sign(octets, pss, hashes.SHA256())
    assert refused(LEAVES["rsa2048"], SignatureAlgorithm.PS256, signature) == "signature-invalid"


def test_the_bare_numbers_of_jose_are_refused():
    _, signature = sign_transcript(LEAF.key, TRANSCRIPT)
    bare = b"".join(number.to_bytes(32, "big") for number in decode_dss_signature(signature))
    assert refused(signature=bare) == "signature-invalid"


def test_a_signature_under_another_hash_is_refused():
    signature = LEAF.key.sign(TRANSCRIPT.message_octets(Mechanism.X509), ec.ECDSA(hashes.SHA384()))
    assert refused(signature=signature) == "signature-invalid"


def test_a_signature_for_the_other_mechanism_is_refused():
    signature = LEAF.key.sign(TRANSCRIPT.message_octets(Mechanism.SYMMETRIC_KEY), ec.ECDSA(hashes.SHA256()))
    assert refused(signature=signature) == "signature-invalid"


@given(st.sampled_from(FITTING), st.binary(max_size=600))
def test_any_octets_for_a_signature_are_refused(fitting, signature):
    kind, algorithm = fitting
    assert refused(LEAVES[kind], algorithm, signature) == "signature-invalid"


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_an_altered_signature_is_refused(position, difference):
    _, signature = sign_transcript(LEAF.key, TRANSCRIPT)
    altered = bytearray(signature)
    altered[position % len(altered)] ^= difference
    assert refused(signature=bytes(altered)) == "signature-invalid"


@pytest.mark.parametrize("kind", ["rsa1024", "secp256k1", "ed448", "dsa2048"])
def test_a_certificate_with_a_key_that_is_not_taken_is_refused(kind):
    assert refused(make_leaf("press-7", key=make_key(kind))) == "certificate-key"


def test_octets_that_are_no_certificate_are_refused():
    with pytest.raises(AttestationError) as caught:
        verify_signature(b"0", algorithm=SignatureAlgorithm.ES256, signature=b"0", transcript=TRANSCRIPT)
    assert caught.value.finding == "certificate-malformed"


def test_a_key_that_is_not_taken_signs_nothing():
    with pytest.raises(ValueError, match="must be P-256"):
        sign_transcript(make_key("secp256k1"), TRANSCRIPT)


# --- HMAC ---

KEY, OTHER_KEY = b"k" * 32, b"o" * 64


def mac_refused(keys, mac):
    with pytest.raises(AttestationError) as caught:
        verify_mac(keys, mac=mac, transcript=TRANSCRIPT)
    assert caught.value.public_message == "Unauthorized"
    return caught.value.finding


@pytest.mark.parametrize(("keys", "index"), [([KEY], 0), ([KEY, OTHER_KEY], 0), ([OTHER_KEY, KEY], 1), ([KEY, KEY], 0)])
def test_the_holder_of_either_key_is_believed(keys, index):
    assert verify_mac(keys, mac=mac_transcript(KEY, TRANSCRIPT), transcript=TRANSCRIPT) == index


def test_a_key_derived_from_the_groups_is_believed():
    key = derive_device_key(b"g" * 32, "press-7")
    assert verify_mac([OTHER_KEY, key], mac=mac_transcript(key, TRANSCRIPT), transcript=TRANSCRIPT) == 1


@pytest.mark.parametrize("other", OTHERS)
def test_an_hmac_over_another_transcript_is_refused(other):
    assert mac_refused([KEY], mac_transcript(KEY, OTHERS[other])) == "mac-mismatch"


def test_an_hmac_by_another_key_is_refused():
    assert mac_refused([KEY], mac_transcript(OTHER_KEY, TRANSCRIPT)) == "mac-mismatch"


def test_no_key_believes_nobody():
    for decoy in (bytes(32), b""):
        assert mac_refused([], mac_transcript(decoy, TRANSCRIPT)) == "mac-mismatch"


@given(st.binary(max_size=64))
def test_any_octets_for_an_hmac_are_refused(mac):
    assert mac_refused([KEY, OTHER_KEY], mac) == "mac-mismatch"


def test_a_truncated_hmac_is_refused():
    assert mac_refused([KEY], mac_transcript(KEY, TRANSCRIPT)[:16]) == "mac-mismatch"
