"""Secrets for one device, in replies that strangers may read: JWE, flattened JSON (RFC 7516 7.2.2).

| the device has       | `alg`              | key                                                                   |
|----------------------|--------------------|-----------------------------------------------------------------------|
| an EC certificate    | `ECDH-ES+A256KW`   | the certificate's (RFC 7518 4.6)                                      |
| an RSA certificate   | `RSA-OAEP-256`     | the certificate's (RFC 7518 4.3)                                      |
| a symmetric key      | `dir`              | HKDF-SHA256(key, no salt, info = the context), 32 octets (RFC 5869)   |
| an Ed25519 certificate | none             | it signs and can agree on no key: `UnsealableKey`                     |

`enc` is `A256GCM` always. The `aad` member is the context, so that a credential cannot be passed off as one of another
device or operation: FIELD each (`attestation.transcript`) of "provisiond-native-v1", "sealed", id scope, registration
id, operation id. Ephemeral keys, content keys and initialisation vectors are drawn by the library.

A TPM gets its secrets in structures of its own: `attestation.tpm_activation`.
"""

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, RSAKey

from provisiond.attestation.certificate import check_key, parse_certificate
from provisiond.attestation.message_proof import PrivateKey
from provisiond.attestation.transcript import PROTOCOL_LABEL, frame
from provisiond.errors import SealBroken, UnsealableKey
from provisiond.model import JSONValue
from provisiond.protocols.json_body import encode_json

PLAINTEXT_MAX_SIZE_BYTES: Final = 4096
"""A password, a key and where to use them take 300."""

_ENC: Final = "A256GCM"
_KEY_SIZE_BYTES: Final = 32
_EC: Final = "ECDH-ES+A256KW"
_RSA: Final = "RSA-OAEP-256"
_DIRECT: Final = "dir"
_MEMBERS: Final = frozenset({"protected", "header", "encrypted_key", "aad", "iv", "ciphertext", "tag"})

_Key = ECKey | RSAKey | OctKey


@dataclass(frozen=True, slots=True, kw_only=True)
class SealingContext:
    """For whom and for what a credential is sealed; both ends know it without being told.

    Args:
        id_scope: as both ends are configured.
        registration_id: as the device spelt it in its topic.
        operation_id: of the reply that carries the credential.
    """

    id_scope: str
    registration_id: str
    operation_id: str

    @property
    def octets(self) -> bytes:
        """Additional authenticated data."""
        texts = (self.id_scope, self.registration_id, self.operation_id)
        return frame(PROTOCOL_LABEL, b"sealed", *(text.encode() for text in texts))


def sealing_algorithm(certificate_der: bytes) -> str:
    """How a secret reaches the holder of a certificate's key; ask before a hub that gives secrets is chosen.

    Returns:
        `ECDH-ES+A256KW` or `RSA-OAEP-256`.

    Raises:
        UnsealableKey: Ed25519.
        AttestationError: the certificate cannot be read, or its key is of no kind that is taken.
    """
    return _recipient(certificate_der)[0]


def seal_to_certificate(plaintext: bytes, *, certificate_der: bytes, context: SealingContext) -> dict[str, JSONValue]:
    """Seal a secret to the holder of a certificate's key.

    Args:
        plaintext: 1 to 4096 octets.
        certificate_der: verified; its key usage is not looked at, as the device agreed to this by the protocol.
        context: is authenticated, not sent in clear beyond what `aad` shows.

    Raises:
        UnsealableKey: Ed25519.
        AttestationError: the certificate cannot be read, or its key is of no kind that is taken.
        ValueError: the plaintext is empty or too long.
    """
    algorithm, key = _recipient(certificate_der)
    return _seal(plaintext, algorithm, key, context)


def seal_to_symmetric_key(plaintext: bytes, *, key: bytes, context: SealingContext) -> dict[str, JSONValue]:
    """Seal a secret to the holder of a symmetric key.

    Args:
        plaintext: 1 to 4096 octets.
        key: the device's, 16 to 64 octets.
        context: goes into the key as well.

    Raises:
        ValueError: the plaintext is empty or too long.
    """
    return _seal(plaintext, _DIRECT, _direct_key(key, context), context)


