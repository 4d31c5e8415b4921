"""What an operator may enroll: certificates from files, judged when they are enrolled rather than when a device fails.

The rules are those that devices are verified by; here each refusal says the way out.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from provisiond.attestation.certificate import (
    check_common_name,
    check_key,
    check_validity,
    parse_certificate,
    read_common_name,
    reading,
)
from provisiond.attestation.certificate_extensions import check_ca_extensions, check_leaf_extensions
from provisiond.attestation.certification_path import check_issuer_key
from provisiond.errors import AttestationError, InvalidArgument
from provisiond.model import RegistrationId

MAX_FILE_SIZE_BYTES: Final = 64 * 1024  # a chain of six RSA-4096 certificates in PEM, with their text dumps, is 50 KiB
_PEM_MARK: Final = b"-----BEGIN CERTIFICATE-----"

_CLIENT_WAYS_OUT: Final = {
    "certificate-is-ca": "make it with CA:FALSE (openssl req -x509 ... -addext basicConstraints=critical,CA:FALSE), "
    "or enroll it as the CA certificate of an enrollment group",
    "certificate-version": "give it an extension, such as basicConstraints CA:FALSE (openssl x509 -req ... -extfile)",
    "certificate-key": "make the device a new key and certificate",
    "certificate-key-usage": "issue it with keyUsage digitalSignature, or without keyUsage",
    "certificate-extended-key-usage": "issue it with extendedKeyUsage clientAuth, or without extendedKeyUsage",
    "certificate-expired": "issue a new one",
    "certificate-extension": "issue it without them, or mark them not critical",
    "common-name-count": "issue it with the registration id as its one common name",
    "common-name-malformed": "issue it with the registration id as its common name: 1 to 128 of A-Z a-z 0-9 - . _ : "
    "ending in a letter, digit or -",
    "common-name-mismatch": "issue it with the registration id as its common name, or enroll it under its common name",
}
_CA_WAYS_OUT: Final = {
    "certificate-not-ca": "give the CA certificate that signs the devices' certificates, or enroll this one "
    "individually if it is a device's",
    "certificate-version": "issue it as version 3, with basicConstraints CA:TRUE (openssl x509 -req ... -extfile)",
    "certificate-key": "devices may have Ed25519 keys, their CA may not; make the CA an ECDSA or RSA key",
    "certificate-key-usage": "issue it with keyUsage keyCertSign, or without keyUsage",
    "certificate-extended-key-usage": "issue it without extendedKeyUsage, or with clientAuth",
    "certificate-extension": "issue it without them, or mark them not critical",
    "certificate-expired": "enroll the CA's current certificate",
    "name-constraints-unsupported": "use a CA without directoryName constraints",
}


def load_certificate(pem_or_der: bytes) -> bytes:
    """Read one certificate from a file's content, `.pem` or `.cer`.

    Args:
        pem_or_der: exactly one certificate, PEM (text around it is ignored) or DER; at most 64 KiB.

    Returns:
        DER.

    Raises:
        InvalidArgument: anything else.
    """
    certificates = load_certificates(pem_or_der)
    if len(certificates) > 1:
        raise InvalidArgument(f"there are {len(certificates)} certificates in it; give a file with the one to enroll")
    return certificates[0]


def load_certificates(pem_or_der: bytes) -> tuple[bytes, ...]:
    """Read a chain from a file's content: PEM with one certificate or more, or one DER certificate.

    Returns:
        DER, in the file's order; one at least.

    Raises:
        InvalidArgument: no certificate, one that cannot be read, or more than 64 KiB.
    """
    if len(pem_or_der) > MAX_FILE_SIZE_BYTES:
        raise InvalidArgument(f"it has {len(pem_or_der)} bytes; a certificate file has at most {MAX_FILE_SIZE_BYTES}")
    if not pem_or_der.startswith(b"\x30") and _PEM_MARK not in pem_or_der:
        raise InvalidArgument("there is no certificate in it, neither PEM (-----BEGIN CERTIFICATE-----) nor DER")
    try:
        with reading("the certificate"):
            if _PEM_MARK in pem_or_der:
                certificates = _load_pem(pem_or_der)
            else:
                certificates = [x509.load_der_x509_certificate(pem_or_der)]
            return tuple(certificate.public_bytes(Encoding.DER) for certificate in certificates)
    except AttestationError as error:
        raise InvalidArgument(str(error)) from error


def _load_pem(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        if "PEM" not in str(error):
            raise
        # The library's words are about its documentation.
        reason = "the PEM text is damaged, or ends before -----END CERTIFICATE-----"
        raise AttestationError(reason, finding="certificate-malformed") from error


def check_enrollable_client_certificate(
    certificate_der: bytes, now: datetime, *, registration_id: RegistrationId | None = None
) -> None:
    """Require a certificate that a device of an individual enrollment can be verified by.

    One that is not valid yet may be enrolled: it is how a renewal is prepared. An expired one may not.

    Args:
        certificate_der: the device's certificate, self-signed or not.
        now: aware UTC.
        registration_id: of the enrollment, to be compared with the common name.

    Raises:
        InvalidArgument: says what is wrong and the way out.
    """

    def check() -> None:
        certificate = parse_certificate(certificate_der)
        if registration_id is None:
            read_common_name(certificate)
        else:
            check_common_name(certificate, registration_id)
        check_key(certificate, what="its key")
        check_leaf_extensions(certificate, pinned=True)
        _check_not_expired(certificate, now)

    _refuse_with_way_out(check, _CLIENT_WAYS_OUT)


def check_enrollable_ca_certificate(certificate_der: bytes, now: datetime) -> None:
    """Require a certificate that can vouch for the devices of an enrollment group; it may not be valid yet.

    Args:
        certificate_der: a CA certificate, root or intermediate.
        now: aware UTC.

    Raises:
        InvalidArgument: says what is wrong and the way out.
    """

    def check() -> None:
        certificate = parse_certificate(certificate_der)
        check_ca_extensions(certificate)
        check_issuer_key(certificate)
        _check_not_expired(certificate, now)

    _refuse_with_way_out(check, _CA_WAYS_OUT)


def _check_not_expired(certificate: x509.Certificate, now: datetime) -> None:
    try:
        check_validity(certificate, now)
    except AttestationError as error:
        if error.finding != "certificate-not-yet-valid":
            raise


def _refuse_with_way_out(check: Callable[[], None], ways_out: dict[str, str]) -> None:
    try:
        check()
    except AttestationError as error:
        way_out = ways_out.get(error.finding)
        raise InvalidArgument(f"{error}; {way_out}" if way_out else str(error)) from error
