"""A running daemon with everything enrolled that is abused, and strangers that talk to it byte by byte."""

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import tomlkit

from provisiond.settings.sources import LAST_LINE
from tests.broker import wire
from tests.broker.wire import PINGREQ, Packet, puback, subscribe
from tests.certificates import Ca, make_ca, make_leaf
from tests.system.daemon import ID_SCOPE, Daemon, Service, run_daemon

REPLIES = "$dps/registrations/res/#"
REGISTER = "$dps/registrations/PUT/iotdps-register/?$rid={rid}"
POLL = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid={rid}&operationId={operation}"
GOOD_ADDRESS = "127.0.0.77"
ANSWER_S = 60.0
SLACK_S = 30.0  # on a busy machine
PER_MIN = 6000  # requests; 100 a second
CHALLENGE_S = 4

Case = Callable[["Site"], Awaitable[str]]
CASES: dict[int, tuple[str, Case]] = {}


def case(number: int, title: str) -> Callable[[Case], Case]:
    """Enter a case in the table."""

    def enter(function: Case) -> Case:
        CASES[number] = (title, function)
        return function

    return enter


@dataclass(kw_only=True)
class Site:
    """What is under abuse.

    Args:
        connect_s, handshake_s: deadlines as configured.
        large: numbers as in the wild rather than as in a test.
    """

    service: Service
    daemon: Daemon
    group_key: bytes
    device_key: bytes
    line_a: Ca
    line_b: Ca
    directory: Path
    large: bool
    connect_s: float
    handshake_s: float
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def plain(self) -> tuple[str, int]:
        """The plaintext listener."""
        return "127.0.0.1", self.daemon.port(tls=False)

    @property
    def tls(self) -> tuple[str, int]:
        """The TLS listener."""
        return "127.0.0.1", self.daemon.port(tls=True)

    @property
    def pid(self) -> int:
        """The daemon's process."""
        return self.daemon.process.pid

    @property
    def memory_mib(self) -> float:
        """Its resident memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    @property
    def files(self) -> int:
        """Its open files."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def device_of_group(self, registration_id: str) -> bytes:
        """The key of a device of the key group."""
        return hmac.digest(self.group_key, registration_id.encode(), hashlib.sha256)

    def client_context(self, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
        """A client's TLS."""
        return wire.client_tls(cafile=self.service.ca_file, certificate=certificate, key=key)

    @asynccontextmanager
    async def stranger(
        self, *, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1", receive_buffer: int | None = None
    ):
        """A connection that has said nothing."""
        to = self.plain if tls is None else self.tls
        stranger = Stranger(*await connect_from(address, to, tls=tls, receive_buffer=receive_buffer))
        try:
            yield stranger
        finally:
            stranger.writer.transport.abort()

    @asynccontextmanager
    async def device(
        self, registration_id: str, key: bytes | None = None, *, address: str = "127.0.0.1", **options: Any
    ):
        """A device that has connected with a token, and listens for its replies."""
        tls, receive_buffer = options.pop("tls", None), options.pop("receive_buffer", None)
        async with self.stranger(tls=tls, address=address, receive_buffer=receive_buffer) as stranger:
            password = options.pop("password", None)
            if password is None and tls is None:
                password = token(registration_id, key or self.device_of_group(registration_id)).encode()
            await stranger.log_in(registration_id, password, **options)
            yield stranger


async def connect_from(
    address: str, to: tuple[str, int], *, tls: ssl.SSLContext | None = None, receive_buffer: int | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection from one of the addresses of loopback."""
    raw = socket.socket()
    try:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.bind((address, 0))
        if receive_buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, to)
    except BaseException:
        raw.close()
        raise
    return await asyncio.open_connection(sock=raw, ssl=tls, server_hostname="localhost" if tls else None)


class Stranger:
    """Bytes out, packets in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.last_words = b""
        self._rid = 0

    def send(self, data: bytes) -> None:
        """Send; whether it arrives is the other side's affair."""
        if not self.writer.transport.is_closing():
            self.writer.write(data)

    async def drain(self) -> None:
        """Until it is sent, or the other side has closed."""
        with suppress(ConnectionError):
            await self.writer.drain()

    async def receive(self) -> Packet:
        """The next packet; ConnectionError at the end."""
        try:
            async with asyncio.timeout(ANSWER_S):
                header = (await self.reader.readexactly(1))[0]
                length, shift = 0, 0
                while True:
                    byte = (await self.reader.readexactly(1))[0]
                    length |= (byte & 0x7F) << shift
                    shift += 7
                    if byte < 0x80:
                        break
                return Packet(header >> 4, header & 0x0F, await self.reader.readexactly(length))
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("closed") from error

    async def linger(self, seconds: float) -> None:
        """Stay, and ping."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            self.send(PINGREQ)
            await asyncio.sleep(min(1.0, left_s))

    async def closed(self, within_s: float) -> float:
        """Wait until the other side closes; how long it took. AssertionError when it does not."""
        began_at = time.monotonic()
        try:
            async with asyncio.timeout(within_s + SLACK_S):
                while said := await self.reader.read(65536):
                    self.last_words += said
        except TimeoutError:
            raise AssertionError(f"still open after {within_s + SLACK_S:.1f} s") from None
        except ConnectionError:
            pass
        return time.monotonic() - began_at

    async def log_in(
        self,
        registration_id: str,
        password: bytes | None,
        *,
        expect: int = 0,
        replies: str | None = REPLIES,
        **options: Any,
    ) -> None:
        """CONNECT, and SUBSCRIBE to the replies when it is accepted and any are expected."""
        username = options.pop("username", None) or user(registration_id)
        self.send(wire.connect(registration_id, username=username, password=password, **options))
        connack = await self.receive()
        assert (connack.kind, connack.body[1]) == (wire.CONNACK, expect), connack
        if expect == 0 and replies is not None:
            self.send(subscribe(replies))
            assert (await self.receive()).body[-1] == 1

    async def ask(self, payload: bytes | dict[str, Any], topic: str | None = None) -> tuple[int, dict[str, Any]]:
        """One request: the status of its reply and the body."""
        self._rid += 1
        data = json.dumps(payload).encode() if isinstance(payload, dict) else payload
        self.send(wire.publish((topic or REGISTER).format(rid=self._rid), data, packet_id=self._rid))
        while (reply := await self.receive()).kind != wire.PUBLISH:
            pass
        if reply.qos:
            self.send(puback(reply.packet_id))
        return int(reply.topic.split("/")[3]), {"topic": reply.topic} | json.loads(reply.payload or b"{}")

    async def register(self) -> tuple[int, dict[str, Any]]:
        """Register."""
        return await self.ask(b'{"payload": null}')


def user(registration_id: str, scope: str = ID_SCOPE) -> str:
    """The user name of a provisioning CONNECT, of a client that takes an immediate answer."""
    version = quote("azure-iot-device-provisioning-py/2.14.0", safe="")
    return f"{scope}/registrations/{registration_id}/api-version=2019-03-31&ClientVersion={version}"


def token(
    registration_id: str,
    key: bytes,
    *,
    expiry: int | str | None = None,
    scope: str = ID_SCOPE,
    policy: str | None = None,
    mangle: Callable[[str], str] = str,
) -> str:
    """A SAS token; `mangle` changes the encoded signature."""
    resource = quote(f"{scope}/registrations/{registration_id}", safe="")
    expiry = int(time.time()) + 3600 if expiry is None else expiry
    signature = base64.b64encode(hmac.digest(key, f"{resource}\n{expiry}".encode(), hashlib.sha256)).decode()
    text = f"SharedAccessSignature sr={resource}&sig={quote(mangle(signature), safe='')}&se={expiry}"
    return text if policy is None else f"{text}&skn={policy}"


def set_up(directory: Path, *, large: bool, connect_s: float, handshake_s: float) -> Service:
    """A service whose deadlines are as asked, and whose allowance for requests lets the cases run one after another."""
    service = Service(directory / "provisiond")
    service.configure(reply="immediate")
    service.limit(
        connect_timeout=f"{connect_s:g}s",
        handshake_timeout=f"{handshake_s:g}s",
        requests_per_min=PER_MIN,
        requests_per_min_per_address=1_000_000,
        keep_alive_max="3s",  # who asks all the time is never so long silent
        connections_per_address=1000 if large else 200,
    )
    document: Any = tomlkit.parse(service.config_file.read_text())
    document["attestation"] = {"challenge_ttl": f"{CHALLENGE_S}s"}
    text = tomlkit.dumps(document).replace(f"{LAST_LINE}\n", "")
    service.config_file.write_text(f"{text}\n{LAST_LINE}\n")
    return service


def enroll(service: Service, directory: Path) -> dict[str, Any]:
    """Enroll what the cases need; the keys and authorities, by the names of `Site`."""
    group_key, device_key = secrets.token_bytes(64), secrets.token_bytes(64)
    line_a, line_b = make_ca("Line A"), make_ca("Line B")
    for name, key in (("group", group_key), ("device", device_key)):
        path = directory / f"{name}.key"
        path.touch(mode=0o600)
        path.write_text(base64.b64encode(key).decode())
    for name, ca in (("line-a", line_a), ("line-b", line_b)):
        (directory / f"{name}.pem").write_bytes(ca.pem)
        service.enroll_group(name, certificate_path=directory / f"{name}.pem")
    service.enroll_group("keys", primary_key_file=directory / "group.key")
    for name in ("known", "disabled-later", "deleted-later", "Twin-Case"):
        service.enroll(name, primary_key_file=directory / "device.key")
    make_leaf("pinned", line_b).write(directory, "pinned")
    service.enroll("pinned", certificate_path=directory / "pinned.crt")
    return {"group_key": group_key, "device_key": device_key, "line_a": line_a, "line_b": line_b}


@contextmanager
def second_daemon(site: Site) -> Iterator[Site]:
    """Another service beside, whose limits are as they are by default; it keeps its state until the next time."""
    directory = site.directory / "second"
    if not directory.exists():
        directory.mkdir()
        service = Service(directory / "provisiond")
        service.configure(reply="immediate")
        service.enroll("known", primary_key_file=site.directory / "device.key")
        site.notes["second"] = service
    service = site.notes["second"]
    with run_daemon(service, quiet=True) as daemon:
        yield replace(site, service=service, daemon=daemon, directory=directory, notes={})
