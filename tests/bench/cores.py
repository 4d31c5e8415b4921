"""What the second core is worth: one daemon and two on one database, under one load generator and under more.

Everything runs on the same machine, so that the generator's own handshakes share the cores with those that it asks
for: the table says how many cores each side kept busy, and with that what limits.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import tomlkit

from tests.bench import load, servers
from tests.bench.devices import Device
from tests.bench.registrations import Case, make_x509_case
from tests.system.daemon import Daemon, Service, run_daemon

GENERATORS = (1, 2, 4)
_FORK = multiprocessing.get_context("fork")  # what the devices hold cannot be pickled


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One round: registrations per second, and how many cores the daemons and the generators kept busy."""

    per_s: float
    daemons_busy: float
    generators_busy: float


def measure(directory: Path, options: argparse.Namespace) -> None:
    """Print the table."""
    service = Service(directory / "first")
    service.configure()
    case = make_x509_case(service, "cores", 0)
    print(f"{os.cpu_count()} cores, {options.rounds} rounds of {options.registrations} new devices\n")
    print("| daemons on one database | generators | per second | daemons: cores busy | generators: cores busy |")
    print("|---|---|---|---|---|")
    ids = count(1)
    for daemons in (1, 2):
        with ExitStack() as stack:
            running = [stack.enter_context(run_daemon(each, quiet=True)) for each in _share(service, daemons)]
            for generators in GENERATORS:
                if generators < daemons:
                    continue
                _print_row(
                    [_run(running, case, generators, options, ids) for _ in range(options.rounds)], daemons, generators
                )


def _share(service: Service, daemons: int) -> list[Service]:
    """As many services, each with listeners of its own, on the first one's database."""
    shared = [service]
    for number in range(1, daemons):
        other = Service(service.directory.parent / f"other-{number}")
        other.configure()
        document = tomlkit.parse(other.config_file.read_text())
        document["store"] = {"url": f"sqlite:///{service.directory / 'state' / 'provisiond.db'}"}
        other.config_file.write_text(tomlkit.dumps(document))
        shared.append(other)
    return shared


def _run(
    daemons: Sequence[Daemon], case: Case, generators: int, options: argparse.Namespace, ids: "count[int]"
) -> Sample:
    each = options.registrations // generators
    work = [
        _FORK.Process(
            target=_generate,
            args=(
                ("127.0.0.1", daemons[number % len(daemons)].port(tls=True)),
                case,
                [case.make_device(f"cores-{next(ids)}") for _ in range(each)],
                max(1, options.concurrency // generators),
            ),
        )
        for number in range(generators)
    ]
    before_s, started = _cpu_s(daemons), time.monotonic()
    children_s = os.times().children_user + os.times().children_system
    for process in work:
        process.start()
    for process in work:
        process.join()
    if any(process.exitcode for process in work):
        raise RuntimeError("a load generator failed")
    wall_s = time.monotonic() - started
    return Sample(
        per_s=each * generators / wall_s,
        daemons_busy=(_cpu_s(daemons) - before_s) / wall_s,
        generators_busy=(os.times().children_user + os.times().children_system - children_s) / wall_s,
    )


def _generate(address: tuple[str, int], case: Case, devices: Sequence[Device], concurrency: int) -> None:
    load.Load(address, case.context, load.register).run(devices, concurrency)


def _cpu_s(daemons: Sequence[Daemon]) -> float:
    return sum(servers.read_cpu_s(daemon.process.pid) for daemon in daemons)


def _print_row(samples: Sequence[Sample], daemons: int, generators: int) -> None:
    def median(name: str) -> float:
        return statistics.median(getattr(sample, name) for sample in samples)

    print(
        f"| {daemons} | {generators} | {median('per_s'):.0f} "
        f"| {median('daemons_busy'):.2f} | {median('generators_busy'):.2f} |",
        flush=True,
    )
