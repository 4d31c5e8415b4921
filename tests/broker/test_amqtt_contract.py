"""Each gap of amqtt that the embedded broker closes, shown on both.

A test named `…_stock_amqtt…` fails when an upgrade of amqtt closes the gap: then the override that closes it here may
go.
"""

import asyncio
import sys
import weakref
from contextlib import asynccontextmanager

import pytest
from amqtt.adapters import BufferReader
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig
from amqtt.mqtt.publish import PublishPacket
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session

from provisiond.broker.embedded import EmbeddedBroker
from provisiond.broker.packets import ProtocolViolation, parse_publish
from provisiond.broker.session import DeviceSession
from tests.broker import wire
from tests.broker.wire import DPS_FILTER, PINGRESP, PUBACK, PUBLISH, SUBACK
from tests.certificates import make_ca, make_leaf

OTHER_FILTER = "replies/#"


class Judge(BaseAuthPlugin):
    """Lets everybody in but `refused`, and remembers the certificate it was shown and what it was told."""

    seen: list = []  # noqa: RUF012 - plugins are made by amqtt from their path

    async def authenticate(self, *, session):
        self.seen.append((session.ssl_object and session.ssl_object.getpeercert(binary_form=True), session.remote_port))
        return session.username != "refused"


class Stock(Broker):
    """Stock amqtt that lets the test see, and at the end close, the sockets it has accepted."""

    def __init__(self, config):
        super().__init__(config)
        self.transports = weakref.WeakSet()

    async def stream_connected(self, reader, writer, listener_name):
        self.transports.add(writer.transport)
        await super().stream_connected(reader, writer, listener_name)

    @property
    def address(self):
        return self._servers["default"].instance.sockets[0].getsockname()

    @property
    def stranded(self):
        return [transport for transport in self.transports if not transport.is_closing()]


@asynccontextmanager
async def stock(**listener):
    """A stock amqtt broker on a free port."""
    Judge.seen.clear()
    plugins = {f"{Judge.__module__}.{Judge.__qualname__}": {}}
    broker = Stock(BrokerConfig(listeners={"default": ListenerConfig(bind="127.0.0.1:0", **listener)}, plugins=plugins))
    await broker.start()
    try:
        yield broker
    finally:
        for transport in broker.stranded:
            transport.abort()
        await broker.shutdown()


# --- 1: a PUBLISH to `$…` ends the message loop ------------------------------------------------------------------------


async def test_a_publish_to_a_dollar_topic_is_answered_and_the_next_one_as_well(edge):
    async with edge.client() as client:
        assert await client.connect() == 0
        for _ in range(2):
            client.send(wire.publish())
            assert [(await client.receive()).kind for _ in range(2)] == [PUBACK, PUBLISH]


async def test_stock_amqtt_ends_the_loop_of_a_client_that_publishes_to_a_dollar_topic():
    async with stock() as broker, wire.open_client(broker.address) as client:
        assert await client.connect() == 0
        client.send(wire.publish())
        assert (await client.receive()).kind == PUBACK
        client.send(wire.subscribe(OTHER_FILTER), wire.PINGREQ)
        assert (await client.receive()).kind == PINGRESP
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.receive()  # the SUBACK that never comes


# --- 2: a resumed session keeps the TLS identity of an earlier connection ----------------------------------------------


@pytest.fixture
def device(tmp_path):
    leaf = make_leaf("dev1", make_ca("Device root"))
    certificate, key = leaf.write(tmp_path, "device")
    return leaf, wire.client_tls(certificate=certificate, key=key)


async def test_a_second_connection_is_judged_by_its_own_certificate(edge, device):
    leaf, tls = device
    for context in (tls, wire.client_tls()):
        async with edge.client(context) as client:
            assert await client.connect(clean=False) == 0
    assert [attempt.unverified_chain for attempt in edge.gatekeeper.attempts] == [(leaf.der,), ()]


async def test_stock_amqtt_judges_a_second_connection_by_the_first_ones_certificate(device, server_files, tmp_path):
    leaf, tls = device
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(leaf.issuer.pem)
    certificate, key = server_files
    async with stock(ssl=True, cafile=trusted, certfile=certificate, keyfile=key) as broker:
        async with wire.open_client(broker.address, tls) as first:
            assert await first.connect(clean=False) == 0
        async with wire.open_client(broker.address, wire.client_tls()) as stranger:
            stranger.send(wire.connect(clean=False))
            assert (await stranger.receive()).body[1] == 0
    assert [certificate for certificate, _ in Judge.seen] == [leaf.der, leaf.der]


