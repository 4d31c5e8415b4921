"""Endorsement key certificates: that a key lives in a genuine TPM, on its maker's word.

Source: TCG EK Credential Profile for TPM Family 2.0, clause 3; RFC 5280.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from provisiond.attestation.der import DerTag, read_bit_string, read_exactly, read_object_identifier
from provisiond.attestation.ek_anchor import BASIC_CONSTRAINTS, KEY_CERT_SIGN, KEY_USAGE, check_critical_extensions
from provisiond.attestation.ek_certificate_path import PATH_MAX_CERTIFICATES, check_validity, find_path
from provisiond.attestation.ek_certificate_reader import (
    RawCertificate,
    read_attributes,
    read_basic_constraints,
    read_certificate,
    read_extended_key_usage,
    read_key_usage,
    read_stored_certificate,
)
from provisiond.attestation.examination import examine
from provisiond.attestation.roca import refuse_roca
from provisiond.attestation.tpm import endorsement_key_hash
from provisiond.attestation.tpm_public import TpmPublic
from provisiond.errors import AttestationError
from provisiond.model import Trace

_SUBJECT_ALT_NAME: Final = "2.5.29.17"
_EXTENDED_KEY_USAGE: Final = "2.5.29.37"
_EK_CERTIFICATE: Final = "2.23.133.8.1"
_MANUFACTURER, _MODEL, _VERSION = "2.23.133.2.1", "2.23.133.2.2", "2.23.133.2.3"
_MANUFACTURER_ID: Final = re.compile(r"id:[0-9A-Fa-f]{8}", re.ASCII)
_DIRECTORY_NAME: Final = 0xA4

_RSA_KEYS: Final = frozenset({"1.2.840.113549.1.1.1", "1.2.840.113549.1.1.7"})  # rsaEncryption, id-RSAES-OAEP
_EC_KEY: Final = "1.2.840.10045.2.1"
_CURVES: Final = {32: "1.2.840.10045.3.1.7", 48: "1.3.132.0.34", 66: "1.3.132.0.35"}

_DIGITAL_SIGNATURE, _NON_REPUDIATION, _KEY_ENCIPHERMENT, _KEY_AGREEMENT, _CRL_SIGN = 0, 1, 2, 4, 6
_SIGNING: Final = frozenset({_DIGITAL_SIGNATURE, _NON_REPUDIATION, KEY_CERT_SIGN, _CRL_SIGN})

_PROFILE: Final = "TCG EK Credential Profile 2.0 3"


@dataclass(frozen=True, slots=True, kw_only=True)
class EkDenyList:
    """What is refused however well it is certified, kept by the operator.

    Args:
        endorsement_key_hashes: SHA-256 of TPM2B_PUBLIC (`tpm.endorsement_key_hash`).
        certificate_hashes: SHA-256 of any certificate of a path (DER).
        certificates: SHA-256 of the issuer's Name (DER) and serial number, of any certificate of a path.
        firmware: TPM manufacturer and version, as in the certificate (`id:49465800`, `id:00070002`), in lower case.
    """

    endorsement_key_hashes: frozenset[bytes] = frozenset()
    certificate_hashes: frozenset[bytes] = frozenset()
    certificates: frozenset[tuple[bytes, int]] = frozenset()
    firmware: frozenset[tuple[str, str]] = frozenset()


NOTHING_DENIED: Final = EkDenyList()


@dataclass(frozen=True, slots=True, kw_only=True)
class EkCertificate:
    """A verified endorsement key certificate.

    Args:
        manufacturer: `id:` and 8 hexadecimal digits, the vendor's number in the TCG registry.
        model: the maker's name of the part.
        version: the maker's firmware version.
        issuer: Name, DER.
        anchor_sha256: fingerprint of the configured certificate that the path ends at.
    """

    manufacturer: str
    model: str
    version: str
    serial_number: int
    issuer: bytes
    not_after: datetime
    certificate_sha256: bytes
    anchor_sha256: bytes


def verify_ek_certificate(
    *,
    endorsement_key: TpmPublic,
    unverified_chain: tuple[bytes, ...],
    anchors: Sequence[bytes],
    now: datetime,
    trace: Trace,
    deny: EkDenyList = NOTHING_DENIED,
) -> EkCertificate:
    """Verify that a TPM maker certifies an endorsement key.

    Args:
        endorsement_key: read by `tpm.parse_endorsement_key`.
        unverified_chain: EK certificate first, as stored in the TPM or plain DER; then issuers in any order; at most
            5 of at most 8192 octets.
        anchors: trusted CA certificates, DER: roots or intermediates of TPM makers.
        now: aware UTC.
        trace: where every check is recorded.
        deny: what the operator refuses.

    Raises:
        AttestationError: finding `ek-certificate-missing`, `ek-chain-too-long`, `certificate-encoding`,
            `ek-certificate-key`, `ek-certificate-version`, `ek-certificate-ca`, `ek-certificate-key-usage`,
            `ek-certificate-purpose`, `ek-certificate-subject`, `certificate-critical-extension`,
            `certificate-not-yet-valid`, `certificate-expired`, `ek-denied`, `roca`, `ek-anchors-missing` or
            `ek-certificate-path`.
    """
    leaf, strangers = _read_chain(unverified_chain, trace)
    examine(trace, "ek-certificate-key", lambda: _check_key(leaf, endorsement_key), _PROFILE)
    examine(trace, "ek-certificate-usage", lambda: _check_usage(leaf, endorsement_key), f"{_PROFILE}.5")
    examine(trace, "ek-certificate-purpose", lambda: _check_purpose(leaf), f"{_PROFILE}.5.6")
    manufacturer, model, version = _read_tpm_attributes(leaf, trace)
    examine(trace, "ek-certificate-validity", lambda: _check_validity(leaf, now), "RFC 5280 6.1.3 (a)(2)")
    if deny is not NOTHING_DENIED:
        denied = _denial(endorsement_key, manufacturer, version, deny)
        examine(trace, "ek-deny-list", lambda: _refuse_denied(denied))
    path = find_path(leaf, strangers, anchors=anchors, now=now, trace=trace)
    if deny.certificates or deny.certificate_hashes:
        examine(trace, "ek-certificate-revocation", lambda: _check_revocation(path, deny))
    return EkCertificate(
        manufacturer=manufacturer,
        model=model,
        version=version,
        serial_number=leaf.serial_number,
        issuer=leaf.issuer,
        not_after=leaf.not_after,
        certificate_sha256=hashlib.sha256(leaf.octets).digest(),
        anchor_sha256=hashlib.sha256(path[-1].octets).digest(),
    )


def _read_chain(unverified_chain: tuple[bytes, ...], trace: Trace) -> tuple[RawCertificate, tuple[RawCertificate, ...]]:
    if not unverified_chain:
        trace.failed("ek-certificate", "none was presented", _PROFILE)
        raise AttestationError("no EK certificate was presented", finding="ek-certificate-missing", clause=_PROFILE)
    if len(unverified_chain) > PATH_MAX_CERTIFICATES:
        trace.failed("ek-certificate", f"{len(unverified_chain)} certificates were presented", _PROFILE)
        raise AttestationError(
            f"{len(unverified_chain)} certificates, at most {PATH_MAX_CERTIFICATES}", finding="ek-chain-too-long"
        )
    try:
        leaf = read_stored_certificate(unverified_chain[0])
        strangers = tuple(read_certificate(octets) for octets in unverified_chain[1:])
    except AttestationError as error:
        trace.failed("ek-certificate", str(error), error.clause)
        raise
    issuer = hashlib.sha256(leaf.issuer).hexdigest()  # with the serial number what a deny list takes
    trace.passed("ek-certificate", f"serial number {leaf.serial_number:x}, issuer {issuer}", "RFC 5280 4.1")
    return leaf, strangers


def _check_key(leaf: RawCertificate, endorsement_key: TpmPublic) -> str:
    reader = read_exactly(leaf.spki).reader()
    algorithm = reader.next(DerTag.SEQUENCE).reader()
    identifier = read_object_identifier(algorithm.next())
    key_octets, unused = read_bit_string(reader.next())
    reader.end()
    key, curve = endorsement_key.key, endorsement_key.template.curve
    if isinstance(key, rsa.RSAPublicKey):
        expected = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
        matches = identifier in _RSA_KEYS and key_octets == expected
    elif curve is not None and identifier == _EC_KEY:
        named = read_object_identifier(algorithm.next())
        point = b"\x04" + b"".join(endorsement_key.unique)
        matches = named == _CURVES[curve.coordinate_size_bytes] and key_octets == point
    else:
        matches = False
    if unused or not matches:
        raise AttestationError("it certifies another key", finding="ek-certificate-key", clause=_PROFILE)
    if isinstance(key, rsa.RSAPublicKey):
        refuse_roca(int.from_bytes(endorsement_key.unique[0], "big"), key="endorsement key")
    return "it certifies this endorsement key"


def _check_usage(leaf: RawCertificate, endorsement_key: TpmPublic) -> str:
    if leaf.version != 3:
        raise AttestationError(f"version {leaf.version}", finding="ek-certificate-version", clause=f"{_PROFILE}.2")
    constraints = leaf.extensions.get(BASIC_CONSTRAINTS)
    if constraints is not None and read_basic_constraints(constraints)[0]:
        raise AttestationError("it is a CA certificate", finding="ek-certificate-ca", clause=f"{_PROFILE}.5.3")
    usage = leaf.extensions.get(KEY_USAGE)
    bits = frozenset[int]() if usage is None else read_key_usage(usage)
    needed = _KEY_ENCIPHERMENT if endorsement_key.template.curve is None else _KEY_AGREEMENT
    if needed not in bits or bits & _SIGNING:
        raise AttestationError(
            f"key usage bits {sorted(bits)}: an endorsement key protects keys and signs nothing",
            finding="ek-certificate-key-usage",
            clause=f"{_PROFILE}.5.2",
        )
    check_critical_extensions(leaf)
    return f"no CA, key usage bits {sorted(bits)}"


def _check_purpose(leaf: RawCertificate) -> str:
    """Older parts have no extKeyUsage; one that is there must say what the key is."""
    purposes = leaf.extensions.get(_EXTENDED_KEY_USAGE)
    if purposes is None:
        return "no extended key usage"
    found = read_extended_key_usage(purposes)
    if _EK_CERTIFICATE not in found:
        raise AttestationError(
            f"extended key usage {', '.join(sorted(found))} is not tcg-kp-EKCertificate",
            finding="ek-certificate-purpose",
            clause=f"{_PROFILE}.5.6",
        )
    return "tcg-kp-EKCertificate"


def _read_tpm_attributes(leaf: RawCertificate, trace: Trace) -> tuple[str, str, str]:
    clause = f"{_PROFILE}.5.1"
    try:
        attributes = _find_tpm_attributes(leaf, clause)
    except AttestationError as error:
        trace.failed("ek-certificate-subject", str(error), error.clause)
        raise
    trace.passed("ek-certificate-subject", ", ".join(attributes), clause)
    return attributes


def _find_tpm_attributes(leaf: RawCertificate, clause: str) -> tuple[str, str, str]:
    alternative = leaf.extensions.get(_SUBJECT_ALT_NAME)
    if alternative is None:
        raise AttestationError("no subject alternative name", finding="ek-certificate-subject", clause=clause)
    if leaf.subject_is_empty and not alternative.critical:
        raise AttestationError(
            "an empty subject needs a critical alternative name",
            finding="ek-certificate-subject",
            clause="RFC 5280 4.1.2.6",
        )
    for name in read_exactly(alternative.value).reader().rest():
        if name.tag != _DIRECTORY_NAME:
            continue
        attributes = read_attributes(name.content)
        manufacturer = attributes.get(_MANUFACTURER, "")
        model, version = attributes.get(_MODEL, ""), attributes.get(_VERSION, "")
        if _MANUFACTURER_ID.fullmatch(manufacturer) and model and version:
            return manufacturer, model, version
    raise AttestationError(
        "the alternative name lacks TPM manufacturer, model or version",
        finding="ek-certificate-subject",
        clause=clause,
    )


def _check_validity(leaf: RawCertificate, now: datetime) -> str:
    check_validity(leaf, now)
    return f"until {leaf.not_after:%Y-%m-%d}"


def _denial(endorsement_key: TpmPublic, manufacturer: str, version: str, deny: EkDenyList) -> str:
    if endorsement_key_hash(endorsement_key.tpm2b) in deny.endorsement_key_hashes:
        return "the endorsement key is on the deny list"
    if (manufacturer.lower(), version.lower()) in deny.firmware:
        return f"firmware {manufacturer} {version} is on the deny list"
    return ""


def _refuse_denied(denied: str) -> str:
    if denied:
        raise AttestationError(denied, finding="ek-denied", clause="operator's deny list")
    return "not listed"


def _check_revocation(path: Sequence[RawCertificate], deny: EkDenyList) -> str:
    for certificate in path:
        named = (hashlib.sha256(certificate.issuer).digest(), certificate.serial_number)
        if named in deny.certificates or hashlib.sha256(certificate.octets).digest() in deny.certificate_hashes:
            raise AttestationError(
                f"certificate {certificate.serial_number:x} is on the deny list",
                finding="ek-denied",
                clause="operator's deny list",
            )
    return "no certificate of the path is listed"
