"""What TPMs permit, and the service must not: every attack succeeds against the TPM alone, and fails here."""

from datetime import timedelta

import pytest

from provisiond.attestation.ek_certificate_reader import read_certificate
from provisiond.attestation.tpm_algorithms import ObjectAttributes
from provisiond.device import TpmCredential
from provisiond.device.errors import TpmError
from provisiond.device.tpm_device import KeyAlgorithm
from provisiond.device.tpm_wire import RH_ENDORSEMENT
from provisiond.errors import InvalidArgument
from provisiond.model import TpmMaterial
from tests.attestation.ek_certificate_factory import EkAuthority
from tests.enrollment_factory import group, individual
from tests.running_service import run_site
from tests.system.tpm.raw_device import encode, keys_of, raw_device, token_of
from tests.system.tpm.software_key import (
    ENDORSEMENT_TEMPLATE,
    STORAGE_TEMPLATE,
    activates,
    import_below,
    load_into_null_hierarchy,
    make_software_key,
)

pytestmark = pytest.mark.swtpm

USER, NO_DA = ObjectAttributes.USER_WITH_AUTH, ObjectAttributes.NO_DA
DECRYPT, RESTRICTED = ObjectAttributes.DECRYPT, ObjectAttributes.RESTRICTED


@pytest.fixture
async def enrolled(site, device):
    """A connection as the one device that is enrolled."""
    await site.admin.create_enrollment(
        individual("pump-1", TpmMaterial(endorsement_key=await device.endorsement_key()))
    )
    async with raw_device(site, "pump-1") as raw:
        yield raw


# --- keys of software, altered keys ----------------------------------------------------------------------------------


async def test_a1_a_software_storage_key_in_the_null_hierarchy_activates_and_is_refused(device, enrolled, refuses):
    software = make_software_key(STORAGE_TEMPLATE, attributes=USER | NO_DA | DECRYPT, symmetric_key_bits=0)
    async with device.tpm.loaded(await load_into_null_hierarchy(device.tpm, software)) as loaded:
        assert await activates(device, loaded, software.public.name)
    reply = await enrolled.register(tpm=await keys_of(device, storageRootKey=encode(software.tpm2b)))
    await refuses(reply, "storage-root-key-template")


async def test_a2_a_public_area_that_claims_everything_does_not_activate(device, enrolled):
    """The challenge for it is worth nothing to anybody: the service may make it."""
    software = make_software_key(STORAGE_TEMPLATE)
    async with device.tpm.loaded(await device.tpm.load_external(b"", software.tpm2b)) as loaded:
        assert not await activates(device, loaded, software.public.name)
    reply = await enrolled.register(tpm=await keys_of(device, storageRootKey=encode(software.tpm2b)))
    assert reply.challenge


async def test_a3_a_software_storage_key_below_the_storage_root_key_activates_and_is_refused(device, enrolled, refuses):
    software = make_software_key(STORAGE_TEMPLATE, attributes=USER | NO_DA | DECRYPT | RESTRICTED)
    async with device.tpm.loaded(await import_below(device, software)) as loaded:
        assert await activates(device, loaded, software.public.name)
    reply = await enrolled.register(tpm=await keys_of(device, storageRootKey=encode(software.tpm2b)))
    await refuses(reply, "storage-root-key-template")


async def test_a5_a_software_endorsement_key_is_not_the_enrolled_one(device, enrolled, refuses):
    software = make_software_key(ENDORSEMENT_TEMPLATE)
    reply = await enrolled.register(tpm=await keys_of(device, endorsementKey=encode(software.tpm2b)))
    await refuses(reply, "endorsement-key-mismatch")


