"""Proof that stands in the message itself: a signature or an HMAC over the transcript of one challenge.

Both ends: `sign_transcript` and `mac_transcript` are the device's. What is signed is `Transcript.message_octets`.

| algorithm | key              | signature                                                              |
|-----------|------------------|------------------------------------------------------------------------|
| ES256     | P-256            | ECDSA with SHA-256, DER `ECDSA-Sig-Value` (RFC 3279 2.2.3)             |
| ES384     | P-384            | ECDSA with SHA-384, DER                                                |
| ES512     | P-521            | ECDSA with SHA-512, DER                                                |
| PS256     | RSA 2048 to 4096 | RSASSA-PSS with SHA-256, MGF1 with SHA-256, 32 octets of salt (RFC 8017 8.1) |
| RS256     | RSA 2048 to 4096 | RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 8.2)                          |
| EdDSA     | Ed25519          | pure Ed25519 (RFC 8032 5.1), 64 octets                                 |

The names are those of RFC 7518 3.1 and RFC 8037 3.1. The ECDSA encoding is not theirs: it is that of X.509 and of
`openssl dgst`.
"""

import hmac
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from provisiond.attestation.certificate import check_key, parse_certificate
from provisiond.attestation.transcript import Mechanism, Transcript
from provisiond.errors import AttestationError

SIGNATURE_MAX_SIZE_BYTES: Final = 512
"""RSA of 4096 bits; ECDSA on P-521 takes at most 139."""

MAC_SIZE_BYTES: Final = 32
"""HMAC-SHA256, never truncated."""

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
"""The keys a device can answer with."""

_PSS: Final = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)
_PKCS1: Final = padding.PKCS1v15()
_DECOY_KEYS: Final = (bytes(32), bytes(32))  # an enrollment has two


class SignatureAlgorithm(StrEnum):
    """How an answer to an X.509 challenge is signed."""

    ES256 = "ES256"
    ES384 = "ES384"
    ES512 = "ES512"
    PS256 = "PS256"
    RS256 = "RS256"
    EDDSA = "EdDSA"


_ECDSA: Final[dict[SignatureAlgorithm, tuple[type[ec.EllipticCurve], hashes.HashAlgorithm]]] = {
    SignatureAlgorithm.ES256: (ec.SECP256R1, hashes.SHA256()),
    SignatureAlgorithm.ES384: (ec.SECP384R1, hashes.SHA384()),
    SignatureAlgorithm.ES512: (ec.SECP521R1, hashes.SHA512()),
}
_RSA_PADDINGS: Final[dict[SignatureAlgorithm, padding.AsymmetricPadding]] = {
    SignatureAlgorithm.PS256: _PSS,
    SignatureAlgorithm.RS256: _PKCS1,
}


def verify_signature(
    certificate_der: bytes, *, algorithm: SignatureAlgorithm, signature: bytes, transcript: Transcript
) -> str:
    """Verify that the holder of a certificate's key has answered a challenge.

    Whether the certificate itself is to be trusted is for `x509` to say, afterwards.

    Args:
        certificate_der: the leaf of the chain that the register message carried.
        algorithm: as the answer names it; it must be one for the certificate's key.
        signature: 1 to 512 octets, in the form of the table above.
        transcript: of the challenge, from the service's own records.

    Returns:
        The finding for the trace.

    Raises:
        AttestationError: findings `signature-algorithm`, `signature-invalid`; `certificate-malformed`,
            `certificate-version`, `certificate-key` of a leaf that cannot be used.
    """
    certificate = parse_certificate(certificate_der, "the device certificate")
    check_key(certificate, what="the device certificate's key")
    verify = _verifier(certificate.public_key(), algorithm)
    try:
        verify(signature, transcript.message_octets(Mechanism.X509))
    except InvalidSignature as error:
        raise AttestationError(
            f"the {algorithm} signature of {len(signature)} octets is not the device certificate's over this challenge",
            finding="signature-invalid",
            clause="native protocol: transcript",
        ) from error
    return f"{algorithm} signature by the device certificate's key over this challenge"


