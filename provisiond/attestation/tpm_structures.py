"""TPM2B_PUBLIC and TPMT_PUBLIC: the public area of a TPM object.

=========  ==================================================================================================
any type   type u16, nameAlg u16, objectAttributes u32, TPM2B authPolicy, parameters, unique
RSA        symmetric, scheme, keyBits u16, exponent u32 (0 is 65537);  TPM2B n
ECC        symmetric, scheme, curveID u16, kdf;  TPM2B x, TPM2B y
KEYEDHASH  scheme;  TPM2B digest
SYMCIPHER  symmetric;  TPM2B digest
symmetric  0010, or 0006 keyBits u16 0043 (AES, CFB)
scheme     0010 or 0015 alone, else algorithm u16 and hash u16; ECDAA has a count u16 more
=========  ==================================================================================================

Source: TPM 2.0 Part 2 12.2, TPMT_PUBLIC. Reading is strict: every octet is accounted for, reserved attribute bits,
lengths, coordinates and points are checked, because the Name is a digest over exactly these octets.
"""

from typing import Final

from provisiond.attestation.tpm_algorithms import (
    ATTRIBUTES_MASK,
    CURVES,
    HASHES,
    ObjectAttributes,
    TpmAlgorithm,
    TpmCurve,
    TpmHash,
)
from provisiond.attestation.tpm_octets import OctetReader, sized, unwrap
from provisiond.attestation.tpm_public import NULL_SCHEME, TpmPublic, TpmScheme, TpmTemplate, check_key

PUBLIC_AREA_MAX_SIZE_BYTES: Final = 1024
"""RSA-4096 with the longest policy takes 608; nothing that a TPM makes comes near this."""

_RSA_KEY_BITS: Final = frozenset({1024, 2048, 3072, 4096})
_AES_KEY_BITS: Final = frozenset({128, 192, 256})
_RSA_SCHEMES: Final = frozenset({TpmAlgorithm.RSASSA, TpmAlgorithm.RSAPSS, TpmAlgorithm.OAEP})
_ECC_SCHEMES: Final = frozenset({TpmAlgorithm.ECDSA, TpmAlgorithm.ECDH, TpmAlgorithm.ECDAA})
_KDF_SCHEMES: Final = frozenset(
    {TpmAlgorithm.MGF1, TpmAlgorithm.KDF1_SP800_56A, TpmAlgorithm.KDF2, TpmAlgorithm.KDF1_SP800_108},
)


# --- reading ---------------------------------------------------------------------------------------------------------


def parse_public(tpm2b: bytes) -> TpmPublic:
    """Read a TPM2B_PUBLIC.

    Args:
        tpm2b: the structure with its 2-octet size, at most 1026 octets.

    Raises:
        TpmStructureError: anything but exactly one well-formed public area with a valid key (TPM 2.0 Part 2 12.2.5).
    """
    octets = unwrap(tpm2b, "TPM2B_PUBLIC", PUBLIC_AREA_MAX_SIZE_BYTES)
    reader = OctetReader(octets, "TPMT_PUBLIC")
    template = _read_template(reader)
    unique = _read_unique(reader, template)
    reader.end()
    return TpmPublic(octets=octets, template=template, unique=unique, point=check_key(template, unique))


def parse_template(octets: bytes) -> TpmTemplate:
    """Read what stands before `unique` in a TPMT_PUBLIC.

    Raises:
        TpmStructureError: anything else.
    """
    reader = OctetReader(octets, "TPMT_PUBLIC")
    template = _read_template(reader)
    reader.end()
    return template


def _read_template(reader: OctetReader) -> TpmTemplate:
    object_type = reader.unsigned(2)
    name_hash = _read_hash(reader)
    attributes = reader.unsigned(4)
    if attributes & ~ATTRIBUTES_MASK:
        raise reader.refuse(f"reserved attribute bits set: {attributes & ~ATTRIBUTES_MASK:#010x}")
    policy = reader.sized(name_hash.digest_size_bytes)
    if policy and len(policy) != name_hash.digest_size_bytes:
        raise reader.refuse(f"authPolicy of {len(policy)} octets is not a {name_hash.name} digest")
    symmetric_key_bits, key_bits, exponent = 0, 0, 0
    scheme, kdf, curve = NULL_SCHEME, NULL_SCHEME, None
    match object_type:
        case TpmAlgorithm.RSA:
            symmetric_key_bits, scheme = _read_symmetric(reader), _read_scheme(reader, _RSA_SCHEMES)
            key_bits, exponent = _read_rsa_sizes(reader)
        case TpmAlgorithm.ECC:
            symmetric_key_bits, scheme = _read_symmetric(reader), _read_scheme(reader, _ECC_SCHEMES)
            curve, kdf = _read_curve(reader), _read_scheme(reader, _KDF_SCHEMES)
        case TpmAlgorithm.KEYEDHASH:
            scheme = _read_keyed_hash_scheme(reader)
        case TpmAlgorithm.SYMCIPHER:
            symmetric_key_bits = _read_symmetric(reader)
        case _:
            raise reader.refuse(f"unknown object type {object_type:#06x}")
    return TpmTemplate(
        object_type=TpmAlgorithm(object_type),
        name_hash=name_hash,
        attributes=ObjectAttributes(attributes),
        authorization_policy=policy,
        symmetric_key_bits=symmetric_key_bits,
        scheme=scheme,
        key_bits=key_bits,
        exponent=exponent,
        curve=curve,
        kdf=kdf,
    )


