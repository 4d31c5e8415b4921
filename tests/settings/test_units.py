"""Durations and sizes."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.settings.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1500ms", 1.5), ("5s", 5.0), ("0s", 0.0), ("2m", 120.0), ("1h", 3600.0), ("90d", 7776000.0), ("1.5 h", 5400.0)],
)
def test_a_duration_is_a_number_and_its_unit(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "value", ["5", 5, "", "5 S", "-5s", "5s ", "1e3s", "\u0665s", "9" * 40 + "s", None, True, ["5s"]]
)
def test_what_has_no_unit_is_not_a_duration(value):
    with pytest.raises(ValueError, match="is not a duration; write a number and its unit"):
        parse_duration(value)


@pytest.mark.parametrize(("text", "size_bytes"), [("512B", 512), ("64KiB", 65536), ("1 MiB", 1048576), ("2kB", 2000)])
def test_a_size_is_a_number_and_its_unit(text, size_bytes):
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("value", ["64", 64, "64K", "64kib", "-1B", "1.5KiB", None])
def test_what_has_no_unit_is_not_a_size(value):
    with pytest.raises(ValueError, match="is not a size; write a number and its unit"):
        parse_size(value)


@given(st.integers(min_value=0, max_value=10**9))
def test_a_duration_is_read_back_as_it_was_written(milliseconds):
    assert round(parse_duration(format_duration(milliseconds / 1000)) * 1000) == milliseconds


@given(st.integers(min_value=0, max_value=2**38))
def test_a_size_is_read_back_as_it_was_written(size_bytes):
    assert parse_size(format_size(size_bytes)) == size_bytes


@given(st.text(max_size=20))
def test_any_text_is_a_duration_and_a_size_or_a_value_error(text):
    for parse in (parse_duration, parse_size):
        with suppress(ValueError):
            assert parse(text) >= 0
