"""Fuzz every codec and the listener's packet path with atheris; a table, and each finding in a file.

    scripts/fuzz [TARGET ...] [--seconds 600]

Small targets may share a run, their names joined by `+`, such as `certificates+crls`. A finding is an error that is not documented, a hang, or something left behind. Copy its file to tests/fuzz/findings
as TARGET-what-it-is, and the test suite reads it for ever.
"""

import argparse
import base64
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.targets import MAX_SIZE_BYTES, TARGETS, group

DOOR = "listener"
NAMES = [DOOR, *TARGETS]
FINDINGS = Path(__file__).parent / "findings"
CORPUS = Path(__file__).parent / "corpus"
KEPT_MAX, KEPT_SIZE_BYTES = 40, 400
HANG_S = 10


def seeds_of(name: str) -> list[bytes]:
    """Inputs to begin with: what a reader's author thought of, and what fuzzing has added."""
    if name == DOOR:
        seeds = [bytes([size]) + seed for size in (0, 7, 255) for seed in TARGETS["mqtt-packets"].seeds()]
        return seeds + _kept(name)
    names = name.split("+")
    if len(names) == 1:
        return TARGETS[name].seeds() + _kept(name)
    kept = [bytes([number]) + each for number, one in enumerate(names) for each in _kept(one)]
    return group(name).seeds() + kept


def _kept(name: str) -> list[bytes]:
    kept = CORPUS / f"{name}.txt"
    return [base64.b64decode(line) for line in kept.read_text().splitlines()] if kept.exists() else []


def keep(name: str, corpus: Path) -> None:
    """Put the smaller inputs that libFuzzer kept, each for a path of its own, into the project: a line each."""
    seen = sorted({path.read_bytes() for path in corpus.iterdir()} - set(TARGETS[name].seeds() if name != DOOR else ()))
    small = sorted((each for each in seen if 0 < len(each) <= KEPT_SIZE_BYTES), key=len)[:KEPT_MAX]
    (CORPUS / f"{name}.txt").write_text("".join(f"{base64.b64encode(each).decode()}\n" for each in small))


def fuzz(name: str, seconds: int, corpus: Path) -> tuple[str, list[Path]]:
    """Fuzz one target in a process of its own: a line of the table, and its findings."""
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds_of(name)):
        (corpus / f"seed-{number}").write_bytes(seed)
    found = Path(tempfile.mkdtemp(prefix=f"provisiond-fuzz-{name}-"))
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={min(8192, MAX_SIZE_BYTES)}",
        f"-timeout={HANG_S}",
        "-print_final_stats=1",
        f"-artifact_prefix={found}/",
        str(corpus),
    ]
    command = [sys.executable, "-m", "tests.fuzz.here", name, *options]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=seconds * 3 + 120, check=False)
    executions = re.search(r"stat::number_of_executed_units:\s+(\d+)", completed.stderr)
    count = int(executions[1]) if executions else 0
    findings = sorted(found.iterdir())
    if completed.returncode and not findings:
        findings = [found]
        (found / "output.txt").write_text(completed.stderr[-20_000:])
    elif completed.returncode:
        (found / "output.txt").write_text(completed.stderr[-20_000:])
    else:
        shutil.rmtree(found)
    corpus_size = sum(1 for _ in corpus.iterdir())
    return f"| {name} | {count:,} | {count / seconds:,.0f} | {corpus_size:,} | {len(findings)} |", findings


def _target(text: str) -> str:
    if text != DOOR and not set(text.split("+")) <= set(TARGETS):
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(NAMES)}")
    return text


def main() -> int:
    """Print the table; 1 when something was found."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("target", nargs="*", type=_target, help=", ".join(NAMES))
    parser.add_argument("--seconds", type=int, default=600, help="each (600)")
    parser.add_argument("--corpus", type=Path, default=Path(".cache/fuzz"), help="kept from run to run")
    parser.add_argument("--keep", action="store_true", help="put small inputs that found something new into tests/fuzz")
    options = parser.parse_args()
    print("| target | inputs | per second | corpus | findings |\n|---|---|---|---|---|")
    failed = False
    for name in options.target or NAMES:
        line, findings = fuzz(name, options.seconds, options.corpus / name)
        print(line, flush=True)
        if options.keep and "+" not in name:
            keep(name, options.corpus / name)
        for finding in findings:
            failed = True
            print(f"  {finding}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
