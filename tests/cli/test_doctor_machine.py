"""What doctor says of the clock and of TPMs."""

from datetime import UTC, datetime

import pytest

from provisiond.cli.doctor_machine import clock_is_synchronized, examine_clock, examine_tpm_devices
from tests.fakes_decision import NOW


@pytest.mark.parametrize(
    ("now", "is_synchronized", "level", "said"),
    [
        (NOW, True, "ok", "synchronized"),
        (NOW, None, "ok", "UTC"),
        (NOW, False, "warn", "nothing keeps it right"),
        (datetime(1970, 1, 1, tzinfo=UTC), True, "FAIL", "it is not 1970-01-01"),
    ],
)
def test_a_clock_that_is_wrong_or_on_its_own_is_told(now, is_synchronized, level, said):
    (finding,) = examine_clock(now, is_synchronized=is_synchronized)
    assert finding.level == level and said in finding.text
    assert bool(finding.mend) == (level != "ok")


def test_the_kernel_says_whether_the_clock_is_kept():
    assert clock_is_synchronized() in (True, False)


def test_a_tpm_is_told_and_how_to_use_it(tmp_path):
    there = tmp_path / "tpmrm0"
    assert "has none" in next(examine_tpm_devices(there)).text
    there.touch()
    finding, emulator = examine_tpm_devices(there)
    assert (finding.level, f"--tpm device:{there}" in finding.text) == ("ok", True)
    assert emulator.subject == "tpm emulator" and "swtpm" in emulator.text
