"""One enrolled endorsement key: Azure's flow over `$dps` topics, to a hub key that only its TPM can use."""

import base64
import hmac

import pytest

from provisiond.device import Refused, Step, TpmCredential
from provisiond.device.errors import TPM_RC_POLICY_FAIL, TpmError
from provisiond.device.tpm_device import AUTHENTICATION_KEY_HANDLE, KeyAlgorithm
from provisiond.device.tpm_wire import PASSWORD, CommandCode
from provisiond.model import EnrollmentKind, ProvisioningStatus, TpmMaterial
from tests.enrollment_factory import individual
from tests.running_service import run_site
from tests.system.tpm.raw_device import encode, keys_of, raw_device

pytestmark = pytest.mark.swtpm


async def enroll(site, registration_id, device, **options):
    material = TpmMaterial(endorsement_key=await device.endorsement_key(), **options)
    return await site.admin.create_enrollment(individual(registration_id, material))


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
async def test_a_tpm_is_assigned_and_holds_its_hub_key(site, make_tpm, algorithm):
    device = await make_tpm(algorithm)
    await enroll(site, "pump-1", device)
    result, steps = await site.register("pump-1", TpmCredential(device=device))
    assert steps == [Step.CONNECTED, Step.CHALLENGE, Step.ASSIGNING, Step.ASSIGNED]
    assert (result.assigned_hub, result.device_id) == ("gateway.local", "pump-1")
    record = await site.admin.get_registration("pump-1")
    assert len(record.hub_key) == 32
    assert await device.hmac(b"to my hub") == hmac.digest(record.hub_key, b"to my hub", "sha256")


async def test_a_service_that_lets_devices_poll_gives_the_hub_key_with_the_poll(tmp_path, device):
    async with run_site(tmp_path, reply="poll") as site:
        await enroll(site, "pump-1", device)
        result, steps = await site.register("pump-1", TpmCredential(device=device))
        record = await site.admin.get_registration("pump-1")
    assert result.polls == 1
    assert steps[-1] is Step.ASSIGNED
    assert await device.hmac(b"x") == hmac.digest(record.hub_key, b"x", "sha256")


async def test_the_hub_key_cannot_be_duplicated_out_of_the_tpm(site, device):
    await enroll(site, "pump-1", device)
    await site.register("pump-1", TpmCredential(device=device))
    async with device.tpm.policy_session() as session:
        await device.tpm.policy_command_code(session, CommandCode.Duplicate)
        with pytest.raises(TpmError) as raised:
            await device.tpm.duplicate(AUTHENTICATION_KEY_HANDLE, authorization=session)
    assert raised.value.base == TPM_RC_POLICY_FAIL
    with pytest.raises(TpmError):
        await device.tpm.duplicate(AUTHENTICATION_KEY_HANDLE, authorization=PASSWORD)


async def test_the_hub_key_never_crosses_the_wire_and_stays_while_the_tpm_does(site, device):
    await enroll(site, "pump-1", device)
    first, _ = await site.register("pump-1", TpmCredential(device=device))
    key = (await site.admin.get_registration("pump-1")).hub_key
    blob = base64.b64decode(first.body["registrationState"]["tpm"]["authenticationKey"])
    assert key not in blob
    second, _ = await site.register("pump-1", TpmCredential(device=device))
    assert second.body["registrationState"]["tpm"]["authenticationKey"] != encode(blob)  # wrapped afresh
    assert (await site.admin.get_registration("pump-1")).hub_key == key


async def test_every_challenge_is_another_key_in_a_blob_of_azures_layout(site, make_tpm):
    device = await make_tpm(KeyAlgorithm.RSA)
    await enroll(site, "pump-1", device)
    async with raw_device(site, "pump-1") as raw:
        tpm = await keys_of(device)
        first, second = await raw.register(tpm=tpm), await raw.register(tpm=tpm)
    assert (first.status, first.body["keyName"]) == (401, "registration")
    assert "status" not in first.body
    assert len(first.challenge) == len(second.challenge) == 766
    keys = []
    for reply in (first, second):
        await device.import_authentication_key(reply.challenge)
        keys.append(await device.hmac(b"x"))
    assert keys[0] != keys[1]


async def test_the_keys_may_be_left_out_of_the_answer(site, device):
    """Some clients answer with nothing but the token."""
    await enroll(site, "pump-1", device)
    async with raw_device(site, "pump-1") as raw:
        challenged = await raw.register(tpm=await keys_of(device))
        credential = TpmCredential(device=device)
        token = await credential.answer(
            challenged.challenge, resource="0ne0TEST001/registrations/pump-1", expiry=2**33, key_name="registration"
        )
        reply = await raw.register(authorization=token)
    assert reply.body["status"] == "assigned", reply.body
    assert reply.hub_key


