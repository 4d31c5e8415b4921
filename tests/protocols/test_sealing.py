import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap
from hypothesis import given
from hypothesis import strategies as st

from provisiond.errors import AttestationError, SealBroken, UnsealableKey
from provisiond.protocols.sealing import (
    PLAINTEXT_MAX_SIZE_BYTES,
    SealingContext,
    open_with_private_key,
    open_with_symmetric_key,
    seal_to_certificate,
    seal_to_symmetric_key,
    sealing_algorithm,
)
from tests.certificates import make_key, make_leaf

CONTEXT = SealingContext(id_scope="0ne0", registration_id="press-7", operation_id="5.a")
OTHERS = [
    SealingContext(id_scope="0ne1", registration_id="press-7", operation_id="5.a"),
    SealingContext(id_scope="0ne0", registration_id="Press-7", operation_id="5.a"),
    SealingContext(id_scope="0ne0", registration_id="press-7", operation_id="5.b"),
    SealingContext(id_scope="0ne0p", registration_id="ress-7", operation_id="5.a"),
]
SECRET = b'{"password":"correct horse"}'
KEY = b"k" * 32
LEAVES = {kind: make_leaf("press-7", key=make_key(kind, "sealing")) for kind in ("p256", "p384", "p521", "rsa2048")}
LEAF = LEAVES["p256"]
SEALED = seal_to_certificate(SECRET, certificate_der=LEAF.der, context=CONTEXT)
SEALED_DIRECT = seal_to_symmetric_key(SECRET, key=KEY, context=CONTEXT)


def over_the_wire(sealed):
    return json.loads(json.dumps(sealed))


def decoded(text):
    return base64.urlsafe_b64decode(text + "==")


@pytest.mark.parametrize(("kind", "leaf"), LEAVES.items())
def test_the_holder_of_the_certificates_key_opens_it(kind, leaf):
    sealed = seal_to_certificate(SECRET, certificate_der=leaf.der, context=CONTEXT)
    assert json.loads(decoded(sealed["protected"])) == {"alg": sealing_algorithm(leaf.der), "enc": "A256GCM"}
    assert open_with_private_key(over_the_wire(sealed), private_key=leaf.key, context=CONTEXT) == SECRET


@given(st.binary(min_size=16, max_size=64), st.binary(min_size=1, max_size=200))
def test_the_holder_of_the_symmetric_key_opens_it(key, plaintext):
    sealed = seal_to_symmetric_key(plaintext, key=key, context=CONTEXT)
    assert open_with_symmetric_key(over_the_wire(sealed), key=key, context=CONTEXT) == plaintext


@pytest.mark.parametrize("sealed", [SEALED, SEALED_DIRECT])
def test_the_secret_is_not_in_it(sealed):
    everything = b"".join(decoded(text) for text in sealed.values() if isinstance(text, str))
    assert b"horse" not in everything
    assert b"horse" not in json.dumps(sealed).encode()


def test_a_secret_is_never_sealed_the_same_way_twice():
    again = seal_to_symmetric_key(SECRET, key=KEY, context=CONTEXT)
    assert again["iv"] != SEALED_DIRECT["iv"]
    assert again["ciphertext"] != SEALED_DIRECT["ciphertext"]


@pytest.mark.parametrize("kind", LEAVES)
def test_another_key_opens_nothing(kind):
    with pytest.raises(SealBroken):
        open_with_private_key(SEALED, private_key=make_key(kind, "another device"), context=CONTEXT)


def test_another_symmetric_key_opens_nothing():
    with pytest.raises(SealBroken):
        open_with_symmetric_key(SEALED_DIRECT, key=b"o" * 32, context=CONTEXT)


@pytest.mark.parametrize("other", OTHERS)
def test_nothing_opens_for_another_device_or_operation(other):
    with pytest.raises(SealBroken, match="another device or another operation"):
        open_with_private_key(SEALED, private_key=LEAF.key, context=other)
    with pytest.raises(SealBroken, match="another device or another operation"):
        open_with_symmetric_key(SEALED_DIRECT, key=KEY, context=other)


@pytest.mark.parametrize("other", OTHERS)
def test_an_exchanged_context_does_not_open(other):
    aad = base64.urlsafe_b64encode(other.octets).rstrip(b"=").decode()
    with pytest.raises(SealBroken, match="does not open"):
        open_with_private_key({**SEALED, "aad": aad}, private_key=LEAF.key, context=other)
    with pytest.raises(SealBroken, match="does not open"):
        open_with_symmetric_key({**SEALED_DIRECT, "aad": aad}, key=KEY, context=other)


