"""The broker as a whole: CONNECT, the life of a connection, `ports.Transport`, start and stop."""

import asyncio
import logging
import socket
from pathlib import Path

import aiomqtt
import pytest

from provisiond.broker.offences import Reason
from provisiond.model import Message
from tests.broker import wire
from tests.broker.wire import CONNACK, DPS_FILTER, PINGRESP, PUBACK, PUBLISH
from tests.certificates import make_leaf

HUB_USER = "gateway.local/dev1/?api-version=2021-04-12"


def mqtt_client(edge, listener="local", **options):
    host, port = edge.broker.addresses[listener]
    nodelay = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    return aiomqtt.Client(host, port, socket_options=nodelay, **{"protocol": aiomqtt.ProtocolVersion.V311} | options)


# --- CONNECT ----------------------------------------------------------------------------------------------------------


async def test_the_attempt_is_what_arrived(edge, tmp_path):
    device = make_leaf("dev1")
    certificate, key = device.write(tmp_path, "device")
    async with edge.client(wire.client_tls(certificate=certificate, key=key)) as client:
        assert await client.connect("Dev-1", username="scope/registrations/x", password=b"\xfftoken") == 0
    (attempt,) = edge.gatekeeper.attempts
    assert (attempt.client_id, attempt.username, attempt.password) == ("Dev-1", "scope/registrations/x", b"\xfftoken")
    assert (attempt.listener, attempt.remote_address, attempt.tls) == ("devices", "127.0.0.1", True)
    assert attempt.unverified_chain == (device.der,)
    assert "token" not in repr(attempt)


async def test_connection_ids_are_never_used_twice(edge):
    for _ in range(3):
        async with edge.client() as client:
            assert await client.connect() == 0
    assert len({attempt.connection_id for attempt in edge.gatekeeper.attempts}) == 3


@pytest.mark.parametrize("return_code", [2, 3, 4, 5])
async def test_a_refused_connect_hears_its_return_code_and_is_closed(edge, return_code, caplog):
    edge.gatekeeper.refusals["dev1"] = return_code
    async with edge.client() as client:
        assert await client.connect() == return_code
        assert await client.closed() == []
    assert edge.broker.statistics.refused == {Reason.CONNECT: 1}
    assert [record.getMessage() for record in caplog.records] == ["127.0.0.1: connect: 'dev1': the test says so"]


async def test_an_mqtt_5_client_is_told_in_its_own_words(edge):
    async with edge.client() as client:
        client.send(wire.connect(level=5))
        assert [tuple(packet) for packet in await client.closed()] == [(CONNACK, 0, b"\x00\x84\x00")]
    with pytest.raises(aiomqtt.MqttError, match="Unsupported protocol version"):
        async with mqtt_client(edge, protocol=aiomqtt.ProtocolVersion.V5):
            pass


@pytest.mark.parametrize(("name", "level"), [("MQIsdp", 3), ("MQTT", 3), ("MQTT", 6), ("mqtt", 4)])
async def test_other_versions_are_refused_with_code_1(edge, name, level):
    async with edge.client() as client:
        assert await client.connect(name=name, level=level) == 1
        assert await client.closed() == []
    assert edge.gatekeeper.attempts == []


async def test_an_empty_client_id_needs_a_clean_session(edge):
    async with edge.client() as client:
        assert await client.connect("", clean=False) == 2
    async with edge.client() as client:
        assert await client.connect("") == 0
    assert [attempt.client_id for attempt in edge.gatekeeper.attempts] == [""]


@pytest.mark.parametrize("clean", [False, True])
async def test_no_session_outlives_its_connection(edge, clean):
    async with edge.client() as client:
        client.send(wire.connect(clean=clean), wire.subscribe(DPS_FILTER), wire.DISCONNECT)
        await client.closed()
    async with edge.client() as again:
        assert await again.connect(clean=clean) == 0, "with session-present 0"
        again.send(wire.publish())
        _, reply = await again.receive(), await again.receive()
        assert reply.qos == 0, "the subscription is gone"


@pytest.mark.parametrize("topic", ["$dps/registrations/res/200/?$rid=1", "provisiond/v1/dev2/res/register/1"])
async def test_a_will_is_never_published(edge, topic):
    async with edge.client() as victim:
        assert await victim.connect("dev2") == 0
        victim.send(wire.subscribe(DPS_FILTER))
        await victim.receive()
        async with edge.client() as client:
            client.send(wire.connect(will=(topic, b"forged"), extra_flags=0x28))
            assert (await client.receive()).body == b"\0\0"
        await edge.gatekeeper.until(lambda: edge.gatekeeper.ended)
        victim.send(wire.PINGREQ)
        assert (await victim.receive()).kind == PINGRESP, "nothing came before"
    assert edge.gatekeeper.messages == []
    assert not edge.broker.retained_messages


