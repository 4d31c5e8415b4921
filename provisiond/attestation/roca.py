"""The fingerprint of RSA keys whose primes can be found: ROCA, CVE-2017-15361.

The flawed generator made every prime as `k * M + (65537^a mod M)` with M the product of the first primes. A modulus of
two such primes is then a power of 65537 modulo M, and so modulo each of those primes: a discrete logarithm exists.
It hardly ever does by chance: for the 39 primes up to 167 the powers of 65537 are 2^-154 of all residues.

Source: Nemec, Sys, Svenda, Klinec, Matyas, "The Return of Coppersmith's Attack", ACM CCS 2017, section 2.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from provisiond.errors import AttestationError

_GENERATOR: Final = 65537


def _primes_up_to(limit: int) -> tuple[int, ...]:
    return tuple(n for n in range(2, limit + 1) if all(n % d for d in range(2, math.isqrt(n) + 1)))


_PRIMES: Final = _primes_up_to(167)
"""Those of the smallest vulnerable keys (512 bits); longer keys use more primes, so their moduli match these too."""

_PRIMORIAL: Final = math.prod(_PRIMES)


def _logarithms(prime: int) -> Mapping[int, int]:
    """Each power of the generator modulo a prime, with its smallest exponent; as many as the generator's order."""
    logarithms: dict[int, int] = {}
    power = 1 % prime
    while power not in logarithms:
        logarithms[power] = len(logarithms)
        power = power * _GENERATOR % prime
    return MappingProxyType(logarithms)


_LOGARITHMS: Final = tuple((prime, _logarithms(prime)) for prime in _PRIMES)

# Nearly every sound modulus fails here, and a divisor of one machine word is a tenth of the work.
_QUICK: Final = tuple((prime, _logarithms(prime)) for prime in (37, 97, 11, 79, 61))
_QUICK_PRODUCT: Final = math.prod(prime for prime, _ in _QUICK)


def refuse_roca(modulus: int, *, key: str) -> None:
    """Refuse an RSA modulus that was made by the flawed generator.

    Args:
        modulus: n.
        key: whose it is, for the message.

    Raises:
        AttestationError: its factors can be found; finding `roca`.
    """
    residue = modulus % _QUICK_PRODUCT
    for prime, logarithms in _QUICK:
        if residue % prime not in logarithms:
            return
    _refuse_logarithm(modulus % _PRIMORIAL, key)


def _refuse_logarithm(residue: int, key: str) -> None:
    """Refuse a modulus that is a power of the generator modulo all the primes at once (Pohlig-Hellman)."""
    exponent, order = 0, 1  # the discrete logarithm so far: `exponent` modulo `order`
    for prime, logarithms in _LOGARITHMS:
        logarithm = logarithms.get(residue % prime)
        if logarithm is None:
            return
        common = math.gcd(order, len(logarithms))
        if (logarithm - exponent) % common:
            return
        # Chinese remainder: the smallest number that is `exponent` modulo `order` and `logarithm` modulo this order.
        steps = (logarithm - exponent) // common * pow(order // common, -1, len(logarithms) // common)
        exponent += order * (steps % (len(logarithms) // common))
        order = math.lcm(order, len(logarithms))
    raise AttestationError(f"{key} has a modulus that can be factored", finding="roca", clause="CVE-2017-15361")
