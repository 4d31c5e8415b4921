"""What X.509 extensions may say, in a device's certificate and in an authority's.

Each rule takes the extension's value, or None where the certificate leaves it out. The same rules judge a certificate
on its own and serve as callbacks while a certification path is built.
"""

from typing import Final, TypeVar

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from provisiond.attestation.certificate import brief, reading
from provisiond.errors import AttestationError

CLIENT_AUTH: Final = ExtendedKeyUsageOID.CLIENT_AUTH
ANY_EXTENDED_KEY_USAGE: Final = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE

_LEAF_CRITICAL: Final = (
    x509.BasicConstraints,
    x509.ExtendedKeyUsage,
    x509.KeyUsage,
    x509.SubjectAlternativeName,
)
_CA_CRITICAL: Final = (*_LEAF_CRITICAL, x509.NameConstraints)
"""Extensions that may be critical: those that path building looks at; the rest would be refused there."""

ExtensionT = TypeVar("ExtensionT", bound=x509.ExtensionType)


def check_leaf_extensions(certificate: x509.Certificate, *, pinned: bool = False) -> str:
    """Judge every extension of a device's certificate.

    Args:
        certificate: the device's.
        pinned: it was enrolled itself. A self-signed one may then call itself a CA, as plain `openssl req -x509` has
            it, as long as its keyUsage does not go on to allow signing certificates: nothing it issues is believed.

    Returns:
        The finding for the trace.

    Raises:
        AttestationError: findings `certificate-is-ca`, `certificate-key-usage`, `certificate-extended-key-usage`,
            `certificate-extension` (one is critical and unknown).
    """
    if not (pinned and certificate.issuer == certificate.subject):
        check_leaf_basic_constraints(extension_of(certificate, x509.BasicConstraints))
    check_leaf_key_usage(extension_of(certificate, x509.KeyUsage))
    check_leaf_extended_key_usage(extension_of(certificate, x509.ExtendedKeyUsage))
    _check_critical(certificate, _LEAF_CRITICAL)
    return "fit for a device, and its key usages, where it names any, allow client authentication"


def check_ca_extensions(certificate: x509.Certificate) -> str:
    """Judge the extensions of a CA certificate that decide whether it may vouch for devices.

    Returns:
        The finding for the trace.

    Raises:
        AttestationError: findings `certificate-not-ca`, `certificate-key-usage`, `certificate-extended-key-usage`,
            `name-constraints-unsupported`, `certificate-extension` (one is critical and unknown).
    """
    check_ca_basic_constraints(extension_of(certificate, x509.BasicConstraints))
    check_ca_key_usage(extension_of(certificate, x509.KeyUsage))
    check_ca_extended_key_usage(extension_of(certificate, x509.ExtendedKeyUsage))
    check_name_constraints(extension_of(certificate, x509.NameConstraints))
    _check_critical(certificate, _CA_CRITICAL)
    return "a CA that may issue certificates for client authentication"


def check_leaf_basic_constraints(extension: x509.BasicConstraints | None) -> None:
    """A device's certificate may leave basicConstraints out, but must not be an authority (RFC 5280 4.2.1.9).

    Raises:
        AttestationError: finding `certificate-is-ca`.
    """
    if extension is not None and extension.ca:
        raise AttestationError(
            "the device's certificate is a CA certificate (basicConstraints CA:TRUE)",
            finding="certificate-is-ca",
            clause="RFC 5280 4.2.1.9",
        )


def check_leaf_key_usage(extension: x509.KeyUsage | None) -> None:
    """KeyUsage may be left out; if present it must allow digitalSignature and signing neither certificates nor CRLs.

    Raises:
        AttestationError: finding `certificate-key-usage`.
    """
    if extension is None:
        return
    if extension.key_cert_sign or extension.crl_sign or not extension.digital_signature:
        raise AttestationError(
            "the device's key usage must have digitalSignature, and neither keyCertSign nor cRLSign",
            finding="certificate-key-usage",
            clause="RFC 5280 4.2.1.3",
        )


def check_leaf_extended_key_usage(extension: x509.ExtendedKeyUsage | None) -> None:
    """ExtendedKeyUsage may be left out; if present it must name clientAuth itself: "any" is not enough.

    Raises:
        AttestationError: finding `certificate-extended-key-usage`.
    """
    if extension is not None and CLIENT_AUTH not in extension:
        raise AttestationError(
            "the device's extended key usage does not have clientAuth",
            finding="certificate-extended-key-usage",
            clause="RFC 5280 4.2.1.12",
        )


def check_ca_basic_constraints(extension: x509.BasicConstraints | None) -> None:
    """An authority must say that it is one (RFC 5280 4.2.1.9); not necessarily in a critical extension.

    Raises:
        AttestationError: finding `certificate-not-ca`.
    """
    if extension is None or not extension.ca:
        raise AttestationError(
            "it is not a CA certificate (basicConstraints CA:TRUE is missing)",
            finding="certificate-not-ca",
            clause="RFC 5280 6.1.4 (k)",
        )


def check_ca_key_usage(extension: x509.KeyUsage | None) -> None:
    """KeyUsage may be left out; if present it must have keyCertSign.

    Raises:
        AttestationError: finding `certificate-key-usage`.
    """
    if extension is not None and not extension.key_cert_sign:
        raise AttestationError(
            "the CA's key usage does not have keyCertSign", finding="certificate-key-usage", clause="RFC 5280 6.1.4 (n)"
        )


def check_ca_extended_key_usage(extension: x509.ExtendedKeyUsage | None) -> None:
    """ExtendedKeyUsage may be left out; if present it must let the authority issue for clientAuth.

    Raises:
        AttestationError: finding `certificate-extended-key-usage`.
    """
    if extension is not None and CLIENT_AUTH not in extension and ANY_EXTENDED_KEY_USAGE not in extension:
        raise AttestationError(
            "the CA's extended key usage has neither clientAuth nor any",
            finding="certificate-extended-key-usage",
            clause="RFC 5280 4.2.1.12",
        )


def check_name_constraints(extension: x509.NameConstraints | None) -> None:
    """Refuse constraints on directory names: nothing here applies them, and ignoring one would let devices in.

    Raises:
        AttestationError: finding `name-constraints-unsupported`.
    """
    if extension is None:
        return
    subtrees = [*(extension.permitted_subtrees or ()), *(extension.excluded_subtrees or ())]
    if any(isinstance(subtree, x509.DirectoryName) for subtree in subtrees):
        raise AttestationError(
            "the CA's name constraints restrict directory names, which are not supported",
            finding="name-constraints-unsupported",
            clause="RFC 5280 4.2.1.10",
        )


def extension_of(certificate: x509.Certificate, kind: type[ExtensionT]) -> ExtensionT | None:
    """The extension of that type, or None."""
    with reading("the extensions"):
        # Not `get_extension_for_class`, which makes an exception of every extension that is not there.
        values = (extension.value for extension in certificate.extensions)
        return next((value for value in values if isinstance(value, kind)), None)


def _check_critical(certificate: x509.Certificate, known: tuple[type[x509.ExtensionType], ...]) -> None:
    with reading("the extensions"):
        unknown = [e.oid.dotted_string for e in certificate.extensions if e.critical and not isinstance(e.value, known)]
    if unknown:
        raise AttestationError(
            f"the certificate has critical extensions that nothing here applies: {brief(', '.join(unknown))}",
            finding="certificate-extension",
            clause="RFC 5280 4.2",
        )
