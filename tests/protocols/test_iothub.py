"""The hub's topics, both ends."""

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.attestation.sas_token import names_device
from provisiond.errors import ConnectRefused, MalformedRequest
from provisiond.model import CloudMessage, ConnectAttempt, Role
from provisiond.protocols import iothub
from provisiond.protocols.iothub import (
    CloudMessageArrival,
    DesiredPatch,
    Event,
    MethodAnswer,
    MethodCall,
    TwinGet,
    TwinReply,
    TwinReport,
    UserName,
)

HOST = "gateway.local"
AT = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)

device_ids = st.from_regex(iothub.DEVICE_ID, fullmatch=True)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
properties = st.dictionaries(text.filter(bool), text, max_size=4)
rids = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=40)


def attempt(username, client_id="Dev-1", password=None):
    return ConnectAttempt(
        connection_id="c1",
        listener="devices",
        remote_address="192.0.2.1",
        tls=True,
        client_id=client_id,
        username=username,
        password=password,
    )


# --- CONNECT


@pytest.mark.parametrize(
    "user_name",
    [
        f"{HOST}/Dev-1/?api-version=2019-10-01&DeviceClientType=azure-iot-device-iothub-py%2F2.14.0%283.11%29",
        f"{HOST}/Dev-1/api-version=2016-11-14&DeviceClientType=x",
        f"{HOST}/Dev-1/",
        f"{HOST}/Dev-1",
        f"{HOST}:8883/Dev-1/?api-version=2021-04-12",
        f"{HOST}/registrations/?api-version=2021-04-12",
    ],
)
def test_the_user_name_of_a_device_at_its_hub_is_told_by_its_form(user_name):
    assert iothub.is_hub_user_name(user_name)


@pytest.mark.parametrize(
    "user_name",
    [
        None,
        "",
        "operator",
        f"{HOST}/",
        "/Dev-1",
        "0ne0/registrations/dev-1/api-version=2019-03-31&ClientVersion=x",
        "0ne0/registrations/dev-1/",
        f"{HOST}/Dev-1/module/?api-version=2021-04-12",
    ],
)
def test_other_user_names_are_not_a_hubs(user_name):
    assert not iothub.is_hub_user_name(user_name)


def test_a_claim_has_everything_that_the_connect_says():
    connection = iothub.claim(
        attempt(f"{HOST}/Dev-1/?api-version=2021-04-12&DeviceClientType=py%2F2", password=b"SharedAccessSignature sr=x")
    )
    assert (connection.role, connection.claimed_id.text) == (Role.IOTHUB, "Dev-1")
    assert (connection.api_version, connection.client_version) == ("2021-04-12", "py/2")
    assert connection.sas_token == "SharedAccessSignature sr=x"


@pytest.mark.parametrize(
    ("username", "client_id", "password"),
    [
        (f"{HOST}/Dev-1/?api-version=1", "Dev-2", None),
        (f"{HOST}/Dev-1/?api-version=1", "", None),
        (f"{HOST}/Dev 1/?api-version=1", "Dev 1", None),
        (f"{HOST}/{'d' * 129}/", "d" * 129, None),
        (f"{HOST}/Dev-1/", "Dev-1", b"\xff"),
    ],
)
def test_a_connect_that_contradicts_itself_is_refused(username, client_id, password):
    with pytest.raises(ConnectRefused):
        iothub.claim(attempt(username, client_id, password))


@given(device_id=device_ids, version=text, client=text)
def test_user_names_round_trip(device_id, version, client):
    user_name = UserName(host=HOST, device_id=device_id, api_version="2021-04-12", client_version=client[:200])
    assert iothub.is_hub_user_name(iothub.format_user_name(user_name))
    assert iothub.parse_user_name(iothub.format_user_name(user_name)) == user_name


@given(text)
def test_any_text_is_a_user_name_or_refused(username):
    if iothub.is_hub_user_name(username):
        with suppress(ConnectRefused):
            iothub.claim(attempt(username))


@pytest.mark.parametrize(
    ("resource", "is_named"),
    [
        ("gateway.local/devices/Dev-1", True),
        ("GATEWAY.local:8883/devices/dev-1", True),
        ("gateway.local/devices/dev-10", False),
        ("gateway.local/devices/dev-1/modules/m", False),
        ("a/b/devices/dev-1", False),
        ("/devices/dev-1", False),
        ("0ne0/registrations/dev-1", False),
        ("devices/dev-1", False),
    ],
)
def test_a_token_must_be_for_the_device_at_any_host(resource, is_named):
    assert names_device(resource, "Dev-1") is is_named


# --- device to hub


def test_the_properties_of_an_event_are_decoded():
    topic = "devices/Dev-1/messages/events/%24.mid=1&%24.ct=application%2Fjson&line=4%264&empty=&name"
    assert iothub.parse("Dev-1", topic) == Event(
        properties={"$.mid": "1", "$.ct": "application/json", "line": "4&4", "empty": "", "name": ""}
    )


