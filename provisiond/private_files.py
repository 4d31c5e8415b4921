"""Files of the state directory: for nobody but the service, whoever made them."""

import os
from pathlib import Path
from typing import Final

_FILE_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700


def create_private(path: Path) -> int:
    """Open a new file of mode 0600 for writing.

    Made by root, it belongs to whom its directory belongs to: `sudo provisiond db restore` must not leave the service a
    database that it may not open.

    Returns:
        The descriptor; closing it is the caller's.

    Raises:
        FileExistsError: there is something of that name.
        OSError: it cannot be made.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, _FILE_MODE)
    try:
        hand_over(descriptor, path.parent)
    except BaseException:
        os.close(descriptor)
        path.unlink(missing_ok=True)
        raise
    return descriptor


def make_private_directory(path: Path) -> None:
    """Make a directory of mode 0700 where there is none, and its parents; by root, as `create_private`.

    Raises:
        OSError: it cannot be made.
    """
    if path.is_dir():
        return
    make_private_directory(path.parent)
    path.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        hand_over(descriptor, path.parent)
    finally:
        os.close(descriptor)


def hand_over(descriptor: int, directory: Path) -> None:
    """Give a file that root has made in a directory to whom that belongs to; others than root keep theirs."""
    owner = directory.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
