import math
import time
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from provisiond.attestation.ek_anchor import read_anchor
from provisiond.attestation.ek_certificate import verify_ek_certificate
from provisiond.attestation.ek_certificate_path import SIGNATURES_MAX
from provisiond.errors import AttestationError
from provisiond.model import Trace
from tests.attestation.ek_certificate_factory import EkAuthority, pss, software_endorsement_key
from tests.certificates import make_key, make_key_usage

NOW = datetime(2026, 6, 1, tzinfo=UTC)
endorsement_key = software_endorsement_key()
root = EkAuthority("root")


def verify(leaf, *strangers, anchors=(root,), now=NOW, trace=None):
    return verify_ek_certificate(
        endorsement_key=endorsement_key,
        unverified_chain=(leaf, *(stranger.der for stranger in strangers)),
        anchors=[anchor.der for anchor in anchors],
        now=now,
        trace=trace or Trace(),
    )


def refusal(leaf, *strangers, **arguments):
    with pytest.raises(AttestationError) as caught:
        verify(leaf, *strangers, **arguments)
    return caught.value


def chain_of(length):
    """Subordinates below the root, the lowest last."""
    authorities = [root]
    for number in range(length):
        authorities.append(EkAuthority(f"sub {number}", issuer=authorities[-1]))
    return authorities[1:]


def test_issuers_come_in_any_order_with_strangers_among_them():
    upper, lower = chain_of(2)
    assert verify(lower.issue(endorsement_key), EkAuthority("stranger"), upper, lower)


def test_a_path_has_at_most_five_certificates():
    three = chain_of(3)
    assert verify(three[-1].issue(endorsement_key), *three)
    four = chain_of(4)
    error = refusal(four[-1].issue(endorsement_key), *four)
    assert error.finding == "ek-certificate-path"
    assert "longer than 5" in str(error)
    assert verify(four[-1].issue(endorsement_key), *four, anchors=(four[0],))


def test_an_anchor_is_trusted_past_its_time():
    later = datetime(2034, 12, 31, tzinfo=UTC)
    assert verify(root.issue(endorsement_key), now=later)


def test_anchors_may_share_a_name():
    twin = EkAuthority("root")
    assert verify(root.issue(endorsement_key), anchors=(twin, root))


def test_the_search_gives_up_after_some_signatures():
    twins = [EkAuthority("root") for _ in range(SIGNATURES_MAX)]
    assert "too many issuers" in str(refusal(root.issue(endorsement_key), anchors=(*twins, root)))


def test_a_tangle_of_issuers_takes_no_time():
    """Cross-signed authorities, each the issuer of the others: every order of them is a path to nowhere."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(4)]
    tangle = [EkAuthority("one name", key=key) for key in keys]
    leaf = EkAuthority("one name", key=ec.generate_private_key(ec.SECP256R1())).issue(endorsement_key)
    started = time.process_time()
    assert refusal(leaf, *tangle).finding == "ek-certificate-path"
    assert time.process_time() - started < 2


def test_a_subordinate_below_its_issuers_path_length_is_refused():
    upper = EkAuthority("upper", issuer=root, path_length=0)
    lower = EkAuthority("lower", issuer=upper)
    assert "path length of 0" in str(refusal(lower.issue(endorsement_key), upper, lower))
    assert verify(upper.issue(endorsement_key), upper)


def test_a_self_issued_certificate_does_not_count_against_the_path_length():
    upper = EkAuthority("upper", issuer=root, path_length=0)
    renewed = EkAuthority("upper", issuer=upper)
    assert verify(renewed.issue(endorsement_key), renewed, upper)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [({"is_ca": False}, "not a CA"), ({"usage": make_key_usage("digital_signature")}, "may not sign certificates")],
)
def test_an_issuer_that_may_not_issue_is_refused(arguments, reason):
    lower = EkAuthority("lower", issuer=root, **arguments)
    assert reason in str(refusal(lower.issue(endorsement_key), lower))
    with pytest.raises(AttestationError, match=reason):
        read_anchor(lower.der)


@pytest.mark.parametrize("digest", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_ecdsa_with_sha2_is_taken(curve, digest):
    authority = EkAuthority("ecdsa", key=ec.generate_private_key(curve))
    assert verify(authority.issue(endorsement_key, digest=digest), anchors=(authority,))


@pytest.fixture(scope="module")
def rsa_authority():
    return EkAuthority("rsa", key=make_key("rsa2048"))


@pytest.mark.parametrize("digest", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
def test_rsa_with_sha2_is_taken(rsa_authority, digest):
    assert verify(rsa_authority.issue(endorsement_key, digest=digest), anchors=(rsa_authority,))
    assert verify(
        rsa_authority.issue(endorsement_key, digest=digest, rsa_padding=pss(digest)), anchors=(rsa_authority,)
    )


def test_rsa_pss_of_two_hashes_is_refused(rsa_authority):
    mixed = padding.PSS(padding.MGF1(hashes.SHA512()), 32)
    error = refusal(
        rsa_authority.issue(endorsement_key, digest=hashes.SHA256(), rsa_padding=mixed), anchors=(rsa_authority,)
    )
    assert "MGF1 of its hash" in str(error)


def test_rsa_pss_with_a_long_salt_is_refused(rsa_authority):
    long = pss(hashes.SHA256(), 64)
    error = refusal(
        rsa_authority.issue(endorsement_key, digest=hashes.SHA256(), rsa_padding=long), anchors=(rsa_authority,)
    )
    assert "salt of 64" in str(error)


@pytest.mark.parametrize("digest", [hashes.SHA224(), hashes.SHA3_256()])
def test_other_hashes_are_refused(digest):
    error = refusal(root.issue(endorsement_key, digest=digest))
    assert "not RSA or ECDSA with SHA-2" in str(error)


def test_a_short_rsa_key_is_refused():
    short = EkAuthority("short", key=make_key("rsa1024"))
    assert "RSA of 1024 bits" in str(refusal(short.issue(endorsement_key), anchors=(short,)))


def test_an_exponent_that_takes_long_is_refused():
    private = make_key("rsa2048", "wide exponent").private_numbers()
    order = (private.p - 1) * (private.q - 1)
    exponent = next(e for e in range(2**40 + 1, 2**40 + 1000, 2) if math.gcd(e, order) == 1)
    d = pow(exponent, -1, order)
    wide = rsa.RSAPrivateNumbers(
        p=private.p,
        q=private.q,
        d=d,
        dmp1=d % (private.p - 1),
        dmq1=d % (private.q - 1),
        iqmp=private.iqmp,
        public_numbers=rsa.RSAPublicNumbers(exponent, private.public_numbers.n),
    )
    slow = EkAuthority("slow", key=wide.private_key())
    assert "exponent of 41 bits" in str(refusal(slow.issue(endorsement_key), anchors=(slow,)))


def test_another_curve_is_refused():
    other = EkAuthority("other", key=ec.generate_private_key(ec.SECP256K1()))
    assert "NIST curve" in str(refusal(other.issue(endorsement_key), anchors=(other,)))


def test_a_signature_of_another_algorithm_than_the_key_is_refused(rsa_authority):
    """The leaf names the RSA authority's issuer name, but the anchor of that name has an elliptic key."""
    impostor = EkAuthority("rsa")
    assert "not for this key" in str(refusal(rsa_authority.issue(endorsement_key), anchors=(impostor,)))
    elliptic = EkAuthority("elliptic")
    twin = EkAuthority("elliptic", key=rsa_authority.key)
    assert "not for this key" in str(refusal(elliptic.issue(endorsement_key), anchors=(twin,)))
