"""A hundred TPMs at once."""

import asyncio
import hmac

import pytest

from provisiond.device import TpmCredential
from provisiond.device.simulator import FleetOutcome, SimulatedDevice, run_fleet
from provisiond.model import TpmMaterial
from tests.enrollment_factory import individual

pytestmark = pytest.mark.swtpm

FLEET = 100


async def test_a_fleet_of_tpms_is_assigned_and_each_holds_its_own_hub_key(site, make_tpm):
    devices = await asyncio.gather(*(make_tpm() for _ in range(FLEET)))
    for number, device in enumerate(devices):
        material = TpmMaterial(endorsement_key=await device.endorsement_key())
        await site.admin.create_enrollment(individual(f"pump-{number}", material))
    fleet = [
        SimulatedDevice(registration_id=f"pump-{number}", credential=TpmCredential(device=device))
        for number, device in enumerate(devices)
    ]
    report = await run_fleet(fleet, site.service, concurrency=32)
    assert report.outcomes == {FleetOutcome.ASSIGNED: FLEET}, report.reasons
    keys = [(await site.admin.get_registration(device.registration_id)).hub_key for device in fleet]
    assert len(set(keys)) == FLEET
    for device, key in zip(devices, keys, strict=True):
        assert await device.hmac(b"x") == hmac.digest(key, b"x", "sha256")
