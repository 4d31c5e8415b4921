"""The codec: strict, and in agreement with amqtt's on what is valid."""

from contextlib import suppress

import pytest
from amqtt.adapters import BufferReader
from amqtt.mqtt.connack import ConnackPacket
from amqtt.mqtt.connect import ConnectPacket, ConnectPayload, ConnectVariableHeader
from amqtt.mqtt.publish import PublishPacket
from amqtt.mqtt.suback import SubackPacket
from amqtt.mqtt.subscribe import SubscribePacket
from amqtt.mqtt.unsubscribe import UnsubscribePacket
from hypothesis import given
from hypothesis import strategies as st

from provisiond.broker import packets
from provisiond.broker.packets import ConnectRequest, ProtocolViolation, Publication, take_packet
from tests.broker import wire

LIMIT = 96 * 1024
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)
topics = texts.filter(lambda text: text and "#" not in text and "+" not in text)
packet_ids = st.integers(1, 0xFFFF)


def take(data, limit=LIMIT):
    return take_packet(bytearray(data), limit)


# --- framing ----------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300), st.binary(max_size=10))
def test_a_packet_is_taken_whole_and_what_follows_is_left(payload, rest):
    data = wire.publish("t", payload)
    buffer = bytearray(data + rest)
    header, body = take_packet(buffer, LIMIT)
    assert (header, body) == (0x32, data[-len(body) :])
    assert buffer == rest


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384])
def test_every_length_of_the_remaining_length_is_read(size):
    assert take(wire.packet(0x30, b"x" * size)) == (0x30, b"x" * size)


def test_an_incomplete_packet_is_left_alone():
    data = wire.publish("topic", b"payload" * 50)
    for end in range(len(data)):
        buffer = bytearray(data[:end])
        assert take_packet(buffer, LIMIT) is None
        assert buffer == data[:end]


def test_a_packet_over_the_limit_is_refused_at_its_header():
    assert take(b"\x30\x80\x80\x06") is None, "98,304 bytes announced, none here"
    with pytest.raises(ProtocolViolation, match="98305 bytes"):
        take(b"\x30\x81\x80\x06")


def test_a_remaining_length_of_five_bytes_is_refused():
    with pytest.raises(ProtocolViolation, match="four bytes"):
        take(b"\x30\x80\x80\x80\x80")


@pytest.mark.parametrize("kind", [0, 2, 9, 11, 13, 15])
def test_types_that_clients_do_not_send_are_refused_at_the_first_byte(kind):
    with pytest.raises(ProtocolViolation, match=f"type {kind}"):
        take(bytes([kind << 4]))


@pytest.mark.parametrize("header", [0x11, 0x41, 0x80, 0x83, 0xA0, 0xC8, 0xE1, 0x60])
def test_reserved_flags_are_refused(header):
    with pytest.raises(ProtocolViolation, match=r"MQTT-2\.2\.2-2"):
        take(bytes([header]))


def test_qos_3_is_refused():
    with pytest.raises(ProtocolViolation, match=r"MQTT-3\.3\.1-4"):
        take(b"\x36")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_packet_an_incomplete_one_or_a_violation(data):
    buffer = bytearray(data)
    with suppress(ProtocolViolation):
        while (packet := take_packet(buffer, 64)) is not None:
            _parse(*packet)


def _parse(header, body):
    match header >> 4:
        case packets.CONNECT:
            packets.parse_connect(body)
        case packets.PUBLISH:
            packets.parse_publish(header & 15, body)
        case packets.SUBSCRIBE:
            packets.parse_subscribe(body, 8)
        case packets.UNSUBSCRIBE:
            packets.parse_unsubscribe(body, 8)
        case packets.PUBACK:
            packets.parse_packet_id(body)


@given(st.sampled_from([0x10, 0x30, 0x32, 0x82, 0xA2, 0x40]), st.binary(max_size=80))
def test_any_body_of_any_type_is_a_value_or_a_violation(header, body):
    with suppress(ProtocolViolation):
        _parse(header, body)


# --- CONNECT ----------------------------------------------------------------------------------------------------------