def verify_mac(keys: Sequence[bytes], *, mac: bytes, transcript: Transcript) -> int:
    """Verify that the holder of one of these keys has answered a challenge.

    Every key is tried, whichever matches, and no key at all costs what an enrollment's two wrong ones cost.

    Args:
        keys: the device keys that would do: both of an enrollment, or those derived from its groups'.
        mac: 32 octets; any other length is refused.
        transcript: of the challenge, from the service's own records.

    Returns:
        The index of the first key that matches.

    Raises:
        AttestationError: finding `mac-mismatch`.
    """
    matches = [hmac.compare_digest(mac, mac_transcript(key, transcript)) for key in keys or _DECOY_KEYS]
    if keys and any(matches):
        return matches.index(True)
    raise AttestationError(
        f"the HMAC of {len(mac)} octets is not one of {len(keys)} candidate keys over this challenge",
        finding="mac-mismatch",
        clause="native protocol: transcript",
    )


def sign_transcript(
    private_key: PrivateKey, transcript: Transcript, *, algorithm: SignatureAlgorithm | None = None
) -> tuple[SignatureAlgorithm, bytes]:
    """Answer a challenge with the key of the device's certificate.

    Args:
        private_key: P-256, P-384, P-521, RSA or Ed25519.
        transcript: of the challenge.
        algorithm: None takes the key's own, PS256 for RSA.

    Returns:
        The algorithm and the signature, as the answer carries them.

    Raises:
        ValueError: the key is of no kind that is taken, or the algorithm is not one for it.
    """
    chosen = algorithm or _default_algorithm(private_key)
    octets = transcript.message_octets(Mechanism.X509)
    match private_key:
        case ec.EllipticCurvePrivateKey() if chosen in _ECDSA and isinstance(private_key.curve, _ECDSA[chosen][0]):
            return chosen, private_key.sign(octets, ec.ECDSA(_ECDSA[chosen][1]))
        case rsa.RSAPrivateKey() if chosen in _RSA_PADDINGS:
            return chosen, private_key.sign(octets, _RSA_PADDINGS[chosen], hashes.SHA256())
        case ed25519.Ed25519PrivateKey() if chosen is SignatureAlgorithm.EDDSA:
            return chosen, private_key.sign(octets)
    raise ValueError(f"{chosen} is not an algorithm for this key")


def mac_transcript(key: bytes, transcript: Transcript) -> bytes:
    """Answer a challenge with the device's symmetric key: HMAC-SHA256, 32 octets."""
    return hmac.digest(key, transcript.message_octets(Mechanism.SYMMETRIC_KEY), "sha256")


def _verifier(public_key: object, algorithm: SignatureAlgorithm) -> Callable[[bytes, bytes], None]:
    match public_key:
        case ec.EllipticCurvePublicKey() if algorithm in _ECDSA and isinstance(public_key.curve, _ECDSA[algorithm][0]):
            ecdsa = ec.ECDSA(_ECDSA[algorithm][1])
            return lambda signature, octets: public_key.verify(signature, octets, ecdsa)
        case rsa.RSAPublicKey() if algorithm in _RSA_PADDINGS:
            rsa_padding = _RSA_PADDINGS[algorithm]
            return lambda signature, octets: public_key.verify(signature, octets, rsa_padding, hashes.SHA256())
        case ed25519.Ed25519PublicKey() if algorithm is SignatureAlgorithm.EDDSA:
            return public_key.verify
    raise AttestationError(
        f"{algorithm} is not an algorithm for the device certificate's key ({type(public_key).__name__})",
        finding="signature-algorithm",
        clause="native protocol: algorithms",
    )


def _default_algorithm(private_key: PrivateKey) -> SignatureAlgorithm:
    match private_key:
        case rsa.RSAPrivateKey():
            return SignatureAlgorithm.PS256
        case ed25519.Ed25519PrivateKey():
            return SignatureAlgorithm.EDDSA
        case ec.EllipticCurvePrivateKey():
            for algorithm, (curve, _) in _ECDSA.items():
                if isinstance(private_key.curve, curve):
                    return algorithm
    raise ValueError("the key must be P-256, P-384, P-521, RSA or Ed25519")
