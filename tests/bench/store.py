"""What the store costs: CPU time of the whole process (event loop and SQLite's threads) a write and a question.

    python -m tests.bench.store [--enrollments 1000 200000] [--directory DIR]

The directory decides what an fsync costs; the CPU time does not depend on it much.
"""

import argparse
import asyncio
import json
import secrets
import sqlite3
import tempfile
import time
import uuid
from pathlib import Path

from provisiond.model import EnrollmentKind, X509Material
from provisiond.ports import FactsQuery
from provisiond.store import SqliteStore, audit, enrollments, registrations, rows
from provisiond.store.connection import connect_here, transaction
from tests.certificates import make_ca
from tests.store.records import make_audit, make_enrollment, make_group, make_registration, make_write


def load(path: Path, count: int) -> None:
    """Enrollments, registrations and audit rows of `count` devices, through the store's own SQL, in large batches."""
    connection: sqlite3.Connection = connect_here(path, read_only=False)
    digest = rows.RowDigest(rows.read_digest_key(connection))
    certificate = X509Material(primary_der=make_ca("Bench Device").der)
    for first in range(0, count, 20_000):
        ids = [f"device-{number:07d}" for number in range(first, min(first + 20_000, count))]
        with transaction(connection):
            for id_ in ids:
                enrollment = make_enrollment(id_, attestation=certificate)
                enrollments.insert(connection, rows.enrollment_row(enrollment, digest), ())
            registrations.store(connection, [rows.registration_row(make_registration(id_), digest) for id_ in ids])
            audit.append(connection, [rows.audit_row(make_audit(str(uuid.uuid4()), id_)) for id_ in ids])
    connection.close()


async def writes(store: SqliteStore, concurrent: int, count: int) -> None:
    prefix = secrets.token_hex(3)

    async def writer(worker: int) -> None:
        for number in range(worker, count, concurrent):
            start = time.perf_counter()
            await store.commit(make_write(f"{prefix}-{number}", tracking_id=str(uuid.uuid4())))
            latencies.append(time.perf_counter() - start)

    latencies: list[float] = []
    before = store.statistics
    making = time.process_time()
    for number in range(500):
        make_write(f"{prefix}-{number}", tracking_id=str(uuid.uuid4()))
    making = (time.process_time() - making) / 500
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(writer(worker) for worker in range(concurrent)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    transactions = store.statistics.transactions - before.transactions
    latencies.sort()
    print(
        f"  commit, {concurrent:3} at once: {count / wall:8.0f} rows/s {transactions / wall:6.0f} transactions/s"
        f" {(cpu / count - making) * 1e6:6.1f} us of CPU a row"
        f"  p50 {latencies[count // 2] * 1e3:.2f} ms p99 {latencies[count * 99 // 100] * 1e3:.2f} ms"
    )


async def questions(
    store: SqliteStore, concurrent: int, count: int, devices: int, what: str, issuers: frozenset[bytes]
) -> None:
    async def asker(worker: int) -> None:
        for number in range(worker, count, concurrent):
            key = f"device-{number * 7919 % devices:07d}"
            await store.facts(FactsQuery(registration_key=key, issuer_hashes=issuers))

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(asker(worker) for worker in range(concurrent)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"  facts ({what}), {concurrent:3} at once: {count / wall:8.0f}/s {cpu / count * 1e6:6.1f} us of CPU each")


async def measure(directory: Path, devices: int) -> None:
    path = directory / f"{devices}.db"
    async with await SqliteStore.open(path):
        pass
    start = time.perf_counter()
    load(path, devices)
    loaded = time.perf_counter() - start
    start = time.perf_counter()
    async with await SqliteStore.open(path) as store:
        opened = time.perf_counter() - start
        print(
            f"{devices} devices (loaded in {loaded:.1f} s, {path.stat().st_size / 1e6:.0f} MB, opened in {opened * 1e3:.0f} ms)"
        )
        ca = make_ca("Bench Root")
        await store.create_enrollment(make_group("line", ca_der=ca.der), make_audit())
        group = await store.get_enrollment(EnrollmentKind.GROUP, "line")
        issuers = frozenset(bytes.fromhex(text) for text in enrollments.subject_hashes(group))
        for concurrent, count in ((1, 2000), (10, 5000), (50, 20000), (200, 20000)):
            await writes(store, concurrent, count)
        for concurrent in (1, 16, 64):
            await questions(store, concurrent, 5000, devices, "individual", frozenset())
        for concurrent in (1, 64):
            await questions(store, concurrent, 5000, devices, "and CA group", issuers)
        start = time.perf_counter()
        counts = await store.count_registrations(), await store.count_assigned_by_hub()
        print(f"  counts in {(time.perf_counter() - start) * 1e3:.1f} ms: {json.dumps(counts)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--enrollments", type=int, nargs="+", default=[1000, 200_000])
    parser.add_argument("--directory", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        for devices in arguments.enrollments:
            asyncio.run(measure(Path(directory), devices))


if __name__ == "__main__":
    main()
