"""Faults around a running daemon: never a false `assigned`, and service again when the fault ends or after a restart."""

import asyncio
import base64
import json
import os
import resource
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.abuse.site import Site
from tests.certificates import make_ca, make_leaf
from tests.crash.test_powercut import MAY_CUT
from tests.system.daemon import Daemon, Service, run_command, run_daemon

DEVICE_KEY = secrets.token_bytes(64)
TEN_YEARS_S = 10 * 365.25 * 86400
END_S = 120
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
MAY_TRACE = os.geteuid() == 0 and shutil.which("strace") is not None


def make_service(directory: Path) -> Service:
    """A service with a group of keys and a group of certificates."""
    service = Service(directory / "provisiond")
    service.configure(
        reply="immediate", hubs=[{"name": name, "type": "embedded", "host": f"{name}.test"} for name in ("a", "b")]
    )
    key = base64.b64encode(DEVICE_KEY).decode()
    lines = [
        {
            "registrationId": f"device-{number}",
            "attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": key, "secondaryKey": key}},
        }
        for number in range(6)
    ]
    file = directory / "devices.ndjson"
    file.touch(mode=0o600)
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    run_command("-c", service.config_file, "enrollment", "import", file)
    return service


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A service in a directory of the test's."""
    return make_service(tmp_path)


def site_of(service: Service, daemon: Daemon) -> Site:
    """The daemon as strangers see it."""
    return Site(
        service=service,
        daemon=daemon,
        group_key=b"",
        device_key=DEVICE_KEY,
        line_a=None,
        line_b=None,
        directory=service.directory,
        large=False,
        connect_s=5,
        handshake_s=10,
    )


async def ask(site: Site, name: str, **options: object) -> tuple[int, str]:
    """Register: the status and the hub; (0, "") when the connection ends first."""
    try:
        async with site.device(name, DEVICE_KEY, **options) as device:
            status, body = await device.register()
    except (ConnectionError, TimeoutError):
        return 0, ""
    return status, body.get("registrationState", {}).get("assignedHub", "")


def register(service: Service, daemon: Daemon, name: str, **options: object) -> tuple[int, str]:
    """`ask`, on an event loop of its own."""
    return asyncio.run(ask(site_of(service, daemon), name, **options))


def is_refused(outcome: tuple[int, str]) -> bool:
    """Whether nothing was promised."""
    return outcome[0] != 200 and not outcome[1]


def database(service: Service) -> Path:
    """Its file."""
    return next(service.directory.rglob("provisiond.db"))


# --- a flipped bit ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["registration", "enrollment"])
def test_a_flipped_bit_is_noticed_when_the_row_is_read_and_harms_that_device_alone(
    service: Service, table: str
) -> None:
    with run_daemon(service, quiet=True) as daemon:
        assert register(service, daemon, "device-0")[0] == 200
        with closing(sqlite3.connect(database(service))) as connection:
            (record,) = connection.execute(f"SELECT record FROM {table} WHERE key = 'device-0'").fetchone()
            flipped = record[:40] + chr(ord(record[40]) ^ 1) + record[41:]
            connection.execute(f"UPDATE {table} SET record = ? WHERE key = 'device-0'", (flipped,))
            connection.commit()
        assert is_refused(register(service, daemon, "device-0"))
        assert register(service, daemon, "device-1")[0] == 200
        assert "device-0" in daemon.text_log
        assert "damaged" in daemon.text_log


# --- the clock -------------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_ten_years_assigns_nobody_who_is_out_of_date_and_recovers(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offset = tmp_path / "offset"
    offset.write_text("0")
    monkeypatch.setattr("tests.system.daemon._ENVIRONMENT", {**os.environ, "CLOCK_OFFSET_FILE": str(offset)})
    jump_about(service, tmp_path, lambda seconds: offset.write_text(str(seconds)), "tests.crash.with_moved_clock")


