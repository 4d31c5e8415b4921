"""Certification paths (RFC 5280 6.1): from a device's certificate up to a trust anchor, by the library's path building.

The extension rules are the library's web defaults with five rules replaced for devices and three for authorities: a
device's certificate needs no subjectAltName and an old root needs no keyUsage, but whatever is there must fit. A
replaced rule replaces the library's own check as well, so each one says everything that it stands for.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import verification

from provisiond.attestation import certificate_extensions as rules
from provisiond.attestation.certificate import (
    brief,
    check_key,
    check_validity,
    describe_issuer,
    describe_subject,
    parse_certificate,
    reading,
)
from provisiond.errors import AttestationError

Path = tuple[x509.Certificate, ...]
"""Device's certificate first, trust anchor last; two or more."""

_CLAUSE: Final = "RFC 5280 6.1"
_CACHED_ANCHORS: Final = 512  # twice the CA certificates of 100 groups, with room for their rotation; about 4 KiB each
_BROKEN_HASHES: Final = (hashes.MD5, hashes.SHA1)
_AGNOSTIC: Final = verification.Criticality.AGNOSTIC
_NON_CRITICAL: Final = verification.Criticality.NON_CRITICAL


def _device_policy() -> verification.ExtensionPolicy:
    policy = verification.ExtensionPolicy.webpki_defaults_ee()
    policy = policy.may_be_present(x509.SubjectAlternativeName, _AGNOSTIC, None)
    policy = policy.may_be_present(x509.AuthorityKeyIdentifier, _NON_CRITICAL, None)
    policy = policy.may_be_present(
        x509.KeyUsage, _AGNOSTIC, lambda _policy, _certificate, extension: rules.check_leaf_key_usage(extension)
    )
    policy = policy.may_be_present(
        x509.BasicConstraints,
        _AGNOSTIC,
        lambda _policy, _certificate, extension: rules.check_leaf_basic_constraints(extension),
    )
    return policy.may_be_present(
        x509.ExtendedKeyUsage,
        _AGNOSTIC,
        lambda _policy, _certificate, extension: rules.check_leaf_extended_key_usage(extension),
    )


def _authority_policy() -> verification.ExtensionPolicy:
    policy = verification.ExtensionPolicy.webpki_defaults_ca()
    policy = policy.may_be_present(
        x509.KeyUsage, _AGNOSTIC, lambda _policy, _certificate, extension: rules.check_ca_key_usage(extension)
    )
    policy = policy.require_present(
        x509.BasicConstraints,
        _AGNOSTIC,
        lambda _policy, _certificate, extension: rules.check_ca_basic_constraints(extension),
    )
    return policy.may_be_present(
        x509.ExtendedKeyUsage,
        _AGNOSTIC,
        lambda _policy, _certificate, extension: rules.check_ca_extended_key_usage(extension),
    )


_DEVICE_POLICY: Final = _device_policy()
_AUTHORITY_POLICY: Final = _authority_policy()


@lru_cache(maxsize=_CACHED_ANCHORS)
def parse_anchor(certificate_der: bytes) -> x509.Certificate:
    """Read a CA certificate of an enrollment; read once, however many devices it vouches for.

    Raises:
        AttestationError: finding `certificate-malformed`, `certificate-version`.
    """
    return parse_certificate(certificate_der, "the enrollment's CA certificate")


@lru_cache(maxsize=_CACHED_ANCHORS)
def _store_of(anchors_der: frozenset[bytes]) -> verification.Store:
    return verification.Store([parse_anchor(anchor_der) for anchor_der in sorted(anchors_der)])


def build_path(
    leaf: x509.Certificate,
    unverified_issuers: Sequence[x509.Certificate],
    anchors_der: Iterable[bytes],
    now: datetime,
    *,
    max_authorities: int,
) -> Path:
    """Build and verify one path from the leaf to any of the anchors.

    The library bounds the work: 128 signatures a call, however the presented certificates name each other.

    Args:
        leaf: the device's certificate.
        unverified_issuers: what else the device presented, in any order.
        anchors_der: CA certificates to end at, roots or intermediates; at least one. Their own validity counts too.
        now: the time to judge at.
        max_authorities: CA certificates above the leaf, the anchor included; 1 or more.

    Raises:
        AttestationError: finding `path-invalid`; `certificate-malformed` when the library cannot read something.
    """
    store = _store_of(frozenset(anchors_der))
    with reading("the presented chain"):
        # The library fixes the time when the verifier is built, so only the store is kept from call to call.
        builder = verification.PolicyBuilder().store(store).time(now).max_chain_depth(max_authorities - 1)
        builder = builder.extension_policies(ca_policy=_AUTHORITY_POLICY, ee_policy=_DEVICE_POLICY)
        try:
            path = tuple(builder.build_client_verifier().verify(leaf, list(unverified_issuers)).chain)
        except verification.VerificationError as error:
            raise AttestationError(brief(error), finding="path-invalid", clause=_CLAUSE) from error
    if len(path) < 2:
        raise AttestationError("the path ends at the device's own certificate", finding="path-invalid", clause=_CLAUSE)
    return path


def build_shortest_path(
    leaf: x509.Certificate,
    unverified_issuers: Sequence[x509.Certificate],
    anchors_der: Iterable[bytes],
    now: datetime,
    *,
    max_authorities: int,
) -> Path:
    """Build the path to the anchor nearest to the leaf; arguments and errors of `build_path`."""
    anchors = frozenset(anchors_der)
    path = build_path(leaf, unverified_issuers, anchors, now, max_authorities=max_authorities)
    if len(anchors) == 1:
        return path
    # The library returns the first path it finds, by key identifiers and order: a nearer anchor may be left.
    for fewer in range(1, len(path) - 1):
        try:
            return build_path(leaf, unverified_issuers, anchors, now, max_authorities=fewer)
        except AttestationError:
            continue
    return path