@given(
    client_id=texts,
    username=st.none() | texts,
    password=st.none() | texts,
    will=st.none() | st.tuples(texts, st.binary(max_size=20)),
    keep_alive=st.integers(0, 0xFFFF),
    clean=st.booleans(),
)
def test_a_connect_that_amqtt_wrote_is_read_back(client_id, username, password, will, keep_alive, clean):
    header = ConnectVariableHeader(keep_alive=keep_alive)
    payload = ConnectPayload(client_id=client_id, username=username)
    header.clean_session_flag, header.username_flag = clean, username is not None
    if will is not None:
        header.will_flag, (payload.will_topic, payload.will_message) = True, will
    if password is not None and username is not None:
        header.password_flag, payload.password = True, password
    written = ConnectPacket(variable_header=header, payload=payload).to_bytes()

    _, body = take(written)
    has_password = password is not None and username is not None
    assert packets.parse_connect(body) == ConnectRequest(
        "MQTT", 4, client_id, username, password.encode() if has_password else None, keep_alive, clean
    )


def test_a_password_may_be_any_bytes():
    _, body = take(wire.connect(password=b"\xff\x00"))
    assert packets.parse_connect(body).password == b"\xff\x00"


@pytest.mark.parametrize(("name", "level"), [("MQIsdp", 3), ("MQTT", 5), ("MQTT", 3), ("HTTP", 4)])
def test_another_protocol_is_a_value_of_which_only_name_and_level_are_read(name, level):
    _, body = take(wire.connect(name=name, level=level))
    assert packets.parse_connect(body)[:3] == (name, level, "")


def _connect_body(flags, *fields):
    return wire.text("MQTT") + bytes([4, flags, 0, 60]) + b"".join(fields)


@pytest.mark.parametrize(
    ("body", "clause"),
    [
        (_connect_body(0x03, wire.text("d")), "MQTT-3.1.2-3"),
        (_connect_body(0x1E, wire.text("d"), wire.text("w"), wire.text("m")), "MQTT-3.1.2-14"),
        (_connect_body(0x0A, wire.text("d")), "MQTT-3.1.2-13"),
        (_connect_body(0x22, wire.text("d")), "MQTT-3.1.2-13"),
        (_connect_body(0x42, wire.text("d"), wire.text("p")), "MQTT-3.1.2-22"),
        (_connect_body(0x02, wire.text(b"\xff")), "MQTT-1.5.3-1"),
        (_connect_body(0x02, wire.text(b"\xed\xa0\x80")), "MQTT-1.5.3-1"),
        (_connect_body(0x02, wire.text("a\0b")), "MQTT-1.5.3-2"),
        (_connect_body(0x02, wire.text("d"), b"x"), "left over"),
        (_connect_body(0x82, wire.text("d")), "middle of a field"),
        (_connect_body(0x02, b"\xff\xffd"), "middle of a field"),
        (b"", "middle of a field"),
    ],
)
def test_a_malformed_connect_is_a_violation(body, clause):
    with pytest.raises(ProtocolViolation, match=clause):
        packets.parse_connect(body)


# --- PUBLISH ----------------------------------------------------------------------------------------------------------


@given(topic=topics, payload=st.binary(max_size=300), packet_id=st.integers(0, 0xFFFF))
def test_a_publish_that_amqtt_wrote_is_read_back(topic, payload, packet_id):
    qos = 1 if packet_id else 0
    written = PublishPacket.build(topic, payload, packet_id or None, False, qos, False).to_bytes()
    assert written == packets.encode_publish(topic, payload, packet_id)
    header, body = take(written)
    assert packets.parse_publish(header & 15, body) == Publication(topic, payload, qos, packet_id)


@pytest.mark.parametrize(
    ("written", "clause"),
    [
        (wire.publish(""), "MQTT-4.7.3-1"),
        (wire.publish("a/+/b"), "MQTT-3.3.2-2"),
        (wire.publish("a/#"), "MQTT-3.3.2-2"),
        (wire.publish("a\0"), "MQTT-1.5.3-2"),
        (wire.publish(b"\xc3\x28"), "MQTT-1.5.3-1"),
        (wire.publish("a", packet_id=0), "MQTT-2.3.1-1"),
        (wire.publish("a", qos=0, flags=8), "MQTT-3.3.1-2"),
        (wire.packet(0x32, wire.text("a")), "middle of a field"),
    ],
)
def test_a_malformed_publish_is_a_violation(written, clause):
    header, body = take(written)
    with pytest.raises(ProtocolViolation, match=clause):
        packets.parse_publish(header & 15, body)


