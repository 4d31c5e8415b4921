"""The x509-limbo corpus, replayed as devices that meet our path building.

Most of its cases are web servers. They are replayed with serverAuth in the place of clientAuth, so that they reach path
building instead of failing on their purpose; what they expect of names is matched here, as it is none of our business.
Every difference from the corpus is listed with its reason, and none is a forged, expired or wrong-CA path.
"""

import gzip
import ipaddress
import json
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509 as library
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from provisiond.attestation import certificate_extensions, x509
from provisiond.attestation.certificate import check_key, check_validity, parse_certificate
from provisiond.attestation.certificate_extensions import check_leaf_extensions, check_name_constraints, extension_of
from provisiond.attestation.certification_path import build_shortest_path, check_issuer_key, parse_anchor
from provisiond.attestation.revocation import check_revocation
from provisiond.errors import AttestationError, MalformedRequest
from provisiond.model import RegistrationId, Trace, X509Material
from tests.enrollment_factory import group

CORPUS = Path(__file__).parents[2] / "../shared/data/limbo-slim.json.gz"

pytestmark = pytest.mark.skipif(not CORPUS.exists(), reason="the x509-limbo corpus is not beside the checkout")

PROFILE = "a rule of a certificate profile that devices' CAs do not keep; it proves nothing about the path"
NAMES = "how a web server's CN relates to its SAN; the common name is the identity here, and the SAN is not looked at"
SAN_FORM = "how a SAN is written or which wildcard it holds; the SAN is not looked at"
WEB = "a rule of the web's profile about usages; a device may leave its usages out, or mark them critical"
RSA_BITS = "RSA sizes that are no multiple of 8, of 2048 bits and more"

ACCEPTED = {
    "crl::crlnumber-missing": "hand-made CRLs often have no number, and nothing here needs it",
    "rfc5280::aki::leaf-missing-aki": PROFILE,
    "rfc5280::aki::intermediate-missing-aki": PROFILE,
    "rfc5280::aki::cross-signed-root-missing-aki": PROFILE,
    "rfc5280::nc::permitted-dns-match-noncritical": "the constraint is applied; only its mark is missing",
    "rfc5280::pc::ica-noncritical-pc": "certificate policies are not used, and the extension is not critical",
    "rfc5280::san::noncritical-with-empty-subject": SAN_FORM,
    "rfc5280::san::underscore-dns": SAN_FORM,
    "rfc5280::serial::zero": PROFILE,
    "rfc5280::ski::root-missing-ski": PROFILE,
    "rfc5280::ski::intermediate-missing-ski": PROFILE,
    "rfc5280::root-non-critical-basic-constraints": "old roots have it so; CA:TRUE is what counts",
    "webpki::aki::root-with-aki-all-fields": PROFILE,
    "webpki::aki::root-with-aki-ski-mismatch": PROFILE,
    "webpki::cn::ipv4-hex-mismatch": NAMES,
    "webpki::cn::ipv4-leading-zeros-mismatch": NAMES,
    "webpki::cn::ipv6-uppercase-mismatch": NAMES,
    "webpki::cn::ipv6-uncompressed-mismatch": NAMES,
    "webpki::cn::ipv6-non-rfc5952-mismatch": NAMES,
    "webpki::cn::punycode-not-in-san": NAMES,
    "webpki::cn::utf8-vs-punycode-mismatch": NAMES,
    "webpki::cn::not-in-san": NAMES,
    "webpki::cn::case-mismatch": NAMES,
    "webpki::eku::ee-anyeku": WEB,
    "webpki::eku::ee-critical-eku": WEB,
    "webpki::eku::ee-without-eku": WEB,
    "webpki::eku::root-has-eku": WEB,
    "webpki::san::public-suffix-wildcard-san": SAN_FORM,
    "webpki::san::public-suffix-multi-label-wildcard-san": SAN_FORM,
    "webpki::san::public-suffix-private-namespace-wildcard-san": SAN_FORM,
    "webpki::san::san-critical-with-nonempty-subject": SAN_FORM,
    "webpki::forbidden-rsa-not-divisible-by-8-in-root": RSA_BITS,
    "webpki::forbidden-rsa-key-not-divisible-by-8-in-leaf": RSA_BITS,
}
"""Accepted here although the corpus refuses them."""

REFUSED = {
    "pathlen::validation-ignores-pathlen-in-leaf": "its leaf is a CA; a CA is not a device",
    "rfc5280::ca-as-leaf": "a CA is not a device",
    "pathlen::self-issued-certs-pathlen": "the library counts self-issued certificates towards the path length",
    "pathlen::max-chain-depth-1-self-issued": "the library counts self-issued certificates towards the path length",
    "rfc5280::nc::permitted-dn-match": "constraints on directory names are not supported",
}
"""Refused here although the corpus accepts them."""


