"""Connections that say nothing: the memory of each, and what all of them cost a device that does something."""

import argparse
import statistics
import time
from functools import partial
from pathlib import Path

from OpenSSL import SSL

from tests.bench import load, servers
from tests.bench.devices import make_x509_device
from tests.certificates import make_ca
from tests.system.daemon import ID_SCOPE, Service, run_daemon

AT_A_TIME = 64
ROUND_TRIPS = 300
SETTLE_S = 1.5
KEEP_ALIVE_S = 1177


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


def measure(directory: Path, options: argparse.Namespace) -> None:
    """Print memory and round trips, without the crowd and with it."""
    count = options.devices
    servers.allow_connections(count)
    service = Service(directory / "provisiond")
    service.configure()
    service.limit(
        max_connections=2 * count,
        connections_per_address=2 * count,
        provisioning_idle="1h",
        requests_per_min=1_000_000,
    )
    root = make_ca("Bench Root")
    (directory / "root.pem").write_bytes(root.pem)
    service.enroll_group("bench", certificate_path=directory / "root.pem")
    make = partial(make_x509_device, issuer=root, id_scope=ID_SCOPE, keep_alive_s=KEEP_ALIVE_S)
    context = load.make_context()
    with run_daemon(service, quiet=True) as daemon:
        address, pid = ("127.0.0.1", daemon.port(tls=True)), daemon.process.pid
        _round_trips(address, context, make)  # warm up
        alone = _round_trips(address, context, make)
        time.sleep(SETTLE_S)
        before_kib = servers.read_memory_kib(pid)
        crowd = Crowd(address, context)
        crowd.run((make(f"idle-{number}") for number in range(count)), AT_A_TIME)
        time.sleep(SETTLE_S)
        each_kib = (servers.read_memory_kib(pid) - before_kib) / count
        before_s, began_at = servers.read_cpu_s(pid), time.monotonic()
        time.sleep(SETTLE_S)
        idle_cpu = (servers.read_cpu_s(pid) - before_s) / (time.monotonic() - began_at)
        together = _round_trips(address, context, make)
        print(
            f"{count:,} idle mutual TLS connections: {each_kib:.1f} KiB each, {100 * idle_cpu:.1f} % of a core;"
            f" another device's round trip (register, committed, answered) {1e3 * together:.2f} ms,"
            f" {1e3 * alone:.2f} ms without them ({100 * (together / alone - 1):+.0f} %)"
        )
        for link in crowd.links:
            link.socket.close()


def _round_trips(address: tuple[str, int], context: SSL.Context, make: "partial[load.Device]") -> float:
    """Median of one device's round trips, in seconds."""
    seen: list[float] = []

    def converse(link: load.Link) -> "load.Generator[int, None, None]":
        yield from load.register_often(link, ROUND_TRIPS)
        seen.extend(link.round_trips_s)

    load.Load(address, context, converse).run([make("another")], 1)
    return statistics.median(seen)
