"""Forty ways to abuse the daemon, each with its answer, the memory it cost, and what a good device felt.

scripts/abuse [CASE ...] [--small]
"""

import argparse
import asyncio
import resource
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.abuse.run import run_cases
from tests.abuse.site import CASES, Site, enroll, set_up
from tests.system.daemon import run_daemon


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 when an answer is not the one that is promised."""
    parser = argparse.ArgumentParser(prog="scripts/abuse", description=__doc__.partition("\n")[0])
    parser.add_argument("case", nargs="*", type=int, help=f"{min(CASES)} to {max(CASES)}; all by default")
    parser.add_argument("--small", action="store_true", help="with the numbers and deadlines of the test suite")
    options = parser.parse_args(arguments)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="provisiond-abuse-") as name:
        directory = Path(name)
        connect_s, handshake_s = (3.0, 4.0) if options.small else (5.0, 10.0)
        service = set_up(directory, large=not options.small, connect_s=connect_s, handshake_s=handshake_s)
        with run_daemon(service, quiet=True) as daemon:
            site = Site(
                service=service,
                daemon=daemon,
                directory=directory,
                large=not options.small,
                connect_s=connect_s,
                handshake_s=handshake_s,
                **enroll(service, directory),
            )
            began_mib = site.memory_mib
            quiet, outcomes = asyncio.run(run_cases(site, options.case or None))
            ended_mib = site.memory_mib
    print("| # | abuse | answer | memory MiB | log lines | good device p50 / p99 ms |\n|---|---|---|---|---|---|")
    print(f"|  | nothing |  |  |  | {quiet[0]:.1f} / {quiet[1]:.1f} |")
    for outcome in outcomes:
        answer = outcome.answer if outcome.passed else f"**FAILED** {outcome.answer}"
        print(
            f"| {outcome.number} | {outcome.title} | {answer} | {outcome.memory_mib:+.1f} | {outcome.lines}"
            f" | {outcome.p50_ms:.1f} / {outcome.p99_ms:.1f} |"
        )
    failed = sum(not outcome.passed for outcome in outcomes)
    print(f"\n{len(outcomes) - failed} of {len(outcomes)} as promised; memory {began_mib:.0f} to {ended_mib:.0f} MiB")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
