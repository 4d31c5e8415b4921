"""A fleet over three hubs, two of them real mosquittos and one draining: `python -m tests.bench.bench_hubs [COUNT]`.

Prints how many devices each hub got for its weight, how fast they were made there, and what an unrelated client of a
broker waits for an acknowledgement meanwhile.
"""

import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import aiomqtt

from provisiond.assigner import Assigner, AssignerLimits
from provisiond.assignment.policies import allocate
from provisiond.hubs.claims import FileClaims
from provisiond.hubs.directory import ConfiguredHubs
from provisiond.hubs.mosquitto import make_connector
from provisiond.model import AllocationPolicy, AttestationType, Hub, RegistrationStatus, Trace
from provisiond.ports import Write
from provisiond.store import SqliteStore
from provisiond.system import SystemClock, SystemEntropy
from tests.certificates import SERVER_AUTH, make_ca, make_leaf
from tests.fakes_hubs import HubLog
from tests.hubs.conftest import PASSWORD, run_mosquitto
from tests.store.records import make_registration

HUBS = (
    Hub(name="a", host="a.test", weight=2, immediate=False),
    Hub(name="b", host="b.test", weight=1, immediate=False),
    Hub(name="c", host="c.test", weight=3, immediate=False, eligible=False),
)
KEYED = {"attestation_type": AttestationType.SYMMETRIC_KEY, "hub_key": b"k" * 32}


async def reserve(store: SqliteStore, count: int) -> Counter[str]:
    totals: Counter[str] = Counter()

    async def one(name: str) -> None:
        hub = allocate(policy=AllocationPolicy.HASHED, hubs=HUBS, registration_key=name, trace=Trace()).hub
        totals[hub.name] += 1
        waiting = make_registration(name, hub=hub.name, status=RegistrationStatus.ASSIGNING, **KEYED)
        await store.commit(Write(registration=waiting))

    await asyncio.gather(*(one(f"sim-{number:05}") for number in range(count)))
    return totals


async def watch_acknowledgements(port: int, waits_s: list[float]) -> None:
    async with aiomqtt.Client("127.0.0.1", port, username="admin", password=PASSWORD) as client:
        while True:
            begun = time.perf_counter()
            await client.publish("devices/probe", b"x", qos=1)
            waits_s.append(time.perf_counter() - begun)
            await asyncio.sleep(0.005)


async def main(count: int) -> None:
    root = make_ca("Bench root")
    pki = (root, make_leaf("localhost", root, dns_names=("localhost",), usages=(SERVER_AUTH,)))
    with tempfile.TemporaryDirectory() as directory:
        places = [Path(directory) / name for name in "ab"]
        for place in places:
            place.mkdir()
        async with (
            run_mosquitto(places[0], pki) as first,
            run_mosquitto(places[1], pki) as second,
            await SqliteStore.open(Path(directory) / "bench.db") as store,
        ):
            totals = await reserve(store, count)
            for hub in HUBS[:2]:
                share = totals[hub.name] / count
                print(
                    f"hub {hub.name}, weight {hub.weight}: {totals[hub.name]} devices, {share:.1%}, wanted {hub.weight / 3:.1%}"
                )
                assert abs(share - hub.weight / 3) < 0.03
            assert totals["c"] == 0
            log, waits_s = HubLog(), []
            assigner = Assigner(
                store=store,
                board=ConfiguredHubs(HUBS),
                claims=FileClaims(Path(directory) / "locks"),
                clock=SystemClock(),
                entropy=SystemEntropy(),
                observer=log,
                limits=AssignerLimits(reconcile_interval_s=3600),
            )
            connectors = {"a": make_connector(first.options()), "b": make_connector(second.options())}
            watch = asyncio.create_task(watch_acknowledgements(first.port, waits_s))
            begun = time.perf_counter()
            task = asyncio.create_task(assigner.run(connectors))
            while log.total("a", "ensure") + log.total("b", "ensure") < count:
                log.changed.clear()
                await log.changed.wait()
            elapsed_s = time.perf_counter() - begun
            for running in (task, watch):
                running.cancel()
            await asyncio.wait({task, watch})
            await assigner.close()
            waits_s.sort()
            print(f"{count} devices made in {elapsed_s:.1f} s: {count / elapsed_s:.0f}/s over two brokers")
            print(
                f"PUBACK of another client of hub a: median {waits_s[len(waits_s) // 2] * 1000:.1f} ms, "
                f"99 % {waits_s[int(len(waits_s) * 0.99)] * 1000:.0f} ms, worst {waits_s[-1] * 1000:.0f} ms"
            )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
