import contextlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.attestation.ek_anchor import read_anchor, read_anchor_file
from provisiond.errors import AttestationError
from tests.attestation.ek_certificate_factory import EkAuthority, software_endorsement_key
from tests.attestation.tpm_vectors import load

AUTHORITIES = [EkAuthority("first").der, EkAuthority("second").der]
UNSORTED = bytes.fromhex(
    next(v for v in load()["ek_certificate"] if v["id"] == "own/nuvoton-like-unsorted-rdn")["anchors_der"][0]
)


def pem(*certificates):
    return "maker: a comment\n".join(ssl.DER_cert_to_PEM_cert(certificate) for certificate in certificates).encode()


def test_a_file_holds_one_certificate_in_der():
    assert read_anchor_file(AUTHORITIES[0]) == (AUTHORITIES[0],)


def test_a_file_holds_any_number_of_certificates_in_pem():
    assert read_anchor_file(pem(*AUTHORITIES)) == tuple(AUTHORITIES)
    assert read_anchor_file(pem(*AUTHORITIES).replace(b"\n", b"\r\n")) == tuple(AUTHORITIES)


def test_a_certificate_that_general_readers_refuse_is_given_as_it_stands():
    assert read_anchor_file(pem(UNSORTED)) == (UNSORTED,)
    assert read_anchor(UNSORTED).octets == UNSORTED


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"text",
        b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nMAA\n-----END CERTIFICATE-----\n",
        AUTHORITIES[0] + b"\0",
    ],
)
def test_a_file_without_certificates_is_refused(octets):
    with pytest.raises(AttestationError) as caught:
        read_anchor_file(octets)
    assert caught.value.finding == "certificate-encoding"


def test_a_file_with_a_device_certificate_is_refused():
    leaf = EkAuthority().issue(software_endorsement_key())
    with pytest.raises(AttestationError) as caught:
        read_anchor_file(pem(AUTHORITIES[0], leaf))
    assert caught.value.finding == "issuer-not-ca"


@given(junk=st.binary(max_size=200))
def test_any_octets_give_anchors_or_the_one_error(junk):
    for octets in (junk, b"-----BEGIN CERTIFICATE-----" + junk + b"-----END CERTIFICATE-----"):
        with contextlib.suppress(AttestationError):
            read_anchor_file(octets)
