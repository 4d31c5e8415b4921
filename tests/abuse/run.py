"""Runs the cases one after the other, beside a device that behaves."""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

from tests.abuse import certificates, mqtt, provisioning, transport
from tests.abuse.site import CASES, GOOD_ADDRESS, Site

PAUSE_S = 0.02
QUIET_S = 2.0
SAMPLES_MIN = 20

MODULES = (transport, mqtt, provisioning, certificates)


@dataclass(kw_only=True)
class Outcome:
    """What became of a case.

    Args:
        answer: what happened; how it failed when `passed` is false.
        memory_mib: resident memory of the daemon, after less before.
        p50_ms, p99_ms: round trips of the device that behaves, meanwhile.
    """

    number: int
    title: str
    passed: bool
    answer: str
    memory_mib: float
    p50_ms: float
    p99_ms: float


@dataclass
class GoodDevice:
    """Registers again and again on one connection, and notes how long each time takes."""

    site: Site
    has_ended: bool = False
    seen_s: list[float] = field(default_factory=list)
    failures: int = 0

    async def run(self) -> None:
        """For ever, unless it is cut off."""
        try:
            async with self.site.device("good-device", address=GOOD_ADDRESS) as device:
                while True:
                    began_at = time.perf_counter()
                    status, _ = await device.register()
                    self.seen_s.append(time.perf_counter() - began_at)
                    self.failures += status != 200
                    await asyncio.sleep(PAUSE_S)
        finally:
            self.has_ended = True

    async def take(self) -> tuple[float, float]:
        """Median and 99th percentile since the last call, in milliseconds; with `SAMPLES_MIN` samples at least."""
        while len(self.seen_s) < SAMPLES_MIN:
            assert not self.has_ended, "the device that behaves was cut off"
            await asyncio.sleep(PAUSE_S)
        taken, self.seen_s = sorted(self.seen_s), []
        return 1e3 * taken[len(taken) // 2], 1e3 * taken[len(taken) * 99 // 100]


async def run_cases(site: Site, numbers: list[int] | None = None) -> tuple[tuple[float, float], list[Outcome]]:
    """Every case: the quiet figures of the good device, and the outcomes."""
    good = GoodDevice(site)
    task = asyncio.create_task(good.run(), name="good device")
    try:
        await asyncio.sleep(QUIET_S)
        quiet = await good.take()
        outcomes = [await _run_case(site, good, number) for number in numbers or sorted(CASES)]
        assert good.failures == 0, f"the device that behaves was refused {good.failures} times"
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    return quiet, outcomes


async def _run_case(site: Site, good: GoodDevice, number: int) -> Outcome:
    title, function = CASES[number]
    before_mib = site.memory_mib
    good.seen_s.clear()
    try:
        passed, answer = True, await function(site)
    except (AssertionError, ConnectionError, TimeoutError) as error:
        passed, answer = False, f"{type(error).__name__}: {error}"
    assert site.daemon.process.poll() is None, f"case {number} ended the daemon"
    memory_mib = site.memory_mib - before_mib
    p50_ms, p99_ms = await good.take()
    return Outcome(
        number=number,
        title=title,
        passed=passed,
        answer=answer,
        memory_mib=memory_mib,
        p50_ms=p50_ms,
        p99_ms=p99_ms,
    )
