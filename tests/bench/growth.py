"""What a registration costs when the store is full, next to one that is nearly empty, in turns; and the start."""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from tests.bench import load, servers, store
from tests.bench.registrations import WARM_UP_DEVICES, Server, make_x509_case
from tests.system.daemon import Service, run_daemon

SMALL = 1_000
STARTS = 3
FALL_MAX_PERCENT = 10
READY_MAX_S = 2
LAST = "device-{:07d}"
COMMANDS = (
    ("status",),
    ("doctor",),
    ("enrollment", "list"),
    ("registration", "list"),
    ("device", "list"),
    ("audit", "list"),
    ("explain", "--registration-id", LAST),
)


def measure(directory: Path, options: argparse.Namespace) -> None:
    """Print READY times and CPU per registration of both."""
    services = {}
    for records in (SMALL, options.records):
        services[records] = service = Service(directory / f"with-{records}")
        service.configure()
        began_at = time.monotonic()
        store.load(next(service.directory.rglob("*.db"), None) or _make_database(service), records)
        print(f"{records:,} devices were stored in {time.monotonic() - began_at:.0f} s", file=sys.stderr)
    ready_s = {records: _time_start(service) for records, service in services.items()}
    samples = _measure_registrations(services, options)
    pairs = zip(samples[SMALL].samples, samples[options.records].samples, strict=True)
    change = statistics.median(small.cpu_us / large.cpu_us - 1 for small, large in pairs)
    for records, service in services.items():
        size_mb = next(service.directory.rglob("*.db")).stat().st_size / 1e6
        print(
            f"{records:,} enrollments and registrations ({size_mb:,.0f} MB): READY in {ready_s[records][0]:.2f} s"
            f" (below {READY_MAX_S}; {ready_s[records][1]:.2f} s of CPU), {samples[records].memory_mib:.0f} MiB of memory,"
            f" {1e6 / samples[records].median('cpu_us'):.0f} registrations per CPU second"
        )
    print(
        f"registrations per CPU second: {100 * change:+.1f} % (median of pairs; may fall by less than {FALL_MAX_PERCENT})"
    )
    for command in COMMANDS:
        times = ", ".join(f"{_time_command(services[records], records, command):.2f} s" for records in services)
        print(f"CPU time of `{' '.join(command[:2])}`: {times}")


def _time_command(service: Service, records: int, command: Sequence[str]) -> float:
    """CPU time of a command, interpreter and imports included; whatever it finds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    arguments = [part.format(records - 1) for part in command]
    subprocess.run(
        [sys.executable, "-m", "provisiond", "-c", service.config_file, *arguments], capture_output=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _make_database(service: Service) -> Path:
    service.command("db", "migrate")
    return next(service.directory.rglob("*.db"))


def _time_start(service: Service) -> tuple[float, float]:
    """Median times from the start of the process, interpreter included, to READY: on the wall, and of the CPU."""
    walls_s, cpus_s = [], []
    for _ in range(STARTS):
        began_at = time.monotonic()
        with run_daemon(service, quiet=True) as daemon:
            walls_s.append(time.monotonic() - began_at)
            cpus_s.append(servers.read_cpu_s(daemon.process.pid))
    return statistics.median(walls_s), statistics.median(cpus_s)


def _measure_registrations(services: dict[int, Service], options: argparse.Namespace) -> dict[int, Server]:
    numbers = count(1)
    cases = {records: make_x509_case(service, f"{records}", 0) for records, service in services.items()}
    small, large = services
    with run_daemon(services[small], quiet=True) as first, run_daemon(services[large], quiet=True) as second:
        targets = {
            records: Server(
                name=f"{records}",
                pid=daemon.process.pid,
                work=load.Load(("127.0.0.1", daemon.port(tls=True)), cases[records].context, load.register),
            )
            for records, daemon in ((small, first), (large, second))
        }
        for records, target in targets.items():
            warm_up = [cases[records].make_device(f"bench-{next(numbers)}") for _ in range(WARM_UP_DEVICES)]
            target.work.run(warm_up, options.concurrency)
        for turn in range(options.rounds):
            for records, target in list(targets.items())[:: 1 if turn % 2 else -1]:
                devices = [cases[records].make_device(f"bench-{next(numbers)}") for _ in range(options.registrations)]
                target.measure(devices, options.concurrency)
        for target in targets.values():
            target.memory_mib = servers.read_memory_kib(target.pid) / 1024
    return targets
