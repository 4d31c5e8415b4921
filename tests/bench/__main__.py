"""Every figure of provisiond in one place: `scripts/bench [SECTION ...]`.

registrations  whole registrations next to mosquitto's bare CONNECTs, per second of server CPU (5 minutes)
cores          one daemon and two on one database, and what limits them (2 minutes)
latency        the unmodified Python SDK, from register() to assigned (1 minute)
storm          10,000 devices at once (1 minute)
idle           10,000 connections that say nothing: memory, and what they cost somebody else (3 minutes)
growth         1,000,000 enrollments and registrations next to 1,000 (15 minutes)
abuse          forty ways to abuse the daemon, and what a good device feels of it: `scripts/abuse` (6 minutes)

Without a section: registrations, latency and abuse.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.abuse import __main__ as abuse
from tests.bench import cores, growth, idle, latency, registrations, storm

SECTIONS = {
    "registrations": registrations.measure,
    "cores": cores.measure,
    "latency": latency.measure,
    "storm": storm.measure,
    "idle": idle.measure,
    "growth": growth.measure,
    "abuse": lambda _, options: abuse.main(["--small"] if options.quick else []),
}


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("section", nargs="*", choices=[*SECTIONS, "all", []])  # Python 3.11 checks the default, too
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--registrations", type=int, default=1000, help="devices in a round, or round trips (1000)")
    parser.add_argument("--concurrency", type=int, default=32, help="devices at a time (32)")
    parser.add_argument("--devices", type=int, default=10_000, help="devices of storm and idle (10,000)")
    parser.add_argument("--records", type=int, default=1_000_000, help="enrollments and registrations (1,000,000)")
    parser.add_argument("--quick", action="store_true", help="a little of everything: only to see that it works")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.registrations, options.devices, options.records = 2, 200, 300, 2_000
    return options


def main(arguments: Sequence[str]) -> int:
    """Print the tables; 1 when an abuse was not answered as is promised."""
    options = parse_options(arguments)
    chosen = options.section or ["registrations", "latency", "abuse"]
    ended = 0
    for name in SECTIONS if "all" in chosen else chosen:
        with tempfile.TemporaryDirectory(prefix="provisiond-bench-") as directory:
            ended = SECTIONS[name](Path(directory), options) or ended
        print(flush=True)
    return ended


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
