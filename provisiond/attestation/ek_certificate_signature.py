"""Verifying a certificate's signature over its original octets, with strong algorithms only.

Source: RFC 5280 4.1.1.2; RFC 4055 (RSA), RFC 5758 (ECDSA, SHA-2).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from provisiond.attestation.der import DerTag, DerValue, malformed, read_exactly, read_object_identifier, read_unsigned
from provisiond.attestation.ek_certificate_reader import RawCertificate
from provisiond.errors import AttestationError

RSA_MIN_KEY_BITS: Final = 2048
RSA_MAX_KEY_BITS: Final = 4096
RSA_MAX_EXPONENT_BITS: Final = 33
"""No TPM maker's CA has more, and a stranger's key could make one verification take tens of milliseconds."""

_IssuerKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_RSASSA_PSS: Final = "1.2.840.113549.1.1.10"
_MGF1: Final = "1.2.840.113549.1.1.8"
_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = MappingProxyType(
    {
        "2.16.840.1.101.3.4.2.1": hashes.SHA256(),
        "2.16.840.1.101.3.4.2.2": hashes.SHA384(),
        "2.16.840.1.101.3.4.2.3": hashes.SHA512(),
    },
)
_RSASSA_PKCS1: Final[Mapping[str, hashes.HashAlgorithm]] = MappingProxyType(
    {
        "1.2.840.113549.1.1.11": hashes.SHA256(),
        "1.2.840.113549.1.1.12": hashes.SHA384(),
        "1.2.840.113549.1.1.13": hashes.SHA512(),
    },
)
_ECDSA: Final[Mapping[str, hashes.HashAlgorithm]] = MappingProxyType(
    {
        "1.2.840.10045.4.3.2": hashes.SHA256(),
        "1.2.840.10045.4.3.3": hashes.SHA384(),
        "1.2.840.10045.4.3.4": hashes.SHA512(),
    },
)


def verify_certificate_signature(certificate: RawCertificate, issuer_spki: bytes) -> None:
    """Verify that the holder of a key signed a certificate.

    Args:
        certificate: whose TBSCertificate octets were signed.
        issuer_spki: SubjectPublicKeyInfo of the issuer, DER.

    Raises:
        AttestationError: it did not, or the key or the algorithm is too weak or unknown; finding
            `certificate-signature`, `certificate-key`, `certificate-algorithm` or `certificate-encoding`.
    """
    key = _load_issuer_key(issuer_spki)
    algorithm = read_exactly(certificate.signature_algorithm).reader()
    identifier = read_object_identifier(algorithm.next())
    parameters = None if algorithm.peek() is None else algorithm.next()
    algorithm.end()
    try:
        if isinstance(key, rsa.RSAPublicKey):
            scheme, digest = _rsa_scheme(identifier, parameters)
            key.verify(certificate.signature, certificate.tbs, scheme, digest)
        else:
            key.verify(certificate.signature, certificate.tbs, ec.ECDSA(_ecdsa_hash(identifier, parameters)))
    except InvalidSignature as error:
        raise AttestationError(
            "the issuer's key did not sign this certificate",
            finding="certificate-signature",
            clause="RFC 5280 6.1.3 (a)(1)",
        ) from error


def _load_issuer_key(spki: bytes) -> _IssuerKey:
    try:
        key = load_der_public_key(spki)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _weak_key("of an unknown kind") from error
    if isinstance(key, rsa.RSAPublicKey):
        exponent_bits = key.public_numbers().e.bit_length()
        if not RSA_MIN_KEY_BITS <= key.key_size <= RSA_MAX_KEY_BITS or exponent_bits > RSA_MAX_EXPONENT_BITS:
            raise _weak_key(f"RSA of {key.key_size} bits with an exponent of {exponent_bits} bits")
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    raise _weak_key("neither RSA nor on a NIST curve")


def _weak_key(reason: str) -> AttestationError:
    return AttestationError(f"the issuer's key is {reason}", finding="certificate-key", clause="SP 800-131A")


def _unknown_algorithm(identifier: str) -> AttestationError:
    return AttestationError(
        f"signature algorithm {identifier} is not RSA or ECDSA with SHA-2, or not for this key",
        finding="certificate-algorithm",
        clause="SP 800-131A",
    )


def _ecdsa_hash(identifier: str, parameters: DerValue | None) -> hashes.HashAlgorithm:
    if identifier not in _ECDSA or parameters is not None:
        raise _unknown_algorithm(identifier)
    return _ECDSA[identifier]


def _rsa_scheme(
    identifier: str, parameters: DerValue | None
) -> tuple[padding.PKCS1v15 | padding.PSS, hashes.HashAlgorithm]:
    if identifier in _RSASSA_PKCS1 and (parameters is None or parameters.octets == b"\x05\x00"):
        return padding.PKCS1v15(), _RSASSA_PKCS1[identifier]
    if identifier == _RSASSA_PSS and parameters is not None:
        return _pss_scheme(parameters)
    raise _unknown_algorithm(identifier)


def _pss_scheme(parameters: DerValue) -> tuple[padding.PSS, hashes.HashAlgorithm]:
    """RSASSA-PSS-params (RFC 4055 3.1): every default stands for SHA-1, so all three must be there."""
    reader = parameters.reader()
    digest_value, mask_value, salt_value = reader.next(0xA0), reader.next(0xA1), reader.next(0xA2)
    reader.end()
    digest = _read_hash(read_exactly(digest_value.content))
    mask = read_exactly(mask_value.content).reader()
    if read_object_identifier(mask.next()) != _MGF1 or _read_hash(mask.next()) is not digest:
        raise malformed("RSASSA-PSS with another mask than MGF1 of its hash")
    salt_size_bytes = read_unsigned(read_exactly(salt_value.content, DerTag.INTEGER))
    if salt_size_bytes > digest.digest_size:
        raise malformed(f"RSASSA-PSS with a salt of {salt_size_bytes} octets")
    return padding.PSS(padding.MGF1(digest), salt_size_bytes), digest


def _read_hash(value: DerValue) -> hashes.HashAlgorithm:
    reader = value.reader()
    identifier = read_object_identifier(reader.next())
    if identifier not in _HASHES:
        raise _unknown_algorithm(identifier)
    return _HASHES[identifier]
