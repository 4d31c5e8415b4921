"""What operators ask, both ends."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.errors import MalformedRequest, UnknownOperation
from provisiond.model import Message
from provisiond.protocols import operator
from provisiond.protocols.base64_octets import encode_octets
from provisiond.protocols.operator import Disconnect, GetTwin, InvokeMethod, SendMessage, TwinProperties, UpdateTwin

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
objects = st.dictionaries(texts, st.integers(-9, 9) | texts | st.none(), max_size=3)
devices = st.sampled_from(["Pump-7", "a:b_c.d"])


def made(kind, **members):
    return st.fixed_dictionaries(members).map(lambda given: kind(**given))


requests = (
    made(
        SendMessage,
        device_id=devices,
        payload=texts,
        properties=st.dictionaries(texts.filter(lambda t: t[0] != "$"), texts),
    )
    | made(
        SendMessage,
        device_id=devices,
        payload_base64=st.binary(max_size=9).map(encode_octets),
        message_id=texts,
        expiry_s=st.just(9),
    )
    | made(GetTwin, device_id=devices)
    | made(UpdateTwin, device_id=devices, tags=objects, properties=st.builds(TwinProperties, desired=objects))
    | made(InvokeMethod, device_id=devices, method_name=st.just("reboot"), payload=objects)
    | made(Disconnect, device_id=devices, reason=texts)
)


def ask(operation, body, rid="1"):
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    return operator.parse(Message(topic=f"provisiond/v1/_operator/req/{operation}/{rid}", payload=payload))


@given(requests)
def test_requests_round_trip(body):
    message = operator.request("r-1", body)
    assert operator.parse(message) == body
    assert operator.may_publish(message.topic)


def test_a_message_has_its_system_properties_under_their_own_names():
    body = ask("send", {"deviceId": "d", "payload": "é", "contentType": "text/plain", "properties": {"a": "1"}})
    assert body.octets == "é".encode()
    assert body.all_properties == {"$.ct": "text/plain", "a": "1"}


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("send", {"payload": "x"}),
        ("send", {"deviceId": "a/b", "payload": "x"}),
        ("send", {"deviceId": "a\n", "payload": "x"}),
        ("send", {"deviceId": "d", "payload": "x", "payloadBase64": "eA=="}),
        ("send", {"deviceId": "d", "payload": "é" * 40000}),
        ("send", {"deviceId": "d", "payload": 1}),
        ("send", {"deviceId": "d", "payload": "x", "properties": {"$.mid": "1"}}),
        ("send", {"deviceId": "d", "payload": "x", "expiryS": 0}),
        ("send", {"deviceId": "d", "payload": "x", "nonsense": 1}),
        ("invoke-method", {"deviceId": "d"}),
        ("invoke-method", {"deviceId": "d", "methodName": "a/b"}),
        ("update-twin", {"deviceId": "d", "properties": {"reported": {}}}),
        ("get-twin", []),
        ("get-twin", b"{"),
        ("get-twin", b""),
    ],
)
def test_a_request_that_cannot_be_meant_is_malformed_and_says_why(operation, body):
    with pytest.raises(MalformedRequest) as refusal:
        ask(operation, body)
    assert refusal.value.public_message != MalformedRequest.public_message


def test_an_operation_that_there_is_not():
    with pytest.raises(UnknownOperation):
        ask("explode", {})


@given(st.text(max_size=30), st.binary(max_size=60))
def test_anything_is_a_request_or_malformed(tail, payload):
    for prefix in ("", "provisiond/v1/_operator/req/", "provisiond/v1/_operator/req/send/"):
        with suppress(MalformedRequest, UnknownOperation):
            operator.parse(Message(topic=prefix + tail, payload=payload))


def test_answers_round_trip():
    message = operator.answer(
        "provisiond/v1/_operator/req/send/r-1", 404, operator.error_body(404001, "no such device")
    )
    reply = operator.parse_answer(message)
    assert (reply.rid, reply.status, reply.error_message) == ("r-1", 404, "no such device")
    assert operator.parse_answer(Message(topic="provisiond/v1/_status", payload=b"{}")) is None
    assert operator.answer("provisiond/v1/_operator/req/send/", 200, {}) is None


@given(st.binary(max_size=40))
def test_any_octets_are_an_answer_or_malformed(payload):
    with suppress(MalformedRequest):
        operator.parse_answer(Message(topic="provisiond/v1/_operator/res/send/1", payload=payload))


@pytest.mark.parametrize(
    "topic_filter",
    [
        "devices/+/messages/events/#",
        "devices/Pump-7/messages/events/#",
        "devices/Pump-7/messages/events/",
        "provisiond/v1/_events/#",
        "provisiond/v1/_events/registration/+",
        "provisiond/v1/_status",
        "provisiond/v1/_operator/res/#",
    ],
)
def test_an_operator_may_listen_to(topic_filter):
    assert operator.may_subscribe(topic_filter)


@pytest.mark.parametrize(
    "topic_filter",
    [
        "#",
        "+/#",
        "devices/#",
        "devices/+/messages/#",
        "devices/+/messages/devicebound/#",
        "devices/+/messages/events/#/x",
        "$iothub/#",
        "$dps/registrations/res/#",
        "provisiond/v1/#",
        "provisiond/v1/+/res/#",
        "provisiond/v1/Pump-7/res/#",
        "$share/g/devices/+/messages/events/#",
    ],
)
def test_an_operator_may_not_listen_to(topic_filter):
    assert not operator.may_subscribe(topic_filter)
