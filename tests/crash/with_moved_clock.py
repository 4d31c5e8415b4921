"""The daemon with a wall clock that is as wrong as the file `CLOCK_OFFSET_FILE` says, in seconds, at any moment."""

import os
import runpy
from datetime import UTC, datetime, timedelta
from pathlib import Path

from provisiond.system import SystemClock

if __name__ == "__main__":
    offset = Path(os.environ["CLOCK_OFFSET_FILE"])
    SystemClock.now = lambda _: datetime.now(UTC) + timedelta(seconds=float(offset.read_text()))
    runpy.run_module("provisiond", run_name="__main__")
