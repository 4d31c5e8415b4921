"""Duplicates: keys made here that one TPM imports below its storage key.

===============  =========================================================================================
TPMT_SENSITIVE   sensitiveType u16, TPM2B auth, TPM2B seedValue, TPM2B key
S                TPM2B(TPMT_SENSITIVE)
inner wrapper    AES-CFB(inner key, IV 0)(TPM2B(H(S ‖ Name)) ‖ S); without an inner key, S alone
TPM2B_PRIVATE    TPM2B(outer wrapper of that, under a DUPLICATE seed of the parent)
===============  =========================================================================================

Source: TPM 2.0 Part 1 23.3.2; Part 3 TPM2_Import.
"""

from dataclasses import dataclass, field
from typing import Final

from provisiond.attestation.tpm_algorithms import SHA256, ObjectAttributes, TpmAlgorithm, TpmHash
from provisiond.attestation.tpm_credential import DUPLICATE, encrypt_cfb, transport_seed, wrap_outer
from provisiond.attestation.tpm_octets import sized
from provisiond.attestation.tpm_public import TpmPublic, TpmScheme, TpmTemplate
from provisiond.attestation.tpm_structures import encode_public, parse_public
from provisiond.ports import Entropy

HMAC_KEY_ATTRIBUTES: Final = ObjectAttributes.SIGN | ObjectAttributes.USER_WITH_AUTH | ObjectAttributes.NO_DA
"""00040440. The authPolicy is left empty: any other would let TPM2_Duplicate take the key out of the TPM again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HmacKey:
    """An HMAC key as a TPM object.

    Args:
        public: its public area.
        sensitive: TPMT_SENSITIVE; secret.
    """

    public: TpmPublic
    sensitive: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """What TPM2_Import takes beside the public area: TPM2B_PRIVATE and TPM2B_ENCRYPTED_SECRET."""

    private: bytes
    encrypted_seed: bytes


def hmac_key(
    key: bytes,
    *,
    seed_value: bytes,
    scheme_hash: TpmHash = SHA256,
    name_hash: TpmHash = SHA256,
    attributes: ObjectAttributes = HMAC_KEY_ATTRIBUTES,
) -> HmacKey:
    """Make a TPM object of an HMAC key.

    Args:
        key: 1 octet to a block of `scheme_hash` (64 octets for SHA-256); a TPM refuses longer ones.
        seed_value: random, exactly a digest of `name_hash`; blinds the public digest of the key.
        scheme_hash: of the HMAC.
        name_hash: of the object's Name.
        attributes: without the RESIDENT ones, which an imported key cannot have.

    Raises:
        ValueError: a length is out of its range.
    """
    if not 1 <= len(key) <= scheme_hash.block_size_bytes or len(seed_value) != name_hash.digest_size_bytes:
        raise ValueError(f"HMAC keys are 1 to {scheme_hash.block_size_bytes} octets, seed values one digest")
    template = TpmTemplate(
        object_type=TpmAlgorithm.KEYEDHASH,
        name_hash=name_hash,
        attributes=attributes,
        scheme=TpmScheme(algorithm=TpmAlgorithm.HMAC, hash=scheme_hash),
    )
    public = parse_public(encode_public(template, (name_hash.digest(seed_value + key),)))
    no_auth = sized(b"")
    sensitive = TpmAlgorithm.KEYEDHASH.to_bytes(2, "big") + no_auth + sized(seed_value) + sized(key)
    return HmacKey(public=public, sensitive=sensitive)


def wrap_inner(public: TpmPublic, sensitive: bytes, inner_key: bytes | None) -> bytes:
    """The inner wrapper, or the bare sensitive area when `inner_key` is None (TPM 2.0 Part 1 23.3.2.2)."""
    area = sized(sensitive)
    if inner_key is None:
        return area
    return encrypt_cfb(inner_key, sized(public.name_hash.digest(area + public.name)) + area)


def seal_duplicate(
    *, parent: TpmPublic, public: TpmPublic, sensitive: bytes, inner_key: bytes | None, seed: bytes
) -> bytes:
    """TPM2B_PRIVATE of an object under a seed of its new parent; arguments as `duplicate`."""
    return sized(wrap_outer(parent, seed, public.name, wrap_inner(public, sensitive, inner_key)))


def duplicate(
    *, parent: TpmPublic, public: TpmPublic, sensitive: bytes, inner_key: bytes | None, entropy: Entropy
) -> Duplicate:
    """Seal an object to a storage key, for TPM2_Import.

    Args:
        parent: storage key that the object will live under.
        public: its public area.
        sensitive: its TPMT_SENSITIVE.
        inner_key: 16 or 32 octets, AES key of the inner wrapper; None for no inner wrapper.
        entropy: makes the seed.

    Raises:
        ValueError: the parent is not a storage key, or the inner key no AES key.
    """
    transported = transport_seed(parent, DUPLICATE, entropy)
    private = seal_duplicate(
        parent=parent, public=public, sensitive=sensitive, inner_key=inner_key, seed=transported.seed
    )
    return Duplicate(private=private, encrypted_seed=transported.encrypted_secret)
