"""Case 13: well-formed and malformed control packets of MQTT 3.1.1, each with the clause that decides it.

The corpus is made here, from the specification: what a client sends, in which state, and what it must get. `CLOSED`
means that the server closes the connection without having done what was asked; a tuple lists the packets that it
answers with, first byte by first byte.
"""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from tests.abuse.site import REPLIES, Site, case, token, user
from tests.broker import wire
from tests.broker.wire import packet, text

AT_ONCE_S = 1.0
TRIES = 10
NAME = "corpus"
CLOSED = "closed"
CONNACK, PUBLISH, PUBACK, SUBACK, UNSUBACK, PINGRESP = 0x20, 0x30, 0x40, 0x90, 0xB0, 0xD0
ACCEPTED = b"\x20\x02\x00\x00"
ID = b"\x00\x01"
REGISTER = "$dps/registrations/PUT/iotdps-register/?$rid=1"
FIXED_FLAGS = {1: 0, 4: 0, 5: 0, 6: 2, 7: 0, 8: 2, 10: 2, 12: 0, 14: 0}
SERVERS_ONLY = {2: "CONNACK", 9: "SUBACK", 11: "UNSUBACK", 13: "PINGRESP"}
BAD_UTF_8 = {
    "a lone continuation octet": b"\x80",
    "a cut-off sequence": b"a\xe2\x82",
    "an overlong U+0000": b"\xc0\x80",
    "an overlong slash": b"\xe0\x80\xaf",
    "a surrogate": b"\xed\xa0\x80",
    "a surrogate pair": b"\xed\xa0\xbd\xed\xb8\x80",
    "beyond U+10FFFF": b"\xf4\x90\x80\x80",
    "0xFE": b"\xfe",
    "0xFF": b"\xff\xff",
    "Latin-1": b"caf\xe9",
}


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """What a client sends.

    Args:
        clause: of MQTT 3.1.1, which decides.
        what: for the reader.
        sent: the octets.
        connected: after a CONNECT that was accepted; else as the first thing.
        expect: `CLOSED`, or the first octets of the answers, flags left out.
        last: the last octet of the last answer, where it matters.
    """

    clause: str
    what: str
    sent: bytes
    connected: bool = True
    expect: str | tuple[int, ...] = CLOSED
    last: int | None = None


def connect(password: bytes, **changes: Any) -> bytes:
    """A CONNECT of the corpus' device; the changes are those of `parts`."""
    return parts(user_name=text(user(NAME)), password=text(password), **changes)


def parts(
    *,
    header: int = 0x10,
    name: bytes = b"\x00\x04MQTT",
    level: int = 4,
    flags: int = 0xC2,
    keep_alive: bytes = b"\x00\x3c",
    client_id: bytes = text(NAME),
    will: bytes = b"",
    user_name: bytes = b"",
    password: bytes = b"",
    rest: bytes = b"",
    cut: int | None = None,
) -> bytes:
    """A CONNECT of these fields, its body cut off where that is asked for."""
    body = name + bytes([level, flags]) + keep_alive + client_id + will + user_name + password + rest
    return packet(header, body[:cut])


def _headers() -> list[Sequence]:
    found = []
    for kind, flags in FIXED_FLAGS.items():
        body = {1: b"", 8: ID + text(REPLIES) + b"\x01", 10: ID + text(REPLIES)}.get(
            kind, ID if kind in (4, 5, 6, 7) else b""
        )
        found += [
            Sequence(
                clause="MQTT-2.2.2-2", what=f"type {kind} with flags {wrong}", sent=packet(kind << 4 | wrong, body)
            )
            for wrong in range(16)
            if wrong != flags and kind != 1
        ]
    found += [
        Sequence(
            clause="MQTT-2.2.2-2", what=f"CONNECT with flags {wrong}", sent=packet(0x10 | wrong, b""), connected=False
        )
        for wrong in range(1, 16)
    ]
    found += [
        Sequence(clause="2.2.1", what=f"{name}, which servers send", sent=packet(kind << 4, ID), connected=connected)
        for kind, name in SERVERS_ONLY.items()
        for connected in (True, False)
    ]
    found += [
        Sequence(clause="2.2.1", what=f"reserved type {kind}", sent=packet(kind << 4), connected=connected)
        for kind in (0, 15)
        for connected in (True, False)
    ]
    found += [
        Sequence(
            clause="MQTT-3.1.0-1",
            what=f"type {kind} before CONNECT",
            sent=packet(kind << 4 | flags, ID),
            connected=False,
        )
        for kind, flags in {**FIXED_FLAGS, 3: 0}.items()
        if kind != 1
    ]
    found += [
        Sequence(
            clause="2.2.3",
            what="a remaining length of five octets",
            sent=bytes([header, *b"\xff\xff\xff\xff\x01"]),
            connected=connected,
        )
        for header, connected in ((0x30, True), (0x82, True), (0xC0, True), (0x10, False))
    ]
    found += [
        Sequence(
            clause="2.2.3",
            what="a remaining length of 268,435,455",
            sent=bytes([header, *b"\xff\xff\xff\x7f"]),
            connected=connected,
        )
        for header, connected in ((0x30, True), (0x82, True), (0x10, False))
    ]
    return found


