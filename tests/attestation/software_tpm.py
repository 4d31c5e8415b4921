"""The TPM's half of credentials and imports, in software: opens what the service seals, with a private key."""

import hmac

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode


def take(octets):
    """A TPM2B in front, and what follows."""
    size = int.from_bytes(octets[:2], "big")
    assert len(octets) >= 2 + size
    return octets[2 : 2 + size], octets[2 + size :]


def take_all(octets):
    content, rest = take(octets)
    assert rest == b""
    return content


def derive(name_hash, seed, label, context, size_bytes):
    """KDFa by another implementation: SP 800-108 in counter mode, no separator but the label's own NUL."""
    fixed = label + context + (size_bytes * 8).to_bytes(4, "big")
    kdf = KBKDFHMAC(
        name_hash.primitive, Mode.CounterMode, size_bytes, 4, 4, CounterLocation.BeforeFixed, None, None, fixed
    )
    return kdf.derive(seed)


def open_seed(private_key, public, label, encrypted_secret):
    secret = take_all(encrypted_secret)
    name_hash = public.name_hash
    if not isinstance(private_key, ec.EllipticCurvePrivateKey):
        return private_key.decrypt(secret, padding.OAEP(padding.MGF1(name_hash.primitive), name_hash.primitive, label))
    x, rest = take(secret)
    y = take_all(rest)
    ephemeral = ec.EllipticCurvePublicKey.from_encoded_point(private_key.curve, b"\x04" + x + y)
    z = private_key.exchange(ec.ECDH(), ephemeral)
    return ConcatKDFHash(name_hash.primitive, name_hash.digest_size_bytes, label + x + public.unique[0]).derive(z)


def decrypt_cfb(key, ciphertext):
    decryptor = Cipher(AES(key), CFB(bytes(16))).decryptor()
    return decryptor.update(ciphertext) + decryptor.finalize()


def open_outer(public, seed, name, wrapped):
    outer_hmac, ciphertext = take(wrapped)
    name_hash = public.name_hash
    hmac_key = derive(name_hash, seed, b"INTEGRITY\0", b"", name_hash.digest_size_bytes)
    assert hmac.digest(hmac_key, ciphertext + name, name_hash.name) == outer_hmac
    return decrypt_cfb(derive(name_hash, seed, b"STORAGE\0", name, public.template.symmetric_key_bits // 8), ciphertext)


def activate(private_key, public, name, id_object, encrypted_secret):
    """TPM2_ActivateCredential."""
    seed = open_seed(private_key, public, b"IDENTITY\0", encrypted_secret)
    return take_all(open_outer(public, seed, name, take_all(id_object)))


def import_object(private_key, parent, public, private, encrypted_seed, inner_key):
    """TPM2_Import; the TPMT_SENSITIVE."""
    seed = open_seed(private_key, parent, b"DUPLICATE\0", encrypted_seed)
    wrapped = open_outer(parent, seed, public.name, take_all(private))
    if inner_key is not None:
        digest, wrapped = take(decrypt_cfb(inner_key, wrapped))
        assert digest == public.name_hash.digest(wrapped + public.name)
    return take_all(wrapped)


class ScriptedEntropy:
    """Entropy that gives what it was told, in order, and checks the sizes asked for."""

    def __init__(self, *values):
        self._values = list(values)

    def token_bytes(self, size_bytes):
        value = self._values.pop(0)
        assert len(value) == size_bytes
        return value


class CountingEntropy:
    """Entropy that never repeats itself: numbers, padded."""

    def __init__(self):
        self._count = 0

    def token_bytes(self, size_bytes):
        self._count += 1
        return self._count.to_bytes(size_bytes, "big")


def encode_oaep(seed, oaep_seed, name_hash, label, size_bytes):
    """EME-OAEP (RFC 8017 7.1.1) with a given seed: what a TPM's fixed vectors were made with."""
    digest_size = name_hash.digest_size_bytes
    block = name_hash.digest(label) + bytes(size_bytes - 2 * digest_size - 2 - len(seed)) + b"\x01" + seed
    masked_block = _xor(block, _mgf1(oaep_seed, len(block), name_hash))
    return b"\0" + _xor(oaep_seed, _mgf1(masked_block, digest_size, name_hash)) + masked_block


def _mgf1(seed, size_bytes, name_hash):
    blocks = range(-(-size_bytes // name_hash.digest_size_bytes))
    return b"".join(name_hash.digest(seed + block.to_bytes(4, "big")) for block in blocks)[:size_bytes]


def _xor(left, right):
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
