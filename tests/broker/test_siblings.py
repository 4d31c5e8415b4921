"""A reply is heard by the connection that asked, and by who listens for it under the same id at the same address."""

from dataclasses import replace

from provisiond.broker.siblings import Siblings
from provisiond.model import Connection, Message, RegistrationId, Role
from tests.broker import wire

REPLY = Message(topic="provisiond/v1/dev-1/res/register/1", payload=b"{}")
REQUEST = "provisiond/v1/dev-1/req/register/1"


class Ear:
    def __init__(self):
        self.heard = []

    def overhear(self, message):
        self.heard.append(message)
        return True


def connection(number=1, *, name="dev-1", address="192.0.2.1", role=Role.NATIVE):
    return Connection(
        connection_id=f"c{number}",
        role=role,
        claimed_id=RegistrationId.parse(name),
        listener="local",
        remote_address=address,
    )


def heard_by(*others, asking=None):
    siblings, asking = Siblings(), asking or connection(0)
    ears = [Ear() for _ in others]
    siblings.enter(asking, Ear())
    for other, ear in zip(others, ears, strict=True):
        siblings.enter(other, ear)
    siblings.tell(asking, REPLY)
    for each in (asking, *others):
        siblings.leave(each)
    assert len(siblings) == 0
    return [bool(ear.heard) for ear in ears]


def test_a_connection_of_the_same_id_and_address_hears_it():
    assert heard_by(connection(1)) == [True]


def test_no_other_id_no_other_spelling_and_no_other_address_hears_it():
    others = (connection(1, name="dev-2"), connection(2, name="Dev-1"), connection(3, address="198.51.100.7"))
    assert heard_by(*others) == [False, False, False]


def test_other_roles_neither_tell_nor_hear():
    assert heard_by(connection(1, role=Role.DPS)) == [False]
    assert heard_by(connection(1), asking=replace(connection(0), role=Role.DPS)) == [False]


def test_only_the_four_newest_hear_it():
    assert heard_by(*(connection(number) for number in range(1, 7))) == [False, False, True, True, True, True]


async def test_one_program_asks_and_another_listens(edge):
    async with edge.client() as listening, edge.client() as deaf, edge.client() as asking:
        for client in (listening, deaf, asking):
            assert await client.connect("dev-1", username=None) == 0
        listening.send(wire.subscribe("provisiond/v1/dev-1/res/register/1"))
        deaf.send(wire.subscribe("provisiond/v1/dev-1/res/register/2"))
        assert (await listening.receive()).kind == (await deaf.receive()).kind == wire.SUBACK
        asking.send(wire.publish(REQUEST), wire.DISCONNECT)
        heard = await listening.receive()
        assert (heard.topic, heard.qos) == (REPLY.topic, 1)
        deaf.send(wire.PINGREQ)
        assert (await deaf.receive()).kind == wire.PINGRESP


async def test_what_a_client_overhears_leaves_room_for_its_own_replies(make_edge):
    async with make_edge(inflight=4) as edge, edge.client() as listening, edge.client() as asking:
        for client in (listening, asking):
            assert await client.connect("dev-1", username=None) == 0
        listening.send(wire.subscribe("provisiond/v1/dev-1/res/#"))
        assert (await listening.receive()).kind == wire.SUBACK
        for _ in range(6):
            asking.send(wire.publish(REQUEST))
            _, reply = await asking.receive(), await asking.receive()
            assert reply.topic == REPLY.topic
        listening.send(wire.publish(REQUEST))
        heard = [await listening.receive() for _ in range(4)]
        assert [packet.kind for packet in heard] == [wire.PUBLISH, wire.PUBLISH, wire.PUBACK, wire.PUBLISH]
