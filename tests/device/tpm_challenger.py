"""The service's half of a TPM challenge, written once more from the specification and only for the tests.

It shares nothing with `provisiond.attestation`, so that the device's client is not merely tested against our own reading
of TPM 2.0 Part 1: 11.4.10 (KDFa, KDFe), 24 (credentials), 23.3 (duplication), Annexes B and C (seeds).
"""

import hashlib
import hmac
import os

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode


def tpm2b(data):
    return len(data).to_bytes(2) + data


def name_of(public):
    return b"\x00\x0b" + hashlib.sha256(public[2:]).digest()


def parse_key(public):
    """RSA-2048 or P-256 from a TPM2B_PUBLIC whose policy has any length."""
    area = public[2:]
    policy_size = int.from_bytes(area[8:10])
    parameters = area[10 + policy_size :]
    if area[:2] == b"\x00\x01":
        return rsa.RSAPublicNumbers(65537, int.from_bytes(parameters[-256:])).public_key()
    x, y = parameters[-66:-34], parameters[-32:]
    return ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), ec.SECP256R1()).public_key()


def kdfa(seed, label, context, bits):
    kdf = KBKDFHMAC(
        algorithm=hashes.SHA256(),
        mode=Mode.CounterMode,
        length=bits // 8,
        rlen=4,
        llen=4,
        location=CounterLocation.BeforeFixed,
        label=label,
        context=context,
        fixed=None,
    )
    return kdf.derive(seed)


def share_seed(public, label):
    """(seed, TPM2B_ENCRYPTED_SECRET) for the key in a TPM2B_PUBLIC."""
    key = parse_key(public)
    if isinstance(key, rsa.RSAPublicKey):
        seed = os.urandom(32)
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label + b"\0")
        return seed, tpm2b(key.encrypt(seed, oaep))
    ephemeral = ec.generate_private_key(ec.SECP256R1())
    ours, theirs = ephemeral.public_key().public_numbers(), key.public_numbers()
    party_u, party_v = ours.x.to_bytes(32), theirs.x.to_bytes(32)
    shared = ephemeral.exchange(ec.ECDH(), key)
    seed = ConcatKDFHash(hashes.SHA256(), 32, label + b"\0" + party_u + party_v).derive(shared)
    return seed, tpm2b(tpm2b(party_u) + tpm2b(ours.y.to_bytes(32)))


def cfb(key, data):
    encryptor = Cipher(AES(key), CFB(bytes(16))).encryptor()
    return encryptor.update(data) + encryptor.finalize()


def wrap(seed, name, data):
    """HMAC (TPM2B) and ciphertext of an outer wrapper."""
    encrypted = cfb(kdfa(seed, b"STORAGE", name, 128), data)
    outer = hmac.digest(kdfa(seed, b"INTEGRITY", b"", 256), encrypted + name, "sha256")
    return tpm2b(outer) + encrypted


def make_credential(ek_public, name, secret):
    """(TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET)."""
    seed, shared = share_seed(ek_public, b"IDENTITY")
    return tpm2b(wrap(seed, name, tpm2b(secret))), shared


def make_authentication_key(ek_public, srk_public, key, *, policy=b"", tail=b"\0\0"):
    """An Azure `authenticationKey` blob that carries an HMAC key to the TPM with this EK and SRK."""
    inner_key, seed_value = os.urandom(16), os.urandom(32)
    credential, credential_secret = make_credential(ek_public, name_of(srk_public), inner_key)
    unique = hashlib.sha256(seed_value + key).digest()
    public = tpm2b(bytes.fromhex("0008000b00040440") + tpm2b(policy) + bytes.fromhex("0005000b") + tpm2b(unique))
    sensitive = tpm2b(bytes.fromhex("00080000") + tpm2b(seed_value) + tpm2b(key))
    inner = cfb(inner_key, tpm2b(hashlib.sha256(sensitive + name_of(public)).digest()) + sensitive)
    seed, duplication_secret = share_seed(srk_public, b"DUPLICATE")
    duplicate = tpm2b(wrap(seed, name_of(public), inner))
    return credential + credential_secret + duplicate + duplication_secret + public + tail