async def test_a_poll_proves_nothing_on_a_connection_that_did_not_answer(tmp_path, device, log):
    async with run_site(tmp_path, reply="poll") as site:
        await enroll(site, "pump-1", device)
        async with raw_device(site, "pump-1") as proved:
            accepted = await proved.prove(device)
            assert accepted.status == 202
            async with raw_device(site, "PUMP-1") as other:
                reply = await other.poll(accepted.operation_id)
    assert reply.status == 401
    assert "authenticationKey" not in str(reply.body)


# --- what an operator decides ----------------------------------------------------------------------------------------


async def test_the_storage_root_key_is_recorded_at_first_use_and_a_later_change_needs_an_operator(
    site, device, refuses
):
    await enroll(site, "pump-1", device)
    await site.register("pump-1", TpmCredential(device=device))
    before = await site.admin.get_registration("pump-1")
    assert before.storage_root_key == await device.storage_root_key()
    await device.clear()
    async with raw_device(site, "pump-1") as raw:
        audited = await refuses(await raw.prove(device), "storage-root-key-changed")
    assert "delete the registration" in audited.reason
    assert await site.admin.get_registration("pump-1") == before
    await site.admin.delete_registration("pump-1")
    result, _ = await site.register("pump-1", TpmCredential(device=device))
    assert result.assigned_hub == "gateway.local"
    after = await site.admin.get_registration("pump-1")
    assert after.storage_root_key == await device.storage_root_key() != before.storage_root_key
    assert after.hub_key != before.hub_key


async def test_an_enrolled_storage_root_key_is_the_only_one(site, make_tpm, device, refuses):
    other = await make_tpm()
    await enroll(site, "pump-1", device, storage_root_key=await other.storage_root_key())
    async with raw_device(site, "pump-1") as raw:
        audited = await refuses(await raw.prove(device), "storage-root-key-changed")
    assert "update the enrollment" in audited.reason


async def test_one_endorsement_key_has_one_registration(site, device, refuses):
    await enroll(site, "pump-1", device)
    await enroll(site, "pump-2", device)
    await site.register("pump-1", TpmCredential(device=device))
    async with raw_device(site, "pump-2") as raw:
        audited = await refuses(await raw.prove(device), "endorsement-key-in-use")
    assert "registered as pump-1" in audited.reason
    await site.admin.delete_registration("pump-1")
    result, _ = await site.register("pump-2", TpmCredential(device=device))
    assert result.device_id == "pump-2"


async def test_another_tpm_takes_over_an_id_only_when_the_operator_has_deleted_the_registration(
    site, make_tpm, device, refuses
):
    successor = await make_tpm()
    await enroll(site, "pump-1", device)
    await site.register("pump-1", TpmCredential(device=device))
    await site.admin.delete_enrollment(EnrollmentKind.INDIVIDUAL, "pump-1")
    await enroll(site, "pump-1", successor)
    async with raw_device(site, "pump-1") as raw:
        await refuses(await raw.prove(successor), "endorsement-key-changed")
    await site.admin.delete_registration("pump-1")
    await site.register("pump-1", TpmCredential(device=successor))


async def test_a_disabled_tpm_is_told_so_only_when_it_has_proved_itself(site, device):
    await enroll(site, "pump-1", device)
    await site.admin.set_provisioning_status(EnrollmentKind.INDIVIDUAL, "pump-1", ProvisioningStatus.DISABLED)
    with pytest.raises(Refused) as raised:
        await site.register("pump-1", TpmCredential(device=device))
    assert raised.value.body["status"] == "disabled"
    assert "authenticationKey" not in str(raised.value.body)


async def test_a_denied_endorsement_key_is_not_challenged(tmp_path, device, log):
    (tmp_path / "deny").write_text(f"{await device.registration_id()}  # stolen from the depot\n")
    deny = {"attestation": {"tpm": {"deny_file": str(tmp_path / "deny"), "ek_roots_dir": str(tmp_path / "none")}}}
    async with run_site(tmp_path, **deny) as site:
        await enroll(site, "pump-1", device)
        async with raw_device(site, "pump-1") as raw:
            reply = await raw.prove(device)
            assert reply.challenge is None
            audited = await site.store.get_audit(reply.body["trackingId"])
            assert audited.trace[-1].name == "ek-denied"
            (tmp_path / "deny").write_text("# given back\n")
            site.daemon.reload()
            assert (await raw.prove(device)).body["status"] == "assigned"


async def test_a_pcr_policy_cannot_be_met_on_dps_topics(site, device, refuses):
    await enroll(site, "pump-1", device, pcr_policy={"pcrs": {"sha256": {"0": ["00" * 32]}}})
    async with raw_device(site, "pump-1") as raw:
        audited = await refuses(await raw.prove(device), "quote-missing")
    assert "native protocol" in audited.reason
