"""The endorsement and storage key templates that provisiond accepts, and the fast way to recognise them.

A template is a constant: everything of the public area before the key itself. One comparison of octets thus checks
type, Name algorithm, attributes, policy, protection of children, scheme, key size and exponent at once.

=========  ===================  ========  ==========  ===========  ===========
L-1  L-2   RSA-2048  P-256      SHA-256   000300B2    PolicyA      AES-128-CFB
H-1  H-2   RSA-2048  P-256      SHA-256   000300F2    PolicyB/256  AES-128-CFB
H-3        P-384                SHA-384   000300F2    PolicyB/384  AES-256-CFB
H-4        P-521                SHA-512   000300F2    PolicyB/512  AES-256-CFB
H-6  H-7   RSA-3072  RSA-4096   SHA-384   000300F2    PolicyB/384  AES-256-CFB
storage    RSA-2048  P-256      SHA-256   00030472    none         AES-128-CFB
storage    P-384                SHA-384   00030472    none         AES-256-CFB
=========  ===================  ========  ==========  ===========  ===========

Source: TCG EK Credential Profile for TPM Family 2.0, annex B; TCG TPM v2.0 Provisioning Guidance 7.5.1 (storage).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from provisiond.attestation.tpm_algorithms import (
    CURVES,
    SHA256,
    SHA384,
    SHA512,
    ObjectAttributes,
    TpmAlgorithm,
    TpmCurve,
    TpmHash,
)
from provisiond.attestation.tpm_octets import sized
from provisiond.attestation.tpm_public import TpmPublic, TpmTemplate, check_key
from provisiond.attestation.tpm_structures import encode_template

_P256: Final = CURVES[0x0003]
_P384: Final = CURVES[0x0004]
_P521: Final = CURVES[0x0005]

_RESTRICTED_STORAGE: Final = ObjectAttributes.RESIDENT | ObjectAttributes.RESTRICTED | ObjectAttributes.DECRYPT
_LOW_RANGE: Final = _RESTRICTED_STORAGE | ObjectAttributes.ADMIN_WITH_POLICY
_HIGH_RANGE: Final = _LOW_RANGE | ObjectAttributes.USER_WITH_AUTH
_STORAGE: Final = _RESTRICTED_STORAGE | ObjectAttributes.USER_WITH_AUTH | ObjectAttributes.NO_DA

POLICY_A: Final = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
"""TPM2_PolicySecret(TPM_RH_ENDORSEMENT), SHA-256 (EK Credential Profile B.6.2)."""

POLICY_B: Final[Mapping[TpmHash, bytes]] = MappingProxyType(
    {
        SHA256: bytes.fromhex("ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0"),
        SHA384: bytes.fromhex(
            "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12",
        ),
        SHA512: bytes.fromhex(
            "b8221ca69e8550a4914de3faa6a18c072cc01208073a928d5d66d59ef79e49a4"
            "29c41a6b269571d57edb25fbdb1838425608b413cd616a5f6db5b6071af99bea",
        ),
    },
)
"""PolicyA or the owner's policy in NV, by Name algorithm (EK Credential Profile B.6.3 to B.6.5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTemplate:
    """A template with the octets that announce it.

    Args:
        id: as in the profile, such as `L-1`.
        prefix: TPM2B_PUBLIC from its size to the size of the first `unique` field, all of it constant.
        unique_size_bytes: of the modulus, or of each coordinate.
        tpm2b_size_bytes: of the whole TPM2B_PUBLIC.
    """

    id: str
    template: TpmTemplate
    prefix: bytes
    unique_size_bytes: int
    tpm2b_size_bytes: int


