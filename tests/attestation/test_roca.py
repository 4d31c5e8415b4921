import math

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from provisiond.attestation.roca import refuse_roca
from provisiond.errors import AttestationError
from tests.attestation.tpm_vectors import load

PRIMES = [n for n in range(2, 702) if all(n % d for d in range(2, math.isqrt(n) + 1))]
assert len(PRIMES) == 126  # what the flawed generator used for keys of 1984 to 3936 bits


def vulnerable_modulus(bits, first=12345, second=67890):
    """A modulus as the flawed generator made it; its factors need not be prime for the fingerprint."""
    primorial = math.prod(PRIMES)
    half = bits // 2
    high = (3 << (half - 2)) // primorial + 1

    def factor(exponent, multiple):
        return (high + multiple) * primorial + pow(65537, exponent, primorial)

    modulus = factor(first, 11) * factor(second, 29)
    assert modulus.bit_length() == bits
    assert modulus % 2 == 1
    return modulus


@pytest.mark.parametrize("bits", [2048, 3072])
def test_a_modulus_of_the_flawed_generator_is_refused(bits):
    with pytest.raises(AttestationError) as caught:
        refuse_roca(vulnerable_modulus(bits), key="endorsement key")
    assert caught.value.finding == "roca"
    assert caught.value.clause == "CVE-2017-15361"


@given(first=st.integers(0, 2**200), second=st.integers(0, 2**200))
def test_every_pair_of_exponents_is_recognised(first, second):
    with pytest.raises(AttestationError):
        refuse_roca(vulnerable_modulus(2048, first, second), key="key")


def test_keys_of_real_tpms_pass():
    for vector in load()["public"]:
        if "rsa" in vector["note"]:
            size = 384 if "3072" in vector["note"] else 256
            refuse_roca(int(vector["tpm2b_public"][-2 * size :], 16), key=vector["note"])


def test_a_key_of_a_sound_generator_passes():
    refuse_roca(rsa.generate_private_key(65537, 2048).public_key().public_numbers().n, key="key")


@given(modulus=st.integers(2**2047, 2**2048))
def test_numbers_at_random_pass(modulus):
    refuse_roca(modulus, key="key")


def test_residues_that_are_powers_one_by_one_but_not_together_pass():
    """The logarithms must agree: 65537^0 modulo 11 and 65537^1 modulo 13 are of orders 2 and 4."""
    primes = [p for p in PRIMES if p <= 167]
    primorial = math.prod(primes)
    modulus = 0
    for prime in primes:
        power = 65537 % prime if prime == 13 else 1 % prime
        modulus += power * (primorial // prime) * pow(primorial // prime, -1, prime)
    refuse_roca(modulus % primorial + (primorial << 1800), key="key")