async def test_a_connect_that_is_not_judged_in_time_hears_unavailable(make_edge):
    async with make_edge(admit_timeout_s=0.1) as edge, edge.client() as client:
        edge.gatekeeper.admit_gate = asyncio.Event()
        assert await client.connect() == 3
        assert await client.closed() == []


async def test_a_client_that_leaves_while_it_is_judged_is_closed_once_it_is_admitted(edge):
    edge.gatekeeper.admit_gate = asyncio.Event()
    async with edge.client() as client:
        client.send(wire.connect())
        await edge.gatekeeper.until(lambda: edge.gatekeeper.attempts)
    edge.gatekeeper.admit_gate.set()
    await edge.gatekeeper.until(lambda: edge.gatekeeper.ended)


async def test_packets_sent_before_the_connack_are_served_after_it(edge):
    edge.gatekeeper.admit_gate = asyncio.Event()
    async with edge.client() as client:
        client.send(wire.connect(), wire.publish())
        await edge.gatekeeper.until(lambda: edge.gatekeeper.attempts)
        assert edge.gatekeeper.messages == []
        edge.gatekeeper.admit_gate.set()
        assert [(await client.receive()).kind for _ in range(3)] == [CONNACK, PUBACK, PUBLISH]


# --- who may disturb whom ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("username", ["", None], ids=["dps", "native"])
async def test_a_stranger_with_the_same_client_id_does_not_cut_a_provisioning_device_off(edge, username):
    async with edge.client() as device, edge.client() as stranger:
        assert await device.connect(username=username) == 0
        assert await stranger.connect(username=username) == 0
        for client in (device, stranger):
            client.send(wire.PINGREQ)
            assert (await client.receive()).kind == PINGRESP


async def test_a_refused_stranger_disturbs_nobody(edge):
    async with edge.client() as device:
        assert await device.connect(username=HUB_USER) == 0
        edge.gatekeeper.refusals["dev1"] = 5
        async with edge.client() as stranger:
            assert await stranger.connect(username=HUB_USER) == 5
        device.send(wire.PINGREQ)
        assert (await device.receive()).kind == PINGRESP


async def test_a_newer_hub_connection_takes_over_from_the_older_of_the_same_device(edge):
    async with edge.client() as older, edge.client() as newer, edge.client() as other:
        assert await older.connect("dev1", username=HUB_USER) == 0
        assert await other.connect("dev2", username=HUB_USER) == 0
        assert await newer.connect("DEV1", username=HUB_USER) == 0
        assert await older.closed() == []
        await edge.gatekeeper.until(lambda: edge.gatekeeper.ended)
        for client in (newer, other):
            client.send(wire.PINGREQ)
            assert (await client.receive()).kind == PINGRESP
        assert edge.broker.statistics.refused == {Reason.TAKEN_OVER: 1}
        assert len(edge.broker._holders) == 2


async def test_a_fault_of_the_service_ends_one_connection_and_is_logged_once(edge, caplog):
    def explode(message):
        raise RuntimeError("boom")

    edge.gatekeeper.reply = explode
    async with edge.client() as client, edge.client() as other:
        assert await client.connect("dev1") == 0
        assert await other.connect("dev2") == 0
        client.send(wire.publish())
        assert await client.closed() == []
        other.send(wire.PINGREQ)
        assert (await other.receive()).kind == PINGRESP
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "connection 1 from 127.0.0.1 failed")


# --- ports.Transport --------------------------------------------------------------------------------------------------


async def test_a_message_is_sent_to_one_connection(edge):
    message = Message(topic="$dps/registrations/res/200/?$rid=9", payload=b"later")
    async with edge.client() as one, edge.client() as two:
        for client, client_id in ((one, "dev1"), (two, "dev2")):
            assert await client.connect(client_id) == 0
        assert await edge.broker.send(edge.gatekeeper.admitted[1].connection_id, message)
        heard = await two.receive()
        assert (heard.topic, heard.payload) == (message.topic, b"later")
        one.send(wire.PINGREQ)
        assert (await one.receive()).kind == PINGRESP


async def test_a_message_for_a_connection_that_is_gone_is_not_sent(edge):
    async with edge.client() as client:
        assert await client.connect() == 0
    await edge.gatekeeper.until(lambda: edge.gatekeeper.ended)
    assert not await edge.broker.send("1", Message(topic="t", payload=b""))
    assert not await edge.broker.send("never", Message(topic="t", payload=b""))
    edge.broker.disconnect("1", "gone already")