def test_the_retain_flag_is_not_looked_at():
    header, body = take(wire.publish("a", b"x", flags=1))
    assert packets.parse_publish(header & 15, body) == Publication("a", b"x", 1, 7)


# --- SUBSCRIBE, UNSUBSCRIBE, PUBACK -----------------------------------------------------------------------------------


@given(st.lists(st.tuples(texts.filter(bool), st.integers(0, 2)), min_size=1, max_size=8), packet_ids)
def test_a_subscribe_that_amqtt_wrote_is_read_back(filters, packet_id):
    _, body = take(SubscribePacket.build(filters, packet_id).to_bytes())
    assert packets.parse_subscribe(body, 8) == (packet_id, filters)


@given(st.lists(texts.filter(bool), min_size=1, max_size=8), packet_ids)
def test_an_unsubscribe_that_amqtt_wrote_is_read_back(filters, packet_id):
    _, body = take(UnsubscribePacket.build(filters, packet_id).to_bytes())
    assert packets.parse_unsubscribe(body, 8) == (packet_id, filters)


@pytest.mark.parametrize(
    ("written", "clause"),
    [
        (wire.subscribe(), "MQTT-3.8.3-3"),
        (wire.subscribe("a", packet_id=0), "MQTT-2.3.1-1"),
        (wire.subscribe("a", qos=3), "MQTT-3.8.3-4"),
        (wire.subscribe(""), "MQTT-4.7.3-1"),
        (wire.subscribe(*"abcdefghi"), "more than 8"),
        (wire.packet(0x82, b"\x00\x01" + wire.text("a")), "middle of a field"),
    ],
)
def test_a_malformed_subscribe_is_a_violation(written, clause):
    _, body = take(written)
    with pytest.raises(ProtocolViolation, match=clause):
        packets.parse_subscribe(body, 8)


@pytest.mark.parametrize(
    ("written", "clause"),
    [
        (wire.unsubscribe(), "MQTT-3.10.3-2"),
        (wire.unsubscribe(""), "MQTT-4.7.3-1"),
        (wire.unsubscribe(*"abcdefghi"), "more than 8"),
    ],
)
def test_a_malformed_unsubscribe_is_a_violation(written, clause):
    _, body = take(written)
    with pytest.raises(ProtocolViolation, match=clause):
        packets.parse_unsubscribe(body, 8)


@pytest.mark.parametrize("body", [b"", b"\0", b"\0\0", b"\0\1\0"])
def test_a_puback_is_nothing_but_a_packet_id(body):
    assert packets.parse_packet_id(b"\1\2") == 0x102
    with pytest.raises(ProtocolViolation):
        packets.parse_packet_id(body)


# --- what we write ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 5), st.booleans())
async def test_amqtt_reads_our_connack(return_code, session_present):
    octets = packets.encode_connack(return_code, session_present=session_present)
    connack = await ConnackPacket.from_stream(BufferReader(octets))
    assert (connack.return_code, connack.session_parent) == (return_code, session_present)


@given(packet_ids, st.lists(st.sampled_from([0, 1, 0x80]), min_size=1, max_size=8))
async def test_amqtt_reads_our_suback(packet_id, return_codes):
    suback = await SubackPacket.from_stream(BufferReader(packets.encode_suback(packet_id, *return_codes)))
    assert (suback.variable_header.packet_id, suback.payload.return_codes) == (packet_id, return_codes)


def test_the_short_answers_are_what_the_standard_prints():
    assert packets.encode_puback(0x1234) == b"\x40\x02\x12\x34"
    assert packets.encode_unsuback(0x1234) == b"\xb0\x02\x12\x34"
    assert packets.PINGRESP == b"\xd0\x00"
    assert packets.UNSUPPORTED_BY_MQTT_3 == b"\x20\x02\x00\x01"
    assert packets.UNSUPPORTED_BY_MQTT_5 == b"\x20\x03\x00\x84\x00"
