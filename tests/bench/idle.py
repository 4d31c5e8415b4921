"""Connections that say nothing: the memory of each, and what all of them cost a device that does something.

Another device's round trips (register, committed, answered) are timed at two daemons in turn, one with the crowd and
one without: what the machine does besides falls on both.
"""

import argparse
import select
import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from OpenSSL import SSL

from tests.bench import load, servers
from tests.bench.devices import Device, at_hub, make_x509_device
from tests.certificates import make_ca
from tests.system.daemon import ID_SCOPE, Daemon, Service, run_daemon

AT_A_TIME = 64
WARM_UP = 0.1  # of the round trips
SETTLE_S = 1.5
KEEP_ALIVE_S = 1177
HUB_HOST = "localhost"
MEMORY_MAX_KIB = 60
GROWTH_MAX_PERCENT = 20


class Crowd(load.Load):
    """Load whose devices stay."""

    def __init__(self, address: tuple[str, int], context: SSL.Context) -> None:
        super().__init__(address, context, load.stay)
        self.links: list[load.Link] = []

    def _finish(self, poll: "load.select.epoll", link: load.Link) -> None:
        self._latencies_s.append(time.monotonic() - link.started)
        self.links.append(link)
        del self._links[link.socket.fileno()]
        poll.unregister(link.socket)

    def leave(self) -> None:
        """Every device goes."""
        for link in self.links:
            link.socket.close()


class Asker:
    """One device that asks, at one daemon."""

    def __init__(self, target: "Target", device: Device) -> None:
        self.link = load.Link(target.address, target.context, device)
        self._pid = target.pid
        self._take(load.stay(self.link))
        self.reset()

    def ask(self) -> None:
        """One round trip."""
        self._take(load.ask(self.link))

    def reset(self) -> None:
        """Forget the round trips so far."""
        self.link.round_trips_s.clear()
        self._cpu_before_s = servers.read_cpu_s(self._pid)

    @property
    def wall_s(self) -> float:
        """Median of the round trips."""
        return statistics.median(self.link.round_trips_s)

    @property
    def cpu_s(self) -> float:
        """CPU time of the daemon for each."""
        return (servers.read_cpu_s(self._pid) - self._cpu_before_s) / len(self.link.round_trips_s)

    def _take(self, steps: "load.Generator[int, None, None]") -> None:
        for wanted in steps:
            with select.epoll() as poll:
                poll.register(self.link.socket, wanted)
                if not poll.poll(load.STALL_TIMEOUT_S):
                    raise TimeoutError("the daemon does not answer")


class Target:
    """A daemon that is measured."""

    def __init__(self, daemon: Daemon) -> None:
        self.pid = daemon.process.pid
        self.address = ("127.0.0.1", daemon.port(tls=True))
        self.context = load.make_context()

    def fill(self, devices: Iterable[Device]) -> tuple[Crowd, float]:
        """Have devices connect and stay; KiB of resident memory that each takes."""
        time.sleep(SETTLE_S)
        before_kib = servers.read_memory_kib(self.pid)
        crowd = Crowd(self.address, self.context)
        crowd.run(devices, AT_A_TIME)
        time.sleep(SETTLE_S)
        return crowd, (servers.read_memory_kib(self.pid) - before_kib) / len(crowd.links)

    def idle_cpu(self) -> float:
        """The share of a core that it takes when nothing happens."""
        before_s, began_at = servers.read_cpu_s(self.pid), time.monotonic()
        time.sleep(SETTLE_S)
        return (servers.read_cpu_s(self.pid) - before_s) / (time.monotonic() - began_at)


def measure(directory: Path, options: argparse.Namespace) -> None:
    """Print memory and round trips, without the crowd and with it."""
    count = options.devices
    servers.allow_connections(count)
    alone_service, alone_make = _make_service(directory / "alone", count)
    crowded_service, crowded_make = _make_service(directory / "crowded", count)
    with run_daemon(alone_service, quiet=True) as first, run_daemon(crowded_service, quiet=True) as second:
        alone, crowded = Target(first), Target(second)
        crowd, each_kib = crowded.fill(crowded_make(f"idle-{number}") for number in range(count))
        _print_memory(f"{count:,} idle provisioning connections, mutual TLS", each_kib, crowded.idle_cpu())
        askers = Asker(alone, alone_make("another")), Asker(crowded, crowded_make("another"))
        _print_round_trips(*askers, options.registrations)
        for asker in askers:
            asker.link.socket.close()
        crowd.leave()
    with run_daemon(alone_service, quiet=True) as daemon:
        _measure_hub(Target(daemon), alone_make, max(1, count // 5))


def _make_service(directory: Path, count: int) -> tuple[Service, Callable[[str], Device]]:
    """A service, and what makes devices that it knows."""
    service = Service(directory)
    service.configure()
    service.limit(
        max_connections=2 * count,
        connections_per_address=2 * count,
        provisioning_idle="1h",
        requests_per_min=1_000_000,
        requests_per_min_per_address=10_000_000,
    )
    root = make_ca("Bench Root")
    (directory / "root.pem").write_bytes(root.pem)
    service.enroll_group("bench", certificate_path=directory / "root.pem")
    return service, partial(make_x509_device, issuer=root, id_scope=ID_SCOPE, keep_alive_s=KEEP_ALIVE_S)


def _measure_hub(target: Target, make: Callable[[str], Device], count: int) -> None:
    devices = [make(f"hub-{number}") for number in range(count)]
    load.Load(target.address, target.context, load.register).run(devices, AT_A_TIME)
    crowd, each_kib = target.fill(at_hub(device, HUB_HOST, KEEP_ALIVE_S) for device in devices)
    _print_memory(f"{count:,} idle devices at the embedded hub, mutual TLS", each_kib, target.idle_cpu())
    crowd.leave()


def _print_memory(what: str, each_kib: float, idle_cpu: float) -> None:
    print(f"{what}: {each_kib:.1f} KiB each (below {MEMORY_MAX_KIB}), {100 * idle_cpu:.1f} % of a core", flush=True)


def _print_round_trips(alone: Asker, crowded: Asker, count: int) -> None:
    warm_up = round(WARM_UP * count)
    for number in range(warm_up + count):
        if number == warm_up:
            alone.reset()
            crowded.reset()
        for asker in (alone, crowded) if number % 2 else (crowded, alone):
            asker.ask()
    pairs = zip(alone.link.round_trips_s, crowded.link.round_trips_s, strict=True)
    wall = statistics.median(with_crowd / without for without, with_crowd in pairs)
    print(
        f"another device's round trip (register, committed, answered): {1e3 * crowded.wall_s:.2f} ms with them,"
        f" {1e3 * alone.wall_s:.2f} ms without: {100 * (wall - 1):+.0f} % of wall time (median of pairs; below"
        f" {GROWTH_MAX_PERCENT}), {100 * (crowded.cpu_s / alone.cpu_s - 1):+.0f} % of CPU time",
        flush=True,
    )