async def test_a_message_beyond_what_is_unacknowledged_is_not_sent(make_edge):
    async with make_edge(inflight=1) as edge, edge.client() as client:
        assert await client.connect() == 0
        client.send(wire.subscribe(DPS_FILTER))
        await client.receive()
        message = Message(topic="$dps/registrations/res/200/?$rid=1", payload=b"")
        assert [await edge.broker.send("1", message) for _ in range(2)] == [True, False]


async def test_a_connection_can_be_cut(edge):
    async with edge.client() as client:
        assert await client.connect() == 0
        edge.broker.disconnect("1", "its enrollment was disabled")
        assert await client.closed() == []
    assert edge.broker.statistics.refused == {Reason.DISCONNECTED: 1}


# --- real clients -----------------------------------------------------------------------------------------------------


async def test_an_aiomqtt_client_is_served_over_mutual_tls(edge, server_ca, tmp_path):
    certificate, key = make_leaf("dev1").write(tmp_path, "device")
    tls = wire.client_tls(cafile=server_ca[1], certificate=certificate, key=key)
    client = mqtt_client(edge, "devices", identifier="dev1", username=wire.user("dev1"), tls_context=tls)
    async with asyncio.timeout(wire.DEADLINE_S), client:
        await client.subscribe(DPS_FILTER, qos=1)
        await client.publish(wire.REGISTER, b"hello", qos=1)
        async for message in client.messages:
            assert (str(message.topic), message.payload, message.qos) == (
                "$dps/registrations/res/200/?$rid=1",
                b"hello",
                1,
            )
            break
    assert edge.broker.statistics.refused == {}


# --- life -------------------------------------------------------------------------------------------------------------


def open_files():
    return {path.name for path in Path("/proc/self/fd").iterdir()}


async def test_nothing_is_left_of_any_client_however_it_ended(make_edge, tmp_path):
    files, tasks = open_files(), asyncio.all_tasks()
    async with make_edge(connect_timeout_s=60, handshake_timeout_s=60) as edge:
        edge.gatekeeper.refusals["refused"] = 5
        tls = wire.client_tls()
        for context in (None, tls):
            for sent in (
                b"",
                b"\x10",
                wire.PINGREQ,
                wire.publish(),
                wire.connect("refused"),
                wire.connect(level=5),
                wire.connect(),
                wire.connect() + wire.publish() + wire.DISCONNECT,
                wire.connect() + wire.publish("x"),
                wire.connect() + wire.connect(),
            ):
                async with edge.client(context) as client:
                    client.send(sent)
                    await client.writer.drain()
        await wire.until(lambda: edge.is_clean)
    assert asyncio.all_tasks() == tasks
    assert open_files() == files


async def test_stop_lets_a_request_finish_and_closes_the_others_at_once(make_edge):
    async with make_edge() as edge:
        gatekeeper = edge.gatekeeper
        gatekeeper.handle_gate = asyncio.Event()
        async with edge.client() as busy, edge.client() as idle, edge.client() as silent:
            assert await busy.connect("dev1") == 0
            assert await idle.connect("dev2") == 0
            busy.send(wire.publish(), wire.publish(packet_id=8))
            await gatekeeper.until(lambda: gatekeeper.messages)
            stopping = asyncio.create_task(edge.broker.stop(grace_s=10))
            assert await idle.closed() == []
            assert await silent.closed() == []
            gatekeeper.handle_gate.set()
            assert [packet.kind for packet in await busy.closed()] == [PUBACK, PUBLISH]
            await stopping
            assert len(gatekeeper.handled) == 1, "what waited is not begun"
        await edge.broker.start()


async def test_stop_does_not_wait_longer_than_its_grace(make_edge):
    async with make_edge() as edge:
        edge.gatekeeper.handle_gate = asyncio.Event()
        async with edge.client() as busy:
            assert await busy.connect() == 0
            busy.send(wire.publish())
            await edge.gatekeeper.until(lambda: edge.gatekeeper.messages)
            await edge.broker.stop(grace_s=0.05)
            assert await busy.closed() == []
        assert edge.gatekeeper.handled == []
        await edge.broker.start()


async def test_statistics_count_connections(edge):
    async with edge.client() as one, edge.client() as two:
        assert await one.connect() == 0
        assert await two.connect() == 0
        assert (edge.broker.statistics.connections, edge.broker.statistics.connections_total) == (2, 2)
