"""What `doctor` looks at in the machine: whether anything keeps its clock right, and its TPM."""

import ctypes
import os
import shutil
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from provisiond.cli.finding import Finding

TPM_DEVICE: Final = Path("/dev/tpmrm0")
"""The kernel's resource manager: several programs may use the TPM at once."""

# A clock before this was never set: this code is younger.
_OLDEST_PLAUSIBLE: Final = datetime(2026, 1, 1, tzinfo=UTC)
# adjtimex(2): with `modes` 0 nothing is changed; `status` comes after one int and four longs, all aligned as in C.
_TIMEX_BYTES: Final = 512
_STATUS_OFFSET: Final = struct.calcsize("I0l4l") if struct.calcsize("l") > 4 else struct.calcsize("I4l")
_STA_UNSYNC: Final = 0x0040


def examine_clock(now: datetime, *, is_synchronized: bool | None) -> Iterator[Finding]:
    """Look at the clock.

    Args:
        now: aware UTC.
        is_synchronized: as `clock_is_synchronized`.
    """
    if now < _OLDEST_PLAUSIBLE:
        yield Finding(
            level="FAIL",
            subject="clock",
            text=f"it is not {now:%Y-%m-%d}: certificates and SAS tokens will be refused",
            mend="timedatectl set-time 'YYYY-MM-DD HH:MM:SS'",
        )
    elif is_synchronized is False:
        yield Finding(
            level="warn",
            subject="clock",
            text=f"{now:%Y-%m-%d %H:%M} UTC, but nothing keeps it right (the kernel has it as not synchronized): "
            "when it drifts, tokens and certificates are refused",
            mend="timedatectl set-ntp true  # or chrony with rtcsync and a time source of the site",
        )
    else:
        kept = "" if is_synchronized is None else ", synchronized"
        yield Finding(level="ok", subject="clock", text=f"{now:%Y-%m-%d %H:%M} UTC{kept}")


def clock_is_synchronized() -> bool | None:
    """Whether an NTP client keeps the system's clock, as the kernel was told; None when it cannot be asked."""
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    if adjtimex is None:
        return None
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)
    if adjtimex(timex) < 0:
        return None
    (status,) = struct.unpack_from("i", timex.raw, _STATUS_OFFSET)
    return not status & _STA_UNSYNC


def examine_tpm_devices(device: Path = TPM_DEVICE) -> Iterator[Finding]:
    """Look for a TPM, and for the emulator; the service needs neither, the devices that run here do."""
    if not device.exists():
        text = "this machine has none; only devices that run here need one"
    elif os.access(device, os.R_OK | os.W_OK):
        text = f"{device} can be used: `simulate device ID --attestation tpm --tpm device:{device}`"
    else:
        text = f"{device} is not for this user; a device that runs here needs it: usermod -aG tss USER"
    yield Finding(level="ok", subject="tpm device", text=text)
    found = shutil.which("swtpm")
    text = f"swtpm: {found}" if found else "no swtpm; only simulated TPM devices need it (apt-get install swtpm)"
    yield Finding(level="ok", subject="tpm emulator", text=text)
