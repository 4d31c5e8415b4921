"""Certificate revocation lists along a verified path."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from provisiond.attestation.revocation import CRL_MAX_SIZE_BYTES, check_revocation, load_crl
from provisiond.errors import AttestationError, InvalidArgument
from tests.certificates import DAY, NOW, make_ca, make_crl, make_key, make_key_usage, make_leaf

ROOT = make_ca("Root")
LINE = make_ca("Line", ROOT)
LEAF = make_leaf("sensor", LINE)
OTHER = make_leaf("other", LINE)
PATH = (LEAF, LINE, ROOT)
DELTA = [(x509.DeltaCRLIndicator(1), True)]
PARTITION = [
    (
        x509.IssuingDistributionPoint(
            full_name=None,
            relative_name=None,
            only_contains_user_certs=True,
            only_contains_ca_certs=False,
            only_some_reasons=None,
            indirect_crl=False,
            only_contains_attribute_certs=False,
        ),
        True,
    )
]
UNKNOWN = [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\5\0"), True)]
OUTDATED = {"last_update": NOW - 9 * DAY, "next_update": NOW - DAY}


def check(trace, *crls, path=PATH, now=NOW):
    certificates = [item.certificate for item in path]
    check_revocation(certificates, crls=crls, revoked=frozenset(), now=now, trace=trace)
    return [item.finding for item in trace.snapshot()]


def refusal(trace, *crls, **options):
    with pytest.raises(AttestationError) as caught:
        check(trace, *crls, **options)
    assert not trace.snapshot()[-1].passed
    return caught.value.finding


def test_a_certificate_without_a_crl_passes_and_the_trace_says_so(trace):
    assert check(trace) == [
        "CN=sensor: no CRL of its issuer is configured",
        "CN=Line: no CRL of its issuer is configured",
    ]


def test_a_certificate_that_is_on_no_list_passes(trace):
    assert check(trace, make_crl(LINE, [OTHER]), make_crl(ROOT)) == [
        "CN=sensor: not on its issuer's CRL",
        "CN=Line: not on its issuer's CRL",
    ]


def test_a_listed_device_is_refused(trace):
    assert refusal(trace, make_crl(LINE, [OTHER, LEAF])) == "certificate-revoked"


def test_a_listed_intermediate_is_refused(trace):
    assert refusal(trace, make_crl(ROOT, [LINE])) == "certificate-revoked"


def test_the_same_serial_on_another_issuers_list_does_not_matter(trace):
    assert check(trace, make_crl(ROOT, [LEAF]))


def test_an_intermediate_that_is_the_anchor_is_looked_up_by_its_issuers_name(trace):
    assert refusal(trace, make_crl(ROOT, [LINE]), path=(LEAF, LINE)) == "certificate-revoked"


def test_a_pinned_certificate_is_looked_up_by_its_issuers_name(trace):
    assert refusal(trace, make_crl(LINE, [LEAF]), path=(LEAF,)) == "certificate-revoked"


def test_an_expired_list_is_no_longer_relied_on(trace):
    crl = make_crl(LINE, next_update=NOW)
    assert check(trace, crl, now=NOW)
    assert refusal(trace, make_crl(LINE, **OUTDATED)) == "crl-expired"


def test_an_expired_list_still_revokes_what_it_lists(trace):
    assert refusal(trace, make_crl(LINE, [LEAF], **OUTDATED)) == "certificate-revoked"


def test_a_current_list_beside_an_expired_one_is_enough(trace):
    assert check(trace, make_crl(LINE, **OUTDATED), make_crl(LINE))


def test_a_list_from_the_future_is_not_relied_on(trace):
    assert refusal(trace, make_crl(LINE, last_update=NOW + DAY)) == "crl-not-yet-valid"


def test_a_list_that_another_key_signed_is_not_relied_on(trace):
    assert refusal(trace, make_crl(LINE, signer=make_key())) == "crl-signature"
    assert check(trace, make_crl(LINE, signer=make_key()), make_crl(LINE))


def test_a_list_of_a_ca_that_may_not_sign_lists_is_not_relied_on(trace):
    ca = make_ca("No lists", extensions=[(make_key_usage("key_cert_sign"), True)])
    assert refusal(trace, make_crl(ca), path=(make_leaf("sensor", ca), ca)) == "crl-signature"


@pytest.mark.parametrize("extensions", [DELTA, PARTITION, UNKNOWN], ids=["delta", "partitioned", "unknown"])
def test_a_list_that_is_not_complete_is_refused_when_read_and_when_used(extensions, trace):
    crl = make_crl(LINE, extensions=extensions)
    assert refusal(trace, crl) == "crl-unsupported"
    with pytest.raises(InvalidArgument, match="cannot be used"):
        load_crl(crl)


def test_a_crl_file_is_pem_or_der():
    crl = make_crl(LINE)
    assert load_crl(crl) == crl
    assert load_crl(x509.load_der_x509_crl(crl).public_bytes(Encoding.PEM)) == crl


@pytest.mark.parametrize("content", [b"", b"\x30\x00", b"-----BEGIN X509 CRL-----\n", LEAF.pem, LEAF.der])
def test_anything_else_is_not_a_crl(content):
    with pytest.raises(InvalidArgument):
        load_crl(content)


def test_an_oversized_crl_file_is_refused():
    with pytest.raises(InvalidArgument, match="bytes"):
        load_crl(bytes(CRL_MAX_SIZE_BYTES + 1))


def test_a_truncated_crl_is_refused_at_every_octet():
    crl = make_crl(LINE, [LEAF])
    for size in range(len(crl)):
        with pytest.raises(InvalidArgument):
            load_crl(crl[:size])
