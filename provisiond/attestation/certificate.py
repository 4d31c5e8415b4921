"""One X.509 certificate on its own: reading it, naming it, its validity and its key.

What is read here comes from whoever connected: every fault of a certificate, of whatever type the library raises it,
leaves as an AttestationError.
"""

import hashlib
import warnings
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from types import TracebackType
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from provisiond.errors import AttestationError, MalformedRequest
from provisiond.model import RegistrationId

RSA_MIN_SIZE_BITS: Final = 2048
RSA_MAX_SIZE_BITS: Final = 4096  # a longer key buys nothing here and lets a stranger spend our time on signatures
_KEPT_CERTIFICATES: Final = 256  # a device comes back with the same chain to ask how it is doing
_KEPT_SIZE_BYTES: Final = 2048  # RSA-4096 with the usual extensions; a stranger's larger ones are not worth the memory
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


class reading:  # noqa: N801 - a context manager like contextlib's, at a quarter of the time; there are 20 a device
    """Turn whatever the library raises over hostile bytes into an AttestationError.

    Raises:
        AttestationError: finding `certificate-malformed`.
    """

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Hostile bytes, parsed lazily: the types are many and not documented, and each means refuse.
        if isinstance(error, Exception) and not isinstance(error, AttestationError):
            raise AttestationError(
                f"{self._what} cannot be read: {type(error).__name__}: {brief(error)}",
                finding="certificate-malformed",
                clause="RFC 5280 4.1",
            ) from error


def parse_certificate(certificate_der: bytes, what: str = "the certificate") -> x509.Certificate:
    """Read one DER certificate, whole: version, names, serial, key and extensions.

    Args:
        certificate_der: exactly one Certificate, no trailing bytes.
        what: what to call it in the reason.

    Raises:
        AttestationError: finding `certificate-malformed` or `certificate-version` (only v3 has extensions to judge).
    """
    with reading(what):
        parse = _parse_and_keep if len(certificate_der) <= _KEPT_SIZE_BYTES else _parse
        certificate = parse(certificate_der)
        if certificate.version is x509.Version.v3:
            return certificate
    raise AttestationError(
        f"{what} is not an X.509 version 3 certificate", finding="certificate-version", clause="RFC 5280 4.1.2.1"
    )


def _parse(certificate_der: bytes) -> x509.Certificate:
    with warnings.catch_warnings(
        action="ignore"
    ):  # or a stranger writes to our stderr, with a name of over 64 characters
        certificate = x509.load_der_x509_certificate(certificate_der)
        # Parsed here once and kept by the certificate, so that later reads neither fail nor warn.
        _names_and_keep(certificate)
        certificate.extensions  # noqa: B018 - for its effect
        certificate.public_key()
        return certificate


_parse_and_keep = lru_cache(maxsize=_KEPT_CERTIFICATES)(_parse)


@dataclass(frozen=True, slots=True)
class CertificateNames:
    """The two distinguished names of a certificate, each as text for the operator and as a key to look it up by.

    Args:
        subject, issuer: RFC 4514, at most 200 characters, printable.
        subject_hash, issuer_hash: SHA-256 of the DER Name, 32 bytes.
    """

    subject: str
    issuer: str
    subject_hash: bytes
    issuer_hash: bytes


def names_of(certificate: x509.Certificate) -> CertificateNames:
    """The names of a certificate; raises AttestationError, finding `certificate-malformed`."""
    with reading("a distinguished name"):
        return _names_and_keep(certificate)


def describe_subject(certificate: x509.Certificate) -> str:
    """Whose certificate it is, for the operator."""
    return names_of(certificate).subject


def describe_issuer(certificate: x509.Certificate) -> str:
    """Who issued it, for the operator."""
    return names_of(certificate).issuer


@lru_cache(maxsize=_KEPT_CERTIFICATES)  # one registration names its certificates ten times
def _names_and_keep(certificate: x509.Certificate) -> CertificateNames:
    subject, issuer = certificate.subject, certificate.issuer
    return CertificateNames(_describe(subject), _describe(issuer), _hash(subject), _hash(issuer))


def _describe(name: x509.Name) -> str:
    return brief(name.rfc4514_string()) or "(empty name)"


def _hash(name: x509.Name) -> bytes:
    return hashlib.sha256(name.public_bytes()).digest()


def authority_of(certificate: x509.Certificate) -> tuple[bytes, bytes]:
    """DER subject and DER SubjectPublicKeyInfo: the same for every certificate ever issued to one authority."""
    with reading("a public key"):
        key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return certificate.subject.public_bytes(), key


