"""Runs the cases one after the other, beside a device that behaves."""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.abuse import certificates, configurations, corpus, mqtt, provisioning, registrations, tpm, transport
from tests.abuse.good_device import GOOD_DEVICE, PAUSE_S
from tests.abuse.site import CASES, Site

QUIET_S = 2.0
SAMPLES_MIN = 20
GROWTH_MAX_MIB = 50
LINES_AT_ONCE, LINES_PER_S = 60, 12  # what `broker.offences` allows, and a few of the other modules

MODULES = (transport, mqtt, corpus, provisioning, tpm, registrations, certificates, configurations)


@dataclass(kw_only=True)
class Outcome:
    """What became of a case.

    Args:
        answer: what happened; how it failed when `passed` is false.
        memory_mib: resident memory of the daemon, after less before.
        lines: warnings and errors in its log.
        p50_ms, p99_ms: round trips of the device that behaves, meanwhile.
    """

    number: int
    title: str
    passed: bool
    answer: str
    memory_mib: float
    lines: int
    p50_ms: float
    p99_ms: float


@dataclass
class GoodDevice:
    """What the device that behaves has felt; it runs in a process of its own, so that it waits for nobody here."""

    seen_s: list[tuple[float, float]] = field(default_factory=list)
    failures: int = 0
    has_ended: bool = False

    async def watch(self, lines: asyncio.StreamReader) -> None:
        """Until the process ends."""
        async for line in lines:
            at_s, took_s, status = line.split()
            self.seen_s.append((float(at_s), float(took_s)))
            self.failures += status != b"200"
        self.has_ended = True

    async def take(self, since_s: float) -> tuple[float, float]:
        """Median and 99th percentile since then, in milliseconds; of `SAMPLES_MIN` samples at least."""
        while len(taken := [took_s for at_s, took_s in self.seen_s if at_s >= since_s]) < SAMPLES_MIN:
            assert not self.has_ended, "the device that behaves was cut off"
            await asyncio.sleep(PAUSE_S)
        taken.sort()
        return 1e3 * taken[len(taken) // 2], 1e3 * taken[len(taken) * 99 // 100]


@asynccontextmanager
async def good_device(site: Site) -> AsyncIterator[GoodDevice]:
    """A device that behaves, from now on."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.abuse.good_device", str(site.plain[1])),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    process.stdin.write(site.device_of_group(GOOD_DEVICE).hex().encode())
    process.stdin.close()
    good = GoodDevice()
    watching = asyncio.create_task(good.watch(process.stdout), name="good device")
    try:
        yield good
        assert good.failures == 0, f"the device that behaves was refused {good.failures} times"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await watching


async def run_cases(site: Site, numbers: list[int] | None = None) -> tuple[tuple[float, float], list[Outcome]]:
    """Every case: the quiet figures of the good device, and the outcomes."""
    async with good_device(site) as good:
        await good.take(time.monotonic())  # it has to start first
        began_s = time.monotonic()
        await asyncio.sleep(QUIET_S)
        quiet = await good.take(began_s)
        return quiet, [await _run_case(site, good, number) for number in numbers or sorted(CASES)]


async def _run_case(site: Site, good: GoodDevice, number: int) -> Outcome:
    title, function = CASES[number]
    before_mib, lines_before, began_s = site.memory_mib, complaints(site), time.monotonic()
    try:
        passed, answer = True, await function(site)
    except (AssertionError, ConnectionError, TimeoutError) as error:
        passed, answer = False, f"{type(error).__name__}: {error}"
    assert site.daemon.process.poll() is None, f"case {number} ended the daemon"
    memory_mib, lines = site.memory_mib - before_mib, complaints(site) - lines_before
    if memory_mib > GROWTH_MAX_MIB:
        passed, answer = False, f"memory has grown by {memory_mib:.0f} MiB; {answer}"
    if lines > LINES_AT_ONCE + LINES_PER_S * (time.monotonic() - began_s):
        passed, answer = False, f"{lines} lines in the log; {answer}"
    p50_ms, p99_ms = await good.take(began_s)
    return Outcome(
        number=number,
        title=title,
        passed=passed,
        answer=answer,
        memory_mib=memory_mib,
        lines=lines,
        p50_ms=p50_ms,
        p99_ms=p99_ms,
    )


def complaints(site: Site) -> int:
    """Warnings and errors in the daemon's log so far."""
    levels = (json.loads(line).get("level") for line in site.daemon.text_log.splitlines() if line.startswith("{"))
    return sum(level in ("warning", "error", "critical") for level in levels)