@pytest.mark.parametrize(
    ("certified_by", "finding"), [(None, "ek-certificate-missing"), ("itself", "ek-certificate-path")]
)
async def test_a5_a_software_endorsement_key_needs_a_maker_to_be_in_a_group(
    tmp_path, device, log, certified_by, finding
):
    software = make_software_key(ENDORSEMENT_TEMPLATE)
    roots = tmp_path / "tpm-roots.d"
    roots.mkdir()
    maker = EkAuthority("Maker")
    (roots / "maker.der").write_bytes(maker.der)
    impostor = EkAuthority("Maker")
    own = {"ekCertificate": encode(impostor.issue(software.public)), "ekChain": [encode(impostor.der)]}
    async with run_site(tmp_path, attestation={"tpm": {"ek_roots_dir": str(roots)}}) as site:
        await site.admin.create_enrollment(group("pumps", TpmMaterial(allowed_ids=("pump-1",))))
        async with raw_device(site, "pump-1") as raw:
            tpm = await keys_of(device, endorsementKey=encode(software.tpm2b), **(own if certified_by else {}))
            reply = await raw.register(tpm=tpm)
        assert reply.challenge is None
        audited = await site.store.get_audit(reply.body["trackingId"])
    assert [check.name for check in audited.trace if not check.passed][-1] == finding
    assert read_certificate(impostor.der).subject == read_certificate(maker.der).subject


def altered(template, name):
    """An endorsement key's template with one thing about it changed."""
    attributes = template[4:8]
    policy = template[8:42]
    match name:
        case "attributes":
            return template.replace(attributes, bytes.fromhex("000300f2"), 1)
        case "policy":
            return template.replace(attributes + policy, bytes.fromhex("000300720000"), 1)
        case "symmetric":
            return template.replace(bytes.fromhex("000600800043"), bytes.fromhex("000601000043"), 1)
    raise ValueError(name)


@pytest.mark.parametrize("what", ["attributes", "policy", "symmetric"])
async def test_a6_an_endorsement_key_of_an_altered_template_is_refused(site, device, refuses, what):
    key = await device.tpm.create_primary(RH_ENDORSEMENT, altered(ENDORSEMENT_TEMPLATE, what))
    async with device.tpm.loaded(key):
        pass
    with pytest.raises(InvalidArgument, match="follows no known template"):
        await site.admin.create_enrollment(individual("pump-1", TpmMaterial(endorsement_key=key.public)))
    await site.admin.create_enrollment(group("pumps", TpmMaterial(allowed_ids=("pump-1",))))
    async with raw_device(site, "pump-1") as raw:
        reply = await raw.register(tpm=await keys_of(device, endorsementKey=encode(key.public)))
    await refuses(reply, "endorsement-key-template")


# --- challenges ------------------------------------------------------------------------------------------------------


async def challenge(raw, device):
    reply = await raw.register(tpm=await keys_of(device))
    assert reply.challenge, reply.body
    await device.import_authentication_key(reply.challenge)
    return await token_of(device, raw.registration_id)


async def test_a_challenge_is_answered_once(device, enrolled, refuses):
    tpm, token = await keys_of(device), await challenge(enrolled, device)
    assert (await enrolled.register(tpm=tpm, authorization=token)).body["status"] == "assigned"
    await refuses(await enrolled.register(tpm=tpm, authorization=token), "challenge-missing")


class Later:
    """The clock, so much later."""

    def __init__(self, clock, delta):
        self.monotonic = clock.monotonic
        self.now = lambda: clock.now() + delta


async def test_a_late_answer_is_refused(site, device, enrolled, refuses):
    token = await challenge(enrolled, device)
    pipeline = site.daemon._pipeline
    pipeline._clock = Later(pipeline._clock, timedelta(seconds=121))
    await refuses(await enrolled.register(tpm=await keys_of(device), authorization=token), "challenge-expired")


async def test_an_answer_by_another_connection_is_refused_and_leaves_the_challenge(site, device, enrolled, refuses):
    tpm, token = await keys_of(device), await challenge(enrolled, device)
    async with raw_device(site, "Pump-1") as other:  # the same registration: its case does not matter
        await refuses(await other.register(tpm=tpm, authorization=token), "challenge-missing")
        assert (await enrolled.register(tpm=tpm, authorization=token)).body["status"] == "assigned"