def identity_of(certificate: x509.Certificate) -> bytes:
    """SHA-256 over the DER issuer and the serial number, 32 bytes (RFC 5280 4.1.2.2).

    Unlike a thumbprint it is the same for every encoding of one issued certificate: the outer signature's unused bits
    can be altered without the signature noticing.
    """
    serial = certificate.serial_number
    encoded = serial.to_bytes(serial.bit_length() // 8 + 1, "big", signed=True)
    return hashlib.sha256(certificate.issuer.public_bytes() + encoded).digest()


def check_common_name(certificate: x509.Certificate, claimed_id: RegistrationId) -> str:
    """Require that the subject has exactly one common name and that it is the claimed registration id.

    Returns:
        The finding for the trace.

    Raises:
        AttestationError: findings `common-name-count`, `common-name-malformed`, `common-name-mismatch`.
    """
    name = read_common_name(certificate)
    if name.key != claimed_id.key:
        raise AttestationError(
            f"the certificate's common name is {name.text}, the registration id {claimed_id}",
            finding="common-name-mismatch",
            clause="Azure DPS X.509 attestation: common name = registration id",
        )
    return f"common name {name.text} is the claimed registration id"


def read_common_name(certificate: x509.Certificate) -> RegistrationId:
    """The one common name of the subject, as the registration id that it must be.

    Raises:
        AttestationError: findings `common-name-count`, `common-name-malformed`.
    """
    with reading("the subject"):
        names = [attribute.value for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if len(names) != 1:
        raise AttestationError(
            f"the subject has {len(names)} common names, it must have one", finding="common-name-count"
        )
    try:
        return RegistrationId.parse(str(names[0]))
    except MalformedRequest as error:
        raise AttestationError(
            f"the common name {brief(repr(names[0]))} cannot be a registration id", finding="common-name-malformed"
        ) from error


def check_validity(certificate: x509.Certificate, now: datetime, what: str = "the certificate") -> str:
    """Require that `now` is within the validity period, both ends included, to the second (RFC 5280 4.1.2.5).

    Raises:
        AttestationError: findings `certificate-expired`, `certificate-not-yet-valid`.
    """
    clause = "RFC 5280 6.1.3 (a)(2)"
    with reading("the validity period"):
        not_before, not_after = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    now = now.replace(microsecond=0)
    if now < not_before:
        reason = f"{what} is valid from {not_before:%Y-%m-%d %H:%M:%S}Z only, and it is {now:%Y-%m-%d %H:%M:%S}Z now"
        raise AttestationError(reason, finding="certificate-not-yet-valid", clause=clause)
    if now > not_after:
        reason = f"{what} expired at {not_after:%Y-%m-%d %H:%M:%S}Z, and it is {now:%Y-%m-%d %H:%M:%S}Z now"
        raise AttestationError(reason, finding="certificate-expired", clause=clause)
    return f"valid from {not_before.date()} to {not_after.date()}"


def check_key(certificate: x509.Certificate, *, what: str, ed25519_allowed: bool = True) -> str:
    """Require RSA of 2048 to 4096 bits, P-256, P-384, P-521 or (where allowed) Ed25519.

    Raises:
        AttestationError: finding `certificate-key`.
    """
    with reading("the public key"):
        key = certificate.public_key()
    match key:
        case rsa.RSAPublicKey() if RSA_MIN_SIZE_BITS <= key.key_size <= RSA_MAX_SIZE_BITS:
            return f"RSA, {key.key_size} bits"
        case ec.EllipticCurvePublicKey() if isinstance(key.curve, _CURVES):
            return f"elliptic curve, {key.curve.name}"
        case ed25519.Ed25519PublicKey() if ed25519_allowed:
            return "Ed25519"
    also = " or Ed25519" if ed25519_allowed else ""
    raise AttestationError(
        f"{what} is {_describe_key(key)}; it must be RSA of {RSA_MIN_SIZE_BITS} to {RSA_MAX_SIZE_BITS} bits, "
        f"P-256, P-384, P-521{also}",
        finding="certificate-key",
    )


def _describe_key(key: object) -> str:
    match key:
        case rsa.RSAPublicKey():
            return f"RSA of {key.key_size} bits"
        case ec.EllipticCurvePublicKey():
            return f"on the curve {key.curve.name}"
    return f"of the kind {type(key).__name__.removesuffix('PublicKey')}"


def brief(text: object) -> str:
    """At most 200 characters, printable: reasons reach logs and terminals."""
    line = str(text)[:200]
    return line if line.isprintable() else "".join(c if c.isprintable() else "?" for c in line)
