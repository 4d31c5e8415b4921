"""The watchdog is fed only while store and broker answer; and a real process under a service manager's sockets."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from provisiond.daemon import Daemon
from provisiond.errors import StoreUnavailable
from provisiond.watchdog import Silent, Watchdog, ping_listener, watchdog_period_s
from tests.ports import free_port
from tests.running_service import ID_SCOPE, site_settings

UNIT = Path(__file__).parents[1] / "systemd/provisiond.service"


def watchdog(**checks):
    fed, reported = [], []
    return Watchdog(3.0, checks=checks, notify=fed.append, report=reported.append), fed, reported


async def well():
    pass


async def hang():
    await asyncio.Event().wait()


async def broken():
    raise StoreUnavailable("the disk failed")


async def test_it_is_fed_when_everything_answers():
    dog, fed, reported = watchdog(store=well, listener=well)
    assert await dog.look()
    assert (fed, reported) == (["WATCHDOG=1"], [])


async def test_it_is_not_fed_when_the_store_is_broken():
    dog, fed, reported = watchdog(store=broken, listener=well)
    assert not await dog.look()
    assert (fed, reported) == ([], ["store: the disk failed"])


async def test_it_is_not_fed_when_the_broker_is_silent():
    fed, reported = [], []
    dog = Watchdog(0.03, checks={"listener": hang}, notify=fed.append, report=reported.append)
    assert not await dog.look()
    assert (fed, reported) == ([], ["listener: no answer in time"])


@pytest.mark.parametrize(
    ("environment", "period_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_service_manager_says_how_often(environment, period_s):
    assert watchdog_period_s(environment) == period_s


async def test_the_daemons_own_listener_answers_and_nobody_is_refused(tmp_path):
    async with Daemon(site_settings(tmp_path)) as daemon:
        host, port = daemon.addresses["devices"]
        await ping_listener(host, port, tls=True, id_scope=ID_SCOPE)
        assert not daemon._broker.statistics.refused
        assert daemon._broker.statistics.connections_total == 1


async def test_a_port_where_nobody_listens_or_something_else_does_is_told():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match=r"(?i)refused|connect"):
            await ping_listener("127.0.0.1", probe.getsockname()[1], tls=False, id_scope="x")

    async def talk(_reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n")
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        with pytest.raises(Silent, match="not as an MQTT broker"):
            await ping_listener(*server.sockets[0].getsockname(), tls=False, id_scope="x")


async def test_a_broker_without_room_has_answered():
    async def hang_up(_reader, writer):
        writer.transport.abort()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        await ping_listener(*server.sockets[0].getsockname(), tls=False, id_scope="x")


# --- the process -----------------------------------------------------------------------------------------------------


@pytest.fixture
def configuration(tmp_path):
    file = tmp_path / "provisiond.toml"
    file.write_text(
        f'config_version = 1\n[service]\nstate_dir = "{tmp_path}/state"\n[[broker.listeners]]\nname = "local"\n'
        f'bind = "127.0.0.1:{free_port()}"\n[metrics]\nenabled = false\n[log]\nformat = "json"\n'
    )
    return file


def test_a_service_is_ready_feeds_reloads_and_stops_within_ten_seconds(socket_directory, configuration):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(socket_directory / "notify"))
        manager.settimeout(120)
        environment = {**os.environ, "NOTIFY_SOCKET": str(socket_directory / "notify"), "WATCHDOG_USEC": "6000000"}
        command = [sys.executable, "-m", "provisiond", "-c", str(configuration), "run"]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        try:
            assert manager.recv(100) == b"READY=1"
            assert [manager.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            process.send_signal(signal.SIGHUP)
            assert manager.recv(100) == b"WATCHDOG=1"
            process.send_signal(signal.SIGTERM)
            while manager.recv(100) != b"STOPPING=1":
                pass
            assert process.wait(timeout=240) == 0
        finally:
            process.kill()
            _, stderr = process.communicate()
    events = [json.loads(line)["event"] for line in stderr.splitlines()]
    assert events.count("reloaded") == 1 and "the watchdog was not fed" not in events
    assert "connect refused" not in events


def test_a_service_that_stands_still_does_not_feed(socket_directory, configuration):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(socket_directory / "notify"))
        manager.settimeout(120)
        environment = {**os.environ, "NOTIFY_SOCKET": str(socket_directory / "notify"), "WATCHDOG_USEC": "300000"}
        command = [sys.executable, "-m", "provisiond", "-c", str(configuration), "run"]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        try:
            while manager.recv(100) != b"WATCHDOG=1":
                pass
            process.send_signal(signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)
            manager.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while manager.recv(100):  # what was sent before
                    pass
            manager.settimeout(0.6)  # two periods
            with pytest.raises(TimeoutError):
                manager.recv(100)
        finally:
            process.kill()
            process.wait()


def test_it_is_not_ready_when_the_database_cannot_be_written(tmp_path, socket_directory, configuration):
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state/provisiond.db").write_bytes(b"junk" * 1000)
    (tmp_path / "state/provisiond.db").chmod(0o600)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(socket_directory / "notify"))
        manager.setblocking(False)
        environment = {**os.environ, "NOTIFY_SOCKET": str(socket_directory / "notify")}
        command = [sys.executable, "-m", "provisiond", "-c", str(configuration), "run"]
        assert (
            subprocess.run(command, check=False, env=environment, stderr=subprocess.DEVNULL, timeout=120).returncode
            == 69
        )
        with pytest.raises(BlockingIOError):
            manager.recv(100)


# --- the unit --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this machine has no systemd")
def test_the_unit_is_exposed_at_most_to_1_5():
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", str(UNIT)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "Type=notify",
        "WatchdogSec=30s",
        "StateDirectory=provisiond",
        "ProtectSystem=strict",
        "RestartPreventExitStatus=78",
        "ExecReload=/bin/sh -c 'kill -HUP $MAINPID'",
    ],
)
def test_the_unit_says(line):
    assert line in UNIT.read_text().splitlines()
