"""What hub devices and operators are sent: only what they asked for, awaited if need be, and never without bounds."""

import asyncio
import socket

from provisiond.model import Message
from tests.broker import wire

DEVICEBOUND = "devices/dev1/messages/devicebound/#"
CLOUD_MESSAGE = Message(topic="devices/dev1/messages/devicebound/a=1", payload=b"hello")
EVENT = Message(topic="devices/dev1/messages/events/", payload=b"21.5")


async def connect_device(edge, client):
    assert await client.connect("dev1", username="hub.example/dev1/?api-version=2021-04-12") == 0
    return edge.gatekeeper.admitted[-1].connection_id


async def connect_operator(edge, client, client_id="op1"):
    assert await client.connect(client_id, username="operator") == 0
    return edge.gatekeeper.admitted[-1].connection_id


async def subscribe(client, *filters, qos=1):
    client.send(wire.subscribe(*filters, qos=qos))
    return list((await client.receive()).body[2:])


async def test_the_service_hears_of_every_change_of_subscriptions(edge):
    async with edge.client() as client:
        await connect_device(edge, client)
        assert await subscribe(client, DEVICEBOUND, "$iothub/#") == [1, 0x80]
        client.send(wire.unsubscribe(DEVICEBOUND))
        assert (await client.receive()).kind == wire.UNSUBACK
        await edge.gatekeeper.until(lambda: len(edge.gatekeeper.subscriptions) == 2)
    assert [granted for _, granted in edge.gatekeeper.subscriptions] == [{DEVICEBOUND: 1}, {}]


async def test_a_device_is_not_sent_what_it_did_not_subscribe_to(edge):
    async with edge.client() as client:
        connection_id = await connect_device(edge, client)
        assert not edge.broker.post(connection_id, CLOUD_MESSAGE)
        await subscribe(client, DEVICEBOUND)
        assert edge.broker.post(connection_id, CLOUD_MESSAGE)
        received = await client.receive()
        assert (received.topic, received.payload, received.qos) == (CLOUD_MESSAGE.topic, b"hello", 1)


async def test_an_awaited_message_is_delivered_when_it_is_acknowledged(edge):
    async with edge.client() as client:
        connection_id = await connect_device(edge, client)
        await subscribe(client, DEVICEBOUND)
        delivery = asyncio.create_task(edge.broker.deliver(connection_id, CLOUD_MESSAGE, deadline_s=60))
        received = await client.receive()
        assert not delivery.done()
        client.send(wire.puback(received.packet_id))
        assert await delivery


async def test_an_awaited_message_is_not_delivered_when_the_connection_ends_or_time_is_up(edge):
    async with edge.client() as client:
        connection_id = await connect_device(edge, client)
        await subscribe(client, DEVICEBOUND)
        assert not await edge.broker.deliver(connection_id, CLOUD_MESSAGE, deadline_s=0.01)
        delivery = asyncio.create_task(edge.broker.deliver(connection_id, CLOUD_MESSAGE, deadline_s=60))
        await client.receive()
        client.send(wire.DISCONNECT)
        assert not await delivery
        assert not await edge.broker.deliver(connection_id, CLOUD_MESSAGE, deadline_s=60)


async def test_an_awaited_message_at_qos_0_is_delivered_when_it_is_written(edge):
    async with edge.client() as client:
        connection_id = await connect_device(edge, client)
        await subscribe(client, DEVICEBOUND, qos=0)
        assert await edge.broker.deliver(connection_id, CLOUD_MESSAGE, deadline_s=60)
        assert (await client.receive()).qos == 0


async def test_a_device_that_acknowledges_nothing_is_sent_no_more(make_edge):
    async with make_edge(inflight=2) as edge, edge.client() as client:
        connection_id = await connect_device(edge, client)
        await subscribe(client, DEVICEBOUND)
        assert [edge.broker.post(connection_id, CLOUD_MESSAGE) for _ in range(3)] == [True, True, False]


async def test_what_an_operator_has_not_acknowledged_yet_makes_the_rest_wait_in_order(make_edge):
    async with make_edge(inflight=2, consumer_buffer_bytes=100) as edge, edge.client() as client:
        connection_id = await connect_operator(edge, client)
        await subscribe(client, "devices/+/messages/events/#")
        events = [Message(topic=EVENT.topic, payload=b"%d" % number) for number in range(6)]
        assert [edge.broker.post(connection_id, event) for event in events] == [True] * 5 + [False]
        heard = []
        for _ in range(5):
            packet = await client.receive()
            heard.append(packet.payload)
            client.send(wire.puback(packet.packet_id))
        assert heard == [b"0", b"1", b"2", b"3", b"4"]


async def test_an_operator_may_have_only_so_many_filters(edge):
    async with edge.client() as client:
        await connect_operator(edge, client)
        codes = []
        for number in range(65):
            codes += await subscribe(client, f"devices/d{number}/messages/events/#")
        assert codes == [1] * 64 + [0x80]
        assert await subscribe(client, "devices/d0/messages/events/#", qos=0) == [0]


async def test_a_hub_device_may_send_larger_packets_than_a_stranger(make_edge):
    async with make_edge(max_packet_bytes=1024, max_hub_packet_bytes=200_000) as edge:
        async with edge.client() as client:
            await connect_device(edge, client)
            client.send(wire.publish("devices/dev1/messages/events/", b"x" * 150_000))
            assert (await client.receive()).kind == wire.PUBACK
        async with edge.client() as client:
            assert await client.connect() == 0
            client.send(wire.publish(payload=b"x" * 2000))
            assert await client.closed() == []


async def test_what_nobody_has_asked_for_does_not_wait_for_acknowledgements_of_tcp(edge):
    async with edge.client() as client:
        connection_id = await connect_device(edge, client)
        await subscribe(client, DEVICEBOUND, qos=0)
        accepted = edge.broker._handler(connection_id)._client._transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