def load_cases():
    with gzip.open(CORPUS) as file:
        return json.load(file)["testcases"]


@pytest.fixture(scope="module")
def cases():
    return load_cases()


def der(pem):
    return ssl.PEM_cert_to_DER_cert(pem)


def time_of(case):
    return datetime.fromisoformat(case["validation_time"]) if case["validation_time"] else datetime.now(UTC)


def max_authorities_of(case):
    """The corpus counts intermediates; eight is the library's default."""
    return (8 if case["max_chain_depth"] is None else case["max_chain_depth"]) + 1


def crls_of(case):
    return [library.load_pem_x509_crl(pem.encode()).public_bytes(Encoding.DER) for pem in case["crls"]]


def set_purpose(monkeypatch, case):
    client = case["validation_kind"] == "CLIENT"
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
    monkeypatch.setattr(certificate_extensions, "CLIENT_AUTH", purpose)


def readable(pems, check):
    """Those that pass the check; the rest is left out, as a verification does."""
    kept = []
    for pem in pems:
        try:
            check(der(pem))
        except AttestationError:
            continue
        kept.append(der(pem))
    return kept


def judge_path(case):
    """Everything that a group verification does but the common name; raises AttestationError."""
    now = time_of(case)
    leaf = parse_certificate(der(case["peer_certificate"]))
    check_validity(leaf, now)
    check_key(leaf, what="the key")
    check_leaf_extensions(leaf)
    issuers = readable(case["untrusted_intermediates"], lambda one: check_issuer_key(parse_certificate(one)))
    anchors = readable(case["trusted_certs"], parse_anchor)
    if not anchors:
        raise AttestationError("no anchor can be read", finding="no-anchor")
    most = max_authorities_of(case)
    path = build_shortest_path(leaf, [*map(parse_certificate, issuers)], anchors, now, max_authorities=most)
    for authority in path[1:]:
        check_name_constraints(extension_of(authority, library.NameConstraints))
    check_revocation(path, crls=crls_of(case), revoked=frozenset(), now=now, trace=Trace())
    return leaf


def bears_name(leaf, name):
    names = extension_of(leaf, library.SubjectAlternativeName)
    if names is None:
        return False
    match name["kind"], name["value"].lower():
        case "DNS", value:
            wildcard = "*." + value.partition(".")[2]
            return any(found.lower() in (value, wildcard) for found in names.get_values_for_type(library.DNSName))
        case "IP", value:
            return ipaddress.ip_address(value) in names.get_values_for_type(library.IPAddress)
        case _, value:
            return value in names.get_values_for_type(library.RFC822Name)


def judge(case):
    """`SUCCESS` or `FAILURE`, as the corpus counts."""
    try:
        leaf = judge_path(case)
    except AttestationError:
        return "FAILURE"
    names = [case["expected_peer_name"]] if case["expected_peer_name"] else case["expected_peer_names"]
    return "SUCCESS" if all(bears_name(leaf, name) for name in names) else "FAILURE"


def verify_whole(case):
    """The case through the public verification of groups, claiming its common name; True when accepted."""
    chain = (der(case["peer_certificate"]), *map(der, case["untrusted_intermediates"]))
    try:
        subject = parse_certificate(chain[0]).subject
        claimed_id = RegistrationId.parse(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
        x509.verify_group(
            groups=[group(f"g{i}", X509Material(primary_der=der(pem))) for i, pem in enumerate(case["trusted_certs"])],
            claimed_id=claimed_id,
            unverified_chain=chain,
            now=time_of(case),
            trace=Trace(),
            limits=x509.X509Limits(max_chain=max_authorities_of(case)),
            crls=crls_of(case),
        )
    except (AttestationError, MalformedRequest, IndexError):
        return False
    return True


def test_no_case_differs_but_those_that_are_listed_with_their_reason(cases, monkeypatch):
    differences = {"SUCCESS": set(), "FAILURE": set()}
    for case in cases:
        set_purpose(monkeypatch, case)
        found = judge(case)
        if found != case["expected_result"]:
            differences[found].add(case["id"])
    assert differences["SUCCESS"] == set(ACCEPTED)
    assert differences["FAILURE"] == set(REFUSED)


def test_the_client_cases_agree_through_the_whole_group_verification(cases, monkeypatch):
    clients = [case for case in cases if case["validation_kind"] == "CLIENT"]
    assert len(clients) == 10
    for case in clients:
        set_purpose(monkeypatch, case)
        assert verify_whole(case) == (case["expected_result"] == "SUCCESS"), case["id"]


def test_the_whole_group_verification_accepts_nothing_that_its_parts_refuse(cases, monkeypatch):
    accepted = 0
    for case in cases:
        set_purpose(monkeypatch, case)
        if verify_whole(case):
            judge_path(case)
            accepted += 1
    assert accepted > 60
