"""A short power cut, where this may be done: as root, with loop devices, in a mount namespace of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

MAY_CUT = (
    os.geteuid() == 0
    and Path("/dev/loop-control").exists()
    and shutil.which("mkfs.ext4", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is not None
)

if MAY_CUT:  # not a skip: where it is impossible, `scripts/powercut` says so

    def test_no_promise_is_broken_by_a_kill_or_a_power_cut() -> None:
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "tests.crash"]
        completed = subprocess.run(
            [*command, "--cycles", "1", "--no-control"],
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
            env=os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
        )
        assert completed.returncode == 0, completed.stdout + completed.stderr
