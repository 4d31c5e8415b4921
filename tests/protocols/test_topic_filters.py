"""Which topics a filter matches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.protocols.topic_filters import is_filter, matches

levels = st.text("ab$+#é", max_size=3)
filters = st.lists(levels, min_size=1, max_size=4).map("/".join).filter(is_filter)
topics = st.lists(st.text("ab$é", max_size=3), min_size=1, max_size=4).map("/".join)


@pytest.mark.parametrize("text", ["#", "+", "a/#", "a/+/b", "+/+", "/", "a//b", "/a", "$a/#"])
def test_filters(text):
    assert is_filter(text)


@pytest.mark.parametrize("text", ["", "a#", "#/a", "a/#/b", "a+/b", "+a", "a" * 513])
def test_what_is_no_filter(text):
    assert not is_filter(text)


@pytest.mark.parametrize(
    ("topic_filter", "topic"),
    [
        ("a/b", "a/b"),
        ("a/+", "a/b"),
        ("a/+", "a/"),
        ("+/b", "/b"),
        ("a/#", "a/b/c"),
        ("a/#", "a"),
        ("a/+/#", "a/b"),
        ("#", "a/b"),
        ("$a/#", "$a/b"),
        ("$a/+", "$a/b"),
    ],
)
def test_matches(topic_filter, topic):
    assert matches(topic_filter, topic)


@pytest.mark.parametrize(
    ("topic_filter", "topic"),
    [
        ("a/b", "a/b/c"),
        ("a/b/c", "a/b"),
        ("a/+", "a"),
        ("a/+", "a/b/c"),
        ("a/+/#", "a"),
        ("a", "A"),
        ("#", "$a/b"),
        ("+/b", "$a/b"),
    ],
)
def test_does_not_match(topic_filter, topic):
    assert not matches(topic_filter, topic)


def by_definition(wanted, actual):
    if not wanted:
        return not actual
    if wanted[0] == "#":
        return True
    if not actual:
        return False
    return wanted[0] in ("+", actual[0]) and by_definition(wanted[1:], actual[1:])


@given(filters, topics)
def test_matches_as_the_definition_says(topic_filter, topic):
    hidden = topic.startswith("$") and topic_filter[0] in "+#"
    assert matches(topic_filter, topic) is (not hidden and by_definition(topic_filter.split("/"), topic.split("/")))
