"""How fast enrollments are imported, and in how much memory: `python -m tests.bench.bench_import [ROWS]`.

Each measurement is a process of its own, as an operator would start it.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.certificates import make_leaf

ROWS = 100_000
SECONDS_MAX = 60.0
# What ten times as many rows may take more: SQLite's cache and the allocator's slack, but nothing a row.
GROWTH_MAX_MIB = 40


def write_rows(path: Path, count: int, kind: str) -> None:
    """A CSV of symmetric keys, or NDJSON of certificates."""
    with path.open("w") as stream:
        if kind == "symmetricKey":
            stream.write("registrationId,attestation.type,deviceId,initialTwin.tags.line\n")
            stream.writelines(f"pump-{number},symmetricKey,device-{number},{number % 40}\n" for number in range(count))
            return
        # One certificate for all: a common name that fits is checked for each row, so the id is in the middle of it.
        for number in range(count):
            pem = make_leaf(f"pump-{number}").pem.decode()
            certificate = {"clientCertificates": {"primary": {"certificate": pem}}}
            body = {"registrationId": f"pump-{number}", "attestation": {"type": "x509", "x509": certificate}}
            stream.write(json.dumps(body) + "\n")


def measure(directory: Path, file: Path, *options: str) -> tuple[float, float]:
    """Seconds and MiB of one import into a new gateway."""
    command = [sys.executable, "-m", "provisiond"]
    subprocess.run([*command, "init", "--dir", directory, "--yes"], check=True, capture_output=True)
    code = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done.returncode)"
    )
    config = str(directory / "provisiond.toml")
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, *command, "-c", config, "enrollment", "import", str(file), *options],
        check=True,
        capture_output=True,
        text=True,
    )
    return time.monotonic() - started, int(done.stdout) / 1024


def main() -> None:
    """Measure and print; exits 1 when it is too slow or takes too much."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    slow = False
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        for kind, options in (("symmetricKey", ()), ("symmetricKey", ("--keep-going",)), ("x509", ())):
            peaks = []
            for rows in (count // 10, count):
                tag = f"{kind}-{rows}{''.join(options)}"
                file = base / f"{tag}.rows"
                write_rows(file, rows, kind)
                elapsed_s, peak_mib = measure(base / tag, file, *options)
                peaks.append(peak_mib)
                slow |= elapsed_s > SECONDS_MAX
                mode = "keep going" if options else "all or nothing"
                print(
                    f"{kind:<12} {mode:<14} {rows:>7} rows: {elapsed_s:6.1f} s, {rows / elapsed_s:7.0f} rows/s,"
                    f" {peak_mib:5.0f} MiB"
                )
            slow |= peaks[1] - peaks[0] > GROWTH_MAX_MIB
    sys.exit(slow)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
