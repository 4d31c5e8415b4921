"""What may be in a twin, and what a patch makes of it."""

import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.errors import EtagMismatch, MalformedRequest
from provisiond.model import DeviceTwin, InitialTwin
from provisiond.protocols import twin as twins

AT = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = AT + timedelta(minutes=1)
TWIN = DeviceTwin(
    device_id="Pump-7",
    tags={"line": 4},
    desired={"on": True, "limits": {"low": 1, "high": 9}},
    reported={"rpm": [1, 2.5]},
    updated_at=AT,
)

names = st.text("abcABC_-0é", min_size=1, max_size=5)
values = st.recursive(
    st.booleans() | st.integers(-(2**52), 2**52) | st.floats(allow_nan=False, allow_infinity=False) | names,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(names, values, max_size=3)


def test_a_twin_starts_with_what_the_enrollment_says():
    twin = twins.new_twin("Pump-7", InitialTwin(tags={"line": 4}, desired={"on": True, "off": None}), now=AT)
    assert (twin.tags, twin.desired, twin.reported) == ({"line": 4}, {"on": True}, {})
    assert (twin.version, twin.desired_version, twin.reported_version) == (1, 1, 1)
    assert twins.new_twin("Pump-7", None, now=AT).desired == {}


def test_what_was_read_of_one_twin_may_be_what_another_starts_with():
    read = InitialTwin(tags={"$version": 7, "line": 4}, desired={"on": True, "$metadata": {}, "$version": 3})
    twin = twins.new_twin("Pump-7", read, now=AT)
    assert (twin.tags, twin.desired, twin.desired_version) == ({"line": 4}, {"on": True}, 1)


def test_a_report_is_merged_and_null_removes():
    twin = twins.report(TWIN, {"rpm": None, "net": {"ip": "10.0.0.7", "mac": None}}, now=LATER)
    assert twin.reported == {"net": {"ip": "10.0.0.7"}}
    assert (twin.reported_version, twin.desired_version, twin.version) == (2, 1, 2)
    assert twin.updated_at == LATER


def test_a_report_on_another_version_is_refused():
    assert twins.report(TWIN, {}, now=LATER, base_version=1).reported_version == 2
    with pytest.raises(EtagMismatch):
        twins.report(TWIN, {}, now=LATER, base_version=2)


def test_an_operator_patches_tags_and_desired_properties():
    twin = twins.update(TWIN, now=LATER, tags={"hall": "B"}, desired={"limits": {"low": None}})
    assert twin.tags == {"line": 4, "hall": "B"}
    assert twin.desired == {"on": True, "limits": {"high": 9}}
    assert (twin.desired_version, twin.reported_version, twin.version) == (2, 1, 2)


def test_tags_alone_are_nothing_new_for_the_device():
    assert twins.update(TWIN, now=LATER, tags={"hall": "B"}).desired_version == 1


def test_an_update_of_another_etag_is_refused():
    assert twins.update(TWIN, now=LATER, tags={}, if_match=twins.etag(TWIN)).version == 2
    with pytest.raises(EtagMismatch):
        twins.update(replace(TWIN, version=2), now=LATER, tags={}, if_match=twins.etag(TWIN))


def test_what_was_read_can_be_sent_back():
    read = twins.operator_view(TWIN)["properties"]["desired"]
    assert twins.update(TWIN, now=LATER, desired=read | {"$metadata": {}}).desired == TWIN.desired


def test_a_device_sees_its_properties_and_versions_but_no_tags():
    assert twins.device_view(TWIN) == {
        "desired": {**TWIN.desired, "$version": 1},
        "reported": {"rpm": [1, 2.5], "$version": 1},
    }


def nested(depth):
    value = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "patch",
    [
        {"": 1},
        {"a.b": 1},
        {"a b": 1},
        {"$a": 1},
        {"a\x00": 1},
        {"a": {"$version": 1}},
        {"n" * 1025: 1},
        {"a": "x" * 4097},
        {"a": 2**53},
        {"a": [{"b": -(2**53)}]},
        nested(11),
        {"a": nested(10)},
        {f"a{n}": "x" * 4000 for n in range(9)},
    ],
)
def test_what_azure_takes_in_no_twin_is_refused(patch):
    with pytest.raises(MalformedRequest):
        twins.report(TWIN, patch, now=LATER)


def test_the_limits_themselves_are_allowed():
    twin = twins.report(TWIN, {"a": "x" * 4096, "b": 2**52, "c": nested(9), "n" * 1024: 1.5}, now=LATER)
    assert twin.reported["b"] == 2**52


def test_many_small_patches_cannot_make_a_large_twin():
    twin = TWIN
    for number in range(8):
        twin = twins.report(twin, {f"a{number}": "x" * 4000}, now=LATER)
    with pytest.raises(MalformedRequest, match="32768"):
        twins.report(twin, {"a8": "x" * 4000}, now=LATER)


@pytest.mark.parametrize("payload", [b"", b"[]", b"null", b"1", b"{", b'{"a":1,"a":2}', b'{"a":NaN}', b"\xff"])
def test_a_patch_is_a_json_object(payload):
    with pytest.raises(MalformedRequest):
        twins.parse_patch(payload)


@given(st.binary(max_size=60))
def test_any_octets_are_a_patch_or_malformed(payload):
    with suppress(MalformedRequest):
        twins.report(TWIN, twins.parse_patch(payload), now=LATER)


@given(first=objects, second=objects)
def test_the_last_report_of_each_member_wins(first, second):
    twin = twins.report(twins.report(TWIN, first, now=LATER), second, now=LATER)
    for name, value in second.items():
        if not isinstance(value, dict):
            assert twin.reported[name] == value
    assert json.loads(json.dumps(twins.device_view(twin))) == twins.device_view(twin)
