"""Newcomers: so many at a time, each served to its end, and nobody held up by those who say nothing."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from provisiond.broker import arrivals
from tests.broker import wire


@pytest.fixture(name="room_for_two", autouse=True)
def _room_for_two(monkeypatch):
    monkeypatch.setattr(arrivals, "ARRIVING_MAX", 2)
    monkeypatch.setattr(arrivals, "STANDSTILL_S", 60.0)


@pytest.mark.parametrize("listener", ["local", "devices"])
async def test_a_storm_is_served_a_few_at_a_time(edge, listener):
    tls = wire.client_tls() if listener == "devices" else None

    async def connect(number):
        async with edge.client(tls) as client:
            assert await client.connect(f"device-{number}") == 0

    async with asyncio.TaskGroup() as group:
        for number in range(40):
            group.create_task(connect(number))
    assert edge.broker.statistics.connections_total == 40


async def test_who_finds_no_room_waits_in_the_kernel_until_a_newcomer_is_served(edge):
    async with edge.client() as first, edge.client(), edge.client() as third:
        third.send(wire.connect("third"))
        await wire.until(lambda: edge.broker._listeners[0]._arrivals._timer)
        assert edge.broker.statistics.connections == 2
        assert await first.connect("first") == 0
        assert (await third.receive()).kind == wire.CONNACK


async def test_who_goes_away_makes_room(edge):
    async with edge.client(), edge.client() as leaving, edge.client() as third:
        third.send(wire.connect("third"))
        leaving.writer.transport.abort()
        assert (await third.receive()).kind == wire.CONNACK


async def test_newcomers_that_all_stand_still_hold_nobody_up(edge, monkeypatch):
    monkeypatch.setattr(arrivals, "STANDSTILL_S", 0.02)
    async with edge.client(), edge.client(), edge.client() as third:
        assert await third.connect("third") == 0


@pytest.mark.parametrize("served_min", [1, 0], ids=["while nobody is served", "while others are served"])
async def test_newcomers_that_talk_and_never_say_connect_hold_nobody_up_for_long(edge, monkeypatch, served_min):
    monkeypatch.setattr(arrivals, "STANDSTILL_S", 0.1)
    monkeypatch.setattr(arrivals, "PATIENCE_S", 0.3)
    monkeypatch.setattr(arrivals, "SERVED_MIN", served_min)

    async def drip(client):
        while True:
            client.send(b"\x01")
            await asyncio.sleep(0.02)

    async with AsyncExitStack() as stack:
        tasks = []
        for _ in range(4):
            slow = await stack.enter_async_context(edge.client(listener="devices"))
            slow.send(b"\x16\x03\x01\x10\x00")
            tasks.append(asyncio.create_task(drip(slow)))
        third = await stack.enter_async_context(edge.client(wire.client_tls()))
        assert await third.connect("third") == 0
        for task in tasks:
            task.cancel()


async def test_the_broker_stops_while_somebody_waits(make_edge):
    async with AsyncExitStack() as stack:
        async with make_edge() as edge:
            clients = [await stack.enter_async_context(edge.client()) for _ in range(3)]
            await wire.until(lambda: edge.broker._listeners[0]._arrivals._timer)
        assert await clients[2].receive() is None
