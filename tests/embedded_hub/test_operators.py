"""Operators and local consumers, over real sockets."""

import asyncio
import stat
from datetime import UTC, datetime, timedelta

import pytest
from aiomqtt.exceptions import MqttConnectError

from provisiond.attestation.symmetric_key import generate_sas_token
from provisiond.embedded_hub.operator_token import FILE_NAME, make_operator_token, read_operator_token
from provisiond.errors import ConfigurationError
from provisiond.model import Message
from provisiond.protocols import operator
from provisiond.protocols.operator import Disconnect, GetTwin, InvokeMethod
from provisiond.system import SystemEntropy
from tests.broker import wire
from tests.broker.wire import open_client
from tests.embedded_hub.gateway import TOKEN, body_of, make_audit
from tests.enrollment_factory import PRIMARY_KEY, individual

ALL_EVENTS = "devices/+/messages/events/#"


@pytest.mark.parametrize("token", ["", "wrong", None])
async def test_an_operator_without_the_token_is_refused(gateway, token):
    with pytest.raises(MqttConnectError) as refusal:
        async with gateway.operator(token=token):
            pass
    assert refusal.value.rc == 135


async def test_the_token_is_worth_nothing_to_a_device(gateway):
    await gateway.enroll(individual("operator"))
    assert await gateway.is_refused("operator", token="a-token-for-operators")


async def test_who_listens_to_the_status_hears_it_at_once_and_once(gateway):
    async with gateway.operator(operator.STATUS_TOPIC) as listener:
        assert body_of(await listener.next_message()) == {"running": True, "connectedDevices": 0}
        await listener.subscribe("provisiond/v1/_events/#")
        gateway.desk.say_status(running=False)
        assert body_of(await listener.next_message())["running"] is False


async def test_several_operators_hear_their_own_answers(gateway):
    async with gateway.operator() as first, gateway.operator(client_id="operator-2") as second:
        answers = await asyncio.gather(
            first.request(Disconnect(device_id="a"), "same"), second.request(GetTwin(device_id="b"), "same")
        )
    assert [status for status, _ in answers] == [200, 404]


async def test_an_operator_with_the_same_client_id_takes_over(gateway):
    async with gateway.operator() as first, gateway.operator():
        await first.gone()


async def test_a_request_that_cannot_be_meant_is_answered_with_what_is_wrong(gateway):
    async with gateway.operator() as client:
        for topic, payload, status in (
            ("provisiond/v1/_operator/req/send/r", b"{", 400),
            ("provisiond/v1/_operator/req/send/r", b"{}", 400),
            ("provisiond/v1/_operator/req/explode/r", b"{}", 404),
        ):
            reply = operator.parse_answer(await client.ask(Message(topic=topic, payload=payload)))
            assert reply.status == status
            assert reply.error_message


async def test_an_operator_may_have_only_so_much_under_way(gateway):
    await gateway.enroll(individual("Dev-1"))
    call = InvokeMethod(device_id="Dev-1", method_name="reboot", connect_timeout_in_seconds=60)
    async with gateway.operator() as client:
        for number in range(33):
            await client.say(operator.request(f"r{number}", call))
        refused = operator.parse_answer(await client.next_message())
    assert (refused.rid, refused.status) == ("r32", 429)


async def register(gateway, device_id, key):
    """Ask to be assigned, as a device does; whatever the answer."""
    expiry = datetime.now(UTC) + timedelta(hours=1)
    token = generate_sas_token(resource=f"0ne0TEST/registrations/{device_id}", key=key, expiry=expiry)
    async with open_client(gateway.broker.addresses["local"]) as client:
        assert await client.connect(device_id, password=token.encode()) == 0
        client.send(wire.publish(payload=b""))
        assert (await client.receive()).kind == wire.PUBACK
        assert (await client.receive()).kind == wire.PUBLISH


async def test_every_decision_is_an_event(gateway):
    await gateway.store.create_enrollment(individual("Dev-1"), make_audit())
    async with gateway.operator("provisiond/v1/_events/registration/+") as listener:
        for key in (PRIMARY_KEY, b"wrong" * 8):
            await register(gateway, "Dev-1", key)
        assigned, refused = await listener.next_message(), await listener.next_message()
    assert assigned.topic == "provisiond/v1/_events/registration/Dev-1"
    event = body_of(assigned)
    assert (event["outcome"], event["enrollmentId"], event["hub"] in {"one", "two"}) == ("assigned", "Dev-1", True)
    event = body_of(refused)
    assert (event["outcome"], event["errorCode"]) == ("refused", 401002)
    assert event["trackingId"]


async def hear(client, count):
    return [await client.next_message() for _ in range(count)]


async def test_a_listener_that_does_not_acknowledge_loses_what_there_is_no_room_for_and_others_do_not(make_gateway):
    async with make_gateway(inflight=4, consumer_buffer_bytes=2_000) as gateway:
        await gateway.enroll(individual("Dev-1"))
        async with (
            gateway.operator(ALL_EVENTS) as listener,
            open_client(gateway.broker.addresses["local"]) as stalled,
            gateway.device("Dev-1", key=PRIMARY_KEY) as device,
        ):
            assert await stalled.connect("operator-2", username="operator", password=TOKEN.encode()) == 0
            stalled.send(wire.subscribe(ALL_EVENTS))
            await stalled.receive()
            hearing = asyncio.create_task(hear(listener, 30))
            for number in range(30):
                await device.publish("devices/Dev-1/messages/events/", b"%3d" % number + b"x" * 97, qos=1)
            assert [int(event.payload[:3]) for event in await hearing] == list(range(30))
            unacknowledged, room = 4, 2_000 // (100 + len("devices/Dev-1/messages/events/"))
            assert gateway.audience.lost == 30 - unacknowledged - room


# --- the token file


def test_the_token_is_made_once_and_for_its_owner_only(tmp_path):
    token = make_operator_token(tmp_path, SystemEntropy())
    assert len(token) == 64
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    assert make_operator_token(tmp_path, SystemEntropy()) == token == read_operator_token(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize(
    ("content", "mode", "reason"), [("", 0o600, "empty"), ("x", 0o604, "chmod"), (None, 0, "not there")]
)
def test_a_token_that_is_none_or_no_secret_is_refused(tmp_path, content, mode, reason):
    if content is not None:
        (tmp_path / FILE_NAME).write_text(content)
        (tmp_path / FILE_NAME).chmod(mode)
    with pytest.raises(ConfigurationError, match=reason):
        read_operator_token(tmp_path)