def _connects(password: bytes) -> list[Sequence]:
    def first(clause: str, what: str, expect: str | tuple[int, ...] = CLOSED, last: int | None = None, **fields: Any):
        return Sequence(
            clause=clause, what=what, sent=connect(password, **fields), connected=False, expect=expect, last=last
        )

    refused = (CONNACK,)
    whole = len(connect(password)) - 3
    found = [
        first("MQTT-3.1.2-2", f"level {level}", refused, 0x01, level=level)
        for level in (0, 1, 2, 3, 6, 0x7F, 0x84, 0xFF)
    ]
    found += [
        first("MQTT-3.1.2-1", f"protocol name {name!r}", refused, 0x01, name=text(name))
        for name in ("MQIsdp", "mqtt", "MQT", "MQTTT", "HTTP", "", "MQTT ")
    ]
    found += [
        first("MQTT-1.5.3-1", f"protocol name with {what}", name=text(octets)) for what, octets in BAD_UTF_8.items()
    ]
    found += [
        first("MQTT-1.5.3-1", f"client id with {what}", client_id=text(octets)) for what, octets in BAD_UTF_8.items()
    ]
    found += [
        Sequence(
            clause="MQTT-1.5.3-1",
            what=f"user name with {what}",
            sent=parts(user_name=text(octets), password=text(password)),
            connected=False,
        )
        for what, octets in BAD_UTF_8.items()
    ]
    found += [
        first("MQTT-1.5.3-2", "client id with U+0000", client_id=text("a\0b")),
        first("MQTT-3.1.2-3", "the reserved flag", flags=0xC3),
        first("MQTT-3.1.2-14", "a will with QoS 3", flags=0xDE, will=text("a") + text("b")),
        first("MQTT-3.1.2-15", "a will's retain flag without a will", flags=0xE2),
        *(first("MQTT-3.1.2-13", f"a will's QoS {qos} without a will", flags=0xC2 | qos << 3) for qos in (1, 2, 3)),
        Sequence(
            clause="MQTT-3.1.2-22",
            what="a password without a user name",
            sent=parts(flags=0x42, password=text(password)),
            connected=False,
        ),
        first("MQTT-3.1.3-1", "the flags name a will that is not there", flags=0xC6),
        first("2.2.3", "octets after the last field", rest=b"\x00"),
        first("2.2.3", "a kilobyte after the last field", rest=bytes(1024)),
        first("2.2.3", "an empty CONNECT", cut=0),
    ]
    found += [
        first("2.2.3", f"cut off after {cut} octets", cut=cut) for cut in (1, 2, 5, 6, 7, 8, 9, 10, 11, 13, whole - 1)
    ]
    found += [
        first("MQTT-3.1.3-8", "no client id, and no clean session", refused, 0x02, flags=0xC0, client_id=text("")),
        first("MQTT-3.1.0-2", "a second CONNECT", (CONNACK,), rest=b""),
    ]
    second = connect(password)
    found[-1] = Sequence(clause="MQTT-3.1.0-2", what="a second CONNECT", sent=second)
    found += [
        first("MQTT-3.1.4-4", "a CONNECT as it should be", (CONNACK,), 0x00),
        first("MQTT-3.1.2-4", "no clean session; none is kept", (CONNACK,), 0x00, flags=0xC0),
        first(
            "MQTT-3.1.2-8", "a will, which is never published", (CONNACK,), 0x00, flags=0xC6, will=text("a") + text("b")
        ),
        first("MQTT-3.1.2-8", "a will of QoS 2, retained", (CONNACK,), 0x00, flags=0xF6, will=text("a") + text("")),
        first("3.1.2.10", "keep-alive 0", (CONNACK,), 0x00, keep_alive=b"\x00\x00"),
        first("3.1.2.10", "keep-alive 65535", (CONNACK,), 0x00, keep_alive=b"\xff\xff"),
    ]
    return found


