"""Kill the daemon, or cut its power, while devices register; then look for every promise that it made.

    scripts/powercut [--cycles N]       as root: kill -9, power cuts, and power cuts with synchronous=NORMAL

A promise is an `assigned` that a device has heard, with its hub, and a challenge that was taken out. The control run
must lose some: it shows that the cut is real.

What was under way at the moment of a cut promises nothing: ext4 may tell the one fsync that it interrupts that all is
well (a bare loop of pwrite and fdatasync shows it, in one cut of ten on a busy machine), and a machine without power
tells nobody anything. What was heard before, and what was asked for after it, must hold.
"""

import argparse
import asyncio
import base64
import contextlib
import math
import random
import secrets
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.devices import make_symmetric_key_device
from tests.crash.disk import Disk
from tests.system.daemon import ID_SCOPE, Daemon, Service
from tests.system.test_crash import HUBS, register

WORKERS = 32
AFTERMATH_S = 0.3
ASKED_AGAIN = 10


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When the power went, monotonic seconds; for a kill, at no time."""

    began_s: float = math.inf
    ended_s: float = math.inf

    def spares(self, asked_s: float, heard_s: float) -> bool:
        """Whether what was asked and heard then was not under way."""
        return heard_s < self.began_s or asked_s > self.ended_s


@dataclass(kw_only=True)
class Tally:
    """What was promised, and what became of it."""

    name: str
    cycles: int = 0
    heard: dict[str, str] = field(default_factory=dict)
    taken: int = 0
    lost: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)
    replayed: set[str] = field(default_factory=set)

    def row(self) -> str:
        """A line of the table."""
        return (
            f"| {self.name} | {self.cycles} | {len(self.heard):,} | {len(self.lost):,} | {len(self.moved)}"
            f" | {len(self.replayed)} of {self.taken:,} |"
        )


class Rig:
    """A service on a disk of its own, killed again and again."""

    def __init__(self, directory: Path, *, cuts: bool, module: str) -> None:
        self._disk = Disk(directory)
        self._cuts = cuts
        self._module = module
        self._disk.mount()
        self._service = Service(self._disk.path / "provisiond")
        self._service.configure(hubs=[{"name": name, "type": "embedded", "host": f"{name}.test"} for name in HUBS])
        self._key = secrets.token_bytes(64)
        key_file = self._disk.path / "group.key"
        key_file.touch(mode=0o600)
        key_file.write_text(base64.b64encode(self._key).decode())
        self._service.enroll_group("group", primary_key_file=key_file)
        self._database = next(self._service.directory.rglob("*.db"))
        subprocess.run(["sync"], check=True)

    def close(self) -> None:
        """Give the disk back."""
        self._disk.unmount()

    def run_cycle(self, tally: Tally) -> None:
        """Start, let devices register, end it the hard way, start again and compare."""
        tally.cycles += 1
        with Daemon(self._service, quiet=True, module=self._module) as daemon:
            worker = self._start_challenges(tally.cycles)
            began = worker.stdout.readline()  # both are at it when the end comes
            heard, moment = asyncio.run(self._load(daemon, tally.cycles))
            daemon.process.kill()
        worker.kill()
        printed = began + worker.communicate()[0]
        taken = _taken(printed, moment)
        tally.heard |= heard
        tally.taken += len(taken)
        if self._cuts:
            self._disk.unmount()
            self._disk.mount()
        with Daemon(self._service, quiet=True, module=self._module) as daemon:
            again = asyncio.run(self._ask_again(daemon, random.sample(sorted(heard), min(ASKED_AGAIN, len(heard)))))
            assert daemon.stop() == 0
        self._compare(tally, again, taken)

    def _start_challenges(self, cycle: int) -> "subprocess.Popen[str]":
        relaxed = ["relaxed"] if self._module != "provisiond" else []
        return subprocess.Popen(
            [sys.executable, "-m", "tests.crash.challenges", str(self._database), f"c{cycle}", *relaxed],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    async def _load(self, daemon: Daemon, cycle: int) -> tuple[dict[str, str], Moment]:
        heard: dict[str, tuple[str, float, float]] = {}
        port = daemon.port(tls=False)

        async def work(number: int) -> None:
            for turn in range(100_000):
                name, asked_s = f"device-{cycle}-{number}-{turn}", time.monotonic()
                # Whatever is not `assigned` promises nothing: a refusal, a connection that breaks.
                with contextlib.suppress(AssertionError, KeyError):
                    hub = await register(make_symmetric_key_device(name, self._key, ID_SCOPE), port)
                    heard[name] = hub, asked_s, time.monotonic()

        tasks = [asyncio.create_task(work(number)) for number in range(WORKERS)]
        await asyncio.sleep(random.uniform(0.3, 1.5))
        moment = Moment()
        if self._cuts:
            began_s = time.monotonic()
            await asyncio.to_thread(self._disk.cut)
            moment = Moment(began_s=began_s, ended_s=time.monotonic())
            await asyncio.sleep(AFTERMATH_S)  # what is promised now is promised without a disk
        else:
            daemon.process.kill()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return {name: hub for name, (hub, *times) in heard.items() if moment.spares(*times)}, moment

    async def _ask_again(self, daemon: Daemon, names: list[str]) -> dict[str, str]:
        port = daemon.port(tls=False)
        return {name: await register(make_symmetric_key_device(name, self._key, ID_SCOPE), port) for name in names}

    def _compare(self, tally: Tally, again: dict[str, str], taken: set[str]) -> None:
        with contextlib.closing(sqlite3.connect(self._database)) as connection:
            rows = connection.execute("SELECT key, status, hub FROM registration").fetchall()
            left = {key for (key,) in connection.execute("SELECT key FROM challenge")}
        kept = {key: f"{hub}.test" for key, status, hub in rows if status == "assigned"}
        assert len(kept) == len(rows)
        tally.lost |= {name for name in tally.heard if name not in kept}
        tally.moved |= {name for name, hub in tally.heard.items() if kept.get(name, hub) != hub}
        tally.moved |= {name for name, hub in again.items() if tally.heard[name] != hub}
        tally.replayed |= left & taken


def _taken(printed: str, moment: Moment) -> set[str]:
    """The challenges that were taken out for sure; the last line may be cut off."""
    lines = [line.split() for line in printed.splitlines(keepends=True) if line.endswith("\n")]
    return {key for key, asked_s, heard_s in lines if moment.spares(float(asked_s), float(heard_s))}


def run(name: str, cycles: int, *, cuts: bool, module: str = "provisiond") -> Tally:
    """So many cycles of one kind."""
    tally = Tally(name=name)
    directory = Path(tempfile.mkdtemp(prefix="provisiond-crash-"))
    rig = Rig(directory, cuts=cuts, module=module)
    try:
        for _ in range(cycles):
            rig.run_cycle(tally)
    finally:
        rig.close()
        shutil.rmtree(directory)
    return tally


def main() -> int:
    """Print the table; 1 when a promise was broken, or when the control run broke none."""
    parser = argparse.ArgumentParser(prog="scripts/powercut", description=__doc__.partition("\n")[0])
    parser.add_argument("--cycles", type=int, default=20, help="of each kind (20)")
    parser.add_argument("--no-control", action="store_true", help="leave the run out that must lose something")
    options = parser.parse_args()
    cycles = options.cycles
    print("| what | cycles | assigned | lost | on another hub | challenges taken twice |\n|---|---|---|---|---|---|")
    kills = run("kill -9", cycles, cuts=False)
    print(kills.row(), flush=True)
    cuts = run("power cut", cycles, cuts=True)
    print(cuts.row(), flush=True)
    if any(tally.lost or tally.moved or tally.replayed for tally in (kills, cuts)):
        return 1
    return 0 if options.no_control else _run_control(max(2, cycles // 2))


def _run_control(cycles: int) -> int:
    control = run("power cut, synchronous=NORMAL (control)", cycles, cuts=True, module="tests.crash.with_normal")
    print(control.row(), flush=True)
    if control.lost:
        return 0
    print("the control run lost nothing: these cuts prove nothing", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
