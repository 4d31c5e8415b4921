"""A site comes back from a power cut: every device arrives at once, on one listener, from one address, and none gives up.

The service has its default limits. A device that is refused or cut off begins anew after a pause, one or two seconds
first and up to eight later; how often that was needed is counted, and a device's time runs from its first attempt.
"""

import argparse
import heapq
import random
import time
from functools import partial
from pathlib import Path

from OpenSSL import SSL

from tests.bench import load, servers
from tests.bench.devices import Device
from tests.bench.registrations import make_x509_case
from tests.system.daemon import Service, run_daemon

LIMIT_S = 60
ATTEMPTS_MAX = 20
PAUSE_MAX_S = 8.0
LOOK_S = 0.05


class Storm(load.Load):
    """Load whose devices try again."""

    def __init__(self, address: tuple[str, int], context: SSL.Context) -> None:
        super().__init__(address, context, load.register)
        self.failures: dict[str, int] = {}
        self._began_at: dict[str, float] = {}
        self._attempts: dict[str, int] = {}
        self._waiting: list[tuple[float, str, Device]] = []

    def _start(self, poll: "load.select.epoll", device: Device) -> None:
        super()._start(poll, device)
        link = next(reversed(self._links.values()))[0]
        link.started = self._began_at.setdefault(device.registration_id, link.started)

    def _return(self, poll: "load.select.epoll") -> bool:
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            self._start(poll, heapq.heappop(self._waiting)[2])
        return bool(self._waiting or self._links)

    def _wait(self, poll: "load.select.epoll") -> list[int]:
        self._return(poll)
        if self._waiting and not poll.poll(LOOK_S):
            return []
        return super()._wait(poll)

    def _step(self, poll: "load.select.epoll", descriptor: int) -> bool:
        try:
            return super()._step(poll, descriptor)
        except (SSL.Error, OSError, ValueError) as error:
            self._begin_anew(poll, descriptor, error)
            return False

    def _begin_anew(self, poll: "load.select.epoll", descriptor: int, error: Exception) -> None:
        link = self._links.pop(descriptor)[0]
        poll.unregister(link.socket)
        link.socket.close()
        key = link.device.registration_id
        self._attempts[key] = self._attempts.get(key, 0) + 1
        if self._attempts[key] > ATTEMPTS_MAX:
            raise error
        name = f"{type(error).__name__}: {error}"[:80]
        self.failures[name] = self.failures.get(name, 0) + 1
        pause_s = min(2.0 ** self._attempts[key], PAUSE_MAX_S) * random.uniform(0.5, 1.0)
        heapq.heappush(self._waiting, (time.monotonic() + pause_s, key, link.device))


def measure(directory: Path, options: argparse.Namespace) -> None:
    """Print what became of the storm."""
    count = options.devices
    servers.allow_connections(count)
    service = Service(directory / "provisiond")
    service.configure()
    case = make_x509_case(service, "X.509", 0)
    devices = list(map(partial(_make, case.make_device), range(count)))
    with run_daemon(service, quiet=True) as daemon:
        pid = daemon.process.pid
        before_kib, before_s = servers.read_memory_kib(pid), servers.read_cpu_s(pid)
        storm = Storm(("127.0.0.1", daemon.port(tls=True)), case.context)
        seen = storm.run(devices, count)
        cpu_s, peak_kib = servers.read_cpu_s(pid) - before_s, servers.read_memory_kib(pid, "VmHWM")
    times = seen.latencies_s
    print(
        f"{count:,} devices at once, from one address, default limits: {len(times):,} assigned"
        f" in {seen.wall_s:.1f} s (at most {LIMIT_S} s; {len(times) / seen.wall_s:.0f}/s,"
        f" {1e6 * cpu_s / count:.0f} µs of server CPU each);"
        f" p50 {times[count // 2]:.1f} s, p99 {times[count * 99 // 100]:.1f} s, last {times[-1]:.1f} s;"
        f" {sum(storm.failures.values())} attempts had to be repeated {storm.failures or ''};"
        f" memory {before_kib / 1024:.0f} MiB before, {peak_kib / 1024:.0f} MiB at most"
    )


def _make(make_device: "partial[Device]", number: int) -> Device:
    return make_device(f"storm-{number}")
