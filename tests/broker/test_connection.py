"""The door's patience and appetite: deadlines and sizes, for clients that send too little, too much or too slowly."""

import asyncio
import logging

import pytest

from provisiond.broker.connection import READ_BYTES
from provisiond.broker.offences import Reason
from tests.broker import wire
from tests.passing_time import pass_time

HUGE = b"\x30\xff\xff\xff\x7f"  # a PUBLISH that announces 256 MB


# --- before the CONNECT -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"\x10", wire.connect()[:-1]], ids=["nothing", "one byte", "all but one byte"])
@pytest.mark.parametrize("is_tls", [False, True])
async def test_a_client_that_never_finishes_its_connect_is_closed(make_edge, sent, is_tls):
    async with (
        make_edge(connect_timeout_s=0.2) as edge,
        edge.client(wire.client_tls() if is_tls else None) as client,
    ):
        client.send(sent)
        assert await client.closed() == []
        assert edge.broker.statistics.refused == {Reason.TOO_SLOW: 1}
        assert edge.gatekeeper.attempts == []


@pytest.mark.parametrize(
    "sent", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], ids=["nothing", "half a hello"]
)
async def test_a_client_that_never_finishes_its_handshake_is_closed(make_edge, sent):
    async with (
        make_edge(handshake_timeout_s=0.2, connect_timeout_s=0.1) as edge,
        wire.open_client(edge.broker.addresses["devices"]) as client,
    ):
        client.send(sent)
        assert await client.closed() == []
        assert edge.broker.statistics.refused == {Reason.TOO_SLOW: 1}


async def test_a_client_that_drips_its_connect_is_closed_at_the_same_deadline(make_edge):
    """The deadline runs from accept: bytes do not extend it."""
    async with make_edge(connect_timeout_s=1000) as edge, edge.client() as client:
        for byte in wire.connect()[:3]:
            client.send(bytes([byte]))
            now = asyncio.get_running_loop().time()
            await wire.until(lambda now=now: any(held.last_received_at >= now for held in edge.broker._door.clients))
            pass_time(400)
        assert await client.closed() == []
        assert edge.broker.statistics.refused == {Reason.TOO_SLOW: 1}


@pytest.mark.parametrize(
    "first",
    [
        wire.publish(),
        wire.subscribe(wire.DPS_FILTER),
        wire.PINGREQ,
        wire.DISCONNECT,
        b"\x00\x00",
        b"\xf0\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x11" + wire.connect()[1:],
        HUGE,
    ],
)
async def test_any_other_first_packet_is_closed_at_its_first_byte(edge, first):
    async with edge.client() as client:
        client.send(first)
        assert await client.closed() == []
    assert edge.broker.statistics.refused == {Reason.PROTOCOL: 1}


async def test_a_connect_over_its_limit_is_closed_at_its_header(edge):
    async with edge.client() as client:
        client.send(b"\x10\x81\x20")  # 4,097 bytes announced
        assert await client.closed() == []
    assert edge.broker.statistics.refused == {Reason.PROTOCOL: 1}


async def test_a_connect_of_the_largest_size_is_read(edge):
    padding = 4096 - (len(wire.connect(password=b"")) - 2)
    async with edge.client() as client:
        assert await client.connect(password=b"p" * padding) == 0
    assert edge.gatekeeper.attempts[0].password == b"p" * padding


@pytest.mark.parametrize("header", [HUGE, b"\x30\xff\xff\xff\xff\x7f", b"\x10\xff\xff\xff\xff\x01"])
async def test_a_packet_over_its_limit_is_closed_at_its_header(edge, header):
    async with edge.client() as client:
        assert await client.connect() == 0
        client.send(header)
        assert await client.closed() == []
    assert edge.broker.statistics.refused == {Reason.PROTOCOL: 1}


# --- after the CONNECT ------------------------------------------------------------------------------------------------


async def test_a_silent_client_is_closed_after_one_and_a_half_keep_alives(edge):
    async with edge.client() as client:
        assert await client.connect(keep_alive=1) == 0
        started = asyncio.get_running_loop().time()
        assert await client.closed() == []
        assert asyncio.get_running_loop().time() - started > 1.4
    assert edge.broker.statistics.refused == {Reason.KEEP_ALIVE: 1}


async def test_half_a_packet_does_not_outlive_the_keep_alive(make_edge):
    async with make_edge(keep_alive_ceiling_s=0.2) as edge, edge.client() as client:
        assert await client.connect(keep_alive=60) == 0
        client.send(wire.publish()[:10])
        assert await client.closed() == []
        assert edge.broker.statistics.refused == {Reason.KEEP_ALIVE: 1}


async def test_keep_alive_0_stands_for_the_ceiling(make_edge):
    async with make_edge(keep_alive_ceiling_s=0.2) as edge, edge.client() as client:
        assert await client.connect(keep_alive=0) == 0
        assert await client.closed() == []
        assert edge.broker.statistics.refused == {Reason.KEEP_ALIVE: 1}