def open_with_private_key(
    sealed: Mapping[str, JSONValue], *, private_key: PrivateKey, context: SealingContext
) -> bytes:
    """Open what `seal_to_certificate` sealed, on the device.

    Raises:
        SealBroken: not for this key or this context, altered, or not a JWE of this protocol.
    """
    match private_key:
        case ec.EllipticCurvePrivateKey():
            return _open(sealed, _EC, ECKey.import_key(private_key), context)
        case rsa.RSAPrivateKey():
            return _open(sealed, _RSA, RSAKey.import_key(private_key), context)
    raise SealBroken("nothing can be sealed to this kind of key")


def open_with_symmetric_key(sealed: Mapping[str, JSONValue], *, key: bytes, context: SealingContext) -> bytes:
    """Open what `seal_to_symmetric_key` sealed, on the device.

    Raises:
        SealBroken: not for this key or this context, altered, or not a JWE of this protocol.
    """
    return _open(sealed, _DIRECT, _direct_key(key, context), context)


def _seal(plaintext: bytes, algorithm: str, key: _Key, context: SealingContext) -> dict[str, JSONValue]:
    if not 1 <= len(plaintext) <= PLAINTEXT_MAX_SIZE_BYTES:
        raise ValueError(f"a secret of {len(plaintext)} octets cannot be sealed: 1 to {PLAINTEXT_MAX_SIZE_BYTES}")
    encryption = jwe.FlattenedJSONEncryption({"alg": algorithm, "enc": _ENC}, plaintext, aad=context.octets)
    encryption.add_recipient({}, key)
    sealed = jwe.encrypt_json(encryption, None, algorithms=[algorithm, _ENC])
    # What is empty is absent (RFC 7516 7.2.1).
    return {name: value for name, value in sealed.items() if value}


def _open(sealed: Mapping[str, JSONValue], algorithm: str, key: _Key, context: SealingContext) -> bytes:
    _check_form(sealed, algorithm, context)
    try:
        opened = jwe.decrypt_json(
            cast("jwe.FlattenedJSONSerialization", dict(sealed)), key, algorithms=[algorithm, _ENC]
        )
    except (JoseError, ValueError, TypeError, KeyError, AssertionError) as error:  # all of them seen on altered members
        raise SealBroken(f"the credential does not open with this key: {type(error).__name__}") from error
    return opened.plaintext or b""


def _check_form(sealed: Mapping[str, JSONValue], algorithm: str, context: SealingContext) -> None:
    """The library does the cryptography; that this is our form, for our context, is for us to say."""
    if not set(sealed) <= _MEMBERS or not isinstance(sealed.get("header", {}), dict):
        raise SealBroken("the credential is not a JWE in flattened JSON")
    if sealed.get("protected") != _encode(encode_json({"alg": algorithm, "enc": _ENC})):
        raise SealBroken(f"the credential is not sealed with {algorithm} and {_ENC}")
    if sealed.get("aad") != _encode(context.octets):
        raise SealBroken("the credential is sealed for another device or another operation")


def _recipient(certificate_der: bytes) -> tuple[str, _Key]:
    certificate = parse_certificate(certificate_der, "the device certificate")
    check_key(certificate, what="the device certificate's key")
    match certificate.public_key():
        case ec.EllipticCurvePublicKey() as key:
            return _EC, ECKey.import_key(key)
        case rsa.RSAPublicKey() as key:
            return _RSA, RSAKey.import_key(key)
    raise UnsealableKey("the device certificate's key is Ed25519, which can agree on no key")


def _direct_key(key: bytes, context: SealingContext) -> OctKey:
    derived = HKDF(algorithm=hashes.SHA256(), length=_KEY_SIZE_BYTES, salt=None, info=context.octets).derive(key)
    return OctKey.import_key(derived)


def _encode(octets: bytes) -> str:
    return urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")
