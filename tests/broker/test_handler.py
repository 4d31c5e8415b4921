"""One admitted client: what it may send, what it hears, and in which order."""

import asyncio

import pytest

from provisiond.broker.offences import Reason
from provisiond.model import Message
from tests.broker import wire
from tests.broker.wire import CONNACK, DPS_FILTER, PINGRESP, PUBACK, PUBLISH, SUBACK, UNSUBACK
from tests.passing_time import pass_time


async def receive_kinds(client, count):
    return [(await client.receive()).kind for _ in range(count)]


# --- requests and replies ---------------------------------------------------------------------------------------------


async def test_a_request_is_handed_over_as_it_is(edge):
    async with edge.client() as client:
        assert await client.connect("Dev-1") == 0
        client.send(wire.publish(payload=b"\x00\xffbody"))
        assert (await client.receive()).kind == PUBACK
        ((connection, message),) = edge.gatekeeper.messages
        assert connection == edge.gatekeeper.admitted[0]
        assert message == Message(topic=wire.REGISTER, payload=b"\x00\xffbody", qos=1)


async def test_the_acknowledgement_comes_before_the_reply_and_after_the_work(edge):
    edge.gatekeeper.handle_gate = asyncio.Event()
    async with edge.client() as client:
        assert await client.connect() == 0
        client.send(wire.subscribe(DPS_FILTER), wire.publish(packet_id=0x1234))
        assert (await client.receive()).kind == SUBACK
        await edge.gatekeeper.until(lambda: edge.gatekeeper.messages)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.receive()
        edge.gatekeeper.handle_gate.set()
        acknowledged, reply = await client.receive(), await client.receive()
        assert (acknowledged.kind, acknowledged.packet_id) == (PUBACK, 0x1234)
        assert (reply.kind, reply.topic, reply.payload) == (PUBLISH, "$dps/registrations/res/200/?$rid=1", b"{}")


@pytest.mark.parametrize(("requested", "granted", "replied"), [(0, 0, 0), (1, 1, 1), (2, 1, 1)])
async def test_replies_come_with_the_qos_of_the_subscription(edge, requested, granted, replied):
    async with edge.client() as client:
        assert await client.connect() == 0
        client.send(wire.subscribe(DPS_FILTER, qos=requested, packet_id=5), wire.publish())
        suback, _, reply = [await client.receive() for _ in range(3)]
        assert suback.body == bytes([0, 5, granted])
        assert (reply.qos, reply.flags & 9) == (replied, 0), "neither a duplicate nor retained"


async def test_a_reply_comes_without_any_subscription(edge):
    async with edge.client() as client:
        assert await client.connect() == 0
        client.send(wire.publish())
        _, reply = await client.receive(), await client.receive()
        assert (reply.kind, reply.qos, reply.payload) == (PUBLISH, 0, b"{}")


async def test_a_reply_still_comes_after_an_unsubscribe(edge):
    async with edge.client() as client:
        assert await client.connect() == 0
        client.send(wire.subscribe(DPS_FILTER), wire.unsubscribe(DPS_FILTER, "never/had", packet_id=9), wire.publish())
        _, unsuback, _, reply = [await client.receive() for _ in range(4)]
        assert (unsuback.kind, unsuback.packet_id) == (UNSUBACK, 9)
        assert reply.qos == 0


async def test_subscribing_again_replaces_the_qos(edge):
    async with edge.client() as client:
        assert await client.connect() == 0
        client.send(wire.subscribe(DPS_FILTER, qos=1), wire.subscribe(DPS_FILTER, qos=0), wire.publish())
        *_, reply = [await client.receive() for _ in range(4)]
        assert reply.qos == 0


async def test_a_reply_reaches_only_the_one_who_asked(edge):
    async with edge.client() as asker, edge.client() as one, edge.client() as two:
        for number, client in enumerate((asker, one, two)):
            assert await client.connect(f"dev{number}") == 0
            client.send(wire.subscribe(DPS_FILTER))
            assert (await client.receive()).kind == SUBACK
        asker.send(wire.publish(payload=b"asked"))
        assert await receive_kinds(asker, 2) == [PUBACK, PUBLISH]
        for client in (one, two):
            client.send(wire.PINGREQ)
            assert (await client.receive()).kind == PINGRESP, "nothing came before"


async def test_nothing_to_say_is_only_acknowledged(edge):
    edge.gatekeeper.reply = lambda _: None
    async with edge.client() as client:
        assert await client.connect() == 0
        client.send(wire.publish(), wire.publish(qos=0), wire.PINGREQ)
        assert await receive_kinds(client, 2) == [PUBACK, PINGRESP]


