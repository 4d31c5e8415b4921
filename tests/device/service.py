"""A provisioning service of a few lines that does exactly what a test tells it, right or wrong.

It speaks just enough MQTT 3.1.1 on a real socket to show what a device sends in its CONNECT and to answer, stay silent or
hang up at any point: what no proper broker would do.
"""

import asyncio
import contextlib
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from tests.loopback_server import serving

HANG_UP = object()
SILENCE = object()


@dataclass
class Connect:
    """What a device said in its CONNECT, and presented in the handshake before it."""

    client_id: str
    username: str | None
    password: str | None
    clean_session: bool
    certificate: bytes | None = None


@dataclass
class Request:
    """A PUBLISH of a device."""

    topic: str
    payload: bytes

    @property
    def parameters(self):
        return dict(pair.split("=", 1) for pair in self.topic.partition("?")[2].split("&"))

    @property
    def rid(self):
        return self.parameters["$rid"]

    @property
    def operation_id(self):
        return unquote(self.parameters["operationId"])

    @property
    def body(self):
        return json.loads(self.payload)


@dataclass
class Answer:
    """A reply on `$dps/registrations/res/…`."""

    status: int
    body: Any = None
    retry_after: int | None = 0
    rid: str | None = None
    payload: bytes | None = None

    def topic(self, rid):
        suffix = "" if self.retry_after is None else f"&retry-after={self.retry_after}"
        return f"$dps/registrations/res/{self.status}/?$rid={self.rid or rid}{suffix}"

    @property
    def octets(self):
        return json.dumps(self.body).encode() if self.payload is None else self.payload


@dataclass
class ScriptedService:
    """Gives its answers in turn; the last one again and again."""

    answers: list
    connack: Any = 0
    suback: int = 1
    acknowledge: bool = True
    port: int = 0
    connects: list[Connect] = field(default_factory=list)
    filters: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    def next_answer(self):
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    async def serve(self, reader, writer):
        try:
            while True:
                first = (await reader.readexactly(1))[0]
                packet = await reader.readexactly(await read_length(reader))
                if await self.handle(first, packet, writer) is HANG_UP:
                    break
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self.closed.set()

    async def handle(self, first, packet, writer):
        match first >> 4:
            case 1:
                self.connects.append(parse_connect(packet, writer))
                if isinstance(self.connack, int):
                    writer.write(bytes([0x20, 2, 0, self.connack]))
                    return HANG_UP if self.connack else None
                return self.connack
            case 8:
                self.filters.append(packet[4:-1].decode())
                writer.write(b"\x90\x03" + packet[:2] + bytes([self.suback]))
            case 3:
                return self.handle_publish(packet, writer)
            case 12:
                writer.write(b"\xd0\x00")
            case 14:
                return HANG_UP
        return None

    def handle_publish(self, packet, writer):
        size = int.from_bytes(packet[:2])
        request = Request(packet[2 : 2 + size].decode(), packet[4 + size :])
        self.requests.append(request)
        if self.acknowledge:
            writer.write(b"\x40\x02" + packet[2 + size : 4 + size])
        answer = self.next_answer()
        if answer in (HANG_UP, SILENCE):
            return answer
        for one in answer if isinstance(answer, list) else [answer]:
            one = one(request) if callable(one) else one  # noqa: PLW2901 - an answer may depend on its request
            topic, payload = one.topic(request.rid).encode(), one.octets
            body = len(topic).to_bytes(2) + topic + payload
            writer.write(b"\x30" + encode_length(len(body)) + body)
        return None


async def read_length(reader):
    length = shift = 0
    while True:
        octet = (await reader.readexactly(1))[0]
        length |= (octet & 0x7F) << shift
        shift += 7
        if not octet & 0x80:
            return length


def encode_length(length):
    octets = bytearray()
    while True:
        length, octet = length >> 7, length & 0x7F
        octets.append(octet | (0x80 if length else 0))
        if not length:
            return bytes(octets)


def parse_connect(packet, writer):
    flags, offset, values = packet[7], 10, []
    while offset < len(packet):
        size = int.from_bytes(packet[offset : offset + 2])
        values.append(packet[offset + 2 : offset + 2 + size].decode())
        offset += 2 + size
    tls = writer.get_extra_info("ssl_object")
    return Connect(
        client_id=values[0],
        username=values[1] if flags & 0x80 else None,
        password=values[2] if flags & 0x40 else None,
        clean_session=bool(flags & 0x02),
        certificate=tls.getpeercert(True) if tls else None,
    )


@asynccontextmanager
async def run_service(*answers, tls=None, **options):
    """Serve on a free loopback port."""
    service = ScriptedService(answers=list(answers) or [ASSIGNED], **options)
    async with serving(service.serve, tls=tls) as service.port:
        yield service


def assigned(**state):
    state = {"assignedHub": "hub.local", "deviceId": "dev-1", "status": "assigned", "registrationId": "dev-1", **state}
    return Answer(200, {"operationId": "op-1", "status": "assigned", "registrationState": state})


def assigning(retry_after=0, operation_id="op-1"):
    return Answer(202, {"operationId": operation_id, "status": "assigning"}, retry_after)


def error(code, message="Unauthorized", **options):
    body = {"errorCode": code, "trackingId": "11111111-2222", "message": message}
    return Answer(code // 1000, body, options.pop("retry_after", None), **options)


ASSIGNED = assigned(substatus="initialAssignment")
