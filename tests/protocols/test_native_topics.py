import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.errors import DeviceFault, MalformedRequest, UnknownOperation
from provisiond.model import RegistrationId
from provisiond.protocols.native_topics import (
    RESERVED_IDS,
    Operation,
    claimed_id_of,
    own_response_topic,
    parse_reply_topic,
    parse_request_topic,
    reply_topic,
    request_topic,
    response_filter,
)

IDS = st.from_regex(r"[A-Za-z0-9\-._:]{0,20}[A-Za-z0-9\-]", fullmatch=True).map(RegistrationId.parse)
RIDS = st.from_regex(r"[A-Za-z0-9\-._~:@=]{1,128}", fullmatch=True)
DEVICE = RegistrationId.parse("Press-7")
HOSTILE_LEVELS = ["", "+", "#", "a+b", "a#", "\x00", "a\r\nb", "é", "a b", '"', "%2F", "x" * 129]


@given(IDS, st.sampled_from(Operation), RIDS)
def test_a_request_topic_reads_back(registration_id, operation, rid):
    topic = parse_request_topic(request_topic(registration_id, operation, rid))
    assert (topic.claimed_id, topic.operation, topic.rid) == (registration_id, operation, rid)


@given(IDS, st.sampled_from(Operation), RIDS)
def test_the_reply_goes_where_the_device_has_subscribed(registration_id, operation, rid):
    topic = reply_topic(request_topic(registration_id, operation, rid))
    assert topic == f"provisiond/v1/{registration_id}/res/{operation}/{rid}"
    assert topic.startswith(response_filter(registration_id).removesuffix("#"))


@given(st.text(max_size=300) | st.from_regex(r"provisiond/v1/.{0,20}/req/.{0,20}", fullmatch=True))
def test_any_text_is_a_request_topic_or_a_documented_error(topic):
    with contextlib.suppress(DeviceFault):
        parse_request_topic(topic)


@given(st.text(max_size=300) | st.from_regex(r"provisiond/v1/.{0,20}/req/.{0,20}", fullmatch=True))
def test_a_reply_never_leaves_the_subtree_that_was_asked_in(topic):
    answer = reply_topic(topic)
    if answer is not None:
        levels = answer.split("/")
        assert len(levels) == 6
        assert answer.startswith(f"{topic.partition('/req/')[0]}/res/")
        assert answer.isascii() and answer.isprintable()
        assert not set("+#") & set(answer)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "provisiond/v1",
        "provisiond/v1/",
        "provisiond/v1/press-7/req",
        "provisiond/v1/press-7/req/register",
        "provisiond/v1/press-7/req/register/1/2",
        "provisiond/v1/press-7/res/register/1",
        "provisiond/v2/press-7/req/register/1",
        "/provisiond/v1/press-7/req/register/1",
        "provisiond/v1/press-7/REQ/register/1",
        "$share/g/provisiond/v1/press-7/req/register/1",
        "provisiond/v1//req/register/1",
        "provisiond/v1/../req/register/1",
        "provisiond/v1/+/req/register/1",
        f"provisiond/v1/{'a' * 129}/req/register/1",
    ],
)
def test_another_topic_is_no_request(topic):
    with pytest.raises(MalformedRequest):
        parse_request_topic(topic)


@pytest.mark.parametrize("rid", HOSTILE_LEVELS)
def test_a_request_id_that_cannot_be_echoed_is_refused_and_not_echoed(rid):
    topic = f"provisiond/v1/Press-7/req/register/{rid}"
    with pytest.raises(MalformedRequest):
        parse_request_topic(topic)
    assert reply_topic(topic) == "provisiond/v1/Press-7/res/register/invalid"
    with pytest.raises(ValueError, match="request id"):
        request_topic(DEVICE, Operation.REGISTER, rid)


@pytest.mark.parametrize("operation", ["Register", "delete", "", "+", "\x00", "x" * 200])
def test_an_operation_that_there_is_not_is_unknown(operation):
    with pytest.raises(UnknownOperation) as caught:
        parse_request_topic(f"provisiond/v1/Press-7/req/{operation}/1")
    assert caught.value.code == 404001


def test_an_unknown_operation_is_answered_under_its_own_name():
    assert reply_topic("provisiond/v1/Press-7/req/delete/1") == "provisiond/v1/Press-7/res/delete/1"
    assert reply_topic("provisiond/v1/Press-7/req/\x00/1") == "provisiond/v1/Press-7/res/invalid/1"


@pytest.mark.parametrize("topic", ["", "x", "provisiond/v1/+/req/register/1", "provisiond/v1//req/a/1", "a/req/b/1"])
def test_who_names_no_device_is_not_answered(topic):
    assert reply_topic(topic) is None


# --- response topics of MQTT 5 ---


@pytest.mark.parametrize("tail", ["register/1", "x", "a/b/c/d"])
def test_a_response_topic_inside_the_own_subtree_is_honoured(tail):
    topic = f"provisiond/v1/Press-7/res/{tail}"
    assert own_response_topic(topic, DEVICE) == topic


@pytest.mark.parametrize(
    "topic",
    [
        None,
        "",
        "provisiond/v1/Press-7/res/",
        "provisiond/v1/Press-7/req/register/1",
        "provisiond/v1/press-7/res/1",
        "provisiond/v1/Press-70/res/1",
        "provisiond/v1/other/res/1",
        "provisiond/v1/_events/registration/x",
        "provisiond/v1/Press-7/res/#",
        "provisiond/v1/Press-7/res/+/1",
        "provisiond/v1/Press-7/res/\x00",
        "provisiond/v1/Press-7/res/\n",
        "provisiond/v1/Press-7/res/é",
        "provisiond/v1/Press-7/res/" + "x" * 600,
    ],
)
def test_any_other_response_topic_is_ignored(topic):
    assert own_response_topic(topic, DEVICE) is None


@given(IDS, st.sampled_from(Operation), RIDS)
def test_a_device_finds_its_request_id_in_the_replys_topic(registration_id, operation, rid):
    topic = reply_topic(request_topic(registration_id, operation, rid))
    assert parse_reply_topic(topic, registration_id) == rid


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "provisiond/v1/Press-7/res/register",
        "provisiond/v1/Press-7/res/register/1/2",
        "provisiond/v1/Press-7/req/register/1",
        "provisiond/v1/press-7/res/register/1",
        "provisiond/v1/Press-8/res/register/1",
        "provisiond/v2/Press-7/res/register/1",
    ],
)
def test_any_other_topic_is_no_reply_to_this_device(topic):
    assert parse_reply_topic(topic, DEVICE) is None


@given(st.text(max_size=300) | st.from_regex(r"provisiond/v1/.{0,20}", fullmatch=True))
def test_any_text_belongs_to_a_device_or_to_nobody(topic):
    claimed_id = claimed_id_of(topic)
    assert claimed_id is None or topic.startswith(f"provisiond/v1/{claimed_id}")


@pytest.mark.parametrize("name", sorted(RESERVED_IDS | {name.upper() for name in RESERVED_IDS}))
def test_a_level_beside_the_devices_is_no_devices_own(name):
    topic = f"provisiond/v1/{name}/req/register/1"
    assert claimed_id_of(topic) is None
    assert reply_topic(topic) is None
    with pytest.raises(MalformedRequest, match="reserved"):
        parse_request_topic(topic)
