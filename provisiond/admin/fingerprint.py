"""Six words for a device's certificate or endorsement key, to be compared by voice.

    digest = SHA-256(certificate, DER, or endorsement key, TPM2B_PUBLIC)
    word i = words[ bits 10 i to 10 i + 9 of the digest, most significant first ]        i = 0 … 5

60 bits: whoever wants another device with the same words has to make some 10**18 keys. The list has no two words that
sound alike, and none longer than eight letters.
"""

from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Final

WORDS: Final = 6
_BITS: Final = 10


def six_words(evidence: bytes) -> str:
    """The words of a certificate (DER) or an endorsement key (TPM2B_PUBLIC), separated by hyphens."""
    return words_of(sha256(evidence).digest())


def words_of(digest: bytes) -> str:
    """The words of a SHA-256 digest."""
    number = int.from_bytes(digest[:8], "big") >> (64 - WORDS * _BITS)
    known = word_list()
    shifts = range((WORDS - 1) * _BITS, -1, -_BITS)
    return "-".join(known[number >> shift & (1 << _BITS) - 1] for shift in shifts)


@cache
def word_list() -> tuple[str, ...]:
    """The 1,024 words, in order."""
    return tuple((resources.files("provisiond.admin") / "words.txt").read_text(encoding="ascii").split())
