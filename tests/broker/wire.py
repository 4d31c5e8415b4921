"""A raw MQTT client for tests that must send what no library would: bytes in, packets out."""

import asyncio
import ssl
import struct
from contextlib import asynccontextmanager
from typing import NamedTuple

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, UNSUBACK, PINGRESP = 1, 2, 3, 4, 8, 9, 11, 13
PINGREQ = b"\xc0\x00"
DISCONNECT = b"\xe0\x00"
DPS_FILTER = "$dps/registrations/res/#"
REGISTER = "$dps/registrations/PUT/iotdps-register/?$rid=1"
DEADLINE_S = 60


class Packet(NamedTuple):
    kind: int
    flags: int
    body: bytes

    @property
    def qos(self) -> int:
        return self.flags >> 1 & 3

    @property
    def topic(self) -> str:
        return self.body[2 : 2 + int.from_bytes(self.body[:2])].decode()

    @property
    def packet_id(self) -> int:
        start = 2 + int.from_bytes(self.body[:2]) if self.kind == PUBLISH else 0
        return int.from_bytes(self.body[start : start + 2])

    @property
    def payload(self) -> bytes:
        return self.body[2 + int.from_bytes(self.body[:2]) + (2 if self.qos else 0) :]


def packet(header: int, body: bytes = b"") -> bytes:
    length, encoded = len(body), b""
    while True:
        length, low = divmod(length, 128)
        encoded += bytes([low | (0x80 if length else 0)])
        if not length:
            return bytes([header]) + encoded + body


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(data)) + data


def user(client_id: str) -> str:
    return f"0ne0TEST/registrations/{client_id}/api-version=2019-03-31"


def connect(
    client_id: str = "dev1",
    *,
    username: str | None = "",
    password: bytes | None = None,
    keep_alive: int = 60,
    clean: bool = True,
    will: tuple[str, bytes] | None = None,
    name: str = "MQTT",
    level: int = 4,
    extra_flags: int = 0,
) -> bytes:
    """A CONNECT; `username=""` stands for the provisioning one of `client_id`."""
    username = user(client_id) if username == "" else username
    flags = extra_flags | (2 if clean else 0)
    fields = [text(client_id)]
    if will is not None:
        flags |= 0x0C
        fields += [text(will[0]), text(will[1])]
    if username is not None:
        flags |= 0x80
        fields.append(text(username))
    if password is not None:
        flags |= 0x40
        fields.append(text(password))
    return packet(0x10, text(name) + bytes([level, flags]) + struct.pack(">H", keep_alive) + b"".join(fields))


def subscribe(*filters: str | bytes, qos: int = 1, packet_id: int = 1) -> bytes:
    return packet(0x82, struct.pack(">H", packet_id) + b"".join(text(f) + bytes([qos]) for f in filters))


def unsubscribe(*filters: str, packet_id: int = 2) -> bytes:
    return packet(0xA2, struct.pack(">H", packet_id) + b"".join(text(f) for f in filters))


def publish(
    topic: str | bytes = REGISTER, payload: bytes = b"{}", *, qos: int = 1, packet_id: int = 7, flags: int = 0
) -> bytes:
    body = text(topic) + (struct.pack(">H", packet_id) if qos else b"") + payload
    return packet(0x30 | qos << 1 | flags, body)


def puback(packet_id: int) -> bytes:
    return packet(0x40, struct.pack(">H", packet_id))


def client_tls(*, cafile=None, certificate=None, key=None, maximum=None) -> ssl.SSLContext:
    """A client's context that trusts `cafile`, with a certificate file of its own when given."""
    context = ssl.create_default_context(cafile=cafile)
    context.check_hostname = False
    if cafile is None:
        context.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    if maximum is not None:
        context.maximum_version = maximum
    return context


async def until(condition) -> None:
    """Turn the event loop until `condition` holds: for what happens inside the broker without an event to wait for."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0)


class RawClient:
    """One connection; everything it waits for has a deadline."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))

    async def receive(self) -> Packet | None:
        """The next packet, None when the broker has closed."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                header = (await self.reader.readexactly(1))[0]
                length = shift = 0
                while True:
                    byte = (await self.reader.readexactly(1))[0]
                    length |= (byte & 0x7F) << shift
                    shift += 7
                    if byte < 0x80:
                        break
                return Packet(header >> 4, header & 15, await self.reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            return None

    async def connect(self, *args, **kwargs) -> int:
        """Send a CONNECT; the return code."""
        self.send(connect(*args, **kwargs))
        answer = await self.receive()
        assert answer is not None and answer.kind == CONNACK and answer.body[0] == 0
        return answer.body[1]

    async def closed(self) -> list[Packet]:
        """Wait until the broker closes; what it said before."""
        heard = []
        while (heard_now := await self.receive()) is not None:
            heard.append(heard_now)
        return heard


@asynccontextmanager
async def open_client(address, tls: ssl.SSLContext | None = None):
    """A RawClient that is closed at the end, whatever state it is in."""
    reader, writer = await asyncio.open_connection(*address[:2], ssl=tls, server_hostname="localhost" if tls else None)
    socket = writer.get_extra_info("socket")
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()
        await until(lambda: socket.fileno() == -1)
