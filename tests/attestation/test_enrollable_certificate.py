"""What an operator may enroll, and what the refusal tells."""

import pytest
from cryptography import x509

from provisiond.attestation.x509 import (
    check_enrollable_ca_certificate,
    check_enrollable_client_certificate,
    load_certificate,
    load_certificates,
)
from provisiond.errors import InvalidArgument
from provisiond.model import RegistrationId
from tests.attestation.der import as_version_1
from tests.certificates import (
    DAY,
    NOW,
    SERVER_AUTH,
    make_ca,
    make_key,
    make_key_usage,
    make_leaf,
    make_name,
)

ROOT = make_ca("Root")
LEAF = make_leaf("sensor", make_ca("Line", ROOT))
CRITICAL = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\5\0"), True)
DIRECTORY = (x509.NameConstraints([x509.DirectoryName(make_name("elsewhere"))], None), False)


def test_a_certificate_file_is_pem_or_der():
    assert load_certificate(ROOT.pem) == load_certificate(ROOT.der) == ROOT.der


def test_text_around_a_pem_certificate_is_ignored():
    assert load_certificate(b"Certificate:\n    Data: ...\n" + ROOT.pem + b"\ntrailer\n") == ROOT.der


def test_a_chain_file_gives_its_certificates_in_order():
    assert load_certificates(LEAF.chain_pem) == LEAF.chain


def test_a_chain_is_not_one_certificate():
    with pytest.raises(InvalidArgument, match="2 certificates"):
        load_certificate(LEAF.chain_pem)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"\x30\x00",
        ROOT.der + b"\0",
        ROOT.key_pem,
        b"-----BEGIN CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ROOT.pem + b" " * 65536,
    ],
    ids=["empty", "text", "short", "trailing", "key", "cut PEM", "junk PEM", "large"],
)
def test_anything_else_is_refused(content):
    with pytest.raises(InvalidArgument):
        load_certificates(content)


def test_a_cut_pem_file_is_refused_in_words_of_ours():
    with pytest.raises(InvalidArgument, match=r"^the PEM text is damaged, or ends before -----END CERTIFICATE-----$"):
        load_certificates(ROOT.pem[:300])


def test_a_truncated_certificate_is_refused_at_every_octet():
    for size in range(len(ROOT.der)):
        with pytest.raises(InvalidArgument):
            load_certificate(ROOT.der[:size])


def test_a_devices_certificate_may_be_enrolled_also_before_it_is_valid():
    check_enrollable_client_certificate(LEAF.der, NOW)
    check_enrollable_client_certificate(make_leaf("sensor", not_before=NOW + DAY).der, NOW)
    check_enrollable_client_certificate(LEAF.der, NOW, registration_id=RegistrationId.parse("SENSOR"))


@pytest.mark.parametrize(
    ("leaf", "way_out"),
    [
        (make_ca("sensor"), "keyCertSign"),
        (make_ca("sensor", make_ca("Root")), "CA:FALSE"),
        (make_leaf("sensor", key=make_key("rsa1024")), "RSA of 1024 bits.*new key"),
        (make_leaf("sensor", not_before=NOW - 9 * DAY, not_after=NOW - DAY), "expired.*issue a new one"),
        (make_leaf("sensor", usages=(SERVER_AUTH,)), "clientAuth"),
        (make_leaf("sensor", extensions=[(make_key_usage("key_encipherment"), True)]), "digitalSignature"),
        (make_leaf("sensor", extensions=[CRITICAL]), "99999.*not critical"),
        (make_leaf("", subject=make_name("a", "b")), "2 common names.*one common name"),
        (make_leaf("a/b"), "a/b.*A-Z"),
    ],
)
def test_a_certificate_that_no_device_could_use_is_refused_with_the_way_out(leaf, way_out):
    with pytest.raises(InvalidArgument, match=way_out):
        check_enrollable_client_certificate(leaf.der, NOW)


def test_a_common_name_that_is_not_the_enrollments_id_is_refused_with_the_way_out():
    with pytest.raises(InvalidArgument, match="enroll it under its common name"):
        check_enrollable_client_certificate(LEAF.der, NOW, registration_id=RegistrationId.parse("pump"))


def test_a_version_1_certificate_is_refused_with_the_way_out():
    leaf = make_leaf("sensor")
    with pytest.raises(InvalidArgument, match=r"version 3.*extfile"):
        check_enrollable_client_certificate(as_version_1(leaf.der, leaf.key), NOW)


def test_a_ca_certificate_may_be_enrolled_root_or_intermediate_also_before_it_is_valid():
    check_enrollable_ca_certificate(ROOT.der, NOW)
    check_enrollable_ca_certificate(make_ca("Line", ROOT, not_before=NOW + DAY).der, NOW)


@pytest.mark.parametrize(
    ("certificate", "way_out"),
    [
        (LEAF, "not a CA certificate.*individually"),
        (make_ca("Old", without=[x509.BasicConstraints]), "not a CA certificate"),
        (make_ca("Old", key=make_key("rsa1024")), "RSA of 1024 bits"),
        (make_ca("Edwards", key=make_key("ed25519")), "Ed25519.*ECDSA or RSA"),
        (make_ca("Old", not_before=NOW - 9 * DAY, not_after=NOW - DAY), "expired.*current"),
        (make_ca("Old", extensions=[(make_key_usage("crl_sign"), True)]), "keyCertSign"),
        (make_ca("Web", extensions=[(x509.ExtendedKeyUsage([SERVER_AUTH]), False)]), "clientAuth"),
        (make_ca("Odd", extensions=[CRITICAL]), "99999"),
        (make_ca("Constrained", extensions=[DIRECTORY]), "directoryName"),
    ],
)
def test_a_certificate_that_could_vouch_for_no_device_is_refused_with_the_way_out(certificate, way_out):
    with pytest.raises(InvalidArgument, match=way_out):
        check_enrollable_ca_certificate(certificate.der, NOW)
