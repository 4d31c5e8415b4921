"""Scenarios that need a disk of their own: `python -m tests.crash.disk_faults full|read_only`, as root."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.crash.disk import Disk
from tests.crash.test_faults import is_refused, make_service, register
from tests.system.daemon import Daemon, run_daemon

SMALL_BYTES = 48 << 20
TURNS_MAX = 2000


def full(disk: Disk) -> None:
    """No room: refused; room again: served, without a restart, and where it was promised."""
    service = make_service(disk.path)
    with run_daemon(service) as daemon:
        filler = disk.path / "filler"
        subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], check=False, capture_output=True)
        promised: dict[str, str] = {}
        names = [f"device-{number}" for number in range(6)]
        for turn in range(TURNS_MAX):  # the write-ahead log has room for a few before it has to grow
            name = names[turn % len(names)]
            outcome = register(service, daemon, name)
            if is_refused(outcome):
                break
            promised[name] = outcome[1]
        else:
            raise AssertionError("a full disk took everything")
        filler.unlink()
        for name in names:
            status, hub = register(service, daemon, name)
            assert status == 200
            assert promised.get(name, hub) == hub


def read_only(disk: Disk) -> None:
    """An error of the file system makes it read-only: refused; and a restart on it does not say READY."""
    service = make_service(disk.path)
    with Daemon(service) as daemon:
        assert register(service, daemon, "device-0")[0] == 200
        device = subprocess.run(
            ["findmnt", "-no", "SOURCE", disk.path], check=True, capture_output=True, text=True
        ).stdout.strip()
        Path(f"/sys/fs/ext4/{Path(device).name}/trigger_fs_error").write_text("1")
        assert is_refused(register(service, daemon, "device-1"))
    with pytest.raises(AssertionError, match="not ready"):
        Daemon(service).__enter__()


def main() -> None:
    """Run one scenario."""
    directory = Path(tempfile.mkdtemp(prefix="provisiond-disk-"))
    disk = Disk(directory, SMALL_BYTES)
    scenario, options = {"full": (full, "loop"), "read_only": (read_only, "loop,errors=remount-ro")}[sys.argv[1]]
    disk.mount(options)
    try:
        scenario(disk)
    finally:
        disk.unmount()
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