async def test_qos_0_requests_are_answered_and_not_acknowledged(edge):
    async with edge.client() as client:
        assert await client.connect() == 0
        client.send(wire.publish(qos=0))
        assert (await client.receive()).kind == PUBLISH
        assert edge.gatekeeper.messages[0][1].qos == 0


@pytest.mark.parametrize("is_tls", [False, True])
async def test_large_requests_and_replies_arrive_whole(edge, is_tls):
    payload = bytes(range(256)) * 370  # 94,720 bytes
    async with edge.client(wire.client_tls() if is_tls else None) as client:
        assert await client.connect() == 0
        client.send(wire.subscribe(DPS_FILTER), wire.publish(payload=payload))
        *_, reply = [await client.receive() for _ in range(3)]
        assert reply.payload == payload


async def test_requests_are_served_one_by_one_in_order_and_a_ping_waits_its_turn(edge):
    """The TCP window is the queue: while a request is handled, later packets of the same client wait in it."""
    gatekeeper = edge.gatekeeper
    gatekeeper.handle_gate = asyncio.Event()
    async with edge.client() as client, edge.client() as other:
        assert await client.connect("dev1") == 0
        assert await other.connect("dev2") == 0
        client.send(wire.publish(payload=b"1"), wire.PINGREQ, wire.publish(payload=b"2"))
        other.send(wire.PINGREQ)
        assert (await other.receive()).kind == PINGRESP, "nobody else waits"
        await gatekeeper.until(lambda: gatekeeper.messages)
        assert len(gatekeeper.messages) == 1
        gatekeeper.handle_gate.set()
        heard = [await client.receive() for _ in range(5)]
        assert [packet.kind for packet in heard] == [PUBACK, PUBLISH, PINGRESP, PUBACK, PUBLISH]
        assert [packet.payload for packet in heard if packet.kind == PUBLISH] == [b"1", b"2"]


async def test_a_slow_request_does_not_run_into_the_keep_alive(make_edge):
    async with make_edge(keep_alive_ceiling_s=1000, provisioning_idle_s=10_000) as edge, edge.client() as client:
        edge.gatekeeper.handle_gate = asyncio.Event()
        assert await client.connect() == 0
        client.send(wire.publish())
        await edge.gatekeeper.until(lambda: edge.gatekeeper.messages)
        pass_time(5000)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.closed()
        edge.gatekeeper.handle_gate.set()
        assert await receive_kinds(client, 2) == [PUBACK, PUBLISH]


@pytest.mark.parametrize("is_tls", [False, True])
async def test_a_client_that_hangs_up_does_not_interrupt_the_work(edge, is_tls):
    gatekeeper = edge.gatekeeper
    gatekeeper.handle_gate = asyncio.Event()
    async with edge.client(wire.client_tls() if is_tls else None) as client:
        assert await client.connect() == 0
        client.send(wire.publish())
        await gatekeeper.until(lambda: gatekeeper.messages)
        (held,) = edge.broker._door.clients
    await wire.until(lambda: held.has_ended)
    assert not gatekeeper.ended
    gatekeeper.handle_gate.set()
    await gatekeeper.until(lambda: gatekeeper.ended)
    assert len(gatekeeper.handled) == 1


async def test_a_request_before_a_disconnect_is_done(edge):
    async with edge.client() as client:
        client.send(wire.connect(), wire.publish(), wire.DISCONNECT)
        assert [packet.kind for packet in await client.closed()] == [CONNACK, PUBACK, PUBLISH]
    assert edge.broker.statistics.refused == {}


async def test_nothing_after_a_disconnect_is_done(edge):
    async with edge.client() as client:
        client.send(wire.connect(), wire.DISCONNECT, wire.publish())
        assert [packet.kind for packet in await client.closed()] == [CONNACK]
    assert edge.gatekeeper.messages == []


async def test_a_duplicate_is_served_again(edge):
    """After a reconnect a device may mark its request so; asking again is always safe."""
    async with edge.client() as client:
        assert await client.connect() == 0
        client.send(wire.publish(flags=8), wire.publish(flags=8))
        assert await receive_kinds(client, 4) == [PUBACK, PUBLISH] * 2


async def test_a_retained_request_is_kept_for_nobody(edge):
    async with edge.client() as client:
        assert await client.connect() == 0
        client.send(wire.publish(flags=1))
        assert await receive_kinds(client, 2) == [PUBACK, PUBLISH]
    async with edge.client() as later:
        assert await later.connect("dev2") == 0
        later.send(wire.subscribe(DPS_FILTER), wire.PINGREQ)
        assert await receive_kinds(later, 2) == [SUBACK, PINGRESP]
    assert not edge.broker.retained_messages


