"""Files beside the database that are there whole, or not at all."""

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from provisiond.private_files import create_private


@contextmanager
def written_beside(target: Path, *, for_service: bool) -> Iterator[Path]:
    """Give a new file in the same directory, which takes the target's name once it is on disk.

    Args:
        target: the name.
        for_service: made by root, it belongs to whom the directory belongs to; a backup is of who makes it.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    _remove_abandoned(target)
    part.unlink(missing_ok=True)
    try:
        os.close(create_private(part) if for_service else os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        yield part
        _fsync(part)
        part.replace(target)
        _fsync(target.parent)
    except BaseException:
        _remove(part)
        raise


def _remove(part: Path) -> None:
    for left in (part, part.with_name(f"{part.name}-journal")):
        with suppress(OSError):
            left.unlink(missing_ok=True)


def _remove_abandoned(target: Path) -> None:
    """Of processes that were killed: such a file is as large as the database, and holds its keys."""
    for part in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        number = part.name.removeprefix(f".{target.name}.").removesuffix(".part")
        if number.isdecimal() and not Path("/proc", number).exists():
            _remove(part)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
