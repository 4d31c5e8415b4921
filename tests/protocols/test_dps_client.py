import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.model import ConnectAttempt, ErrorBody, Message, PollRequest, RegisterRequest, RegistrationStatus, Reply
from provisiond.protocols import dps
from provisiond.protocols.dps_client import (
    MAX_REPLY_SIZE_BYTES,
    MalformedReply,
    parse_reply,
    poll_topic,
    register_payload,
    register_topic,
    user_name,
)

REPLY = "$dps/registrations/res/200/?$rid=r1"
RIDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", max_size=40)


def admitted():
    name = user_name("0neLocal", "Dev-1", client_version="provisiond-device/1.0 (x;y)")
    attempt = ConnectAttempt(
        connection_id="c", listener="l", remote_address="127.0.0.1", tls=True, client_id="Dev-1", username=name
    )
    return dps.admit(attempt, id_scope="0neLocal")


def test_topics_and_user_name_are_those_of_the_azure_sdks():
    assert register_topic("42") == "$dps/registrations/PUT/iotdps-register/?$rid=42"
    assert (
        poll_topic("42", "4.65f6.33")
        == "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=42&operationId=4.65f6.33"
    )
    assert (
        user_name("0ne", "dev", client_version="provisiond-device/1.0")
        == "0ne/registrations/dev/api-version=2019-03-31&ClientVersion=provisiond-device%2F1.0"
    )


def test_the_service_reads_the_user_name():
    connection = admitted()
    assert connection.claimed_id.text == "Dev-1"
    assert connection.client_version == "provisiond-device/1.0 (x;y)"
    assert connection.api_version == "2019-03-31"


def test_the_service_reads_a_registration():
    message = Message(topic=register_topic("r1"), payload=register_payload("Dev-1", payload={"a": [1, "é"]}))
    request = dps.parse(admitted(), message)
    assert isinstance(request, RegisterRequest)
    assert request.payload == {"a": [1, "é"]}
    assert dps.request_id(message.topic) == "r1"


@given(RIDS, st.text(min_size=1, max_size=100).filter(lambda text: text.isprintable()))
def test_the_service_reads_any_poll(rid, operation_id):
    request = dps.parse(admitted(), Message(topic=poll_topic(rid, operation_id), payload=b""))
    assert isinstance(request, PollRequest)
    assert request.operation_id == operation_id


@given(RIDS, st.none() | st.integers(0, 999_999))
def test_the_device_reads_the_services_progress(rid, retry_after_s):
    reply = Reply(status=202, operation_id="op", status_text=RegistrationStatus.ASSIGNING, retry_after_s=retry_after_s)
    message = dps.encode(reply, rid=rid)
    parsed = parse_reply(message.topic, message.payload)
    assert (parsed.status, parsed.rid, parsed.retry_after_s) == (202, rid, retry_after_s)
    assert (parsed.operation_id, parsed.status_text) == ("op", "assigning")


def test_the_device_reads_the_services_errors():
    error = ErrorBody(code=401002, message="Unauthorized", tracking_id="t-1", timestamp=datetime.now(UTC))
    message = dps.encode(Reply(status=401, error=error), rid="r")
    parsed = parse_reply(message.topic, message.payload)
    assert parsed.message == "Unauthorized"
    assert parsed.body["trackingId"] == "t-1"
    assert parsed.challenge is None


def test_a_challenge_is_recognised():
    body = {"message": "Authorization required", "authenticationKey": base64.b64encode(b"blob").decode()}
    parsed = parse_reply("$dps/registrations/res/401/?$rid=r", json.dumps(body).encode())
    assert parsed.challenge == b"blob"
    assert parsed.key_name == "registration"


def test_the_hub_key_of_a_tpm_device_is_found():
    state = {"tpm": {"authenticationKey": base64.b64encode(b"blob").decode()}}
    parsed = parse_reply(REPLY, json.dumps({"registrationState": state}).encode())
    assert parsed.hub_key == b"blob"
    assert parsed.challenge is None


@pytest.mark.parametrize("body", [{"authenticationKey": "%"}, {"authenticationKey": "a"}, {"authenticationKey": "é"}])
def test_keys_that_are_not_base64_are_refused(body):
    parsed = parse_reply("$dps/registrations/res/401/?$rid=r", json.dumps(body).encode())
    with pytest.raises(MalformedReply):
        _ = parsed.challenge


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "$dps/registrations/res/",
        "$dps/registrations/res/200",
        "$dps/registrations/res/200/",
        "$dps/registrations/res/2000/?$rid=r",
        "$dps/registrations/res/099/?$rid=r",
        "$dps/registrations/res/200/?retry-after=1&$rid=r",
        "$dps/registrations/res/200/?$rid=r&retry-after=soon",
        "$dps/registrations/res/200/?$rid=r&retry-after=-1",
        "$dps/registrations/res/200/?$rid=r&retry-after=9999999",
        "$dps/registrations/res/٢٠٠/?$rid=r",
    ],
)
def test_other_topics_are_refused(topic):
    with pytest.raises(MalformedReply):
        parse_reply(topic, b"{}")


@pytest.mark.parametrize(
    "payload", [b"[]", b"1", b"null", b"{", b"\xff", b'{"a": NaN}', b"[" * 100_000, b" " * (MAX_REPLY_SIZE_BYTES + 1)]
)
def test_other_bodies_are_refused(payload):
    with pytest.raises(MalformedReply):
        parse_reply(REPLY, payload)


def test_an_empty_body_is_an_empty_object():
    assert parse_reply(REPLY, b" ").body == {}


@given(st.text(max_size=80) | RIDS.map(lambda rid: f"$dps/registrations/res/401/?$rid={rid}"), st.binary(max_size=80))
def test_anything_is_a_reply_or_a_documented_error(topic, payload):
    try:
        reply = parse_reply(topic, payload)
    except MalformedReply:
        return
    assert 100 <= reply.status <= 599


MEMBERS = st.sampled_from(
    ["operationId", "status", "registrationState", "authenticationKey", "tpm", "message", "keyName", "errorMessage"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MEMBERS, inner, max_size=5),
    max_leaves=10,
)


@given(st.dictionaries(MEMBERS, JSON))
def test_members_of_any_type_never_surprise(body):
    reply = parse_reply("$dps/registrations/res/401/?$rid=r", json.dumps(body).encode())
    assert isinstance(reply.operation_id + reply.status_text + reply.message + reply.key_name, str)
    for read in (lambda: reply.challenge, lambda: reply.hub_key):
        try:
            octets = read()
        except MalformedReply:
            continue
        assert octets is None or isinstance(octets, bytes)