def _read_hash(reader: OctetReader) -> TpmHash:
    number = reader.unsigned(2)
    if (found := HASHES.get(number)) is None:
        raise reader.refuse(f"unknown or NULL hash {number:#06x}")
    return found


def _read_symmetric(reader: OctetReader) -> int:
    algorithm = reader.unsigned(2)
    if algorithm == TpmAlgorithm.NULL:
        return 0
    key_bits, mode = reader.unsigned(2), reader.unsigned(2)
    if algorithm != TpmAlgorithm.AES or key_bits not in _AES_KEY_BITS or mode != TpmAlgorithm.CFB:
        raise reader.refuse(f"symmetric {algorithm:#06x}/{key_bits}/{mode:#06x} is not AES-CFB")
    return key_bits


def _read_scheme(reader: OctetReader, known: frozenset[TpmAlgorithm]) -> TpmScheme:
    algorithm = reader.unsigned(2)
    if algorithm == TpmAlgorithm.NULL:
        return NULL_SCHEME
    if algorithm == TpmAlgorithm.RSAES and TpmAlgorithm.RSASSA in known:
        return TpmScheme(algorithm=TpmAlgorithm.RSAES)
    if algorithm not in known:
        raise reader.refuse(f"unknown scheme {algorithm:#06x}")
    scheme_hash = _read_hash(reader)
    count = reader.unsigned(2) if algorithm == TpmAlgorithm.ECDAA else None
    return TpmScheme(algorithm=TpmAlgorithm(algorithm), hash=scheme_hash, count=count)


def _read_keyed_hash_scheme(reader: OctetReader) -> TpmScheme:
    match reader.unsigned(2):
        case TpmAlgorithm.NULL:
            return NULL_SCHEME
        case TpmAlgorithm.HMAC:
            return TpmScheme(algorithm=TpmAlgorithm.HMAC, hash=_read_hash(reader))
        case TpmAlgorithm.XOR:
            scheme_hash, kdf = _read_hash(reader), reader.unsigned(2)
            if kdf not in _KDF_SCHEMES:
                raise reader.refuse(f"unknown key derivation {kdf:#06x}")
            return TpmScheme(algorithm=TpmAlgorithm.XOR, hash=scheme_hash, kdf=TpmAlgorithm(kdf))
        case other:
            raise reader.refuse(f"unknown keyed-hash scheme {other:#06x}")


def _read_rsa_sizes(reader: OctetReader) -> tuple[int, int]:
    key_bits, exponent = reader.unsigned(2), reader.unsigned(4)
    if key_bits not in _RSA_KEY_BITS:
        raise reader.refuse(f"RSA key of {key_bits} bits")
    return key_bits, exponent


def _read_curve(reader: OctetReader) -> TpmCurve:
    number = reader.unsigned(2)
    if (curve := CURVES.get(number)) is None:
        raise reader.refuse(f"unknown curve {number:#06x}")
    return curve


def _read_unique(reader: OctetReader, template: TpmTemplate) -> tuple[bytes, ...]:
    if template.curve is not None:
        size_bytes = template.curve.coordinate_size_bytes
        return _read_exactly(reader, size_bytes), _read_exactly(reader, size_bytes)
    if template.object_type is TpmAlgorithm.RSA:
        return (_read_exactly(reader, template.key_bits // 8),)
    return (_read_exactly(reader, template.name_hash.digest_size_bytes),)


def _read_exactly(reader: OctetReader, size_bytes: int) -> bytes:
    octets = reader.sized(size_bytes)
    if len(octets) != size_bytes:
        raise reader.refuse(f"unique field of {len(octets)} octets where {size_bytes} belong")
    return octets


# --- writing ---------------------------------------------------------------------------------------------------------


def encode_template(template: TpmTemplate) -> bytes:
    """The octets of a public area up to `unique`."""
    head = (
        template.object_type.to_bytes(2, "big")
        + template.name_hash.algorithm.to_bytes(2, "big")
        + int(template.attributes).to_bytes(4, "big")
        + sized(template.authorization_policy)
    )
    match template.object_type:
        case TpmAlgorithm.RSA:
            sizes = template.key_bits.to_bytes(2, "big") + template.exponent.to_bytes(4, "big")
            return head + _encode_symmetric(template) + _encode_scheme(template.scheme) + sizes
        case TpmAlgorithm.ECC if template.curve is not None:
            curve = template.curve.number.to_bytes(2, "big")
            return (
                head
                + _encode_symmetric(template)
                + _encode_scheme(template.scheme)
                + curve
                + _encode_scheme(template.kdf)
            )
        case TpmAlgorithm.SYMCIPHER:
            return head + _encode_symmetric(template)
        case _:
            return head + _encode_scheme(template.scheme)


def encode_public(template: TpmTemplate, unique: tuple[bytes, ...]) -> bytes:
    """TPM2B_PUBLIC of a template and its `unique` fields."""
    return sized(encode_template(template) + b"".join(map(sized, unique)))


def _encode_symmetric(template: TpmTemplate) -> bytes:
    if not template.symmetric_key_bits:
        return TpmAlgorithm.NULL.to_bytes(2, "big")
    parts = (TpmAlgorithm.AES, template.symmetric_key_bits, TpmAlgorithm.CFB)
    return b"".join(part.to_bytes(2, "big") for part in parts)


def _encode_scheme(scheme: TpmScheme) -> bytes:
    parts = (scheme.algorithm, None if scheme.hash is None else scheme.hash.algorithm, scheme.kdf, scheme.count)
    return b"".join(part.to_bytes(2, "big") for part in parts if part is not None)