async def test_a_client_that_pings_stays(make_edge):
    async with make_edge(keep_alive_ceiling_s=1000, provisioning_idle_s=10_000) as edge, edge.client() as client:
        assert await client.connect(keep_alive=0) == 0
        for _ in range(4):
            pass_time(900)
            client.send(wire.PINGREQ)
            assert (await client.receive()).kind == wire.PINGRESP


async def test_an_idle_provisioning_connection_is_closed_though_it_pings(make_edge):
    async with make_edge(provisioning_idle_s=1000) as edge, edge.client() as client:
        assert await client.connect(keep_alive=900) == 0
        for _ in range(2):
            pass_time(400)
            client.send(wire.PINGREQ)
            assert (await client.receive()).kind == wire.PINGRESP
        pass_time(400)
        assert await client.closed() == []
        assert edge.broker.statistics.refused == {Reason.IDLE: 1}


async def test_an_idle_connection_with_an_outstanding_operation_stays_until_it_is_final(make_edge):
    async with make_edge(provisioning_idle_s=0.1) as edge, edge.client() as client:
        edge.gatekeeper.outstanding.add("1")
        assert await client.connect() == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.4):
                await client.closed()
        edge.gatekeeper.outstanding.clear()
        assert await client.closed() == []
        assert edge.broker.statistics.refused == {Reason.IDLE: 1}


async def test_a_hub_connection_does_not_idle_out(make_edge):
    async with make_edge(provisioning_idle_s=0.1) as edge, edge.client() as client:
        assert await client.connect(username="gateway.local/dev1/?api-version=2021-04-12") == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.closed()


async def test_a_client_that_does_not_read_is_cut_off(make_edge):
    async with make_edge(write_buffer_bytes=64 * 1024) as edge, edge.client() as client:
        assert await client.connect() == 0
        client.writer.transport.pause_reading()
        client.send(*(wire.publish(payload=b"x" * 90_000, qos=0) for _ in range(200)))
        await edge.gatekeeper.until(lambda: edge.gatekeeper.ended)
        assert edge.broker.statistics.refused == {Reason.SLOW_READER: 1}


async def test_what_a_busy_client_sends_ahead_waits_in_its_socket(edge):
    gatekeeper = edge.gatekeeper
    gatekeeper.handle_gate, gatekeeper.reply = asyncio.Event(), lambda _: None
    async with edge.client() as client:
        assert await client.connect() == 0
        client.send(*(wire.publish(payload=b"x" * 60_000, qos=0) for _ in range(100)))
        await gatekeeper.until(lambda: gatekeeper.messages)
        (held,) = edge.broker._door.clients
        await wire.until(lambda: held._is_paused)
        assert len(held._buffer) <= 96 * 1024 + 5 + READ_BYTES
        assert len(gatekeeper.messages) == 1, "one at a time"
        gatekeeper.handle_gate.set()
        await gatekeeper.until(lambda: len(gatekeeper.handled) == 100)


async def test_a_client_that_sends_much_does_not_keep_others_waiting(edge):
    async with edge.client() as busy, edge.client() as other:
        assert await busy.connect("busy") == 0
        assert await other.connect("other") == 0
        busy.send(*(wire.publish(payload=b"b", qos=0) for _ in range(3000)))
        other.send(wire.publish(payload=b"o", qos=0))
        assert (await other.receive()).payload == b"o"
        await edge.gatekeeper.until(lambda: len(edge.gatekeeper.handled) == 3001)
        assert edge.gatekeeper.handled.index(next(m for m in edge.gatekeeper.handled if m.payload == b"o")) < 3000


# --- logs -------------------------------------------------------------------------------------------------------------


async def test_an_offence_is_one_line_without_secrets_or_control_characters(edge, caplog):
    caplog.set_level(logging.DEBUG)
    async with edge.client() as client:
        assert await client.connect(password=b"SharedAccessSignature sr=x&sig=secret") == 0
        client.send(wire.publish("evil\r\n\x1b[31mtopic", b"payload-secret"))
        assert await client.closed() == []
    (line,) = [record.getMessage() for record in caplog.records if record.name == "provisiond.broker"]
    assert line == r"127.0.0.1: protocol: dps 'dev1' may not publish to 'evil\r\n\x1b[31mtopic'"
    assert "secret" not in caplog.text


async def test_amqtt_stays_silent_below_warning_whatever_the_root_logger_says(edge, caplog):
    caplog.set_level(logging.DEBUG)
    async with edge.client() as client:
        assert await client.connect(password=b"secret") == 0
        client.send(wire.publish())
        assert (await client.receive()).kind == wire.PUBACK
    assert [record for record in caplog.records if record.name.startswith(("amqtt", "transitions"))] == []
