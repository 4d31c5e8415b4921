"""A disk that is soon full."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    """A file system of its own at `directory`, of `size` ("2m"); skips the test where this user may not mount one."""
    directory.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "provisiond-test", str(directory)]
    if shutil.which("mount") is None or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small file system")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@contextmanager
def no_room(directory: Path) -> Iterator[None]:
    """The file system is full as long as the block lasts."""
    ballast = directory / "ballast"
    try:
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        yield
    finally:
        ballast.unlink()
