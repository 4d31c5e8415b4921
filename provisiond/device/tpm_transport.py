"""Carries one TPM command at a time to a TPM: a UNIX or TCP socket of an emulator, or the kernel's character device."""

import asyncio
import os
import threading
from pathlib import Path
from typing import Final, Protocol

from provisiond.device.errors import CredentialError, TpmError
from provisiond.device.tpm_wire import HEADER_SIZE_BYTES, MAX_RESPONSE_SIZE_BYTES

# Discrete parts take up to about a minute for an RSA-2048 primary key; the kernel itself waits two.
COMMAND_DEADLINE_S: Final = 120.0
# An emulator that another client holds accepts the connection but serves it only afterwards, so that only the
# connection itself is bounded by this.
CONNECT_DEADLINE_S: Final = 10.0


class Transport(Protocol):
    """Sends a command, returns the response; calls never overlap."""

    async def transmit(self, command: bytes) -> bytes:
        """One exchange. Raises TpmError when the TPM is gone, does not answer in time or answers nonsense."""
        ...

    async def close(self) -> None:
        """Let the TPM go."""
        ...


class SocketTransport:
    """Raw TPM commands over a stream: what swtpm serves with `--server type=unixio` or `type=tcp`.

    A task that is cancelled while the TPM works leaves a response behind; the next exchange reads it away first.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._header = b""
        self._outstanding = False

    @classmethod
    async def connect_unix(cls, path: Path) -> "SocketTransport":
        """Connect to a UNIX socket; raises CredentialError when nobody serves it."""
        try:
            async with asyncio.timeout(CONNECT_DEADLINE_S):
                return cls(*await asyncio.open_unix_connection(path))
        except OSError as error:
            raise CredentialError(f"no TPM at socket {path}: {error}") from error

    @classmethod
    async def connect_tcp(cls, host: str, port: int) -> "SocketTransport":
        """Connect to a TCP port; raises CredentialError when nobody serves it."""
        try:
            async with asyncio.timeout(CONNECT_DEADLINE_S):
                return cls(*await asyncio.open_connection(host, port))
        except OSError as error:
            raise CredentialError(f"no TPM at {host}:{port}: {error}") from error

    async def transmit(self, command: bytes) -> bytes:
        """See Transport."""
        try:
            async with asyncio.timeout(COMMAND_DEADLINE_S):
                if self._outstanding:
                    await self._receive()
                self._outstanding = True
                self._writer.write(command)
                await self._writer.drain()
                return await self._receive()
        except (OSError, asyncio.IncompleteReadError) as error:
            raise TpmError(0, "Transmit", f"the TPM is gone: {error!r}") from error

    async def _receive(self) -> bytes:
        if not self._header:
            self._header = await self._reader.readexactly(HEADER_SIZE_BYTES)
        size = int.from_bytes(self._header[2:6])
        if not HEADER_SIZE_BYTES <= size <= MAX_RESPONSE_SIZE_BYTES:
            raise TpmError(0, "Transmit", f"the TPM announces a response of {size} bytes")
        response = self._header + await self._reader.readexactly(size - HEADER_SIZE_BYTES)
        self._header, self._outstanding = b"", False
        return response

    async def close(self) -> None:
        """See Transport."""
        self._writer.close()
        try:
            async with asyncio.timeout(CONNECT_DEADLINE_S):
                await self._writer.wait_closed()
        except OSError:
            return  # it was gone already


class CharacterDeviceTransport:
    """`/dev/tpmrm0`: write a command, read its response. Blocking, so each exchange runs in a thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        # A cancelled task leaves its thread behind, and the kernel takes no command before the last response was read.
        self._exclusive = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> "CharacterDeviceTransport":
        """Open the device; raises CredentialError when that is not possible."""
        try:
            return cls(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            raise CredentialError(f"cannot open the TPM {path}: {error.strerror}; is the user in group tss?") from error

    async def transmit(self, command: bytes) -> bytes:
        """See Transport."""
        try:
            async with asyncio.timeout(COMMAND_DEADLINE_S):
                return await asyncio.to_thread(self._exchange, command)
        except OSError as error:
            raise TpmError(0, "Transmit", f"the TPM is gone: {error!r}") from error

    def _exchange(self, command: bytes) -> bytes:
        with self._exclusive:
            os.write(self._descriptor, command)
            return os.read(self._descriptor, MAX_RESPONSE_SIZE_BYTES)

    async def close(self) -> None:
        """See Transport."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with self._exclusive:
            os.close(self._descriptor)
