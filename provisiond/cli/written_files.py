"""Files that commands write: whole or not at all."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from provisiond.errors import InvalidArgument


def require_place(file: Path) -> None:
    """Refuse what no file can be written to, before any work is done for it.

    Raises:
        InvalidArgument: it is a directory or lies in none, or is a device or a pipe, which a new file would replace.
    """
    if file.is_dir():
        raise InvalidArgument(f"{file} is a directory; name a file")
    if not file.parent.is_dir():
        raise InvalidArgument(f"there is no directory {file.parent}")
    if file.exists() and not file.is_file():
        raise InvalidArgument(f"{file} is no regular file; name another one")


@contextmanager
def writing(file: Path) -> Iterator[IO[str]]:
    """A new file of mode 0600 that takes its name when it is whole, or stdout for `-`.

    Raises:
        InvalidArgument: no file can be written there.
    """
    if str(file) == "-":
        yield sys.stdout
        return
    require_place(file)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
