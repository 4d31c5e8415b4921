"""The `authenticationKey` of Azure DPS: a signing key that only one TPM can take in.

=====================  ===================================================================  ===========
TPM2B_ID_OBJECT        credential of the inner key, for the storage root key                54 octets
TPM2B_ENCRYPTED_SECRET its seed, under the endorsement key                                  258
TPM2B_PRIVATE          duplicate of the signing key, inner wrapper under the inner key      144
TPM2B_ENCRYPTED_SECRET its seed, under the storage root key                                 258
TPM2B_PUBLIC           the signing key: HMAC with SHA-256, empty authPolicy                 50
TPM2B_DATA             empty                                                                2
=====================  ===================================================================  ===========

Sizes are those of RSA-2048 keys and a 32-octet signing key, 766 in all. The layout is what the TPM clients of the
Azure device SDKs take apart; it serves both as the challenge of a registration and as the carrier of a hub key. A
client needs both keys in one TPM to open it: the endorsement key for the inner key, the storage root key to import.
"""

from typing import Final

from provisiond.attestation.tpm_credential import make_credential
from provisiond.attestation.tpm_duplication import duplicate, hmac_key
from provisiond.attestation.tpm_octets import sized
from provisiond.attestation.tpm_public import TpmPublic
from provisiond.ports import Entropy

INNER_KEY_SIZE_BYTES: Final = 16
"""AES-128: the Azure clients for C and C# know no other."""

# The sixth field would be encrypted with key and IV of the inner wrapper, so anything in it gives keystream away.
_NO_DATA: Final = sized(b"")


def activation_blob(*, endorsement_key: TpmPublic, storage_root_key: TpmPublic, key: bytes, entropy: Entropy) -> bytes:
    """Seal a signing key to one TPM.

    Args:
        endorsement_key: whose TPM shall open it.
        storage_root_key: in the same TPM; the signing key will live below it.
        key: HMAC-SHA256 key, 1 to 64 octets.
        entropy: makes the inner key, the blinding value of the signing key and the seeds.

    Returns:
        The blob; devices get it in base64.

    Raises:
        ValueError: the key's length, or one of the TPM keys is not a storage key.
    """
    inner_key = entropy.token_bytes(INNER_KEY_SIZE_BYTES)
    signing_key = hmac_key(key, seed_value=entropy.token_bytes(32))
    credential = make_credential(endorsement_key, storage_root_key.name, inner_key, entropy=entropy)
    sealed = duplicate(
        parent=storage_root_key,
        public=signing_key.public,
        sensitive=signing_key.sensitive,
        inner_key=inner_key,
        entropy=entropy,
    )
    return b"".join(
        (
            credential.id_object,
            credential.encrypted_secret,
            sealed.private,
            sealed.encrypted_seed,
            signing_key.public.tpm2b,
            _NO_DATA,
        ),
    )