def _publishes() -> list[Sequence]:
    topic = text(REGISTER)
    found = [
        Sequence(clause="MQTT-3.3.1-4", what=f"QoS 3, first octet {header:#x}", sent=packet(header, topic + ID + b"{}"))
        for header in (0x36, 0x37, 0x3E, 0x3F)
    ]
    found += [
        Sequence(clause="MQTT-3.3.1-2", what="a duplicate of QoS 0", sent=packet(header, topic + b"{}"))
        for header in (0x38, 0x39)
    ]
    found += [
        Sequence(clause="MQTT-3.3.2-2", what=f"to {name}", sent=packet(0x32, text(name) + ID + b"{}"))
        for name in ("#", "+", "$dps/#", "$dps/registrations/+/x", "a+b", "a#b", "a/b+/c", REGISTER + "#")
    ]
    found += [
        Sequence(clause="MQTT-1.5.3-1", what=f"topic with {what}", sent=packet(0x32, text(b"$dps/" + octets) + ID))
        for what, octets in BAD_UTF_8.items()
    ]
    found += [
        Sequence(clause="MQTT-1.5.3-2", what="topic with U+0000", sent=packet(0x32, text(REGISTER + "\0") + ID)),
        Sequence(clause="MQTT-4.7.3-1", what="an empty topic", sent=packet(0x32, text("") + ID)),
        Sequence(clause="MQTT-4.7.3-1", what="an empty topic at QoS 0", sent=packet(0x30, text(""))),
        Sequence(clause="MQTT-2.3.1-1", what="packet id 0", sent=packet(0x32, topic + b"\0\0{}")),
        Sequence(clause="MQTT-2.3.1-1", what="packet id 0 at QoS 2", sent=packet(0x34, topic + b"\0\0{}")),
        Sequence(clause="3.3.2.1", what="a topic longer than its packet", sent=packet(0x30, b"\x00\x80" + b"$dps")),
        Sequence(clause="3.3.2.1", what="no topic", sent=packet(0x30, b"")),
        Sequence(clause="3.3.2.1", what="half a topic length", sent=packet(0x30, b"\x00")),
        Sequence(clause="3.3.2.2", what="no packet id", sent=packet(0x32, topic)),
        Sequence(clause="3.3.2.2", what="half a packet id", sent=packet(0x32, topic + b"\x00")),
        Sequence(clause="4.3.3", what="QoS 2, which is not offered", sent=packet(0x34, topic + ID + b"{}")),
        Sequence(clause="3.3.5", what="a topic that is nobody's", sent=packet(0x32, text("a/b/c") + ID + b"{}")),
        Sequence(clause="3.3.5", what="$SYS", sent=packet(0x32, text("$SYS/broker") + ID + b"{}")),
        Sequence(clause="2.2.3", what="64 KiB of slashes", sent=packet(0x32, text("/" * 60_000) + ID)),
    ]
    found += [
        Sequence(clause="4.3.2", what=what, sent=packet(header, topic + ID + body), expect=(PUBACK, PUBLISH))
        for what, header, body in (
            ("QoS 1", 0x32, b"{}"),
            ("QoS 1, a duplicate", 0x3A, b"{}"),
            ("QoS 1, retained, which is ignored", 0x33, b"{}"),
            ("QoS 1, an empty payload", 0x32, b""),
            ("QoS 1, a payload of 64 KiB", 0x32, json.dumps({"payload": "x" * 65_000}).encode()),
            ("QoS 1, a payload that is not JSON", 0x32, b"\xff\x00"),
        )
    ]
    found += [
        Sequence(
            clause="3.3.5",
            what="the replies of others: 404",
            sent=packet(0x32, text("$dps/registrations/res/200/?$rid=1") + ID),
            expect=(PUBACK, PUBLISH),
        ),
        Sequence(clause="4.3.1", what="QoS 0", sent=packet(0x30, topic + b"{}"), expect=(PUBLISH,)),
        Sequence(
            clause="4.3.1",
            what="QoS 0, retained, which is ignored",
            sent=packet(0x31, topic + b"{}"),
            expect=(PUBLISH,),
        ),
        Sequence(
            clause="2.3.1",
            what="packet id 65535",
            sent=packet(0x32, topic + b"\xff\xff{}"),
            expect=(PUBACK, PUBLISH),
            last=None,
        ),
        Sequence(
            clause="4.6",
            what="two at once, answered in their order",
            sent=packet(0x32, topic + ID + b"{}") + packet(0x32, topic + b"\x00\x02{}"),
            expect=(PUBACK, PUBLISH, PUBACK, PUBLISH),
        ),
    ]
    return found


