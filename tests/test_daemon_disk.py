"""A full disk under a running daemon: nobody hears what was not written, and it goes on when there is room."""

import asyncio
from dataclasses import replace

from provisiond.device import DeviceError, Patience
from provisiond.device.credentials import SymmetricKeyCredential
from tests.disks import no_room, small_disk
from tests.enrollment_factory import PRIMARY_KEY, group
from tests.running_service import run_site

DEVICES = [f"device-{number}" for number in range(20)]


async def registers(site, name):
    """Whether the device hears that it is assigned."""
    try:
        result, _ = await site.register(name, SymmetricKeyCredential.from_group_key(PRIMARY_KEY, name))
    except DeviceError:
        return False
    return result.assigned_hub == "gateway.local"


async def register_all(site):
    """The names of those that hear that they are assigned."""
    heard = await asyncio.gather(*(registers(site, name) for name in DEVICES))
    return {name for name, assigned in zip(DEVICES, heard, strict=True) if assigned}


async def assert_true(site, heard):
    """What the devices heard is in the database, each with its audit record, and the chain is whole."""
    found = await site.store.list_registrations(limit=100)
    assert heard <= {one.registration_id for one in found if one.hub == "local"}
    for one in found:
        assert "assigned" in {record.outcome for record in await site.audited(one.registration_id)}
    assert (await site.store.verify_audit()).problem is None
    assert await site.store.check() == ()


async def test_on_a_full_disk_no_device_hears_assigned_that_is_not(tmp_path):
    with small_disk(tmp_path / "disk", "4m") as disk:
        async with run_site(disk) as site:
            patient = site.service
            await site.admin.create_enrollment(group("line"))
            with no_room(disk):
                site.service = replace(patient, patience=Patience(total_s=3, jitter=0))  # they hear nothing for so long
                heard = await register_all(site)
                assert len(heard) < len(DEVICES)
                await assert_true(site, heard)
            assert not site.store.fatal.is_set()
            site.service = patient
            assert await register_all(site) == set(DEVICES)
            await assert_true(site, set(DEVICES))
        async with run_site(disk) as again:
            await assert_true(again, set(DEVICES))
