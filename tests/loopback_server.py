"""A server of the test's own, on a free loopback port, that leaves nothing behind."""

import asyncio
from contextlib import asynccontextmanager


@asynccontextmanager
async def serving(serve, *, tls=None):
    """Have `serve(reader, writer)` answer each connection; gives the port."""
    tasks = set()

    async def answer(reader, writer):
        tasks.add(asyncio.current_task())
        await serve(reader, writer)

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
