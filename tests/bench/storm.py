"""A site comes back from a power cut: every device arrives at once, on one listener, and none gives up.

A device that is refused or cut off begins anew at once; how often that was needed is counted, and a device's time runs
from its first attempt.
"""

import argparse
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Self

from OpenSSL import SSL

from tests.bench import load, servers
from tests.bench.devices import Device
from tests.bench.registrations import make_x509_case
from tests.system.daemon import Service, run_daemon

ATTEMPTS_MAX = 20


class Queue(Iterator[Device]):
    """Devices that want to begin, those that begin anew included."""

    def __init__(self, devices: Iterable[Device]) -> None:
        self.waiting = deque(devices)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Device:
        if not self.waiting:
            raise StopIteration
        return self.waiting.popleft()


class Storm(load.Load):
    """Load whose devices try again."""

    def __init__(self, address: tuple[str, int], context: SSL.Context) -> None:
        super().__init__(address, context, load.register)
        self.failures: dict[str, int] = {}
        self._began_at: dict[str, float] = {}
        self._attempts: dict[str, int] = {}

    def run_all(self, devices: list[Device]) -> load.Round:
        """Every device at once, until the last one is assigned."""
        self._queue = Queue(devices)
        return self.run(self._queue, len(devices))

    def _start(self, poll: "load.select.epoll", device: Device) -> None:
        super()._start(poll, device)
        link = next(reversed(self._links.values()))[0]
        link.started = self._began_at.setdefault(device.registration_id, link.started)

    def _step(self, poll: "load.select.epoll", descriptor: int) -> bool:
        try:
            return super()._step(poll, descriptor)
        except (SSL.Error, OSError, ValueError) as error:
            self._begin_anew(poll, descriptor, error)
            return True

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
        self._queue.waiting.append(link.device)


def measure(directory: Path, options: argparse.Namespace) -> None:
    """Print what became of the storm."""
    count = options.devices
    servers.allow_connections(count)
    service = Service(directory / "provisiond")
    service.configure()
    service.limit(max_connections=2 * count, connections_per_address=2 * count)
    case = make_x509_case(service, "X.509", 0)
    devices = list(map(partial(_make, case.make_device), range(count)))
    with run_daemon(service, quiet=True) as daemon:
        pid = daemon.process.pid
        before_kib, before_s = servers.read_memory_kib(pid), servers.read_cpu_s(pid)
        storm = Storm(("127.0.0.1", daemon.port(tls=True)), case.context)
        seen = storm.run_all(devices)
        cpu_s, peak_kib = servers.read_cpu_s(pid) - before_s, servers.read_memory_kib(pid, "VmHWM")
    times = seen.latencies_s
    print(
        f"{count:,} devices at once: {len(times):,} assigned in {seen.wall_s:.1f} s"
        f" ({len(times) / seen.wall_s:.0f}/s, {1e6 * cpu_s / count:.0f} µs of server CPU each);"
        f" p50 {times[count // 2]:.1f} s, p99 {times[count * 99 // 100]:.1f} s, last {times[-1]:.1f} s;"
        f" {sum(storm.failures.values())} attempts had to be repeated {storm.failures or ''};"
        f" memory {before_kib / 1024:.0f} MiB before, {peak_kib / 1024:.0f} MiB at most"
    )


def _make(make_device: "partial[Device]", number: int) -> Device:
    return make_device(f"storm-{number}")