def _subscriptions() -> list[Sequence]:
    filters = text(REPLIES)
    found = [
        Sequence(
            clause="MQTT-3.8.3-4",
            what=f"SUBSCRIBE asking for QoS octet {qos:#04x}",
            sent=packet(0x82, ID + filters + bytes([qos])),
        )
        for qos in (3, 4, 0x40, 0x80, 0x81, 0xFF)
    ]
    for kind, header, end in (("SUBSCRIBE", 0x82, b"\x01"), ("UNSUBSCRIBE", 0xA2, b"")):
        found += [
            Sequence(clause="MQTT-1.5.3-1", what=f"{kind} with {what}", sent=packet(header, ID + text(octets) + end))
            for what, octets in BAD_UTF_8.items()
        ]
        found += [
            Sequence(clause="MQTT-1.5.3-2", what=f"{kind} with U+0000", sent=packet(header, ID + text("a\0") + end)),
            Sequence(
                clause="MQTT-4.7.3-1", what=f"{kind} with an empty filter", sent=packet(header, ID + text("") + end)
            ),
            Sequence(
                clause="MQTT-2.3.1-1", what=f"{kind} with packet id 0", sent=packet(header, b"\0\0" + filters + end)
            ),
            Sequence(clause="MQTT-3.8.3-3", what=f"{kind} without a filter", sent=packet(header, ID)),
            Sequence(clause="2.3.1", what=f"{kind} without a packet id", sent=packet(header, b"")),
            Sequence(clause="2.3.1", what=f"{kind} with half a packet id", sent=packet(header, b"\x00")),
            Sequence(
                clause="2.2.3",
                what=f"{kind} with a filter longer than its packet",
                sent=packet(header, ID + b"\x00\x20abc"),
            ),
            Sequence(
                clause="2.2.3",
                what=f"{kind} with half a filter length",
                sent=packet(header, ID + filters + end + b"\x00"),
            ),
            Sequence(
                clause="3.8.4",
                what=f"{kind} with more filters than are allowed",
                sent=packet(header, ID + (filters + end) * 17),
            ),
        ]
    found += [
        Sequence(clause="2.2.3", what="SUBSCRIBE whose last filter has no QoS", sent=packet(0x82, ID + filters)),
        Sequence(
            clause="2.2.3",
            what="SUBSCRIBE whose second filter has no QoS",
            sent=packet(0x82, ID + filters + b"\x01" + text("a")),
        ),
        Sequence(
            clause="4.7.1.1",
            what="a filter of 32,000 levels",
            sent=packet(0x82, ID + text("/".join(["a"] * 32_000)) + b"\1"),
        ),
    ]
    found += [
        Sequence(
            clause="3.9.3",
            what=f"SUBSCRIBE asking for QoS {qos}",
            sent=packet(0x82, ID + filters + bytes([qos])),
            expect=(SUBACK,),
            last=min(qos, 1),
        )
        for qos in (0, 1, 2)
    ]
    found += [
        Sequence(
            clause="3.9.3",
            what=f"SUBSCRIBE to {name}",
            sent=packet(0x82, ID + text(name) + b"\1"),
            expect=(SUBACK,),
            last=0x80,
        )
        for name in ("#", "+/#", "/", "$SYS/#", "$dps/#", "a/b", "$share/g/" + REPLIES, "a#", "+a/#")
    ]
    found += [
        Sequence(
            clause="MQTT-3.10.4-5",
            what=f"UNSUBSCRIBE from {name}",
            sent=packet(0xA2, ID + text(name)),
            expect=(UNSUBACK,),
            last=1,
        )
        for name in (REPLIES, "never/subscribed", "#")
    ]
    return found


