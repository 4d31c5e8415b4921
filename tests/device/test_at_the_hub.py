"""Devices go on from the daemon that assigned them to the daemon that is their hub, with the credential they registered."""

from contextlib import asynccontextmanager

import pytest

from provisiond.device import Refused, SymmetricKeyCredential, TpmCredential
from provisiond.device.credentials import X509Credential
from provisiond.device.errors import ConnectionLost
from provisiond.device.hub import HubConnection, open_hub_session
from provisiond.device.issuing import IssuingAuthority
from provisiond.model import EnrollmentKind, ProvisioningStatus, TpmMaterial
from tests.certificates import make_ca, make_leaf
from tests.enrollment_factory import PRIMARY_KEY, certificates, group, individual
from tests.running_service import run_site

DEVICES = make_ca("Devices")


@pytest.fixture
async def site(tmp_path):
    async with run_site(tmp_path) as site:
        yield site


@asynccontextmanager
async def at_the_hub(site, device_id, credential):
    """The device's connection to the hub, which is the daemon itself."""
    async with open_hub_session(
        site.service.endpoint, host="gateway.local", device_id=device_id, credential=credential, deadline_s=60
    ) as session:
        yield HubConnection(session, device_id, site.service.patience)


async def visit(site, device_id, credential):
    """Register, go to the hub, say something."""
    result, _ = await site.register(device_id, credential)
    async with at_the_hub(site, result.device_id, credential) as hub:
        await hub.send(b"hello")
    return result


@pytest.mark.swtpm
async def test_a_tpm_signs_in_with_the_key_that_only_it_could_take_out(site, device):
    endorsement_key = await device.endorsement_key()
    await site.admin.create_enrollment(individual("dev-1", TpmMaterial(endorsement_key=endorsement_key)))
    credential = TpmCredential(device=device)
    await visit(site, "dev-1", credential)
    await visit(site, "dev-1", credential)  # asking again is safe: the key stays
    with pytest.raises(Refused):
        async with at_the_hub(site, "dev-1", SymmetricKeyCredential(key=PRIMARY_KEY)):
            pass


async def test_a_device_with_a_key_of_its_own_or_of_its_group(site):
    await site.admin.create_enrollment(individual("dev-1", device_id="pump-7"))
    assert (await visit(site, "dev-1", SymmetricKeyCredential(key=PRIMARY_KEY))).device_id == "pump-7"
    await site.admin.create_enrollment(group("keys"))
    await visit(site, "Dev-2", SymmetricKeyCredential.from_group_key(PRIMARY_KEY, "Dev-2"))


async def test_a_device_with_a_pinned_certificate_or_one_of_its_groups_ca(site, tmp_path):
    pinned = make_leaf("dev-1")
    await site.admin.create_enrollment(individual("dev-1", certificates(pinned)))
    await visit(site, "dev-1", X509Credential.from_files(*pinned.write(tmp_path, "pinned")))
    await site.admin.create_enrollment(group("line", certificates(DEVICES)))
    authority = IssuingAuthority.from_files(*DEVICES.write(tmp_path, "ca"))
    await visit(site, "dev-2", authority.issue("dev-2"))


async def test_a_device_that_was_never_assigned_is_nobody_at_the_hub(site):
    await site.admin.create_enrollment(individual("dev-1"))
    with pytest.raises(Refused) as refused:
        async with at_the_hub(site, "dev-1", SymmetricKeyCredential(key=PRIMARY_KEY)):
            pass
    assert refused.value.body["connackReturnCode"] == 5


async def test_an_operator_who_disables_an_enrollment_ends_the_session(site):
    await site.admin.create_enrollment(individual("dev-1"))
    credential = SymmetricKeyCredential(key=PRIMARY_KEY)
    await site.register("dev-1", credential)
    async with open_hub_session(
        site.service.endpoint, host="gateway.local", device_id="dev-1", credential=credential, deadline_s=60
    ) as session:
        await site.admin.set_provisioning_status(EnrollmentKind.INDIVIDUAL, "dev-1", ProvisioningStatus.DISABLED)
        with pytest.raises(ConnectionLost):
            await session.receive(deadline_s=60)
    with pytest.raises(Refused):
        async with at_the_hub(site, "dev-1", credential):
            pass