def keep_bounded(unverified_issuers: Sequence[x509.Certificate], anchors_der: Iterable[bytes]) -> Path:
    """Leave out what would make path building expensive without ever leading to an anchor.

    A chain whose subjects all differ and that constrains no names is walked once, whatever it says. Otherwise a
    stranger's certificates can certify each other in circles, or carry thousands of constraints (60 to 250 ms a try):
    then only those stay that an anchor certified, directly or through another of them.

    Args:
        unverified_issuers: what the device presented besides its own certificate.
        anchors_der: CA certificates of the candidate groups.
    """
    subjects = {issuer.subject.public_bytes() for issuer in unverified_issuers}
    constrained = any(rules.extension_of(issuer, x509.NameConstraints) is not None for issuer in unverified_issuers)
    if len(subjects) == len(unverified_issuers) and not constrained:
        return tuple(unverified_issuers)
    certified: list[x509.Certificate] = []
    rest = list(unverified_issuers)
    signers = [parse_anchor(anchor_der) for anchor_der in anchors_der]
    while signers:
        signers = [issuer for issuer in rest if any(_is_certified_by(issuer, signer) for signer in signers)]
        rest = [issuer for issuer in rest if issuer not in signers]
        certified += signers
    return tuple(certified)


def _is_certified_by(certificate: x509.Certificate, signer: x509.Certificate) -> bool:
    try:
        _check_signature(certificate, signer, "")
    except AttestationError:
        return False
    return True


def explain_failure(
    leaf: x509.Certificate,
    unverified_issuers: Sequence[x509.Certificate],
    anchors_der: Iterable[bytes],
    now: datetime,
    failure: AttestationError,
) -> AttestationError:
    """Find out for the operator why there is no path; decides nothing.

    Walks up by names from the leaf until a certificate has no usable issuer, and says what is wrong with those that
    bear the name.

    Args:
        leaf: as given to `build_path`.
        unverified_issuers: as given to `build_path`.
        anchors_der: as given to `build_path`.
        now: as given to `build_path`.
        failure: what `build_path` raised.

    Returns:
        findings `issuer-missing`, `issuer-lookalike` (same name, other key), `issuer-unusable` (validity, key or
        extensions of the issuer, kind of signature), or `failure` itself: no certificate is at fault on the way to an
        anchor, so it is the path as a whole. Where another issuer of the name led further up and still to no anchor,
        what was wrong with the one that was passed over.
    """
    anchors = [parse_anchor(anchor_der) for anchor_der in sorted(anchors_der)]
    candidates = [*anchors, *unverified_issuers]
    certificate, passed_over = leaf, failure
    while certificate is leaf or certificate.subject != certificate.issuer:
        issuers = [candidate for candidate in candidates if candidate.subject == certificate.issuer]
        if not issuers:
            return _issuer_missing(certificate)
        faults = [_fault_of(issuer, certificate, now) for issuer in issuers]
        if None not in faults:
            return next(filter(None, faults))
        passed_over = next(filter(None, faults), passed_over)
        certificate = issuers[faults.index(None)]
        if certificate in anchors:
            return failure
        candidates.remove(certificate)
    return passed_over


def _issuer_missing(certificate: x509.Certificate) -> AttestationError:
    return AttestationError(
        f"neither the device nor an enrollment brings {describe_issuer(certificate)}, which issued "
        f"{describe_subject(certificate)}: the device must present its intermediate certificates, too",
        finding="issuer-missing",
        clause=_CLAUSE,
    )


def _fault_of(issuer: x509.Certificate, certificate: x509.Certificate, now: datetime) -> AttestationError | None:
    name = f"the CA certificate {describe_subject(issuer)}"
    try:
        _check_signature(certificate, issuer, name)
        check_issuer_key(issuer)
        check_validity(issuer, now, name)
        rules.check_ca_extensions(issuer)
    except AttestationError as fault:
        if fault.finding == "issuer-lookalike":
            return fault
        return AttestationError(f"{name} cannot be used: {fault}", finding="issuer-unusable", clause=fault.clause)
    return None


def _check_signature(certificate: x509.Certificate, issuer: x509.Certificate, name: str) -> None:
    with reading(f"the signature on {describe_subject(certificate)}"):
        hash_algorithm = certificate.signature_hash_algorithm
        if isinstance(hash_algorithm, _BROKEN_HASHES):
            reason = f"the signature on {describe_subject(certificate)} is made with {hash_algorithm.name.upper()}"
            raise AttestationError(f"{reason}; SHA-256 or a longer one is needed", finding="issuer-unusable")
        try:
            certificate.verify_directly_issued_by(issuer)
        except InvalidSignature as error:
            reason = f"{name} has the name of the issuer of {describe_subject(certificate)}, but another key"
            raise AttestationError(reason, finding="issuer-lookalike", clause="RFC 5280 6.1.3 (a)(1)") from error


def check_issuer_key(issuer: x509.Certificate) -> str:
    """Require a key that the library verifies signatures of: RSA or P-256/384/521, not Ed25519.

    Returns:
        The finding for the trace.

    Raises:
        AttestationError: finding `certificate-key`.
    """
    return check_key(issuer, what="the CA's key", ed25519_allowed=False)
