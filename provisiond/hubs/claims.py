"""Which daemon works on which hub: a lock on a file each, which the kernel lets go of when its holder dies."""

import fcntl
import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from provisiond.private_files import create_private, make_private_directory


class FileClaims:
    """`ports.HubClaims` for daemons that share a state directory.

    Args:
        directory: made when it is not there, mode 0700.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._held: dict[str, int] = {}

    def claim(self, hub: str) -> bool:
        """Take the queue of a hub, or say that another process has it; what we have, we keep.

        A directory that cannot be written is no claim: nobody works then, and the store, which is beside it, says why.
        """
        if hub in self._held:
            return True
        descriptor = self._open(hub)
        if descriptor is None:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._held[hub] = descriptor
        return True

    def release(self, hub: str) -> None:
        """Let go of it."""
        descriptor = self._held.pop(hub, None)
        if descriptor is not None:
            os.close(descriptor)

    def _open(self, hub: str) -> int | None:
        # Hub names are configured; their hash is a file name whatever they are.
        name = f"hub-{sha256(hub.encode()).hexdigest()[:16]}.lock"
        try:
            make_private_directory(self._directory)
            file = self._directory / name
            with suppress(FileExistsError):
                os.close(create_private(file))
            return os.open(file, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