@given(st.sampled_from(sorted(SEALED)), st.integers(min_value=0), st.sampled_from("Ab_-+ =é"))
def test_an_altered_credential_does_not_open(member, position, character):
    text = json.dumps(SEALED[member]) if member == "header" else SEALED[member]
    position %= len(text)
    altered = text[:position] + character + text[position + 1 :]
    if member == "header":
        try:
            value = json.loads(altered)
        except ValueError:
            return
    else:
        value = altered
    if value == SEALED[member]:
        return
    try:
        opened = open_with_private_key({**SEALED, member: value}, private_key=LEAF.key, context=CONTEXT)
    except SealBroken:
        return
    # A header may say more than is read of it; what is opened is still what was sealed.
    assert member == "header"
    assert opened == SECRET


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from([*sorted(SEALED), "unprotected", "recipients", "x"]), JSON)
def test_any_json_for_a_member_does_not_open(member, value):
    if member == "header" and isinstance(value, dict) and "epk" in value:
        return
    with pytest.raises(SealBroken):
        open_with_private_key({**SEALED, member: value}, private_key=LEAF.key, context=CONTEXT)
    without = {name: part for name, part in SEALED.items() if name != member}
    if member in SEALED:
        with pytest.raises(SealBroken):
            open_with_private_key(without, private_key=LEAF.key, context=CONTEXT)


@given(st.dictionaries(st.sampled_from(["crv", "kty", "x", "y", "d"]), JSON))
def test_any_json_for_an_ephemeral_key_does_not_open(epk):
    with pytest.raises(SealBroken):
        open_with_private_key({**SEALED, "header": {"epk": epk}}, private_key=LEAF.key, context=CONTEXT)


@pytest.mark.parametrize(
    "header", [{"alg": "dir", "enc": "A256GCM"}, {"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "zip": "DEF"}]
)
def test_an_exchanged_algorithm_does_not_open(header):
    protected = base64.urlsafe_b64encode(json.dumps(header, separators=(",", ":")).encode()).rstrip(b"=").decode()
    with pytest.raises(SealBroken, match="not sealed with"):
        open_with_private_key({**SEALED, "protected": protected}, private_key=LEAF.key, context=CONTEXT)


def test_nothing_is_sealed_to_ed25519():
    leaf = make_leaf("press-7", key=make_key("ed25519"))
    with pytest.raises(UnsealableKey) as caught:
        sealing_algorithm(leaf.der)
    assert caught.value.status == 400
    assert "EC or RSA" in caught.value.public_message
    with pytest.raises(UnsealableKey):
        seal_to_certificate(SECRET, certificate_der=leaf.der, context=CONTEXT)
    with pytest.raises(SealBroken):
        open_with_private_key(SEALED, private_key=leaf.key, context=CONTEXT)


@pytest.mark.parametrize("kind", ["rsa1024", "secp256k1"])
def test_nothing_is_sealed_to_a_key_that_is_not_taken(kind):
    with pytest.raises(AttestationError) as caught:
        sealing_algorithm(make_leaf("press-7", key=make_key(kind)).der)
    assert caught.value.finding == "certificate-key"


def test_a_secret_has_a_limit():
    assert seal_to_symmetric_key(bytes(PLAINTEXT_MAX_SIZE_BYTES), key=KEY, context=CONTEXT)
    for plaintext in (b"", bytes(PLAINTEXT_MAX_SIZE_BYTES + 1)):
        with pytest.raises(ValueError, match="1 to 4096"):
            seal_to_symmetric_key(plaintext, key=KEY, context=CONTEXT)


def test_it_opens_with_the_primitives_alone():
    """RFC 7516 5.2 and RFC 7518 4.6 by hand: what firmware without a JOSE library has to do."""
    epk = SEALED["header"]["epk"]
    numbers = ec.EllipticCurvePublicNumbers(
        *(int.from_bytes(decoded(epk[name]), "big") for name in "xy"), ec.SECP256R1()
    )
    shared = LEAF.key.exchange(ec.ECDH(), numbers.public_key())
    algorithm = b"ECDH-ES+A256KW"
    info = len(algorithm).to_bytes(4, "big") + algorithm + bytes(8) + (256).to_bytes(4, "big")
    wrapping_key = ConcatKDFHash(SHA256(), length=32, otherinfo=info).derive(shared)
    content_key = aes_key_unwrap(wrapping_key, decoded(SEALED["encrypted_key"]))
    authenticated = f"{SEALED['protected']}.{SEALED['aad']}".encode()
    ciphertext = decoded(SEALED["ciphertext"]) + decoded(SEALED["tag"])
    assert AESGCM(content_key).decrypt(decoded(SEALED["iv"]), ciphertext, authenticated) == SECRET
