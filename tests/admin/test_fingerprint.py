"""Six words."""

from hypothesis import given
from hypothesis import strategies as st

from provisiond.admin.fingerprint import six_words, word_list, words_of


def test_the_list_has_1024_short_words():
    words = word_list()
    assert len(words) == len(set(words)) == 1024
    assert all(word.isascii() and word.isalpha() and word.islower() and len(word) <= 8 for word in words)
    assert list(words) == sorted(words)


def test_the_words_are_made_of_the_first_sixty_bits():
    first, last = word_list()[0], word_list()[-1]
    assert words_of(bytes(32)) == "-".join([first] * 6)
    assert words_of(b"\xff" * 32) == "-".join([last] * 6)
    assert words_of(b"\x00\x40" + bytes(30)).split("-")[:2] == [word_list()[1], first]
    assert words_of(bytes(7) + b"\x0f" + bytes(24)) == words_of(bytes(32)), "the other bits do not count"


def test_the_words_of_a_key_never_change():
    assert six_words(b"provisiond") == "april-scuba-zoo-pretty-blaze-radio"


@given(st.binary())
def test_any_evidence_has_six_words_of_the_list(evidence):
    words = six_words(evidence).split("-")
    assert len(words) == 6 and set(words) <= set(word_list())