async def test_an_answer_for_another_registration_is_refused(site, device, enrolled, refuses):
    await site.admin.create_enrollment(
        individual("pump-2", TpmMaterial(endorsement_key=await device.endorsement_key()))
    )
    tpm, token = await keys_of(device), await challenge(enrolled, device)
    async with raw_device(site, "pump-2") as other:
        assert (await other.register(tpm=tpm)).challenge
        await refuses(await other.register(tpm=tpm, authorization=token), "sas-signature")


async def test_the_key_of_one_challenge_does_not_answer_the_next(device, enrolled, refuses):
    tpm, token = await keys_of(device), await challenge(enrolled, device)
    await enrolled.register(tpm=tpm)
    await refuses(await enrolled.register(tpm=tpm, authorization=token), "sas-signature")


async def test_a_challenge_does_not_outlive_a_restart(tmp_path, device, log):
    async with run_site(tmp_path) as site:
        await site.admin.create_enrollment(
            individual("pump-1", TpmMaterial(endorsement_key=await device.endorsement_key()))
        )
        async with raw_device(site, "pump-1") as raw:
            token = await challenge(raw, device)
    async with run_site(tmp_path) as site, raw_device(site, "pump-1") as raw:
        reply = await raw.register(tpm=await keys_of(device), authorization=token)
        audited = await site.store.get_audit(reply.body["trackingId"])
        assert audited.trace[-1].name == "challenge-missing"
        result, _ = await site.register("pump-1", TpmCredential(device=device))
    assert result.device_id == "pump-1"


async def test_the_endorsement_key_of_another_device_is_refused(make_tpm, device, enrolled, refuses):
    other = await make_tpm()
    reply = await enrolled.register(tpm=await keys_of(other))
    await refuses(reply, "endorsement-key-mismatch")


async def test_who_knows_an_endorsement_key_cannot_take_in_its_challenge(make_tpm, device, enrolled, refuses):
    """The endorsement key is public: anybody may have it challenged, and only its TPM can answer."""
    thief = await make_tpm()
    stolen = {"endorsementKey": encode(await device.endorsement_key())}
    reply = await enrolled.register(tpm=await keys_of(thief, **stolen))
    assert reply.challenge
    with pytest.raises(TpmError):
        await thief.import_authentication_key(reply.challenge)


async def test_a_wrong_answer_consumes_the_challenge_and_nothing_else(site, device, enrolled, refuses):
    first, _ = await site.register("pump-1", TpmCredential(device=device))
    before = await site.admin.get_registration("pump-1")
    tpm, token = await keys_of(device), await challenge(enrolled, device)
    wrong = await token_of(device, "pump-2")
    await refuses(await enrolled.register(tpm=tpm, authorization=wrong), "sas-resource")
    await refuses(await enrolled.register(tpm=tpm, authorization=token), "challenge-missing")
    assert await site.admin.get_registration("pump-1") == before
    again, _ = await site.register("pump-1", TpmCredential(device=device))
    assert again.assigned_hub == first.assigned_hub


async def test_an_answer_with_another_storage_root_key_than_was_challenged_is_refused(
    make_tpm, device, enrolled, refuses
):
    """Else the hub key would be wrapped to a key that nobody has proved."""
    token = await challenge(enrolled, device)
    software = make_software_key(STORAGE_TEMPLATE)
    tpm = await keys_of(device, storageRootKey=encode(software.tpm2b))
    await refuses(await enrolled.register(tpm=tpm, authorization=token), "challenge-other-keys")


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.RSA, KeyAlgorithm.ECC])
async def test_nobody_is_challenged_who_is_neither_enrolled_nor_certified(site, make_tpm, refuses, algorithm):
    stranger = await make_tpm(algorithm)
    registration_id = await stranger.registration_id()
    async with raw_device(site, registration_id) as raw:
        await refuses(await raw.register(tpm=await keys_of(stranger)), "enrollment-unknown")
    await site.admin.create_enrollment(group("pumps", TpmMaterial()))
    async with raw_device(site, registration_id) as raw:
        await refuses(await raw.register(tpm=await keys_of(stranger)), "ek-certificate-missing")