if FAKETIME is not None:  # not a skip: it takes libfaketime

    def test_a_clock_that_jumps_for_every_library_as_well(
        service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        offset = tmp_path / "offset"
        offset.write_text("+0\n")
        faked = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # or timers hang when the clock goes back, which no kernel does
        }
        monkeypatch.setattr("tests.system.daemon._ENVIRONMENT", {**os.environ, **faked})
        jump_about(service, tmp_path, lambda seconds: offset.write_text(f"{seconds:+.0f}\n"), "provisiond")


def jump_about(service: Service, directory: Path, move: Callable[[float], object], module: str) -> None:
    """Ten years ahead, ten years back, and home again; `move` sets the daemon's clock so many seconds off."""
    line = make_ca("Line")
    (directory / "line.pem").write_bytes(line.pem)
    service.enroll_group("line", certificate_path=directory / "line.pem")
    certificate, key = make_leaf("certified", line).write(directory, "certified")
    with run_daemon(service, quiet=True, module=module) as daemon:
        tls = site_of(service, daemon).client_context(certificate, key)
        assert register(service, daemon, "device-0")[0] == 200
        assert register(service, daemon, "certified", tls=tls)[0] == 200
        move(TEN_YEARS_S)
        assert is_refused(register(service, daemon, "device-1"))  # its token has expired
        assert is_refused(register(service, daemon, "certified", tls=tls))
        move(-TEN_YEARS_S)
        assert is_refused(register(service, daemon, "certified", tls=tls))  # not valid yet
        move(0)
        assert register(service, daemon, "device-1")[0] == 200
        assert register(service, daemon, "certified", tls=tls)[0] == 200
        assert daemon.process.poll() is None


# --- files -----------------------------------------------------------------------------------------------------------


def test_without_a_file_left_who_is_in_is_served_and_others_come_in_later(service: Service) -> None:
    with run_daemon(service, quiet=True) as daemon:
        site = site_of(service, daemon)

        async def scenario() -> None:
            soft, hard = resource.prlimit(site.pid, resource.RLIMIT_NOFILE)
            async with site.device("device-0", DEVICE_KEY) as inside:
                resource.prlimit(site.pid, resource.RLIMIT_NOFILE, (site.files, hard))
                try:
                    outside = asyncio.create_task(ask(site, "device-1"))
                    assert (await inside.register())[0] == 200
                    assert not outside.done()
                finally:
                    resource.prlimit(site.pid, resource.RLIMIT_NOFILE, (soft, hard))
                assert (await outside)[0] == 200

        asyncio.run(scenario())


# --- the disk --------------------------------------------------------------------------------------------------------

if MAY_TRACE:  # not a skip: it takes root and strace

    def test_an_fsync_that_fails_is_answered_with_no_promise_and_ends_the_daemon(service: Service) -> None:
        with Daemon(service, quiet=True) as daemon:
            assert register(service, daemon, "device-0")[0] == 200
            pid = str(daemon.process.pid)
            command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]
            tracer = subprocess.Popen([*command, "-e", "inject=fsync,fdatasync:error=EIO", "-p", pid])
            try:
                while "TracerPid:\t0" in Path(f"/proc/{pid}/status").read_text():
                    assert tracer.poll() is None
                assert is_refused(register(service, daemon, "device-1"))
                assert daemon.process.wait(END_S) not in (0, -signal.SIGKILL)
            finally:
                tracer.terminate()
                tracer.wait()
        with run_daemon(service, quiet=True) as daemon:
            assert {register(service, daemon, f"device-{number}")[0] for number in range(3)} == {200}


if MAY_CUT:  # not a skip: it takes root and loop devices

    def test_a_full_disk_promises_nothing_and_serves_again_when_there_is_room() -> None:
        run_on_a_disk("full")

    def test_a_disk_that_turns_read_only_promises_nothing_and_the_daemon_does_not_start_on_it() -> None:
        run_on_a_disk("read_only")

    def run_on_a_disk(what: str) -> None:
        """Run a scenario of `tests.crash.disk_faults` where its mounts are nobody else's."""
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "tests.crash.disk_faults"]
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        completed = subprocess.run(
            [*command, what], capture_output=True, text=True, timeout=280, check=False, env=os.environ | {"PATH": path}
        )
        assert completed.returncode == 0, completed.stdout + completed.stderr