# --- 3: state changes before authentication ----------------------------------------------------------------------------


async def refuse_a_namesake(address, judge=None):
    """Connect a device, then be refused with its client id; whether the device is still served."""
    async with wire.open_client(address) as device:
        assert await device.connect("dev1", username="gateway.local/dev1/") == 0
        if judge is not None:
            judge()
        async with wire.open_client(address) as stranger:
            stranger.send(wire.connect("dev1", username="refused", clean=False))
            assert (await stranger.receive()).body[1] == 5
        device.send(wire.PINGREQ)
        answer = await device.receive()
        return answer is not None and answer.kind == PINGRESP


async def test_a_refused_connect_disturbs_nobody(edge):
    def refuse():
        edge.gatekeeper.refusals["dev1"] = 5

    assert await refuse_a_namesake(edge.broker.addresses["local"], refuse)


async def test_stock_amqtt_cuts_the_device_off_that_a_refused_connect_names():
    async with stock() as broker:
        assert not await refuse_a_namesake(broker.address)


# --- 4: a refused CONNECT leaves its session behind --------------------------------------------------------------------


async def be_refused(address, count):
    for number in range(count):
        async with wire.open_client(address) as client:
            client.send(wire.connect(f"r{number}", username="refused"))
            assert (await client.receive()).body[1] == 5
            assert await client.closed() == []


async def test_refused_connects_leave_no_session(edge):
    edge.gatekeeper.refusals.update({f"r{number}": 5 for number in range(5)})
    await be_refused(edge.broker.addresses["local"], 5)
    assert not edge.broker.sessions


async def test_stock_amqtt_keeps_the_session_of_every_refused_connect():
    async with stock() as broker:
        await be_refused(broker.address, 5)
        assert len(broker.sessions) == 5
        assert {session.transitions.state for session, _ in broker.sessions.values()} == {"connected"}


# --- 5: a will passes every filter -------------------------------------------------------------------------------------


async def forge_with_a_will(address, *, pinging):
    """Have a client die with a will to the replies' topic; what a subscriber of the replies hears next."""
    async with wire.open_client(address) as victim:
        assert await victim.connect("victim") == 0
        victim.send(wire.subscribe(DPS_FILTER))
        assert (await victim.receive()).kind == SUBACK
        async with wire.open_client(address) as forger:
            assert await forger.connect("forger", will=("$dps/registrations/res/200/?$rid=1", b"forged")) == 0
        if pinging:
            await asyncio.sleep(0.1)  # nothing is what is waited for
            victim.send(wire.PINGREQ)
        return await victim.receive()


async def test_a_will_is_dropped(edge):
    assert (await forge_with_a_will(edge.broker.addresses["local"], pinging=True)).kind == PINGRESP


async def test_stock_amqtt_publishes_a_will_to_the_replies_topic():
    async with stock() as broker:
        assert (await forge_with_a_will(broker.address, pinging=False)).payload == b"forged"


# --- 6: retained messages are shown to who never subscribed -------------------------------------------------------------


async def eavesdrop(address):
    """Retain a message that one client's filter matches; what a second client hears that never subscribes."""
    async with wire.open_client(address) as one, wire.open_client(address) as two:
        assert await one.connect("one") == 0
        one.send(wire.subscribe(OTHER_FILTER))
        assert (await one.receive()).kind == SUBACK
        one.send(wire.publish("replies/1", b"private", flags=1))
        await one.receive()
        await one.receive()
        two.send(wire.connect("two"))
        await two.receive()
        two.send(wire.PINGREQ)
        return await two.receive()


async def test_a_client_hears_nothing_it_did_not_ask_for(edge):
    async with edge.client() as one, edge.client() as two:
        assert await one.connect("one") == 0
        one.send(wire.subscribe(DPS_FILTER), wire.publish(flags=1))
        assert [(await one.receive()).kind for _ in range(3)] == [SUBACK, PUBACK, PUBLISH]
        assert await two.connect("two") == 0
        two.send(wire.PINGREQ)
        assert (await two.receive()).kind == PINGRESP


async def test_stock_amqtt_sends_a_retained_message_to_a_client_that_never_subscribed():
    async with stock() as broker:
        heard = await eavesdrop(broker.address)
        assert (heard.kind, heard.payload) == (PUBLISH, b"private")


# --- 7: no deadline ----------------------------------------------------------------------------------------------------


async def is_closed_within(client, time_s):
    try:
        async with asyncio.timeout(time_s):
            await client.closed()
    except TimeoutError:
        return False
    return True


