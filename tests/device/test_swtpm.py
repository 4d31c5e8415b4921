import asyncio
import shutil
import stat
from pathlib import Path

import pytest

from provisiond.device.errors import EmulatorError
from provisiond.device.swtpm import run_emulator
from provisiond.device.tpm_device import KeyAlgorithm, open_tpm

pytestmark = pytest.mark.swtpm


@pytest.fixture(autouse=True)
def _installed():
    if shutil.which("swtpm") is None:
        pytest.skip("swtpm is not installed")


async def endorsement_key(state_dir=None):
    async with run_emulator(state_dir) as path, open_tpm(f"socket:{path}", algorithm=KeyAlgorithm.ECC) as device:
        return await device.endorsement_key()


async def test_state_is_kept_between_runs_in_a_directory_of_its_own(tmp_path):
    state_dir = tmp_path / "deep" / ("long" * 40)
    assert await endorsement_key(state_dir) == await endorsement_key(state_dir)
    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700


async def test_a_relative_state_directory_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert await endorsement_key(Path("state"))


async def test_without_a_state_directory_every_emulator_is_another_tpm():
    assert await endorsement_key() != await endorsement_key()


async def test_the_emulator_and_its_socket_are_gone_afterwards():
    async with run_emulator() as path:
        assert path.is_socket()
    assert not path.parent.exists()
    with pytest.raises(OSError):
        await asyncio.open_unix_connection(path)


async def test_a_missing_emulator_says_how_to_get_it(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(EmulatorError, match="apt install swtpm"):
        async with run_emulator():
            pass


async def test_an_emulator_that_does_not_start_says_why(tmp_path):
    (tmp_path / "tpm2-00.permall").write_bytes(b"not a state")
    with pytest.raises(EmulatorError, match="swtpm ended with 1: libtpms"):
        await endorsement_key(tmp_path)


async def test_a_temporary_directory_too_deep_for_a_socket_is_said_so(tmp_path, monkeypatch):
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(EmulatorError, match="too long for a socket"):
        async with run_emulator():
            pass
