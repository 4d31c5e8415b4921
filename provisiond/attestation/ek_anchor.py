"""Issuers of endorsement key certificates, and the configured ones among them: the anchors.

An anchor is trusted as it was configured, be it an intermediate or past its time, but it must be a CA: an endorsement
key is no issuer. Source: RFC 5280 4.2, 6.1.4.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from provisiond.attestation.der import DerTag, malformed
from provisiond.attestation.ek_certificate_reader import (
    RawCertificate,
    read_basic_constraints,
    read_certificate,
    read_key_usage,
)
from provisiond.errors import AttestationError

BASIC_CONSTRAINTS: Final = "2.5.29.19"
KEY_USAGE: Final = "2.5.29.15"
KNOWN_EXTENSIONS: Final = frozenset(
    {
        BASIC_CONSTRAINTS,
        KEY_USAGE,
        "2.5.29.17",  # subjectAltName
        "2.5.29.32",  # certificatePolicies: critical in issuers of Intel, STM and Infineon; any policy will do
        "2.5.29.37",  # extKeyUsage
        "2.5.29.9",  # subjectDirectoryAttributes
    },
)
"""Extensions that may be critical. Name constraints are not among them: nobody puts them on TPM makers' CAs."""

KEY_CERT_SIGN: Final = 5

_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----([^-]*)-----END CERTIFICATE-----")


# The store of every TPM maker has some 50 certificates; reading one takes 0.1 ms.
@lru_cache(maxsize=512)
def read_anchor(octets: bytes) -> RawCertificate:
    """Read a configured anchor, DER.

    Raises:
        AttestationError: it cannot be an anchor; finding `certificate-encoding` or `issuer-…`.
    """
    anchor = read_certificate(octets)
    check_issuer(anchor, ())
    return anchor


def read_anchor_file(octets: bytes) -> tuple[bytes, ...]:
    """The certificates of a file that an operator keeps anchors in: one in DER, or any number in PEM.

    They are given as they stand: some TPM makers' CA certificates are refused by general readers.

    Args:
        octets: content of the file; text between PEM blocks is passed over.

    Returns:
        DER, each good for `read_anchor`.

    Raises:
        AttestationError: there is none, or one that cannot be an anchor; finding as `read_anchor`.
    """
    if octets[:1] == bytes((DerTag.SEQUENCE,)):
        anchors: tuple[bytes, ...] = (octets,)
    else:
        anchors = tuple(_decode(match.group(1)) for match in _PEM.finditer(octets))
    if not anchors:
        raise malformed("neither DER nor PEM")
    for anchor in anchors:
        read_anchor(anchor)
    return anchors


def _decode(text: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error as error:
        raise malformed("PEM with something else than base64") from error


def check_issuer(issuer: RawCertificate, path: Sequence[RawCertificate]) -> None:
    """Check that a certificate may issue the last one of a path (RFC 5280 6.1.4 (k) to (n)).

    Raises:
        AttestationError: it may not; finding `issuer-not-ca`, `issuer-path-length`, `issuer-key-usage`,
            `certificate-critical-extension` or `certificate-encoding`.
    """
    constraints = issuer.extensions.get(BASIC_CONSTRAINTS)
    is_ca, path_length = (False, None) if constraints is None else read_basic_constraints(constraints)
    if issuer.version != 3 or not is_ca:
        raise AttestationError("not a CA", finding="issuer-not-ca", clause="RFC 5280 6.1.4 (k)")
    intermediates = sum(not certificate.is_self_issued for certificate in path[1:])
    if path_length is not None and intermediates > path_length:
        raise AttestationError(
            f"{intermediates} intermediates below a path length of {path_length}",
            finding="issuer-path-length",
            clause="RFC 5280 6.1.4 (m)",
        )
    usage = issuer.extensions.get(KEY_USAGE)
    if usage is not None and KEY_CERT_SIGN not in read_key_usage(usage):
        raise AttestationError("may not sign certificates", finding="issuer-key-usage", clause="RFC 5280 6.1.4 (n)")
    check_critical_extensions(issuer)


def check_critical_extensions(certificate: RawCertificate) -> None:
    """Refuse critical extensions that nobody here looks at (RFC 5280 4.2).

    Raises:
        AttestationError: there is one; finding `certificate-critical-extension`.
    """
    unknown = [
        identifier
        for identifier, extension in certificate.extensions.items()
        if extension.critical and identifier not in KNOWN_EXTENSIONS
    ]
    if unknown:
        raise AttestationError(
            f"unknown critical extension {', '.join(unknown)}",
            finding="certificate-critical-extension",
            clause="RFC 5280 4.2",
        )
