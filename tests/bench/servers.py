"""The servers under the load, and the CPU time they use."""

import os
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.certificates import SERVER_AUTH, Ca, make_ca, make_leaf
from tests.ports import free_port

MOSQUITTO_START_TIMEOUT_S = 60
_CPUCLOCK_SCHED = 2  # linux/posix-timers.h


def read_cpu_s(pid: int) -> float:
    """CPU seconds, user and system, of a process and its living descendants (threads that ended included)."""
    own_s = time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)  # clock_getcpuclockid(3); to the nanosecond
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return own_s + sum(read_cpu_s(int(child)) for path in children for child in path.read_text().split())


def read_memory_kib(pid: int, field: str = "VmRSS") -> int:
    """Resident memory now, or at its highest (`VmHWM`)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0])


def allow_connections(count: int) -> None:
    """Let this process, and those it starts, open so many files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(count + 256, hard), hard))


def find_mosquitto() -> str:
    """The program, which Debian keeps where not every user's path leads."""
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise FileNotFoundError("mosquitto is not installed")
    return program


@contextmanager
def run_mosquitto(directory: Path, *, device_ca: Ca | None) -> Iterator[tuple[int, int]]:
    """Debian's mosquitto with TLS on a free loopback port: process id and port.

    With `device_ca` a client certificate of it is required; without, none is asked for.
    """
    directory.mkdir()
    make_leaf("localhost", make_ca("Bench Root"), dns_names=("localhost",), usages=(SERVER_AUTH,)).write(
        directory, "server"
    )
    port = free_port()
    lines = [
        f"listener {port} 127.0.0.1",
        f"certfile {directory}/server.crt",
        f"keyfile {directory}/server.key",
        "allow_anonymous true",
        "persistence false",
        "log_type none",
        "user root",  # keeps the key readable when started as root; ignored otherwise
    ]
    if device_ca is not None:
        (directory / "devices.crt").write_bytes(device_ca.pem)
        lines += [f"cafile {directory}/devices.crt", "require_certificate true"]
    (directory / "mosquitto.conf").write_text("\n".join(lines) + "\n")
    process = subprocess.Popen([find_mosquitto(), "-c", directory / "mosquitto.conf"], stderr=subprocess.DEVNULL)
    try:
        _wait_for_port(process, port)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


def _wait_for_port(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + MOSQUITTO_START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)  # mosquitto has no way to say that it is ready
    raise TimeoutError("mosquitto did not start")
