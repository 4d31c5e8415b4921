"""A small HTTP service in the test's own loop, that answers as it is told and remembers what it was asked."""

import asyncio
import contextlib
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.loopback_server import serving


@dataclass
class Service:
    """`answer(request) -> (status, headers, body)`; a body that is an async generator is sent as it comes."""

    port: int = 0
    answer: object = None
    requests: list = field(default_factory=list)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/hook"


@dataclass
class Request:
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@asynccontextmanager
async def run_service(answer, *, tls=None):
    service = Service(answer=answer)

    async def serve(reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                await answer_one(service, reader, writer)
        writer.transport.abort()

    async with serving(serve, tls=tls) as service.port:
        yield service


async def answer_one(service, reader, writer):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    request = Request(headers, body)
    service.requests.append(request)
    result = service.answer(request)
    status, extra, content = await result if asyncio.iscoroutine(result) else result
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in extra.items())]
    if isinstance(content, bytes):
        lines.append(f"Content-Length: {len(content)}")
        writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        await writer.drain()
        return
    writer.write("\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode())
    async for part in content:
        writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def hang(_request):
    await asyncio.Event().wait()


async def endless():
    while True:
        yield b" " * 65536


def json_answer(value, status=200):
    return status, {}, json.dumps(value).encode()
