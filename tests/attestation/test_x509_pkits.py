"""NIST's PKITS, replayed as devices: nothing that it calls invalid is accepted where its revocation status is known.

The suite is about paths: what its certificates say of policies, of directory names and of CRLs that cover a part of the
certificates is not understood here, and critical: refused. A CA without a usable list is not checked for revocation; a
list that cannot be used is refused when it is configured.
"""

import warnings
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import cryptography_vectors
import pytest
from cryptography import x509 as library

from provisiond.attestation.certificate import check_key, check_validity, parse_certificate
from provisiond.attestation.certificate_extensions import check_leaf_extensions, check_name_constraints, extension_of
from provisiond.attestation.certification_path import build_shortest_path, check_issuer_key
from provisiond.attestation.revocation import check_revocation, load_crl
from provisiond.errors import AttestationError, InvalidArgument
from provisiond.model import Trace

SUITE = Path(cryptography_vectors.__file__).parent / "x509" / "PKITS_data"
CERTIFICATES = {file.stem: file.read_bytes() for file in (SUITE / "certs").glob("*.crt")}
LISTS = {file.stem: file.read_bytes() for file in (SUITE / "crls").glob("*.crl")}
ANCHOR = CERTIFICATES["TrustAnchorRootCertificate"]
NOW = datetime(2020, 1, 1, tzinfo=UTC)
INVALID = sorted(name for name in CERTIFICATES if name.startswith("Invalid") and name.endswith("EE"))
VALID = sorted(name for name in CERTIFICATES if name.startswith("Valid") and name.endswith("EE"))

NO_STATUS = {
    "there is no list of this CA": {"MissingCRLTest1"},
    "the list is of another CA, or of another key": {
        "BadCRLIssuerNameTest5",
        "WrongCRLTest6",
        "IDPwithindirectCRLTest26",
    },
    "the list has a critical extension that nobody knows": {"UnknownCRLExtensionTest9", "UnknownCRLExtensionTest10"},
    "the list is a delta": {"deltaCRLIndicatorNoBaseTest1", "deltaCRLTest4"},
    "the list is indirect": {
        *(f"cRLIssuerTest{number}" for number in (27, 31, 32, 34, 35)),
        "IDPwithindirectCRLTest23",
    },
    "the list covers a part of the certificates, or of the reasons": {
        *(f"distributionPointTest{number}" for number in (2, 3, 6, 8, 9)),
        *(f"onlySomeReasonsTest{number}" for number in (15, 16, 17, 20, 21)),
        "onlyContainsAttributeCertsTest14",
        "onlyContainsCACertsTest12",
    },
}
"""Invalid for nothing but their revocation status, which is not known here: such a list is refused when configured."""

STRICTER = {
    "constraints on directory names and URIs are not supported": ("nameconstraints",),
    "policies are not supported, and these are critical": (
        "policymapping",
        "inhibitanypolicy",
        "requireexplicitpolicy",
    ),
    "names are compared octet for octet": ("namechaining", "rollover", "caseinsensitive"),
    "a CA is not a device": ("pathlenconstrainttest8", "pathlenconstrainttest14", "onlycontainscacertstest13"),
    "self-issued certificates count towards the path length": ("selfissuedpathlen",),
    "DSA is not taken": ("dsa",),
    "the CRL is signed with another key than the certificate": ("basicselfissued", "separatecertificateandcrlkeys"),
    "a time before 2050 is a UTCTime (RFC 5280 4.1.2.5)": ("generalizedtimenotbefore",),
    "of a delta nothing is known, the base says revoked": ("deltacrltest5",),
}
"""Valid, and refused here all the same, by what is in their names in lower case."""


@pytest.fixture(scope="module")
def lists():
    found = []
    for octets in LISTS.values():
        with suppress(InvalidArgument):
            found.append(load_crl(octets))
    return found


@pytest.fixture(scope="module")
def authorities():
    """Every CA certificate that can be read, by its subject."""
    found: dict[bytes, list[bytes]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a serial number of zero
        for name, octets in CERTIFICATES.items():
            if name.endswith("EE") or octets == ANCHOR:
                continue
            try:
                subject = library.load_der_x509_certificate(octets).subject.public_bytes()
                check_issuer_key(parse_certificate(octets))
            except (ValueError, AttestationError):
                continue
            found.setdefault(subject, []).append(octets)
    return found


def issuers_of(certificate, authorities):
    """Whatever may be in a path above a certificate."""
    pool, waiting = {}, [certificate]
    while waiting:
        for octets in authorities.get(waiting.pop().issuer.public_bytes(), ()):
            if octets not in pool:
                pool[octets] = parse_certificate(octets)
                waiting.append(pool[octets])
    return list(pool.values())


def is_accepted(name, authorities, lists):
    try:
        leaf = parse_certificate(CERTIFICATES[name])
        check_validity(leaf, NOW)
        check_key(leaf, what="the key")
        check_leaf_extensions(leaf)
        path = build_shortest_path(leaf, issuers_of(leaf, authorities), [ANCHOR], NOW, max_authorities=9)
        for authority in path[1:]:
            check_name_constraints(extension_of(authority, library.NameConstraints))
        check_revocation(path, crls=lists, revoked=frozenset(), now=NOW, trace=Trace())
    except AttestationError:
        return False
    return True


def test_nothing_invalid_is_accepted_but_where_no_usable_list_says_so(authorities, lists):
    accepted = {name for name in INVALID if is_accepted(name, authorities, lists)}
    excused = {f"Invalid{test}EE" for tests in NO_STATUS.values() for test in tests}
    assert len(INVALID) == 115
    assert accepted == excused


def test_what_is_valid_is_accepted_but_for_the_listed_reasons(authorities, lists):
    refused = {name for name in VALID if not is_accepted(name, authorities, lists)}
    marks = [mark for of_reason in STRICTER.values() for mark in of_reason]
    assert {name for name in refused if not any(mark in name.lower() for mark in marks)} == set()
    assert len(VALID) - len(refused) == 39


def test_a_list_that_cannot_be_used_is_refused_when_it_is_read(lists):
    assert (len(LISTS), len(lists)) == (173, 148)