@pytest.mark.parametrize(
    ("topic", "request_"),
    [
        ("devices/Dev-1/messages/events/", Event(properties={})),
        ("devices/Dev-1/messages/events/a=1/", Event(properties={"a": "1"})),
        ("$iothub/twin/GET/?$rid=1", TwinGet(rid="1")),
        ("$iothub/twin/PATCH/properties/reported/?$rid=2", TwinReport(rid="2")),
        ("$iothub/twin/PATCH/properties/reported/?$rid=2&$version=7", TwinReport(rid="2", base_version=7)),
        ("$iothub/methods/res/200/?$rid=a", MethodAnswer(rid="a", status=200)),
        ("$iothub/methods/res/-1/?$rid=a", MethodAnswer(rid="a", status=-1)),
    ],
)
def test_requests_are_told_by_their_topic(topic, request_):
    assert iothub.parse("Dev-1", topic) == request_
    assert iothub.may_publish("Dev-1", topic)


@pytest.mark.parametrize(
    "topic",
    [
        "$iothub/twin/GET/",
        "$iothub/twin/GET/?$rid=",
        f"$iothub/twin/GET/?$rid={'r' * 257}",
        "$iothub/twin/GET/x?$rid=1",
        "$iothub/twin/PATCH/properties/reported/?$rid=1&$version=x",
        "$iothub/methods/res/ok/?$rid=1",
        "$iothub/methods/res/?$rid=1",
        "devices/Dev-2/messages/events/",
    ],
)
def test_what_is_no_request_is_said_to_be_none(topic):
    with pytest.raises(MalformedRequest):
        iothub.parse("Dev-1", topic)


@pytest.mark.parametrize(
    "topic",
    [
        "devices/Dev-2/messages/events/",
        "devices/dev-1/messages/events/",
        "devices/Dev-1/messages/devicebound/",
        "devices/Dev-1/modules/m/messages/events/",
        "$iothub/twin/res/200/?$rid=1",
        "$iothub/twin/PATCH/properties/desired/?$version=1",
        "$iothub/methods/POST/reboot/?$rid=1",
        "provisiond/v1/_operator/req/send/1",
    ],
)
def test_a_device_may_publish_nowhere_else(topic):
    assert not iothub.may_publish("Dev-1", topic)


@given(device_ids, text)
def test_any_topic_is_a_request_or_malformed(device_id, tail):
    for prefix in (
        "",
        "$iothub/",
        "$iothub/twin/GET/?",
        "$iothub/methods/res/",
        f"devices/{device_id}/messages/events/",
    ):
        try:
            iothub.parse(device_id, prefix + tail)
        except MalformedRequest:
            continue


@given(device_id=device_ids, bag=properties)
def test_events_round_trip(device_id, bag):
    topic = iothub.event_topic(device_id, bag)
    assert iothub.parse(device_id, topic) == Event(properties=bag)
    assert not set(topic) & set("+#\0")
    assert topic.count("/") == 4


@given(rids)
def test_requests_of_a_device_round_trip(rid):
    assert iothub.parse("d", iothub.twin_get(rid).topic) == TwinGet(rid=rid)
    assert iothub.parse("d", iothub.twin_report(rid, {}).topic) == TwinReport(rid=rid)
    assert iothub.parse("d", iothub.method_answer(rid, 200, None).topic) == MethodAnswer(rid=rid, status=200)


# --- hub to device


@given(rid=rids, version=st.integers(1, 10**9))
def test_what_a_hub_says_round_trips(rid, version):
    def read(message):
        return iothub.parse_hub_message("d", message.topic)

    assert read(iothub.twin_reply(rid, 204, version=version)) == TwinReply(rid=rid, status=204, version=version)
    assert read(iothub.twin_reply(rid, 200, body={})) == TwinReply(rid=rid, status=200)
    assert read(iothub.desired_patch({"a": 1}, version)) == DesiredPatch(version=version)
    assert read(iothub.method_call("re#boot+", rid, None)) == MethodCall(name="re#boot+", rid=rid)


@given(device_id=device_ids, bag=properties, message_id=text)
def test_cloud_messages_round_trip(device_id, bag, message_id):
    message = CloudMessage(message_id=message_id, payload=b"\x00", properties=bag, expires_at=AT)
    sent = iothub.cloud_message(device_id, message)
    arrived = iothub.parse_hub_message(device_id, sent.topic)
    assert isinstance(arrived, CloudMessageArrival)
    assert arrived.properties == {
        "$.mid": message_id,
        "$.to": f"/devices/{device_id}/messages/devicebound",
        "$.exp": "2030-01-02T03:04:05.0000000Z",
        **bag,
    }
    assert sent.payload == b"\x00"


def test_a_desired_patch_carries_its_version():
    message = iothub.desired_patch({"a": None}, 3)
    assert (message.topic, message.payload) == (
        "$iothub/twin/PATCH/properties/desired/?$version=3",
        b'{"a":null,"$version":3}',
    )


@given(device_ids, text)
def test_any_topic_is_a_hubs_or_malformed(device_id, tail):
    for prefix in ("", "$iothub/twin/res/", "$iothub/twin/PATCH/properties/desired/?", "$iothub/methods/POST/"):
        try:
            iothub.parse_hub_message(device_id, prefix + tail)
        except MalformedRequest:
            continue
