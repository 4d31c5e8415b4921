"""Starts the TPM emulator swtpm for one device, with its own state and socket."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from provisiond.device.errors import EmulatorError
from provisiond.device.tpm_wire import HEADER_SIZE_BYTES, CommandCode, encode_command

_INSTALL_HINT: Final = "the TPM emulator swtpm is not installed; on Debian: apt install swtpm swtpm-tools"
_START_DEADLINE_S: Final = 10.0  # it takes 5 ms on an idle machine; a hundred at once on a busy one take seconds
_STOP_DEADLINE_S: Final = 5.0
_GET_RANDOM: Final = encode_command(CommandCode.GetRandom, (), (), b"\0\1")
_RETRY_DELAY_S: Final = 0.005
_SOCKET_PATH_MAX_BYTES: Final = 107  # sockaddr_un.sun_path without its final zero


@asynccontextmanager
async def run_emulator(state_dir: Path | None = None) -> AsyncIterator[Path]:
    """Run swtpm; gives the path of the UNIX socket it serves raw TPM commands on, one connection at a time.

    Args:
        state_dir: keeps the TPM's seeds and persistent keys between runs; is made (mode 0700) if it does not exist.
            None for a TPM that is forgotten afterwards.

    Raises:
        EmulatorError: swtpm is not installed, or does not start.
    """
    program = shutil.which("swtpm")
    if program is None:
        raise EmulatorError(_INSTALL_HINT)
    # The socket has a directory of its own, because a path of a deep state directory may be too long for one.
    with tempfile.TemporaryDirectory(prefix="swtpm-", ignore_cleanup_errors=True) as socket_dir:
        socket_path = Path(socket_dir, "s")
        if len(bytes(socket_path)) + len(".ctrl") > _SOCKET_PATH_MAX_BYTES:
            raise EmulatorError(f"the temporary directory {socket_dir} is too long for a socket; set TMPDIR")
        state = (state_dir or Path(socket_dir, "state")).absolute()
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        process = await _spawn(program, state, socket_path)
        try:
            await _wait_until_serving(process, socket_path)
            yield socket_path
        finally:
            await _stop(process)


async def _spawn(program: str, state_dir: Path, socket_path: Path) -> asyncio.subprocess.Process:
    # swtpm answers every command with TPM_RC_FAILURE when the state directory is relative. The control socket is
    # named so that tpm2-tools find it beside the other.
    return await asyncio.create_subprocess_exec(
        program,
        "socket",
        "--tpm2",
        "--tpmstate",
        f"dir={state_dir}",
        "--server",
        f"type=unixio,path={socket_path}",
        "--ctrl",
        f"type=unixio,path={socket_path}.ctrl",
        "--flags",
        "not-need-init,startup-clear",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )


async def _wait_until_serving(process: asyncio.subprocess.Process, socket_path: Path) -> None:
    """The path exists before anybody listens, and connections are taken before the state is read: an answer tells."""
    try:
        async with asyncio.timeout(_START_DEADLINE_S):
            while process.returncode is None:
                if await _answers(socket_path):
                    return
                await asyncio.sleep(_RETRY_DELAY_S)
    except TimeoutError as error:
        raise EmulatorError(f"swtpm did not serve {socket_path} within {_START_DEADLINE_S:.0f} s") from error
    if process.stderr is None:
        raise EmulatorError("swtpm ended at once")
    said = (await process.stderr.read(1000)).decode(errors="replace").strip()
    raise EmulatorError(f"swtpm ended with {process.returncode}: {said}")


async def _answers(socket_path: Path) -> bool:
    try:
        reader, writer = await asyncio.open_unix_connection(socket_path)
    except OSError:
        return False
    try:
        writer.write(_GET_RANDOM)
        header = await reader.readexactly(HEADER_SIZE_BYTES)
        await reader.readexactly(int.from_bytes(header[2:6]) - HEADER_SIZE_BYTES)
    except (OSError, asyncio.IncompleteReadError):
        return False
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return True


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_STOP_DEADLINE_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
