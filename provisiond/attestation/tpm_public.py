"""What a TPM object is: its template, its public area, its Name.

Source: TPM 2.0 Part 1 16 and 27, Part 2 12.2. The octets are read and written in `tpm_structures`.
"""

from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from provisiond.attestation.tpm_algorithms import ObjectAttributes, TpmAlgorithm, TpmCurve, TpmHash
from provisiond.attestation.tpm_octets import sized
from provisiond.errors import TpmStructureError

RSA_DEFAULT_EXPONENT: Final = 65537

AsymmetricKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmScheme:
    """What a key does with its numbers (TPMT_*_SCHEME).

    Args:
        hash: None for NULL and RSAES.
        kdf: key derivation of the XOR scheme.
        count: ECDAA's counter.
    """

    algorithm: TpmAlgorithm = TpmAlgorithm.NULL
    hash: TpmHash | None = None
    kdf: TpmAlgorithm | None = None
    count: int | None = None


NULL_SCHEME: Final = TpmScheme()


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmTemplate:
    """A public area without `unique`: everything about a key but the key itself.

    Args:
        authorization_policy: authPolicy, empty or as long as a digest of `name_hash`.
        symmetric_key_bits: AES-CFB key size that protects the key's children; 0 when there is none.
        exponent: as on the wire; 0 stands for 65537.
    """

    object_type: TpmAlgorithm
    name_hash: TpmHash
    attributes: ObjectAttributes
    authorization_policy: bytes = b""
    symmetric_key_bits: int = 0
    scheme: TpmScheme = NULL_SCHEME
    key_bits: int = 0
    exponent: int = 0
    curve: TpmCurve | None = None
    kdf: TpmScheme = NULL_SCHEME


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmPublic:
    """A public area as it was received.

    Args:
        octets: TPMT_PUBLIC, without the size in front.
        unique: modulus; or x and y; or digest.
        point: x and y, which have been found on their curve.
    """

    octets: bytes
    template: TpmTemplate
    unique: tuple[bytes, ...]
    point: ec.EllipticCurvePublicKey | None = field(default=None, repr=False, compare=False)

    @property
    def tpm2b(self) -> bytes:
        """TPM2B_PUBLIC: what enrollments hold and devices send."""
        return sized(self.octets)

    @property
    def name_hash(self) -> TpmHash:
        """Algorithm of the Name, and of everything that protects the key's children."""
        return self.template.name_hash

    @property
    def attributes(self) -> ObjectAttributes:
        """What the key is and may do."""
        return self.template.attributes

    @property
    def name(self) -> bytes:
        """Algorithm and digest of the octets as received: `nameAlg ‖ H(TPMT_PUBLIC)` (TPM 2.0 Part 1 16)."""
        name_hash = self.template.name_hash
        return name_hash.algorithm.to_bytes(2, "big") + name_hash.digest(self.octets)

    @property
    def key(self) -> AsymmetricKey | None:
        """The key for `cryptography`, None when it is symmetric.

        Raises:
            TpmStructureError: as `rsa_key`.
        """
        return self.rsa_key if self.template.object_type is TpmAlgorithm.RSA else self.point

    @property
    def rsa_key(self) -> rsa.RSAPublicKey:
        """The key of an RSA object, made anew at every call.

        Raises:
            TpmStructureError: the library refuses it.
        """
        exponent = self.template.exponent or RSA_DEFAULT_EXPONENT
        try:
            return rsa.RSAPublicNumbers(exponent, int.from_bytes(self.unique[0], "big")).public_key()
        except (ValueError, UnsupportedAlgorithm) as error:
            raise TpmStructureError(f"not a key: {error}", clause="TPM 2.0 Part 2 TPM2B_PUBLIC_KEY_RSA") from error

    @property
    def spki_der(self) -> bytes:
        """DER SubjectPublicKeyInfo of an asymmetric key.

        Raises:
            TpmStructureError: the object is not an asymmetric key.
        """
        if (key := self.key) is None:
            raise TpmStructureError("not an asymmetric key", clause="RFC 5280 4.1.2.7")
        return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def qualified_name(parent: bytes, public: TpmPublic) -> bytes:
    """Qualified Name of a key below `parent`: a Qualified Name, or a hierarchy's 4-octet handle (Part 1 16)."""
    name_hash = public.name_hash
    return name_hash.algorithm.to_bytes(2, "big") + name_hash.digest(parent + public.name)


def check_key(template: TpmTemplate, unique: tuple[bytes, ...]) -> ec.EllipticCurvePublicKey | None:
    """Check that the numbers of a public area are a key; the point of an elliptic curve is kept, as finding it costs.

    Args:
        template: of the key.
        unique: of the sizes that the template asks for.

    Raises:
        TpmStructureError: a point off the curve; an even or short modulus, an exponent that makes no key.
    """
    if template.curve is not None:
        try:
            return ec.EllipticCurvePublicKey.from_encoded_point(
                template.curve.primitive, b"\x04" + unique[0] + unique[1]
            )
        except (ValueError, UnsupportedAlgorithm) as error:
            raise TpmStructureError(f"not a key: {error}", clause="TPM 2.0 Part 2 TPMS_ECC_POINT") from error
    if template.object_type is TpmAlgorithm.RSA:
        modulus, exponent = unique[0], template.exponent
        # The top bit makes the modulus as long as keyBits says.
        if modulus[0] < 0x80 or modulus[-1] & 1 == 0:
            raise TpmStructureError("RSA modulus is even or short", clause="TPM 2.0 Part 2 TPM2B_PUBLIC_KEY_RSA")
        if exponent and (exponent < 3 or exponent & 1 == 0):
            raise TpmStructureError(f"not a key: exponent {exponent}", clause="TPM 2.0 Part 2 TPMS_RSA_PARMS")
    return None
