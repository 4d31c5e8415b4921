"""The device's side and the service's side of this project, which were written apart, meet over real TLS."""

import pytest

from provisiond.device import CannotConnect, Refused, Step, SymmetricKeyCredential, TpmCredential
from provisiond.device.issuing import IssuingAuthority
from provisiond.device.simulator import FleetOutcome, SimulatedDevice, run_fleet
from provisiond.model import TpmMaterial
from tests.certificates import make_ca
from tests.enrollment_factory import PRIMARY_KEY, SECONDARY_KEY, certificates, group, individual
from tests.running_service import run_site

DEVICES = make_ca("Devices")


@pytest.fixture
async def site(tmp_path):
    async with run_site(tmp_path) as site:
        yield site


@pytest.mark.parametrize("key", [PRIMARY_KEY, SECONDARY_KEY], ids=["primary", "secondary"])
async def test_a_device_with_either_symmetric_key_is_assigned(site, key):
    await site.admin.create_enrollment(individual("dev-1"))
    result, _ = await site.register("dev-1", SymmetricKeyCredential(key=key))
    assert (result.assigned_hub, result.device_id) == ("gateway.local", "dev-1")


async def test_a_wrong_key_is_refused_with_a_tracking_id(site):
    await site.admin.create_enrollment(individual("dev-1"))
    with pytest.raises(Refused) as raised:
        await site.register("dev-1", SymmetricKeyCredential(key=b"x" * 32))
    assert raised.value.status == 401
    assert raised.value.tracking_id


async def test_a_wrong_id_scope_is_refused_at_the_connect(site):
    with pytest.raises(Refused) as raised:
        await site.register("dev-1", SymmetricKeyCredential(key=b"x" * 32), id_scope="0ne0OTHER")
    assert raised.value.body["connackReturnCode"] == 5


async def test_a_device_that_asks_again_hears_the_same_answer(site):
    await site.admin.create_enrollment(individual("dev-1"))
    first, _ = await site.register("dev-1", SymmetricKeyCredential(key=PRIMARY_KEY))
    second, _ = await site.register("dev-1", SymmetricKeyCredential(key=PRIMARY_KEY))
    assert first.assigned_hub == second.assigned_hub
    assert first.body["registrationState"]["etag"] == second.body["registrationState"]["etag"]


async def test_a_service_that_lets_devices_poll_is_polled(tmp_path):
    async with run_site(tmp_path, reply="poll") as site:
        await site.admin.create_enrollment(individual("dev-1"))
        result, steps = await site.register("dev-1", SymmetricKeyCredential(key=PRIMARY_KEY))
    assert result.polls == 1
    assert result.register_s >= 1
    assert steps == [Step.CONNECTED, Step.ASSIGNING, Step.ASSIGNED]


async def test_fleets_of_a_ca_and_of_a_group_key_are_assigned(site, tmp_path):
    await site.admin.create_enrollment(group("line", certificates(DEVICES)))
    await site.admin.create_enrollment(group("keys"))
    authority = IssuingAuthority.from_files(*DEVICES.write(tmp_path, "ca"))
    names = [f"sim-{number}" for number in range(20)]
    fleet = [SimulatedDevice(registration_id=f"{name}-x", credential=authority.issue(f"{name}-x")) for name in names]
    fleet += [
        SimulatedDevice(registration_id=name, credential=SymmetricKeyCredential.from_group_key(PRIMARY_KEY, name))
        for name in names
    ]
    report = await run_fleet(fleet, site.service, concurrency=10)
    assert report.outcomes == {FleetOutcome.ASSIGNED: 40}, report.reasons


@pytest.mark.swtpm
async def test_a_tpm_proves_itself_and_holds_its_hub_key(site, device):
    await site.admin.create_enrollment(individual("dev-1", TpmMaterial(endorsement_key=await device.endorsement_key())))
    result, steps = await site.register("dev-1", TpmCredential(device=device))
    assert steps == [Step.CONNECTED, Step.CHALLENGE, Step.ASSIGNING, Step.ASSIGNED]
    assert result.challenged
    assert len(await device.hmac(b"data")) == 32


@pytest.mark.swtpm
async def test_a_tpm_that_nobody_enrolled_is_not_even_challenged(site, ecc_device):
    with pytest.raises(Refused) as raised:
        await site.register("dev-1", TpmCredential(device=ecc_device))
    assert "authenticationKey" not in raised.value.body


async def test_a_device_of_another_authority_does_not_trust_the_service(site, tmp_path):
    (tmp_path / "root.crt").write_bytes(make_ca("Other").pem)
    with pytest.raises(CannotConnect, match="--ca-file"):
        await site.register("dev-1", SymmetricKeyCredential(key=PRIMARY_KEY))