async def test_a_silent_client_and_a_half_connect_are_closed(make_edge):
    async with make_edge(connect_timeout_s=0.2) as edge, edge.client() as silent, edge.client() as half:
        assert await silent.connect(keep_alive=1) == 0
        half.send(wire.connect()[:10])
        assert await is_closed_within(half, 60)
        assert await is_closed_within(silent, 60)


async def test_stock_amqtt_keeps_a_silent_client_and_a_half_connect():
    async with stock() as broker, wire.open_client(broker.address) as silent, wire.open_client(broker.address) as half:
        assert await silent.connect(keep_alive=1) == 0
        half.send(wire.connect()[:10])
        assert not await is_closed_within(silent, 2)
        assert not await is_closed_within(half, 0.1)


# --- 8: no limits ------------------------------------------------------------------------------------------------------

ONE_MEGABYTE = b"\x30\x80\x80\x40"  # the header of a PUBLISH of 1 MiB


async def test_a_packet_over_the_limit_is_closed_at_its_header(edge):
    async with edge.client() as client:
        assert await client.connect() == 0
        client.send(ONE_MEGABYTE)
        assert await is_closed_within(client, 2)


async def test_stock_amqtt_takes_a_packet_of_any_size():
    async with stock() as broker, wire.open_client(broker.address) as client:
        assert await client.connect() == 0
        client.send(ONE_MEGABYTE, b"\0\1t", b"x" * (2**20 - 3), wire.PINGREQ)
        assert (await client.receive()).kind == PINGRESP


# --- 9: a reply goes to everybody who subscribed, and every subscriber costs every message -----------------------------


async def test_subscribing_fills_no_table_and_a_reply_reaches_only_who_asked(edge):
    async with edge.client() as asker, edge.client() as other:
        for client, name in ((asker, "asker"), (other, "other")):
            assert await client.connect(name) == 0
            client.send(wire.subscribe(DPS_FILTER))
            assert (await client.receive()).kind == SUBACK
        assert not edge.broker.subscriptions
        asker.send(wire.publish())
        assert [(await asker.receive()).kind for _ in range(2)] == [PUBACK, PUBLISH]
        other.send(wire.PINGREQ)
        assert (await other.receive()).kind == PINGRESP


async def test_stock_amqtt_sends_a_reply_to_everybody_who_subscribed():
    async with (
        stock() as broker,
        wire.open_client(broker.address) as asker,
        wire.open_client(broker.address) as other,
    ):
        for client, name in ((asker, "asker"), (other, "other")):
            assert await client.connect(name) == 0
            client.send(wire.subscribe(DPS_FILTER))
            assert (await client.receive()).kind == SUBACK
        assert len(broker.subscriptions[DPS_FILTER]) == 2
        await broker.internal_message_broadcast("$dps/registrations/res/200/?$rid=1", b"secret")
        assert [(await client.receive()).payload for client in (asker, other)] == [b"secret"] * 2


# --- 10: a state machine for every session -----------------------------------------------------------------------------


def test_sessions_share_what_stands_for_their_state():
    assert DeviceSession("1").transitions is DeviceSession("2").transitions


def test_stock_amqtt_makes_a_state_machine_for_every_session():
    assert Session().transitions is not Session().transitions


# --- 11: a first packet that is no CONNECT strands its socket (before Python 3.13) ----------------------------------------


async def test_a_first_packet_that_is_no_connect_leaves_nothing_open(edge):
    async with edge.client() as client:
        client.send(wire.PINGREQ)
        assert await client.closed() == []
    await wire.until(lambda: edge.is_clean)


# From 3.13 on asyncio closes it in __del__, and says so there.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
async def test_stock_amqtt_strands_the_socket_of_a_first_packet_that_is_no_connect():
    async with stock() as broker:
        async with wire.open_client(broker.address) as client:
            client.send(wire.publish("topic"))
            assert not await is_closed_within(client, 0.2)
        if sys.version_info < (3, 13):
            await wire.until(lambda: broker.stranded)
        else:
            await asyncio.sleep(0.1)  # nothing is what is waited for
            assert not broker.stranded


# --- the codec ---------------------------------------------------------------------------------------------------------


def test_ill_formed_text_is_a_violation():
    with pytest.raises(ProtocolViolation):
        parse_publish(2, wire.publish(b"\xff")[2:])


async def test_stock_amqtt_reads_ill_formed_text_as_other_text():
    assert (await PublishPacket.from_stream(BufferReader(wire.publish(b"\xff")))).topic_name == r"b'\xff'"


def test_the_embedded_broker_is_the_only_subclass():
    assert EmbeddedBroker.__mro__[1] is Broker
