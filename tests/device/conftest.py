"""Real TPM emulators for the device's tests."""

import shutil

import pytest

from provisiond.device.swtpm import run_emulator
from provisiond.device.tpm_device import KeyAlgorithm, open_tpm


@pytest.fixture
async def emulator():
    if shutil.which("swtpm") is None:
        pytest.skip("swtpm is not installed")
    async with run_emulator() as path:
        yield path


@pytest.fixture(params=[KeyAlgorithm.RSA, KeyAlgorithm.ECC])
async def device(request, emulator):
    """A TPM device with RSA keys, then one with P-256 keys."""
    async with open_tpm(f"socket:{emulator}", algorithm=request.param) as device:
        yield device


@pytest.fixture
async def ecc_device(emulator):
    """The quicker one."""
    async with open_tpm(f"socket:{emulator}", algorithm=KeyAlgorithm.ECC) as device:
        yield device