def match_template(tpm2b: bytes, known: Mapping[int, tuple[KnownTemplate, ...]]) -> TpmPublic | None:
    """Recognise a TPM2B_PUBLIC by its constant part; None when it is none of `known`.

    The result is the one that `parse_public` gives.

    Raises:
        TpmStructureError: the template is right and the key is none (a point off the curve, an even modulus).
    """
    for candidate in known.get(len(tpm2b), ()):
        if not tpm2b.startswith(candidate.prefix):
            continue
        size_bytes = candidate.unique_size_bytes
        last = tpm2b[-size_bytes:]
        if candidate.template.curve is None:
            unique: tuple[bytes, ...] = (last,)
        elif tpm2b[-size_bytes - 2 : -size_bytes] != size_bytes.to_bytes(2, "big"):
            continue
        else:
            unique = (tpm2b[-2 * size_bytes - 2 : -size_bytes - 2], last)
        point = check_key(candidate.template, unique)
        return TpmPublic(octets=tpm2b[2:], template=candidate.template, unique=unique, point=point)
    return None


def _known(name: str, template: TpmTemplate) -> KnownTemplate:
    unique_size_bytes = template.key_bits // 8 if template.curve is None else template.curve.coordinate_size_bytes
    fields = 1 if template.curve is None else 2
    octets = encode_template(template) + sized(bytes(unique_size_bytes)) * fields
    tpm2b = sized(octets)
    return KnownTemplate(
        id=name,
        template=template,
        prefix=tpm2b[: len(tpm2b) - fields * unique_size_bytes - 2 * (fields - 1)],
        unique_size_bytes=unique_size_bytes,
        tpm2b_size_bytes=len(tpm2b),
    )


def _rsa(name: str, key_bits: int, name_hash: TpmHash, attributes: ObjectAttributes, policy: bytes) -> KnownTemplate:
    template = TpmTemplate(
        object_type=TpmAlgorithm.RSA,
        name_hash=name_hash,
        attributes=attributes,
        authorization_policy=policy,
        symmetric_key_bits=128 if name_hash is SHA256 else 256,
        key_bits=key_bits,
    )
    return _known(name, template)


def _ecc(name: str, curve: TpmCurve, name_hash: TpmHash, attributes: ObjectAttributes, policy: bytes) -> KnownTemplate:
    template = TpmTemplate(
        object_type=TpmAlgorithm.ECC,
        name_hash=name_hash,
        attributes=attributes,
        authorization_policy=policy,
        symmetric_key_bits=128 if name_hash is SHA256 else 256,
        curve=curve,
    )
    return _known(name, template)


def _by_size(*templates: KnownTemplate) -> Mapping[int, tuple[KnownTemplate, ...]]:
    sizes = {template.tpm2b_size_bytes for template in templates}
    return MappingProxyType(
        {size: tuple(template for template in templates if template.tpm2b_size_bytes == size) for size in sizes},
    )


ENDORSEMENT_TEMPLATES: Final = _by_size(
    _rsa("L-1", 2048, SHA256, _LOW_RANGE, POLICY_A),
    _ecc("L-2", _P256, SHA256, _LOW_RANGE, POLICY_A),
    _rsa("H-1", 2048, SHA256, _HIGH_RANGE, POLICY_B[SHA256]),
    _ecc("H-2", _P256, SHA256, _HIGH_RANGE, POLICY_B[SHA256]),
    _ecc("H-3", _P384, SHA384, _HIGH_RANGE, POLICY_B[SHA384]),
    _ecc("H-4", _P521, SHA512, _HIGH_RANGE, POLICY_B[SHA512]),
    _rsa("H-6", 3072, SHA384, _HIGH_RANGE, POLICY_B[SHA384]),
    _rsa("H-7", 4096, SHA384, _HIGH_RANGE, POLICY_B[SHA384]),
)
"""Endorsement key templates by the size of the TPM2B_PUBLIC."""

STORAGE_TEMPLATES: Final = _by_size(
    _rsa("SRK-RSA2048", 2048, SHA256, _STORAGE, b""),
    _ecc("SRK-P256", _P256, SHA256, _STORAGE, b""),
    _ecc("SRK-P384", _P384, SHA384, _STORAGE, b""),
)
"""Storage root key templates by the size of the TPM2B_PUBLIC."""
