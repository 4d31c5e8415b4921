"""MQTT 3.1.1 control packets, read strictly and written with amqtt's packet classes.

amqtt's own readers turn ill-formed UTF-8 into the text of a bytes literal, and accept U+0000, QoS 3, packet id 0 and
bytes left over, so reading is done here: any bytes give a value or a `ProtocolViolation`.

    fixed header   type << 4 | flags, then the remaining length in 1 to 4 bytes of 7 bits, lowest first
    text           2-byte big-endian length, then UTF-8 without U+0000
"""

from functools import cache, lru_cache
from typing import Final, NamedTuple

from amqtt.mqtt.connack import ConnackPacket
from amqtt.mqtt.packet import (
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBSCRIBE,
    UNSUBSCRIBE,
)
from amqtt.mqtt.pingresp import PingRespPacket
from amqtt.mqtt.puback import PubackPacket
from amqtt.mqtt.publish import PublishPacket
from amqtt.mqtt.suback import SubackPacket
from amqtt.mqtt.unsuback import UnsubackPacket

from provisiond.errors import ProvisiondError

__all__ = [
    "CONNECT",
    "CONNECT_HEADER",
    "DISCONNECT",
    "MQTT_3_1_1",
    "MQTT_5",
    "PINGREQ",
    "PINGRESP",
    "PUBACK",
    "PUBLISH",
    "SUBACK_FAILURE",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "UNSUPPORTED_BY_MQTT_3",
    "UNSUPPORTED_BY_MQTT_5",
    "ConnectRequest",
    "ProtocolViolation",
    "Publication",
    "encode_connack",
    "encode_puback",
    "encode_publish",
    "encode_suback",
    "encode_unsuback",
    "parse_connect",
    "parse_packet_id",
    "parse_publish",
    "parse_subscribe",
    "parse_unsubscribe",
    "take_packet",
]

CONNECT_HEADER: Final = CONNECT << 4
MQTT_3_1_1: Final = 4
MQTT_5: Final = 5
SUBACK_FAILURE: Final = 0x80
PINGRESP: Final[bytes] = PingRespPacket.build().to_bytes()

# MQTT 3.1.1 2.2.2: flags are fixed for every type but PUBLISH. Types that only a server sends are not in the table.
_CLIENT_FLAGS: Final = {
    CONNECT: 0,
    PUBACK: 0,
    PUBREC: 0,
    PUBREL: 2,
    PUBCOMP: 0,
    SUBSCRIBE: 2,
    UNSUBSCRIBE: 2,
    PINGREQ: 0,
    DISCONNECT: 0,
}
_RESERVED_QOS: Final = 3
_KEPT_PACKETS: Final = 1024  # acknowledgements of 5 bytes: clients count their packet ids from 1


class ProtocolViolation(ProvisiondError):
    """The client broke MQTT's rules or ours: its connection is closed.

    Args:
        reason: for the operator's log.
        clause: the rule, such as `MQTT-3.1.0-1`; empty when the rule is a limit of ours.
    """

    def __init__(self, reason: str, clause: str = "") -> None:
        super().__init__(f"{reason} [{clause}]" if clause else reason)


class ConnectRequest(NamedTuple):
    """A CONNECT. A will is read past and dropped: it is never published.

    `protocol_level` other than 4 leaves every later field at its default: those layouts are not ours to read.
    """

    protocol_name: str
    protocol_level: int
    client_id: str = ""
    username: str | None = None
    password: bytes | None = None
    keep_alive_s: int = 0
    clean_session: bool = True


class Publication(NamedTuple):
    """A PUBLISH. `packet_id` is 0 at QoS 0; the retain flag is not looked at."""

    topic: str
    payload: bytes
    qos: int
    packet_id: int


def take_packet(buffer: bytearray, max_bytes: int) -> tuple[int, bytes] | None:
    """Remove the first whole packet from `buffer`: its first byte and its body; None while it is incomplete.

    Args:
        buffer: received bytes, oldest first.
        max_bytes: largest remaining length; a longer packet is refused as soon as its header has arrived.

    Raises:
        ProtocolViolation: a type only servers send, wrong flags (MQTT-2.2.2-2), QoS 3 (MQTT-3.3.1-4), a remaining
            length of more than four bytes (MQTT 3.1.1 2.2.3) or above `max_bytes`.
    """
    available = len(buffer)
    if not available:
        return None
    header = buffer[0]
    _check_header(header)
    length = 0
    for index in range(1, 5):
        if index >= available:
            return None
        byte = buffer[index]
        length |= (byte & 0x7F) << (7 * (index - 1))
        if byte < 0x80:
            break
    else:
        raise ProtocolViolation("remaining length of more than four bytes", "MQTT 3.1.1 2.2.3")
    if length > max_bytes:
        raise ProtocolViolation(f"packet of {length} bytes, {max_bytes} are allowed")
    end = index + 1 + length
    if available < end:
        return None
    body = bytes(memoryview(buffer)[index + 1 : end])
    del buffer[:end]
    return header, body


