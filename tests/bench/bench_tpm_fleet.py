"""Whole TPM registrations per second over TLS: a fleet of swtpm devices, each with a TPM and a connection of its own.

    python -m tests.bench.bench_tpm_fleet [--devices N] [--rounds N] [--concurrency N]

A registration is a TCP connect, a full TLS 1.3 handshake, CONNECT, SUBSCRIBE, register, the challenge, what the TPM does
with it (TPM2_ActivateCredential, Import, Load, HMAC and what goes with them), the answer, `assigned`, the import of the
hub key, and DISCONNECT. The service commits the challenge, its removal and the assignment with synchronous=FULL before
it answers. Registrations are deleted between rounds, so that every one is a first one. Enrolling and the TPMs' own
making of keys are not measured. Figures are medians of the rounds; the daemon, the devices' process and the emulators
share the machine.

On two shared cores 100 devices with P-256 keys register at 120 to 160 a second. What holds them back is the CPU: of some
11.5 ms a registration the devices' Python takes 4.6 (half of it is talking to the TPM: 18 commands), the emulators 3.2,
and the daemon 3.5. Of that a sixth is the two blobs, a twelfth the TLS handshake, a tenth the log; nothing stands out in
the rest. With RSA-2048 the emulators take 11.7 ms for the private keys, and 85 a second are the end of two cores.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from provisiond.admin import Admin
from provisiond.device import Endpoint, Patience, TpmCredential
from provisiond.device.dialect import find_dialect
from provisiond.device.simulator import FleetOutcome, SimulatedDevice, run_fleet
from provisiond.device.simulator import Service as Provisioning
from provisiond.device.swtpm import run_emulator
from provisiond.device.tpm_device import KeyAlgorithm, TpmDevice, open_tpm
from provisiond.model import Enrollment, EnrollmentKind, TpmMaterial
from provisiond.store import SqliteStore
from provisiond.system import SystemClock, SystemEntropy
from tests.bench.servers import read_cpu_s
from tests.system.daemon import ID_SCOPE, Daemon, Service, run_daemon

CASES = (
    ("P-256", KeyAlgorithm.ECC, "dps"),
    ("P-256", KeyAlgorithm.ECC, "native"),
    ("RSA-2048", KeyAlgorithm.RSA, "dps"),
    ("P-384", KeyAlgorithm.ECC384, "dps"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One round: wall time and CPU time of each party a registration, and the latency of the devices."""

    per_s: float
    daemon_ms: float
    devices_ms: float
    emulators_ms: float
    p50_ms: float
    p99_ms: float


class Bench:
    """A running service, and the store behind it as an operator's command opens it."""

    def __init__(self, daemon: Daemon, store: SqliteStore, concurrency: int) -> None:
        self._daemon = daemon
        self._admin = Admin(store=store, clock=SystemClock(), entropy=SystemEntropy(), hubs=(), actor="bench")
        self._endpoint = Endpoint(host="localhost", port=daemon.port(tls=True), ca_file=daemon.service.ca_file)
        self._concurrency = concurrency

    async def enroll(self, prefix: str, tpms: Sequence[TpmDevice]) -> list[SimulatedDevice]:
        """One individual enrollment for each TPM."""
        now, devices = SystemClock().now(), []
        for number, tpm in enumerate(tpms):
            material = TpmMaterial(endorsement_key=await tpm.endorsement_key())
            registration_id = f"{prefix}-{number}"
            await tpm.storage_root_key()  # made now, not in the first round
            await self._admin.create_enrollment(
                Enrollment(
                    kind=EnrollmentKind.INDIVIDUAL,
                    id=registration_id,
                    attestation=material,
                    created_at=now,
                    updated_at=now,
                )
            )
            devices.append(SimulatedDevice(registration_id=registration_id, credential=TpmCredential(device=tpm)))
        return devices

    async def run(self, devices: Sequence[SimulatedDevice], protocol: str) -> Sample:
        """One round of first registrations."""
        service = Provisioning(
            endpoint=self._endpoint, id_scope=ID_SCOPE, patience=Patience(jitter=0), dialect=find_dialect(protocol)
        )
        daemon_s, own_s, all_s = read_cpu_s(self._daemon.process.pid), time.process_time(), read_cpu_s(os.getpid())
        report = await run_fleet(devices, service, concurrency=self._concurrency)
        if report.outcomes != {FleetOutcome.ASSIGNED: len(devices)}:
            raise RuntimeError(f"not all were assigned: {report.outcomes} {report.reasons}")
        daemon_s = read_cpu_s(self._daemon.process.pid) - daemon_s
        own_s = time.process_time() - own_s
        all_s = read_cpu_s(os.getpid()) - all_s
        for device in devices:
            await self._admin.delete_registration(device.registration_id)
        each = 1000 / len(devices)
        return Sample(
            per_s=report.assigned_per_s,
            daemon_ms=daemon_s * each,
            devices_ms=own_s * each,
            emulators_ms=max(0.0, all_s - own_s - daemon_s) * each,
            p50_ms=report.percentile_ms(50) or 0.0,
            p99_ms=report.percentile_ms(99) or 0.0,
        )


async def run_case(
    bench: Bench, name: str, algorithm: KeyAlgorithm, protocol: str, options: argparse.Namespace
) -> None:
    """Start a fleet, let it register round by round, and print its line."""
    async with AsyncExitStack() as stack:

        async def start() -> TpmDevice:
            path = await stack.enter_async_context(run_emulator())
            tpm = await stack.enter_async_context(open_tpm(f"socket:{path}", algorithm=algorithm))
            await tpm.endorsement_key()
            return tpm

        tpms = await asyncio.gather(*(start() for _ in range(options.devices)))
        devices = await bench.enroll(f"{algorithm}-{protocol}", tpms)
        await bench.run(devices, protocol)  # what is imported and cached once
        samples = [await bench.run(devices, protocol) for _ in range(options.rounds)]
    figures = {field: statistics.median(getattr(sample, field) for sample in samples) for field in Sample.__slots__}
    cells = " | ".join(f"{figures[field]:.{0 if field == 'per_s' else 1}f}" for field in Sample.__slots__)
    print(f"| {name} | {protocol} | {cells} |", flush=True)


async def run(options: argparse.Namespace, daemon: Daemon) -> None:
    """Every case after the other."""
    database = daemon.service.directory / "state" / "provisiond.db"
    async with await SqliteStore.open(database) as store:
        bench = Bench(daemon, store, options.concurrency)
        for name, algorithm, protocol in CASES:
            await run_case(bench, name, algorithm, protocol, options)


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tests.bench.bench_tpm_fleet", description=__doc__.partition("\n")[0])
    parser.add_argument("--devices", type=int, default=100, help="swtpm devices (100)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=32, help="devices under way at once (32)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    options = parse_options(arguments)
    directory = Path(tempfile.mkdtemp(prefix="provisiond-bench-"))
    try:
        service = Service(directory / "provisiond")
        service.configure()
        print(
            f"{options.rounds} rounds of {options.devices} devices, {options.concurrency} at a time, "
            f"{os.cpu_count()} cores\n\n"
            "| endorsement keys | topics | per second | daemon CPU ms | devices CPU ms | swtpm CPU ms | p50 ms | p99 ms |\n"
            "|---|---|---|---|---|---|---|---|"
        )
        with run_daemon(service, quiet=True) as daemon:
            asyncio.run(run(options, daemon))
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main(sys.argv[1:])
