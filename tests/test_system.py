import asyncio
import socket

import pytest

from provisiond.errors import ConfigurationError
from provisiond.system import SystemClock, SystemEntropy, background, notify_service_manager


def test_the_clock_knows_utc_and_never_goes_back():
    clock = SystemClock()
    assert clock.now().utcoffset().total_seconds() == 0
    assert clock.monotonic() <= clock.monotonic()


def test_two_drawings_of_entropy_differ():
    entropy = SystemEntropy()
    assert entropy.token_bytes(32) != entropy.token_bytes(32)
    assert len(entropy.token_bytes(48)) == 48


def test_the_service_manager_is_told_by_datagram(socket_directory, monkeypatch):
    path = str(socket_directory / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        assert notify_service_manager("READY=1")
        assert manager.recv(64) == b"READY=1"


def test_without_a_service_manager_nobody_is_told(monkeypatch, tmp_path):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify_service_manager("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not notify_service_manager("READY=1")


async def test_what_a_block_raises_beside_background_work_is_not_wrapped():
    with pytest.raises(ConfigurationError, match="in use"):
        async with background(asyncio.Event().wait(), name="forever"):
            raise ConfigurationError("the address is in use")


async def test_background_work_that_fails_ends_its_block_with_the_failure():
    async def fail():
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        async with background(fail(), name="failing"):
            await asyncio.Event().wait()


async def test_background_work_ends_with_its_block():
    ended = asyncio.Event()

    async def wait():
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with background(wait(), name="waiting"):
        await asyncio.sleep(0)
    assert ended.is_set()