def _others() -> list[Sequence]:
    found = [
        Sequence(clause="3.12", what="PINGREQ with a body", sent=packet(0xC0, body))
        for body in (b"\x00", ID, bytes(100))
    ]
    found += [
        Sequence(clause="2.3.1", what=f"{name} with a body of {len(body)}", sent=packet(header, body))
        for name, header in (("PUBACK", 0x40), ("PUBREC", 0x50), ("PUBREL", 0x62), ("PUBCOMP", 0x70))
        for body in (b"", b"\x00", b"\x00\x00", b"\x00\x01\x00")
    ]
    found += [
        Sequence(clause="4.3.3", what=f"{name}, of a QoS that is not offered", sent=packet(header, ID))
        for name, header in (("PUBREC", 0x50), ("PUBREL", 0x62), ("PUBCOMP", 0x70))
    ]
    found += [
        Sequence(clause="MQTT-3.14.4-3", what="DISCONNECT", sent=wire.DISCONNECT),
        Sequence(clause="MQTT-3.14.4-2", what="a PINGREQ after DISCONNECT", sent=wire.DISCONNECT + wire.PINGREQ),
        Sequence(clause="MQTT-3.12.4-1", what="PINGREQ", sent=wire.PINGREQ, expect=(PINGRESP,)),
        Sequence(clause="MQTT-3.12.4-1", what="three PINGREQs at once", sent=wire.PINGREQ * 3, expect=(PINGRESP,) * 3),
        Sequence(
            clause="4.3.2",
            what="a PUBACK that nobody waits for",
            sent=packet(0x40, ID) + wire.PINGREQ,
            expect=(PINGRESP,),
        ),
        Sequence(
            clause="2.2.3", what="a length in more octets than it needs", sent=b"\xc0\x80\x00", expect=(PINGRESP,)
        ),
    ]
    return found


def sequences(password: bytes) -> list[Sequence]:
    """The corpus; the password is that of its device."""
    return [*_headers(), *_connects(password), *_publishes(), *_subscriptions(), *_others()]


@case(13, "packets of MQTT 3.1.1, well-formed and not, by its clauses")
async def packets_of_the_specification(site: Site) -> str:
    password = token(NAME, site.device_of_group(NAME)).encode()
    corpus = sequences(password)
    quota = asyncio.Semaphore(16)

    async def one(sequence: Sequence) -> str:
        async with quota, site.stranger() as stranger:
            if sequence.connected:
                await stranger.log_in(NAME, password)
            stranger.send(sequence.sent)
            if sequence.expect == CLOSED:
                took_s = await stranger.closed(AT_ONCE_S)
                if not sequence.connected and stranger.last_words.startswith(ACCEPTED):
                    return "accepted"
                return "" if took_s <= AT_ONCE_S else "late"
            answers = [await stranger.receive() for _ in sequence.expect]
            if tuple(answer.kind << 4 for answer in answers) != sequence.expect:
                return f"answered {answers}"
            if sequence.last is not None and answers[-1].body[-1] != sequence.last:
                return f"last octet {answers[-1].body[-1]:#x}"
            return ""

    results = await asyncio.gather(*(one(sequence) for sequence in corpus), return_exceptions=True)
    wrong = [(sequence, result) for sequence, result in zip(corpus, results, strict=True) if result]
    late = [sequence for sequence, result in wrong if result == "late"]
    other = [(sequence.clause, sequence.what, result) for sequence, result in wrong if result != "late"]
    for _ in range(TRIES):  # there may be a moment at which this machine does nothing else
        late = [sequence for sequence in late if await one(sequence)]
    malformed = sum(sequence.expect == CLOSED for sequence in corpus)
    assert not other, other
    assert len(late) <= 0.05 * malformed, late
    return (
        f"{malformed} malformed, {malformed - len(late)} of them closed within 1 s; "
        f"{len(corpus) - malformed} well-formed, all answered as they should be"
    )
