"""A file system whose power can be cut: ext4 in a file, on a loop device. Needs root, in a mount namespace of its own."""

import fcntl
import os
import struct
import subprocess
from pathlib import Path

SIZE_BYTES = 1 << 30
_FS_IOC_SHUTDOWN = 0x8004587D  # linux/fs.h: _IOR('X', 125, __u32)
_NOLOGFLUSH = struct.pack("I", 2)


class Disk:
    """`cut` loses everything that nobody has flushed, as the loss of power does."""

    def __init__(self, directory: Path, size_bytes: int = SIZE_BYTES) -> None:
        self.image = directory / "disk.img"
        self.path = directory / "disk"
        self.path.mkdir()
        with self.image.open("wb") as file:
            file.truncate(size_bytes)
        _run("mkfs.ext4", "-q", "-F", self.image)

    def mount(self, options: str = "loop") -> None:
        """Attach it; ext4 replays its journal."""
        _run("mount", "-o", options, self.image, self.path)

    def unmount(self) -> None:
        """Detach it; nothing may have a file open on it."""
        _run("umount", self.path)

    def cut(self) -> None:
        """Cut the power: from now on every write fails, and what was not flushed is gone."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _FS_IOC_SHUTDOWN, _NOLOGFLUSH)
        finally:
            os.close(descriptor)


def _run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=60)