async def test_a_native_client_is_served_on_its_own_topics(edge):
    async with edge.client() as client:
        assert await client.connect("Dev-1", username=None) == 0
        client.send(wire.subscribe("provisiond/v1/Dev-1/res/#"), wire.publish("provisiond/v1/Dev-1/req/register/42"))
        suback, _, reply = [await client.receive() for _ in range(3)]
        assert suback.body[2:] == b"\x01"
        assert (reply.topic, reply.qos) == ("provisiond/v1/Dev-1/res/register/42", 1)


async def test_a_request_id_of_10_kb_is_handed_over(edge):
    topic = "$dps/registrations/PUT/iotdps-register/?$rid=" + "r" * 10_240
    async with edge.client() as client:
        assert await client.connect() == 0
        client.send(wire.publish(topic))
        assert (await client.receive()).kind == PUBACK
    assert edge.gatekeeper.messages[0][1].topic == topic


# --- refusals ---------------------------------------------------------------------------------------------------------


async def test_foreign_filters_are_refused_one_by_one(edge):
    async with edge.client() as client:
        assert await client.connect() == 0
        client.send(wire.subscribe("#", DPS_FILTER, "+/#", "$SYS/#", "$share/g/" + DPS_FILTER, packet_id=3))
        assert (await client.receive()).body == bytes([0, 3, 0x80, 1, 0x80, 0x80, 0x80])


@pytest.mark.parametrize(
    "offence",
    [
        wire.publish(qos=2),
        wire.packet(0x62, b"\0\1"),
        wire.packet(0x50, b"\0\1"),
        wire.packet(0x70, b"\0\1"),
        wire.connect(),
        wire.publish("devices/dev1/messages/events/"),
        wire.publish("$SYS/broker/version"),
        wire.publish("$dps/registrations/+/x"),
        wire.publish("$dps/registrations/\0"),
        wire.publish(b"$dps/registrations/\xff"),
        wire.publish(""),
        wire.publish(packet_id=0),
        b"\x36" + wire.publish()[1:],
        wire.publish("$dps/registrations/" + "/" * 65_000),
        wire.publish("$dps/registrations/" + "t" * 16_384),
        wire.subscribe(*[DPS_FILTER] * 9),
        wire.subscribe("/" * 65_000),
        wire.subscribe(*(f"f/{number}" for number in range(10_000))),
        wire.unsubscribe(*"abcdefghi"),
        wire.packet(0xC0, b"x"),
        wire.packet(0x40, b"\0\0"),
        b"\xc1\x00",
        b"\xf0\x00",
    ],
    ids=str,
)
async def test_an_offence_ends_the_connection_and_is_counted_once(edge, offence):
    async with edge.client() as other, edge.client() as client:
        assert await other.connect("other") == 0
        assert await client.connect() == 0
        client.send(offence)
        assert await client.closed() == []
        other.send(wire.PINGREQ)
        assert (await other.receive()).kind == PINGRESP
    assert edge.broker.statistics.refused == {Reason.PROTOCOL: 1}
    assert edge.gatekeeper.messages == []


async def test_a_client_that_never_acknowledges_is_closed_at_the_limit(make_edge):
    async with make_edge(inflight=3) as edge, edge.client() as client:
        assert await client.connect() == 0
        client.send(wire.subscribe(DPS_FILTER), *(wire.publish(packet_id=number) for number in range(1, 6)))
        heard = await client.closed()
        assert [packet.packet_id for packet in heard if packet.kind == PUBLISH] == [1, 2, 3]
        assert edge.broker.statistics.refused == {Reason.PROTOCOL: 1}


async def test_a_client_that_acknowledges_is_served_for_ever(make_edge):
    async with make_edge(inflight=1) as edge, edge.client() as client:
        assert await client.connect() == 0
        client.send(wire.subscribe(DPS_FILTER))
        assert (await client.receive()).kind == SUBACK
        for number in range(1, 10):
            client.send(wire.publish(packet_id=number))
            _, reply = await client.receive(), await client.receive()
            assert reply.packet_id == number
            client.send(wire.puback(reply.packet_id))


async def test_packet_ids_wrap_past_those_still_waiting():
    from provisiond.broker.session import DeviceSession

    session = DeviceSession("1")
    assert session.take_packet_id() == 1
    session._packet_id = 0xFFFF
    assert session.take_packet_id() == 2, "0 is no packet id and 1 still waits"
