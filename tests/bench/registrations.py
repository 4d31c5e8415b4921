"""Whole registrations next to mosquitto's bare CONNECTs, per second of server CPU, in one run and one table.

A registration is a TCP connect, a full TLS 1.3 handshake (P-256, mutual for X.509), CONNECT, SUBSCRIBE, register,
`assigned` and DISCONNECT; the service has verified the device's chain or token and committed the assignment with
synchronous=FULL before it answers. Every device is new to the service. mosquitto accepts the same devices with the same
handshake, CONNECT and DISCONNECT, and does nothing else. The two servers take turns; figures are medians of the rounds.
"""

import argparse
import base64
import platform
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path

from OpenSSL import SSL

from tests.bench import load, servers
from tests.bench.devices import Device, make_symmetric_key_device, make_x509_device
from tests.certificates import Ca, make_ca
from tests.system.daemon import ID_SCOPE, Service, run_daemon

SETTLE_S = 0.1  # what a server still does for a device that has gone belongs to the round
WARM_UP_DEVICES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kind of device, enrolled as a group.

    Args:
        make_device: a device with a given registration id.
        device_ca: root of the devices' certificates; None for symmetric keys.
        module: what is run as the daemon.
    """

    name: str
    make_device: Callable[[str], Device]
    context: SSL.Context
    device_ca: Ca | None = None
    module: str = "provisiond"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One server in one round."""

    per_s: float
    cpu_us: float
    busy: float
    p50_ms: float
    p99_ms: float
    negotiated: str


@dataclass(slots=True, kw_only=True)
class Server:
    """A server under one case, and what was measured of it."""

    name: str
    pid: int
    work: load.Load
    samples: list[Sample] = field(default_factory=list)
    memory_mib: float = 0.0

    def measure(self, devices: Sequence[Device], concurrency: int) -> None:
        """Run one round and keep its figures."""
        before_s = servers.read_cpu_s(self.pid)
        seen = self.work.run(devices, concurrency)
        time.sleep(SETTLE_S)
        cpu_s = servers.read_cpu_s(self.pid) - before_s
        self.samples.append(
            Sample(
                per_s=len(devices) / seen.wall_s,
                cpu_us=cpu_s / len(devices) * 1e6,
                busy=cpu_s / seen.wall_s,
                p50_ms=seen.latencies_s[len(devices) // 2] * 1e3,
                p99_ms=seen.latencies_s[len(devices) * 99 // 100] * 1e3,
                negotiated=seen.negotiated,
            )
        )

    def median(self, name: str) -> float:
        """The median of one figure over the rounds."""
        return statistics.median(getattr(sample, name) for sample in self.samples)


def make_x509_case(service: Service, name: str, intermediates: int) -> Case:
    """Devices under a root in an enrollment group, with so many intermediates in between."""
    root = issuer = make_ca(f"Bench Root {intermediates}")
    chain: list[Ca] = []
    for level in range(intermediates):
        issuer = make_ca(f"Bench Intermediate {intermediates}.{level}", issuer)
        chain.insert(0, issuer)
    path = service.directory / f"bench-{intermediates}.pem"
    path.write_bytes(root.pem)
    service.enroll_group(f"bench-x509-{intermediates}", certificate_path=path)
    return Case(
        name=name,
        make_device=partial(make_x509_device, issuer=issuer, id_scope=ID_SCOPE),
        context=load.make_context([ca.certificate for ca in chain]),
        device_ca=root,
    )


def make_symmetric_key_case(service: Service) -> Case:
    """Devices whose keys are derived from the key of an enrollment group."""
    key = secrets.token_bytes(64)
    path = service.directory / "bench.key"
    path.touch(mode=0o600)
    path.write_text(base64.b64encode(key).decode())
    service.enroll_group("bench-symmetric-key", primary_key_file=path)
    return Case(
        name="symmetric key",
        make_device=partial(make_symmetric_key_device, group_key=key, id_scope=ID_SCOPE),
        context=load.make_context(),
    )


def run_case(case: Case, ours: Server, theirs: Server, options: argparse.Namespace, ids: Iterator[int]) -> None:
    """Let the two servers take turns, the one that begins changing from round to round."""
    warm_up = [case.make_device(f"bench-{next(ids)}") for _ in range(WARM_UP_DEVICES)]
    for server in (ours, theirs):
        server.work.run(warm_up, options.concurrency)
    for number in range(options.rounds):
        devices = [case.make_device(f"bench-{next(ids)}") for _ in range(options.registrations)]
        for server in (ours, theirs) if number % 2 == 0 else (theirs, ours):
            server.measure(devices, options.concurrency)
        print(f"{case.name}: round {number + 1} of {options.rounds}", file=sys.stderr)


def make_cases(service: Service) -> list[Case]:
    """Every kind of device that is measured."""
    short = make_x509_case(service, "X.509", 0)
    return [
        short,
        make_x509_case(service, "X.509, two intermediates", 2),
        replace(short, name="X.509, tickets sent", module="tests.bench.with_tickets"),
        make_symmetric_key_case(service),
    ]


def print_heading(options: argparse.Namespace) -> None:
    """What was measured, on what."""
    mosquitto = subprocess.run([servers.find_mosquitto(), "-h"], capture_output=True, text=True, check=False).stdout
    print(
        f"{options.rounds} rounds of {options.registrations} new devices, {options.concurrency} at a time; "
        f"Python {platform.python_version()}, {SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode()}, "
        f"{mosquitto.splitlines()[0]}\n\n"
        "| devices | server | CPU µs each | per CPU second | per second | cores busy | p50 ms | p99 ms | ratio |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )


def print_rows(case: Case, ours: Server, theirs: Server) -> None:
    """The two lines of a case; the ratio is of per-CPU-second figures, paired round by round."""
    pairs = zip(ours.samples, theirs.samples, strict=True)
    low, ratio, high = statistics.quantiles(
        (their.cpu_us / our.cpu_us for our, their in pairs), n=4, method="inclusive"
    )
    for server, relation in ((ours, f"**{ratio:.2f}** ({low:.2f} to {high:.2f})"), (theirs, "1")):
        cpu_us = server.median("cpu_us")
        print(
            f"| {case.name} | {server.name} | {cpu_us:.0f} | {1e6 / cpu_us:.0f} | {server.median('per_s'):.0f} "
            f"| {server.median('busy'):.2f} | {server.median('p50_ms'):.1f} | {server.median('p99_ms'):.1f} "
            f"| {relation} |",
            flush=True,
        )


def measure_case(
    case: Case, service: Service, directory: Path, options: argparse.Namespace, ids: Iterator[int]
) -> None:
    """The two lines of one case, from two servers that were started for it."""
    with (
        run_daemon(service, quiet=True, module=case.module) as daemon,
        servers.run_mosquitto(directory, device_ca=case.device_ca) as (pid, port),
    ):
        ours = Server(
            name="provisiond, registration",
            pid=daemon.process.pid,
            work=load.Load(("127.0.0.1", daemon.port(tls=True)), case.context, load.register),
        )
        theirs = Server(
            name="mosquitto, CONNECT",
            pid=pid,
            work=load.Load(("127.0.0.1", port), case.context, load.connect_only),
        )
        run_case(case, ours, theirs, options, ids)
    print_rows(case, ours, theirs)


def measure(directory: Path, options: argparse.Namespace) -> None:
    """Print the table."""
    service = Service(directory / "provisiond")
    service.configure()
    cases, ids = make_cases(service), count(1)
    print_heading(options)
    for number, case in enumerate(cases):
        measure_case(case, service, directory / f"mosquitto-{number}", options, ids)
