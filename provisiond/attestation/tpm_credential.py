"""Making credentials: secrets that only the TPM that holds an endorsement key can read, and only beside a named key.

==================  =======================================================================================
symmetric key       KDFa(nameAlg, seed, "STORAGE", Name, "", AES bits of the endorsement key)
encrypted identity  AES-CFB(symmetric key, IV 0)(TPM2B(secret))
HMAC key            KDFa(nameAlg, seed, "INTEGRITY", "", "", digest bits)
outer HMAC          HMAC(HMAC key, encrypted identity ‖ Name)
TPM2B_ID_OBJECT     TPM2B(TPM2B(outer HMAC) ‖ encrypted identity)
==================  =======================================================================================

The seed travels beside it, under RSA-OAEP or an ephemeral ECDH. Source: TPM 2.0 Part 1 11.4.10 (key derivation), 24
(credentials), B.10 (RSA), C.6 (ECC). All functions are deterministic but `transport_seed` and `make_credential`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.decrepit.ciphers.modes import CFB  # the TPM's own mode: nothing else interoperates
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from provisiond.attestation.tpm_algorithms import HASHES, TpmAlgorithm, TpmHash
from provisiond.attestation.tpm_octets import sized
from provisiond.attestation.tpm_public import TpmPublic
from provisiond.ports import Entropy

_ZERO_IV: Final = CFB(bytes(16))
"""The key is used once, so the initialisation vector may be constant (TPM 2.0 Part 1 24.4)."""

_ECDH: Final = ec.ECDH()


@dataclass(frozen=True, slots=True, eq=False)
class SeedLabel:
    """What a seed is for (TPM 2.0 Part 1 B.10.3, B.10.4).

    Args:
        octets: the label with its NUL.
        oaep: padding by the receiver's Name algorithm, which is both hash and mask hash.
    """

    octets: bytes
    oaep: Mapping[TpmHash, padding.OAEP]

    @classmethod
    def of(cls, octets: bytes) -> "SeedLabel":
        """The label of these octets."""
        oaep = {
            hash_: padding.OAEP(padding.MGF1(hash_.primitive), hash_.primitive, octets) for hash_ in HASHES.values()
        }
        return cls(octets, MappingProxyType(oaep))


IDENTITY: Final = SeedLabel.of(b"IDENTITY\0")
"""Seeds of credentials."""

DUPLICATE: Final = SeedLabel.of(b"DUPLICATE\0")
"""Seeds of duplicates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportedSeed:
    """A seed and how it travels.

    Args:
        seed: as long as a digest of the receiver's Name algorithm; secret.
        encrypted_secret: TPM2B_ENCRYPTED_SECRET.
    """

    seed: bytes = field(repr=False)
    encrypted_secret: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What TPM2_ActivateCredential takes: TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET."""

    id_object: bytes
    encrypted_secret: bytes


def kdfa(hash_: TpmHash, key: bytes, label: bytes, context_u: bytes, context_v: bytes, size_bits: int) -> bytes:
    """KDFa, the counter-mode HMAC derivation of SP 800-108 (TPM 2.0 Part 1 11.4.10.2).

    Args:
        hash_: of the HMAC.
        key: secret that is derived from.
        label: with its final NUL.
        context_u: first context, may be empty.
        context_v: second context, may be empty.
        size_bits: of the result, a multiple of 8.
    """
    fixed = label + context_u + context_v + size_bits.to_bytes(4, "big")
    size_bytes = size_bits // 8
    derived = hash_.hmac(key, b"\0\0\0\1" + fixed)
    counter = 1
    while len(derived) < size_bytes:
        counter += 1
        derived += hash_.hmac(key, counter.to_bytes(4, "big") + fixed)
    return derived[:size_bytes]


def kdfe(hash_: TpmHash, z: bytes, label: bytes, party_u: bytes, party_v: bytes, size_bits: int) -> bytes:
    """KDFe, the concatenation derivation of SP 800-56A (TPM 2.0 Part 1 11.4.10.3).

    Args:
        hash_: of the derivation.
        z: x of the shared point, as long as a coordinate.
        label: the use, with its final NUL.
        party_u: x of the ephemeral key, as long as a coordinate.
        party_v: x of the receiver's key, as long as a coordinate.
        size_bits: a multiple of 8.
    """
    fixed = z + label + party_u + party_v
    size_bytes = size_bits // 8
    derived = hash_.digest(b"\0\0\0\1" + fixed)
    counter = 1
    while len(derived) < size_bytes:
        counter += 1
        derived += hash_.digest(counter.to_bytes(4, "big") + fixed)
    return derived[:size_bytes]


def transport_seed(receiver: TpmPublic, label: SeedLabel, entropy: Entropy) -> TransportedSeed:
    """Make a seed and seal it to a storage key.

    The OAEP padding and the ephemeral key come from the library's own generator; the seed of RSA from `entropy`.

    Raises:
        ValueError: the receiver is not an RSA or ECC key.
    """
    if receiver.point is not None:
        return agree_seed(receiver, label, ec.generate_private_key(receiver.point.curve))
    if receiver.template.object_type is not TpmAlgorithm.RSA:
        raise ValueError("a seed can only be sealed to an RSA or ECC key")
    name_hash = receiver.name_hash
    seed = entropy.token_bytes(name_hash.digest_size_bytes)
    return TransportedSeed(seed=seed, encrypted_secret=sized(receiver.rsa_key.encrypt(seed, label.oaep[name_hash])))


def agree_seed(receiver: TpmPublic, label: SeedLabel, ephemeral_key: ec.EllipticCurvePrivateKey) -> TransportedSeed:
    """Agree on a seed with an ECC storage key (TPM 2.0 Part 1 C.6.3).

    Args:
        receiver: on the curve of `ephemeral_key`.
        label: what the seed is for.
        ephemeral_key: used for this seed and for nothing else.
    """
    if receiver.point is None:
        raise ValueError("the receiver is not an ECC key")
    name_hash = receiver.name_hash
    point = ephemeral_key.public_key().public_bytes(
        serialization.Encoding.X962,
        serialization.PublicFormat.UncompressedPoint,
    )
    middle = (len(point) + 1) // 2
    x, y = point[1:middle], point[middle:]
    z = ephemeral_key.exchange(_ECDH, receiver.point)
    seed = kdfe(name_hash, z, label.octets, x, receiver.unique[0], name_hash.digest_size_bytes * 8)
    return TransportedSeed(seed=seed, encrypted_secret=sized(sized(x) + sized(y)))


def encrypt_cfb(key: bytes, plaintext: bytes) -> bytes:
    """AES-CFB under a key that is used once, with a zero initialisation vector."""
    return Cipher(AES(key), _ZERO_IV).encryptor().update(plaintext)  # a stream: nothing is left to finalize


def wrap_outer(parent: TpmPublic, seed: bytes, name: bytes, plaintext: bytes) -> bytes:
    """The outer wrapper of credentials and duplicates: `TPM2B(HMAC) ‖ ciphertext` (TPM 2.0 Part 1 23.3.2.3, 24.4).

    Args:
        parent: storage key that the seed was sealed to.
        seed: both keys are derived from it.
        name: of the object that the ciphertext is tied to.
        plaintext: at most 65535 octets.
    """
    template = parent.template
    name_hash = template.name_hash
    if not template.symmetric_key_bits:
        raise ValueError("the parent is not a storage key")
    symmetric_key = kdfa(name_hash, seed, b"STORAGE\0", name, b"", template.symmetric_key_bits)
    ciphertext = encrypt_cfb(symmetric_key, plaintext)
    hmac_key = kdfa(name_hash, seed, b"INTEGRITY\0", b"", b"", name_hash.digest_size_bytes * 8)
    return sized(name_hash.hmac(hmac_key, ciphertext + name)) + ciphertext


def seal_credential(endorsement_key: TpmPublic, object_name: bytes, secret: bytes, seed: bytes) -> bytes:
    """TPM2B_ID_OBJECT of a secret under a seed (TPM 2.0 Part 1 24.4); arguments as `make_credential`."""
    if not 1 <= len(secret) <= endorsement_key.name_hash.digest_size_bytes:
        raise ValueError(f"a credential holds 1 to {endorsement_key.name_hash.digest_size_bytes} octets")
    return sized(wrap_outer(endorsement_key, seed, object_name, sized(secret)))


def make_credential(endorsement_key: TpmPublic, object_name: bytes, secret: bytes, *, entropy: Entropy) -> Credential:
    """TPM2_MakeCredential: a secret that the endorsement key's TPM gives out beside the named object only.

    Args:
        endorsement_key: restricted decryption key that the secret is sealed to.
        object_name: Name of the key that must be loaded in the same TPM.
        secret: 1 octet to a digest of the endorsement key's Name algorithm (Part 3 TPM2_MakeCredential).
        entropy: makes the seed.

    Raises:
        ValueError: the secret is too long or empty, or the endorsement key is not a storage key.
    """
    transported = transport_seed(endorsement_key, IDENTITY, entropy)
    return Credential(
        id_object=seal_credential(endorsement_key, object_name, secret, transported.seed),
        encrypted_secret=transported.encrypted_secret,
    )
