"""Debian's mosquitto on free ports of loopback: started by a test, stopped and started again as it likes."""

import asyncio
import shutil
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.ports import free_port

SBIN = "/usr/sbin:/usr/bin:/bin:/usr/local/sbin:/usr/local/bin"
START_TIMEOUT_S = 60


def find_tool(name: str) -> str:
    path = shutil.which(name, path=SBIN)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


async def until_listening(process: asyncio.subprocess.Process, port: int) -> None:
    """Wait until a broker that was just started takes connections."""
    async with asyncio.timeout(START_TIMEOUT_S):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                await asyncio.sleep(0.01)
                continue
            writer.transport.abort()
            return
    pytest.fail("mosquitto did not start")


class Mosquitto:
    """A broker that can be stopped and started again on the same port."""

    def __init__(self, directory: Path, lines: tuple[str, ...]) -> None:
        self.port = free_port()
        self.log_file = directory / "mosquitto.log"
        self._program = find_tool("mosquitto")
        self._configuration = directory / "mosquitto.conf"
        self._configuration.write_text(
            f"listener {self.port} 127.0.0.1\nuser root\nlog_dest file {self.log_file}\nlog_type all\n"
            + "".join(f"{line}\n" for line in lines)
        )
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(self._program, "-c", str(self._configuration))
        await until_listening(self._process, self.port)

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()


@asynccontextmanager
async def run_mosquitto(directory: Path, *lines: str):
    """Run with these lines of configuration; anybody may do anything when there are none."""
    broker = Mosquitto(directory, lines or ("allow_anonymous true",))
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


async def run_tool(*arguments: object, deadline_s: float = 120, **options: object) -> tuple[int, str, str]:
    """Run one of Debian's clients to its end; exit status, standard output, standard error."""
    program, *rest = map(str, arguments)
    process = await asyncio.create_subprocess_exec(
        find_tool(program), *rest, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, **options
    )
    try:
        async with asyncio.timeout(deadline_s):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return process.returncode, output.decode(), errors.decode()


async def make_passwords(file: Path, **users: str) -> None:
    """A password file of user names and passwords; `-` in a name is written `_` here."""
    file.touch(mode=0o600)  # noqa: ASYNC240 - a test may wait for its disk
    for name, password in users.items():
        code, _, errors = await run_tool("mosquitto_passwd", "-b", file, name.replace("_", "-"), password)
        assert code == 0, errors