def _check_header(header: int) -> None:
    kind, flags = header >> 4, header & 0x0F
    if kind == PUBLISH:
        if flags >> 1 & 3 == _RESERVED_QOS:
            raise ProtocolViolation("PUBLISH with QoS 3", "MQTT-3.3.1-4")
        return
    expected = _CLIENT_FLAGS.get(kind)
    if expected is None:
        raise ProtocolViolation(f"packet type {kind}, which clients do not send", "MQTT 3.1.1 2.2.1")
    if flags != expected:
        raise ProtocolViolation(f"packet type {kind} with flags {flags}", "MQTT-2.2.2-2")


class _Fields:
    """Reads the fields of a body from front to back."""

    __slots__ = ("_body", "_offset")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._offset = 0

    @property
    def is_empty(self) -> bool:
        return self._offset >= len(self._body)

    def byte(self) -> int:
        return self._take(1)[0]

    def uint16(self) -> int:
        return int.from_bytes(self._take(2), "big")

    def packet_id(self) -> int:
        packet_id = self.uint16()
        if packet_id == 0:
            raise ProtocolViolation("packet id 0", "MQTT-2.3.1-1")
        return packet_id

    def data(self) -> bytes:
        return self._take(self.uint16())

    def text(self) -> str:
        try:
            text = self.data().decode()
        except UnicodeDecodeError as error:
            raise ProtocolViolation("text is not UTF-8", "MQTT-1.5.3-1") from error
        if "\0" in text:
            raise ProtocolViolation("text with U+0000", "MQTT-1.5.3-2")
        return text

    def rest(self) -> bytes:
        rest = self._body[self._offset :]
        self._offset = len(self._body)
        return rest

    def end(self) -> None:
        if not self.is_empty:
            raise ProtocolViolation("bytes left over in a packet", "MQTT 3.1.1 2.2.3")

    def _take(self, size: int) -> bytes:
        start = self._offset
        self._offset = end = start + size
        if end > len(self._body):
            raise ProtocolViolation("a packet ends in the middle of a field", "MQTT 3.1.1 2.2.3")
        return self._body[start:end]


def parse_connect(body: bytes) -> ConnectRequest:
    """Read a CONNECT (MQTT 3.1.1 3.1).

    Raises:
        ProtocolViolation: malformed. An unknown protocol name or level is a value, for it may deserve a CONNACK.
    """
    fields = _Fields(body)
    name, level = fields.text(), fields.byte()
    if (name, level) != ("MQTT", MQTT_3_1_1):
        return ConnectRequest(name, level)
    flags = fields.byte()
    _check_connect_flags(flags)
    keep_alive_s = fields.uint16()
    client_id = fields.text()
    if flags & 0x04:
        fields.text()
        fields.data()
    username = fields.text() if flags & 0x80 else None
    password = fields.data() if flags & 0x40 else None
    fields.end()
    return ConnectRequest(name, level, client_id, username, password, keep_alive_s, bool(flags & 0x02))


def _check_connect_flags(flags: int) -> None:
    if flags & 0x01:
        raise ProtocolViolation("CONNECT with its reserved flag set", "MQTT-3.1.2-3")
    if flags & 0x18 == 0x18:
        raise ProtocolViolation("will with QoS 3", "MQTT-3.1.2-14")
    if not flags & 0x04 and flags & 0x38:
        raise ProtocolViolation("will QoS or retain without a will", "MQTT-3.1.2-13")
    if flags & 0xC0 == 0x40:
        raise ProtocolViolation("password without a user name", "MQTT-3.1.2-22")


def parse_publish(flags: int, body: bytes) -> Publication:
    """Read a PUBLISH (MQTT 3.1.1 3.3); `flags` is the low half of its first byte.

    Raises:
        ProtocolViolation: malformed; an empty topic or one with wildcards; a duplicate at QoS 0; packet id 0.
    """
    fields = _Fields(body)
    topic = fields.text()
    if not topic:
        raise ProtocolViolation("PUBLISH with an empty topic", "MQTT-4.7.3-1")
    if "#" in topic or "+" in topic:
        raise ProtocolViolation("PUBLISH to a wildcard topic", "MQTT-3.3.2-2")
    qos = flags >> 1 & 3
    if flags & 0x08 and not qos:
        raise ProtocolViolation("duplicate PUBLISH with QoS 0", "MQTT-3.3.1-2")
    packet_id = fields.packet_id() if qos else 0
    return Publication(topic, fields.rest(), qos, packet_id)


