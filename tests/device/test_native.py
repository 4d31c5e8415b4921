"""The native protocol from the device's library to the daemon, through provisiond's own broker."""

from contextlib import asynccontextmanager

import pytest

from provisiond.admin.use_cases import Admin
from provisiond.daemon import Daemon
from provisiond.device import CredentialError, Endpoint, Refused, Step, SymmetricKeyCredential, TpmCredential
from provisiond.device.dialect import NativeDialect
from provisiond.model import TpmMaterial
from provisiond.system import SystemClock, SystemEntropy
from tests.enrollment_factory import PRIMARY_KEY, individual
from tests.native_fleet import Fleet, enroll_fleet
from tests.running_service import site_settings

PLAIN = {"name": "local", "bind": "127.0.0.1:0"}


class Gateway:
    """A daemon with both kinds of listener, and its operator."""

    def __init__(self, daemon, directory):
        store = daemon._store
        self.admin = Admin(store=store, clock=SystemClock(), entropy=SystemEntropy(), hubs=(), actor="the tests")
        _, port = daemon.addresses["local"]
        self.plain = Endpoint(host="127.0.0.1", port=port, plaintext=True)
        _, port = daemon.addresses["devices"]
        self.tls = Endpoint(host="localhost", port=port, ca_file=directory / "root.crt")


@asynccontextmanager
async def run_gateway(directory, **options):
    devices = site_settings(directory).broker.listeners[0].model_dump(mode="json")
    settings = site_settings(directory, broker={"listeners": [PLAIN, devices]}, **options)
    async with Daemon(settings) as daemon:
        yield Gateway(daemon, directory)


@pytest.fixture
async def gateway(tmp_path):
    async with run_gateway(tmp_path) as running:
        yield running


@pytest.mark.swtpm
@pytest.mark.parametrize("listener", ["tls", "plain"])
async def test_the_fleet_is_assigned_through_the_embedded_broker(gateway, ecc_device, listener):
    fleet = await enroll_fleet(gateway.admin, ecc_device)
    results = await fleet.register_all(getattr(gateway, listener))
    assert {name: result.assigned_hub for name, result in results.items()} == dict.fromkeys(
        fleet.credentials, "gateway.local"
    )
    # What the handshake has proved needs no challenge.
    certified = listener == "plain"
    assert {name: result.challenged for name, result in results.items()} == {
        "pinned-1": certified,
        "member-1": certified,
        "keyed-1": True,
        "tpm-1": True,
    }


@pytest.mark.swtpm
async def test_a_tpm_with_a_pcr_policy_quotes_its_registers(gateway, ecc_device):
    (register,) = await ecc_device.tpm.pcr_read(0x000B, [16])
    policy = {"pcrs": {"sha256": {"16": [register.hex()]}}}
    material = TpmMaterial(endorsement_key=await ecc_device.endorsement_key(), pcr_policy=policy)
    await gateway.admin.create_enrollment(individual("tpm-1", material))
    fleet = Fleet(credentials={"tpm-1": TpmCredential(device=ecc_device)})
    result = await fleet.register(gateway.plain, "tpm-1")
    assert result.assigned_hub == "gateway.local"
    await ecc_device.tpm.pcr_extend(16, {0x000B: b"m" * 32})
    with pytest.raises(Refused):
        await fleet.register(gateway.plain, "tpm-1")


@pytest.mark.swtpm
async def test_a_device_that_is_told_to_poll_polls(tmp_path, ecc_device):
    async with run_gateway(tmp_path, reply="poll") as gateway:
        fleet = await enroll_fleet(gateway.admin, ecc_device)
        results = await fleet.register_all(gateway.plain)
    assert {result.polls for result in results.values()} == {1}


async def test_the_steps_are_those_of_any_registration(gateway):
    await gateway.admin.create_enrollment(individual("keyed-1"))
    fleet = keyed_fleet()
    steps = []
    await fleet.register(gateway.plain, "keyed-1", on_step=lambda step, _: steps.append(step))
    assert steps == [Step.CONNECTED, Step.CHALLENGE, Step.ASSIGNING, Step.ASSIGNED]


async def test_a_wrong_key_is_refused_with_a_tracking_id(gateway):
    await gateway.admin.create_enrollment(individual("keyed-1"))
    fleet = keyed_fleet()
    with pytest.raises(Refused) as raised:
        await fleet.register(gateway.plain, "keyed-1", credential=SymmetricKeyCredential(key=b"x" * 32))
    assert raised.value.status == 401
    assert raised.value.tracking_id
    assert raised.value.body["errorCode"] == 401002


def test_a_registration_id_that_cannot_be_one_has_no_topics():
    with pytest.raises(CredentialError, match="registration id"):
        NativeDialect().response_filter("a/b")


def keyed_fleet():
    return Fleet(credentials={"keyed-1": SymmetricKeyCredential(key=PRIMARY_KEY)})
