"""`scripts/lib/environment.sh`: what a machine lacks is said once, and exactly."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(name="machine")
def _machine(tmp_path):
    """A machine of a user who is not root, with apt-get, and with a Python without venv."""
    programs = {
        "id": "echo 1000",
        "apt-get": "exit 1",
        "python3.11": f'case "$*" in *ensurepip*) exit 1 ;; *) exec {sys.executable} "$@" ;; esac',
    }
    for name, script in programs.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    return tmp_path


def test_all_missing_packages_are_said_at_once(machine):
    """Not the tools now and venv after they were installed."""
    completed = subprocess.run(
        ["bash", "-c", "source scripts/lib/environment.sh; need_debian bash:bash no-such-command:some-package"],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{machine}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    version = "{}.{}".format(*sys.version_info)
    assert completed.returncode == 1
    assert completed.stderr == (
        f"Debian packages are missing. As root: apt-get install python{version}-venv some-package\n"
    )
