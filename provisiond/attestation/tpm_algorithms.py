"""Numbers of the TPM 2.0 algorithm registry that provisiond works with, and what they stand for.

Source: TCG Algorithm Registry; TPM 2.0 Part 2, TPM_ALG_ID and TPM_ECC_CURVE.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec


class TpmAlgorithm(IntEnum):
    """TPM_ALG_ID."""

    RSA = 0x0001
    SHA1 = 0x0004
    HMAC = 0x0005
    AES = 0x0006
    MGF1 = 0x0007
    KEYEDHASH = 0x0008
    XOR = 0x000A
    SHA256 = 0x000B
    SHA384 = 0x000C
    SHA512 = 0x000D
    NULL = 0x0010
    RSASSA = 0x0014
    RSAES = 0x0015
    RSAPSS = 0x0016
    OAEP = 0x0017
    ECDSA = 0x0018
    ECDH = 0x0019
    ECDAA = 0x001A
    KDF1_SP800_56A = 0x0020
    KDF2 = 0x0021
    KDF1_SP800_108 = 0x0022
    ECC = 0x0023
    SYMCIPHER = 0x0025
    CFB = 0x0043


class ObjectAttributes(IntFlag):
    """TPMA_OBJECT: what a key is, stated under its Name (TPM 2.0 Part 2 8.3)."""

    FIXED_TPM = 1 << 1
    ST_CLEAR = 1 << 2
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    ADMIN_WITH_POLICY = 1 << 7
    NO_DA = 1 << 10
    ENCRYPTED_DUPLICATION = 1 << 11
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18
    X509_SIGN = 1 << 19

    RESIDENT = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN
    """Born in this TPM and cannot leave it: what tells a TPM's key from a software key (Part 1 27.2)."""


ATTRIBUTES_MASK: Final = sum(attribute.value for attribute in ObjectAttributes)
"""Every defined bit; the others are reserved and shall be zero."""


_INNER_PAD: Final = bytes(octet ^ 0x36 for octet in range(256))
_OUTER_PAD: Final = bytes(octet ^ 0x5C for octet in range(256))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TpmHash:
    """A hash algorithm under its TPM number.

    Args:
        name: what `hashlib` and PCR banks call it, such as `sha256`.
        approved: SHA-2, good enough for a Name or a signature.
    """

    algorithm: TpmAlgorithm
    name: str
    digest_size_bytes: int
    block_size_bytes: int
    primitive: hashes.HashAlgorithm
    constructor: "Callable[[bytes], hashlib._Hash]"
    approved: bool = True

    def digest(self, octets: bytes) -> bytes:
        """The digest of `octets`."""
        return self.constructor(octets).digest()

    def hmac(self, key: bytes, message: bytes) -> bytes:
        """HMAC (RFC 2104).

        Two plain digests: for messages of a block or two they take half the time of `hmac.digest`.
        """
        if len(key) > self.block_size_bytes:
            key = self.constructor(key).digest()
        key = key.ljust(self.block_size_bytes, b"\0")
        inner = self.constructor(key.translate(_INNER_PAD) + message).digest()
        return self.constructor(key.translate(_OUTER_PAD) + inner).digest()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TpmCurve:
    """A NIST curve under its TPM number; coordinates are always `coordinate_size_bytes` long (Part 1 C.8)."""

    number: int
    coordinate_size_bytes: int
    primitive: ec.EllipticCurve


SHA1: Final = TpmHash(
    algorithm=TpmAlgorithm.SHA1,
    name="sha1",
    digest_size_bytes=20,
    block_size_bytes=64,
    primitive=hashes.SHA1(),  # noqa: S303 - parsed so that it can be refused by name; `approved` is False
    constructor=hashlib.sha1,
    approved=False,
)
SHA256: Final = TpmHash(
    algorithm=TpmAlgorithm.SHA256,
    name="sha256",
    digest_size_bytes=32,
    block_size_bytes=64,
    primitive=hashes.SHA256(),
    constructor=hashlib.sha256,
)
SHA384: Final = TpmHash(
    algorithm=TpmAlgorithm.SHA384,
    name="sha384",
    digest_size_bytes=48,
    block_size_bytes=128,
    primitive=hashes.SHA384(),
    constructor=hashlib.sha384,
)
SHA512: Final = TpmHash(
    algorithm=TpmAlgorithm.SHA512,
    name="sha512",
    digest_size_bytes=64,
    block_size_bytes=128,
    primitive=hashes.SHA512(),
    constructor=hashlib.sha512,
)

HASHES: Final = MappingProxyType({int(item.algorithm): item for item in (SHA1, SHA256, SHA384, SHA512)})
HASHES_BY_NAME: Final = MappingProxyType({item.name: item for item in HASHES.values()})

CURVES: Final = MappingProxyType(
    {
        curve.number: curve
        for curve in (
            TpmCurve(number=0x0003, coordinate_size_bytes=32, primitive=ec.SECP256R1()),
            TpmCurve(number=0x0004, coordinate_size_bytes=48, primitive=ec.SECP384R1()),
            TpmCurve(number=0x0005, coordinate_size_bytes=66, primitive=ec.SECP521R1()),
        )
    },
)
