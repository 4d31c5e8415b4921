import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.errors import MalformedRequest
from provisiond.protocols.json_body import MAX_DEPTH, encode_json, parse_json

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), children, max_size=4)
    ),
    max_leaves=20,
)


@given(json_values)
def test_what_is_encoded_is_parsed_back_and_is_ascii(value):
    encoded = encode_json(value)
    assert encoded.isascii()
    assert parse_json(encoded) == value


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_the_one_documented_error(data):
    with contextlib.suppress(MalformedRequest):
        parse_json(data)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff\xfe",
        b"{}".decode().encode("utf-16"),
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e400}',
        b'{"a": 1' + b"0" * 400 + b"}",
        b'{"a": 1, "a": 2}',
        b'"\\ud800"',
        b'{"\\udc00": 1}',
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1),
        b"{} trailing",
    ],
)
def test_a_body_that_is_not_i_json_is_refused(body):
    with pytest.raises(MalformedRequest):
        parse_json(body)


def test_nesting_up_to_the_limit_is_accepted():
    body = json.dumps([[[[["x"]]]]]).encode()
    assert parse_json(body) == [[[[["x"]]]]]
