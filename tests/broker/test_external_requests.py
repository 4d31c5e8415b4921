"""Requests of a site's broker: side by side, acknowledged in order, whatever becomes of each."""

import asyncio
from dataclasses import dataclass, field

import aiomqtt
import pytest
from paho.mqtt.client import MQTTMessage

from provisiond.broker import external_requests
from provisiond.broker.external_requests import ExternalStatistics, Ignored, RequestStream
from provisiond.model import Message, Role


@dataclass
class Client:
    """What the stream does with its connection."""

    acknowledged: list = field(default_factory=list)
    published: list = field(default_factory=list)
    is_lost: bool = False

    def acknowledge(self, packet_id):
        self.acknowledged.append(packet_id)

    async def publish(self, topic, payload, **options):
        if self.is_lost:
            raise aiomqtt.MqttError("lost")
        self.published.append(topic)


@dataclass
class Gatekeeper:
    """Answers each request when its gate opens."""

    gates: dict = field(default_factory=dict)
    connections: list = field(default_factory=list)
    running: int = 0
    most: int = 0

    async def handle(self, connection, message):
        self.connections.append(connection)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            gate = self.gates.get(message.topic.rpartition("/")[2])
            if gate is not None:
                await gate
        finally:
            self.running -= 1
        return Message(topic=message.topic.replace("/req/", "/res/"), payload=b"{}")


def request(packet_id, *, qos=1, topic=None, retain=False):
    message = MQTTMessage(
        mid=packet_id, topic=(topic or f"provisiond/v1/dev-{packet_id}/req/status/{packet_id}").encode()
    )
    message.qos, message.payload, message.retain = qos, b"{}", retain
    return message


class Bench:
    """A stream, and what is around it."""

    def __init__(self, tasks, inflight=100):
        self.client, self.gatekeeper, self.statistics = Client(), Gatekeeper(), ExternalStatistics()
        self.stream = RequestStream(
            self.client, self.gatekeeper, statistics=self.statistics, tasks=tasks, inflight=inflight
        )

    def hold(self, *numbers):
        loop = asyncio.get_running_loop()
        self.gatekeeper.gates |= {str(number): loop.create_future() for number in numbers}

    def release(self, number):
        self.gatekeeper.gates[str(number)].set_result(None)


async def settled():
    for _ in range(20):
        await asyncio.sleep(0)


async def test_requests_are_handled_side_by_side_and_acknowledged_in_order():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks)
        bench.hold(1, 2, 3)
        for number in (1, 2, 3):
            bench.stream.receive(request(number))
        for number, acknowledged in ((3, []), (1, [1]), (2, [1, 2, 3])):
            bench.release(number)
            await settled()
            assert bench.client.acknowledged == acknowledged
    assert bench.gatekeeper.most == 3
    assert [topic.rpartition("/")[2] for topic in bench.client.published] == ["3", "1", "2"]


async def test_only_so_many_are_in_progress_at_once():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks, inflight=5)
        for number in range(1, 51):
            bench.stream.receive(request(number))
    assert bench.gatekeeper.most <= 5
    assert bench.client.acknowledged == list(range(1, 51))


async def test_who_asks_is_told_by_the_topic_and_nothing_else():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks)
        bench.stream.receive(request(1))
    (connection,) = bench.gatekeeper.connections
    assert (connection.role, connection.claimed_id.text) == (Role.NATIVE, "dev-1")
    assert (connection.connection_id, connection.remote_address, connection.listener) == ("", "", "external")


async def test_what_is_passed_over_is_acknowledged_in_its_turn():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks)
        bench.hold(1)
        bench.stream.receive(request(1))
        bench.stream.receive(request(2, retain=True))
        bench.stream.receive(request(3, topic="provisiond/v1/a b/req/status/3"))
        await settled()
        assert bench.client.acknowledged == []
        bench.release(1)
    assert bench.client.acknowledged == [1, 2, 3]
    assert bench.statistics.ignored == {Ignored.RETAINED: 1, Ignored.NO_REGISTRATION_ID: 1}


async def test_a_topic_that_is_no_text_is_passed_over():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks)
        message = request(1)
        message._topic = b"provisiond/v1/\xff/req/status/1"
        bench.stream.receive(message)
    assert bench.client.acknowledged == [1]
    assert bench.statistics.ignored == {Ignored.NO_REGISTRATION_ID: 1}


async def test_a_request_at_qos_0_is_answered_and_not_acknowledged():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks)
        bench.stream.receive(request(0, qos=0))
    assert len(bench.client.published) == 1
    assert bench.client.acknowledged == []


async def test_what_does_not_fit_into_memory_stays_with_the_broker(monkeypatch):
    monkeypatch.setattr(external_requests, "_PENDING_MAX", 2)
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks)
        for number in (1, 2, 3):
            bench.stream.receive(request(number))
    assert bench.client.acknowledged == [1, 2]
    assert bench.statistics.ignored == {Ignored.OVERFLOW: 1}


async def test_a_reply_that_cannot_be_sent_is_counted_and_its_request_let_go():
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks)
        bench.client.is_lost = True
        bench.stream.receive(request(1))
    assert bench.statistics.ignored == {Ignored.UNSENT_REPLY: 1}
    assert bench.client.acknowledged == [1]


async def test_a_bug_costs_one_request_and_not_the_others(caplog):
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks)
        bench.hold(1)
        bench.gatekeeper.gates["1"].set_exception(RuntimeError("a bug"))
        bench.stream.receive(request(1))
        bench.stream.receive(request(2))
    assert bench.client.acknowledged == [1, 2]
    assert "a request of dev-1 failed" in caplog.text


@pytest.mark.parametrize(("released", "acknowledged"), [(True, [1]), (False, [])])
async def test_what_is_in_progress_at_the_end_gets_its_time_and_no_more(released, acknowledged):
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks)
        bench.hold(1)
        bench.stream.receive(request(1))
        await settled()
        finishing = asyncio.create_task(bench.stream.finish(5 if released else 0.01))
        await settled()
        if released:
            bench.release(1)
        await finishing
    assert bench.client.acknowledged == acknowledged
