"""Public templates of the keys a device makes: TPMT_PUBLIC octets with an empty key (TPM 2.0 Part 2 12.2.4).

The EK templates are L-1, L-2 and H-3 of the TCG EK Credential Profile, the storage root keys those of the TCG TPM 2.0
Provisioning Guidance 7.5.1. The all-zero `unique` of the profile is part of what a primary key is derived from: without
it a real TPM makes a different key from the one that its manufacturer certified.

    type | nameAlg | objectAttributes | TPM2B authPolicy | symmetric | scheme | size or curve | exponent or kdf | unique
"""

from typing import Final

_POLICY_A: Final = "0020 837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"  # PolicySecret(endorsement)
_POLICY_B_SHA384: Final = (  # PolicyA, or a policy of the owner's in NV
    "0030 b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12"
)
_NO_POLICY: Final = "0000"
_AES128_CFB: Final = "0006 0080 0043"
_AES256_CFB: Final = "0006 0100 0043"
_NULL: Final = "0010"
_RSA2048: Final = "0800 00000000"  # exponent 0 means 65537
_P256: Final = "0003 0010"
_P384: Final = "0004 0010"
_RSA_ZEROS: Final = "0100" + "00" * 256
_P256_ZEROS: Final = ("0020" + "00" * 32) * 2

_ENDORSEMENT: Final = "000300b2"  # fixedTPM fixedParent sensitiveDataOrigin adminWithPolicy restricted decrypt
_ENDORSEMENT_HIGH: Final = "000300f2"  # and userWithAuth
_STORAGE: Final = "00030472"  # fixedTPM fixedParent sensitiveDataOrigin userWithAuth noDA restricted decrypt
_ATTESTATION: Final = "00050072"  # fixedTPM fixedParent sensitiveDataOrigin userWithAuth restricted sign


def _template(*fields: str) -> bytes:
    return bytes.fromhex("".join(fields))


EK_RSA2048: Final = _template("0001 000b", _ENDORSEMENT, _POLICY_A, _AES128_CFB, _NULL, _RSA2048, _RSA_ZEROS)
EK_P256: Final = _template("0023 000b", _ENDORSEMENT, _POLICY_A, _AES128_CFB, _NULL, _P256, _P256_ZEROS)
EK_P384: Final = _template("0023 000c", _ENDORSEMENT_HIGH, _POLICY_B_SHA384, _AES256_CFB, _NULL, _P384, "0000 0000")
SRK_RSA2048: Final = _template("0001 000b", _STORAGE, _NO_POLICY, _AES128_CFB, _NULL, _RSA2048, _RSA_ZEROS)
SRK_P256: Final = _template("0023 000b", _STORAGE, _NO_POLICY, _AES128_CFB, _NULL, _P256, _P256_ZEROS)
AK_RSA2048: Final = _template("0001 000b", _ATTESTATION, _NO_POLICY, _NULL, "0014 000b", _RSA2048, "0000")
AK_P256: Final = _template("0023 000b", _ATTESTATION, _NO_POLICY, _NULL, "0018 000b", _P256, "0000 0000")
