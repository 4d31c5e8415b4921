"""X.509 attestation: the certificate chain of a TLS connection against an enrollment's certificates.

That the device holds the private key of the first certificate was proved in its own TLS handshake. All else is judged
here: an individual enrollment pins the device's certificate itself, an enrollment group vouches for every device with
a valid certification path to its CA certificate.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509

from provisiond.attestation.certificate import (
    check_common_name,
    check_key,
    check_validity,
    describe_issuer,
    describe_subject,
    identity_of,
    names_of,
    parse_certificate,
)
from provisiond.attestation.certificate_extensions import check_leaf_extensions
from provisiond.attestation.certification_path import check_issuer_key, keep_bounded
from provisiond.attestation.enrollable_certificate import (
    check_enrollable_ca_certificate,
    check_enrollable_client_certificate,
    load_certificate,
    load_certificates,
)
from provisiond.attestation.examination import examine, recording_failure
from provisiond.attestation.group_anchor import CREDENTIALS, GroupAnchor, find_decisive, find_path, read_anchors
from provisiond.attestation.revocation import check_revocation
from provisiond.errors import AttestationError
from provisiond.model import AttestationType, Enrollment, RegistrationId, Trace, Verified, X509Material

__all__ = [
    "DEFAULT_LIMITS",
    "X509Limits",
    "certificate_identity",
    "check_enrollable_ca_certificate",
    "check_enrollable_client_certificate",
    "issuer_hashes",
    "load_certificate",
    "load_certificates",
    "subject_hash",
    "verify_group",
    "verify_individual",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Limits:
    """How much of a presented chain is looked at; a device with more is refused.

    Args:
        max_chain: CA certificates above the device's in a path, the group's own included; 1 to 8. Five is a root, three
            intermediates and one to spare.
        max_certificates: certificates a device may present. Six is the longest path and its leaf.
        max_chain_size_bytes: DER bytes of all of them. 16 KiB holds six of RSA-4096.
    """

    max_chain: int = 5
    max_certificates: int = 6
    max_chain_size_bytes: int = 16384


DEFAULT_LIMITS: Final = X509Limits()


def subject_hash(certificate_der: bytes) -> bytes:
    """What a CA group's certificate is found under: SHA-256 of its DER subject Name, 32 bytes.

    Raises:
        AttestationError: finding `certificate-malformed` or `certificate-version`.
    """
    return names_of(parse_certificate(certificate_der)).subject_hash


def issuer_hashes(unverified_chain: tuple[bytes, ...]) -> frozenset[bytes]:
    """What to look for CA groups under: SHA-256 of the DER subject and issuer of every presented certificate.

    Certificates that cannot be read, and those beyond the default limit (which verification refuses), are left out.
    """
    hashes: set[bytes] = set()
    for certificate_der in unverified_chain[: DEFAULT_LIMITS.max_certificates]:
        try:
            certificate = parse_certificate(certificate_der)
        except AttestationError:
            continue
        names = names_of(certificate)
        hashes |= {names.subject_hash, names.issuer_hash}
    return frozenset(hashes)


def certificate_identity(certificate_der: bytes) -> bytes:
    """SHA-256 over the DER issuer and the serial number: the key for deny lists and uniqueness, never the thumbprint.

    Raises:
        AttestationError: finding `certificate-malformed` or `certificate-version`.
    """
    return identity_of(parse_certificate(certificate_der))


def verify_individual(
    *,
    enrollment: Enrollment,
    claimed_id: RegistrationId,
    unverified_chain: tuple[bytes, ...],
    now: datetime,
    trace: Trace,
    limits: X509Limits = DEFAULT_LIMITS,
    crls: Sequence[bytes] = (),
) -> Verified:
    """Verify a device against the certificate that its individual enrollment pins.

    The presented certificate must be the enrollment's primary or secondary one, octet for octet; who issued it does not
    matter. It must also be valid, bear the registration id as its common name, and be fit for a client.

    Args:
        enrollment: individual, X.509; a disabled one is verified as well, and is for the caller to turn down.
        claimed_id: who the device says it is.
        unverified_chain: DER, the device's certificate first; what follows does not matter.
        now: aware UTC.
        trace: hears of every check.
        limits: of the chain.
        crls: DER; one in the name of the certificate's issuer is believed as the operator's own word.

    Raises:
        AttestationError: findings `attestation-type`, `certificate-missing`, `chain-limits`, `certificate-pinned`,
            those of `certificate` and `certificate_extensions`, and of `revocation`.
    """
    material = _material_of(enrollment, trace)
    examine(trace, "chain-limits", lambda: _check_limits(unverified_chain, limits))
    leaf_der = unverified_chain[0]
    examine(trace, "certificate-pinned", lambda: _check_pinned(leaf_der, material), "Azure DPS X.509 attestation")
    leaf = _check_device_certificate(leaf_der, claimed_id, now, trace, pinned=True)
    check_revocation((leaf,), crls=crls, revoked=frozenset(), now=now, trace=trace)
    return _verified(claimed_id, enrollment, CREDENTIALS[material.certificates.index(leaf_der)], leaf_der)


def verify_group(
    *,
    groups: Sequence[Enrollment],
    claimed_id: RegistrationId,
    unverified_chain: tuple[bytes, ...],
    now: datetime,
    trace: Trace,
    limits: X509Limits = DEFAULT_LIMITS,
    crls: Sequence[bytes] = (),
    revoked: frozenset[bytes] = frozenset(),
) -> Verified:
    """Verify a device against the enrollment groups whose CA certificates could vouch for it.

    The group nearest to the device's certificate decides. A disabled group blocks as long as it is as near as the
    nearest enabled one, and also when its CA certificate was issued anew and only the new one was presented: the same
    subject and key are the same authority.

    Args:
        groups: candidates, enabled and disabled; those with other attestation are passed over.
        claimed_id: who the device says it is.
        unverified_chain: DER, the device's certificate first, then intermediates in any order; the root and
            unrelated ones may be among them.
        now: aware UTC.
        trace: hears of every check.
        limits: of the chain and the path.
        crls: DER, checked along the path.
        revoked: `certificate_identity` of certificates that are refused without a CRL.

    Returns:
        The proof; its enrollment may be disabled, which is for the caller to turn down.

    Raises:
        AttestationError: findings `certificate-missing`, `chain-limits`, `ca-not-enrolled`, `path-invalid`,
            `issuer-missing`, `issuer-lookalike`, `issuer-unusable`, `name-constraints-unsupported`, those of
            `certificate` and `certificate_extensions`, and of `revocation`.
    """
    examine(trace, "chain-limits", lambda: _check_limits(unverified_chain, limits))
    leaf = _check_device_certificate(unverified_chain[0], claimed_id, now, trace)
    issuers = _read_issuers(unverified_chain[1:], trace)
    anchors = _enrolled_anchors(groups, leaf, trace)
    issuers = keep_bounded(issuers, [anchor.certificate_der for anchor in anchors])
    path = find_path(leaf, issuers, anchors, now, trace, max_authorities=limits.max_chain)
    check_revocation(path, crls=crls, revoked=revoked, now=now, trace=trace)
    decisive = find_decisive(leaf, issuers, anchors, path, now)
    state = decisive.group.provisioning_status
    trace.passed("enrollment-group", f"group {decisive.group.id} ({state}) is the nearest: {decisive.credential}")
    return _verified(claimed_id, decisive.group, decisive.credential, unverified_chain[0])


def _verified(claimed_id: RegistrationId, enrollment: Enrollment, credential: str, leaf_der: bytes) -> Verified:
    return Verified(
        registration_id=claimed_id,
        enrollment=enrollment,
        attestation_type=AttestationType.X509,
        credential=credential,
        certificate_der=leaf_der,
    )


def _enrolled_anchors(groups: Sequence[Enrollment], leaf: x509.Certificate, trace: Trace) -> tuple[GroupAnchor, ...]:
    anchors = read_anchors(groups, trace)
    if not anchors:
        reason = f"no enrollment group has a CA certificate for the issuer {describe_issuer(leaf)}"
        trace.failed("certification-path", reason)
        raise AttestationError(reason, finding="ca-not-enrolled")
    return anchors


def _material_of(enrollment: Enrollment, trace: Trace) -> X509Material:
    if isinstance(enrollment.attestation, X509Material):
        return enrollment.attestation
    reason = f"the device presents a certificate, its enrollment wants {enrollment.attestation_type}"
    trace.failed("attestation-type", reason)
    raise AttestationError(reason, finding="attestation-type")


def _check_limits(unverified_chain: tuple[bytes, ...], limits: X509Limits) -> str:
    count, size_bytes = len(unverified_chain), sum(map(len, unverified_chain))
    if count == 0:
        raise AttestationError("the device presented no certificate", finding="certificate-missing")
    if count > limits.max_certificates or size_bytes > limits.max_chain_size_bytes:
        raise AttestationError(
            f"the device presented {count} certificates of {size_bytes} bytes; "
            f"the limits are {limits.max_certificates} and {limits.max_chain_size_bytes}",
            finding="chain-limits",
        )
    return f"{count} certificates of {size_bytes} bytes"


def _check_pinned(leaf_der: bytes, material: X509Material) -> str:
    thumbprint = hashlib.sha256(leaf_der).hexdigest()
    if leaf_der not in material.certificates:
        enrolled = ", ".join(hashlib.sha256(der).hexdigest() for der in material.certificates)
        raise AttestationError(
            f"the presented certificate (SHA-256 {thumbprint}) is not the enrolled one ({enrolled})",
            finding="certificate-pinned",
            clause="Azure DPS X.509 attestation",
        )
    return f"the enrollment's {CREDENTIALS[material.certificates.index(leaf_der)]}, SHA-256 {thumbprint}"


def _check_device_certificate(
    leaf_der: bytes, claimed_id: RegistrationId, now: datetime, trace: Trace, *, pinned: bool = False
) -> x509.Certificate:
    with recording_failure(trace, "certificate-readable"):
        leaf = parse_certificate(leaf_der, "the device's certificate")
        finding = f"{describe_subject(leaf)}, issued by {describe_issuer(leaf)}"
    trace.passed("certificate-readable", finding, "RFC 5280 4.1")
    examine(trace, "certificate-common-name", lambda: check_common_name(leaf, claimed_id))
    examine(trace, "certificate-validity", lambda: check_validity(leaf, now, "the device's certificate"))
    examine(trace, "certificate-key", lambda: check_key(leaf, what="the device's key"))
    examine(trace, "certificate-extensions", lambda: check_leaf_extensions(leaf, pinned=pinned), "RFC 5280 4.2")
    return leaf


def _read_issuers(unverified_issuers: tuple[bytes, ...], trace: Trace) -> tuple[x509.Certificate, ...]:
    issuers = []
    for certificate_der in dict.fromkeys(unverified_issuers):
        try:
            issuer = parse_certificate(certificate_der, "a presented certificate")
            check_issuer_key(issuer)
        except AttestationError as error:
            trace.failed("presented-certificate", f"left out of path building: {error}", error.clause)
        else:
            issuers.append(issuer)
    return tuple(issuers)