def parse_subscribe(body: bytes, max_filters: int) -> tuple[int, list[tuple[str, int]]]:
    """Read a SUBSCRIBE (MQTT 3.1.1 3.8): its packet id, and each filter with the QoS it asks for.

    Raises:
        ProtocolViolation: malformed, no filter (MQTT-3.8.3-3), or more than `max_filters`.
    """
    fields = _Fields(body)
    packet_id = fields.packet_id()
    filters: list[tuple[str, int]] = []
    while not fields.is_empty:
        topic_filter, qos = _filter(fields, len(filters), max_filters), fields.byte()
        if qos >= _RESERVED_QOS:
            raise ProtocolViolation(f"SUBSCRIBE asking for QoS {qos}", "MQTT-3.8.3-4")
        filters.append((topic_filter, qos))
    if not filters:
        raise ProtocolViolation("SUBSCRIBE without a filter", "MQTT-3.8.3-3")
    return packet_id, filters


def parse_unsubscribe(body: bytes, max_filters: int) -> tuple[int, list[str]]:
    """Read an UNSUBSCRIBE (MQTT 3.1.1 3.10): its packet id and its filters.

    Raises:
        ProtocolViolation: malformed, no filter (MQTT-3.10.3-2), or more than `max_filters`.
    """
    fields = _Fields(body)
    packet_id = fields.packet_id()
    filters: list[str] = []
    while not fields.is_empty:
        filters.append(_filter(fields, len(filters), max_filters))
    if not filters:
        raise ProtocolViolation("UNSUBSCRIBE without a filter", "MQTT-3.10.3-2")
    return packet_id, filters


def _filter(fields: _Fields, already: int, max_filters: int) -> str:
    if already >= max_filters:
        raise ProtocolViolation(f"more than {max_filters} filters in one packet")
    topic_filter = fields.text()
    if not topic_filter:
        raise ProtocolViolation("empty topic filter", "MQTT-4.7.3-1")
    return topic_filter


def parse_packet_id(body: bytes) -> int:
    """Read a packet that is nothing but its packet id, such as PUBACK.

    Raises:
        ProtocolViolation: anything else.
    """
    fields = _Fields(body)
    packet_id = fields.packet_id()
    fields.end()
    return packet_id


@cache
def encode_connack(return_code: int, *, session_present: bool = False) -> bytes:
    """A CONNACK; only subscriptions at a hub ever outlive their connection (MQTT-3.2.2-1, MQTT-3.2.2-2)."""
    data: bytes = ConnackPacket.build(int(session_present), return_code).to_bytes()
    return data


UNSUPPORTED_BY_MQTT_3: Final = encode_connack(1)
"""For clients of MQTT 3.1 and of levels nobody knows (MQTT-3.1.2-2). A 3.1.1 client never gets it: it would try 3.1."""

UNSUPPORTED_BY_MQTT_5: Final = bytes([0x20, 3, 0, 0x84, 0])
"""For clients of MQTT 5, in their own format: reason code 0x84, unsupported protocol version, no properties
(MQTT 5 3.1.2.2 and table 3-1); amqtt has no MQTT 5 packets."""


@lru_cache(maxsize=_KEPT_PACKETS)
def encode_puback(packet_id: int) -> bytes:
    """A PUBACK."""
    data: bytes = PubackPacket.build(packet_id).to_bytes()
    return data


def encode_publish(topic: str, payload: bytes, packet_id: int) -> bytes:
    """A PUBLISH: at QoS 1 with a packet id, at QoS 0 when it is 0. Never retained, never a duplicate."""
    qos = 1 if packet_id else 0
    data: bytes = PublishPacket.build(topic, payload, packet_id or None, False, qos, False).to_bytes()
    return data


@lru_cache(maxsize=_KEPT_PACKETS)
def encode_suback(packet_id: int, *return_codes: int) -> bytes:
    """A SUBACK with one return code a filter: the granted QoS or 0x80."""
    data: bytes = SubackPacket.build(packet_id, list(return_codes)).to_bytes()
    return data


def encode_unsuback(packet_id: int) -> bytes:
    """An UNSUBACK."""
    data: bytes = UnsubackPacket.build(packet_id).to_bytes()
    return data
