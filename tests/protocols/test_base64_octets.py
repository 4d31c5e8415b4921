import base64
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from provisiond.protocols.base64_octets import Base64, encode_octets

OCTETS = TypeAdapter(Annotated[bytes, Base64(32, 2)])


def refusal(value):
    with pytest.raises(ValidationError) as caught:
        OCTETS.validate_python(value)
    return caught.value.errors()[0]["msg"]


@given(st.binary(min_size=2, max_size=32))
def test_octets_read_back(octets):
    assert OCTETS.validate_python(encode_octets(octets)) == octets


@given(st.text(alphabet="AZaz09+/=-_ \n", max_size=48) | st.text(max_size=48))
def test_only_the_one_spelling_of_octets_is_taken(text):
    try:
        octets = OCTETS.validate_python(text)
    except ValidationError:
        return
    assert base64.b64encode(octets).decode() == text


@pytest.mark.parametrize("text", ["AAA", "AAAA=", "AAA\n", "A A=", "-_-_", "AAB=", "é===", "AA==AA=="])
def test_what_is_not_quite_base64_is_refused(text):
    assert refusal(text) == "not base64 (RFC 4648 section 4, with padding)"


def test_octets_have_a_size():
    assert refusal("AA==") == "1 octets where 2 to 32 fit"
    assert refusal(encode_octets(bytes(33))) == "33 octets where 2 to 32 fit"
    assert "at most 44 characters" in refusal("A" * 45)


@pytest.mark.parametrize("value", [None, 1, b"AAAA", ["AAAA"], {}])
def test_only_text_holds_octets(value):
    assert refusal(value) == "Input should be a valid string"
