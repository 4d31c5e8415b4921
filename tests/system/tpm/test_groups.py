"""TPMs that nobody enrolled one by one: their maker certifies them (swtpm_setup's local CA is the maker)."""

import hashlib
import os
import re
import signal
from contextlib import asynccontextmanager

import pytest

from provisiond.attestation.ek_certificate_reader import read_stored_certificate
from provisiond.device import Step, TpmCredential
from provisiond.device.tpm_device import ENDORSEMENT_KEY_HANDLE, KeyAlgorithm
from provisiond.model import EnrollmentKind, TpmMaterial
from tests.attestation.ek_certificate_factory import EkAuthority
from tests.enrollment_factory import group, individual
from tests.running_service import run_site
from tests.system.tpm.manufacturing import TpmMaker
from tests.system.tpm.raw_device import encode, keys_of, raw_device, token_of

pytestmark = pytest.mark.swtpm

P384_HANDLE = 0x81010016  # where swtpm_setup, as the TCG's guidance, puts it


@pytest.fixture(scope="session")
def maker(tmp_path_factory):
    return TpmMaker(tmp_path_factory.mktemp("maker"))


@pytest.fixture(scope="session")
def states(maker):
    """The state of two manufactured TPMs."""
    return maker.make("first"), maker.make("second")


@pytest.fixture
def make_certified(make_tpm, states):
    async def make(number=0, handle=ENDORSEMENT_KEY_HANDLE):
        return await make_tpm(KeyAlgorithm.ECC, state_dir=states[number], endorsement_key_handle=handle)

    return make


@pytest.fixture
async def certified(make_certified):
    return await make_certified()


@asynccontextmanager
async def site_of(directory, *anchors, **tpm):
    """A service that trusts these certificates."""
    roots = directory / "tpm-roots.d"
    roots.mkdir(exist_ok=True)
    for number, anchor in enumerate(anchors):
        (roots / f"{number}.der").write_bytes(anchor)
    async with run_site(directory, attestation={"tpm": {"ek_roots_dir": str(roots)} | tpm}) as site:
        yield site


async def enroll(site, *allowed_ids):
    await site.admin.create_enrollment(group("pumps", TpmMaterial(allowed_ids=allowed_ids)))


async def certified_keys(device, maker, **replaced):
    certificate = await device.endorsement_certificate()
    own = {"ekCertificate": encode(certificate), "ekChain": [encode(maker.issuer_der)]}
    return await keys_of(device, **own | replaced)


async def refused(site, reply, finding):
    assert reply.challenge is None, reply.body
    audited = await site.store.get_audit(reply.body["trackingId"])
    failed = [check.name for check in audited.trace if not check.passed]
    assert failed, audited
    assert failed[-1] == finding, audited.trace
    return audited


@pytest.mark.parametrize("handle", [ENDORSEMENT_KEY_HANDLE, P384_HANDLE], ids=["RSA-2048", "P-384"])
async def test_a_certified_tpm_has_the_id_derived_from_its_endorsement_key(tmp_path, maker, make_certified, handle):
    device = await make_certified(handle=handle)
    registration_id = await device.registration_id()
    async with site_of(tmp_path, maker.root_der) as site:
        await enroll(site)
        credential = TpmCredential(device=device, ek_chain=(maker.issuer_der,))
        result, steps = await site.register(registration_id, credential)
        record = await site.admin.get_registration(registration_id)
    assert Step.CHALLENGE in steps
    assert result.body["registrationState"]["tpm"]["enrollmentGroupId"] == "pumps"
    assert (record.enrollment_kind, record.enrollment_id) == (EnrollmentKind.GROUP, "pumps")
    assert record.endorsement_key == await device.endorsement_key()
    assert len(await device.hmac(b"x")) == 32


async def test_an_intermediate_of_the_maker_may_be_the_anchor(tmp_path, maker, certified):
    async with site_of(tmp_path, maker.issuer_der) as site:
        await enroll(site)
        await site.register(await certified.registration_id(), TpmCredential(device=certified))


async def test_a_listed_id_may_be_claimed_by_the_first_certified_tpm(tmp_path, maker, make_certified):
    first, second = await make_certified(0), await make_certified(1)
    chain = (maker.issuer_der,)
    async with site_of(tmp_path, maker.root_der) as site:
        await enroll(site, "pump-1", "pump-2")
        await site.register("Pump-1", TpmCredential(device=first, ek_chain=chain))
        async with raw_device(site, "pump-1") as raw:
            await refused(site, await raw.register(tpm=await certified_keys(second, maker)), "endorsement-key-changed")
        async with raw_device(site, "pump-2") as raw:
            await refused(site, await raw.register(tpm=await certified_keys(first, maker)), "endorsement-key-in-use")
        await site.register("pump-2", TpmCredential(device=second, ek_chain=chain))


@pytest.mark.parametrize("allowed", [(), ("pump-2",)], ids=["derived", "listed"])
async def test_no_other_id_is_given(tmp_path, maker, certified, allowed):
    async with site_of(tmp_path, maker.root_der) as site:
        await enroll(site, *allowed)
        async with raw_device(site, "pump-1") as raw:
            reply = await raw.register(tpm=await certified_keys(certified, maker))
        audited = await refused(site, reply, "registration-id-not-derived")
    assert await certified.registration_id() in audited.reason


async def test_without_anchors_nobody_comes_in_and_the_start_says_so(tmp_path, maker, certified, log):
    async with site_of(tmp_path) as site:
        await enroll(site)
        async with raw_device(site, await certified.registration_id()) as raw:
            reply = await raw.register(tpm=await certified_keys(certified, maker))
            await refused(site, reply, "ek-anchors-missing")
    assert not [record for record in log if record["log_level"] == "warning"]
    async with site_of(tmp_path):
        pass
    (warning,) = [record for record in log if record["log_level"] == "warning"]
    assert (warning["groups"], warning["ek_roots_dir"]) == ("pumps", str(tmp_path / "tpm-roots.d"))


async def test_a_reload_takes_over_new_anchors(tmp_path, maker, certified):
    async with site_of(tmp_path) as site:
        await enroll(site)
        (tmp_path / "tpm-roots.d" / "maker.der").write_bytes(maker.root_der)
        os.kill(os.getpid(), signal.SIGHUP)
        credential = TpmCredential(device=certified, ek_chain=(maker.issuer_der,))
        await site.register(await certified.registration_id(), credential)


async def test_another_makers_root_does_not_do(tmp_path, maker, certified):
    async with site_of(tmp_path, EkAuthority("swtpm-localca-rootca").der) as site:
        await enroll(site)
        async with raw_device(site, await certified.registration_id()) as raw:
            reply = await raw.register(tpm=await certified_keys(certified, maker))
            await refused(site, reply, "ek-certificate-path")


async def test_the_certificate_of_another_tpm_does_not_do(tmp_path, maker, make_certified):
    first, second = await make_certified(0), await make_certified(1)
    others = {"ekCertificate": encode(await second.endorsement_certificate())}
    async with site_of(tmp_path, maker.root_der) as site:
        await enroll(site)
        async with raw_device(site, await first.registration_id()) as raw:
            reply = await raw.register(tpm=await certified_keys(first, maker, **others))
            await refused(site, reply, "ek-certificate-key")


async def test_who_has_a_certified_tpm_does_not_pass_for_another_one(tmp_path, maker, make_certified):
    """Endorsement keys and their certificates are public; a challenge of one's own says nothing about them."""
    thief, victim = await make_certified(0), await make_certified(1)
    async with site_of(tmp_path, maker.root_der) as site:
        await enroll(site, "pump-1")
        async with raw_device(site, "pump-1") as raw:
            challenged = await raw.register(tpm=await certified_keys(thief, maker))
            await thief.import_authentication_key(challenged.challenge)
            reply = await raw.register(
                tpm=await certified_keys(victim, maker), authorization=await token_of(thief, "pump-1")
            )
            await refused(site, reply, "challenge-other-keys")
        assert await site.admin.find_registration("pump-1") is None


@pytest.mark.parametrize("how", ["endorsement key", "certificate", "issuer and serial number", "firmware", "authority"])
async def test_what_is_on_the_deny_list_is_refused_however_well_it_is_certified(tmp_path, maker, certified, how):
    registration_id = await certified.registration_id()
    certificate = read_stored_certificate(await certified.endorsement_certificate())
    line = {
        "endorsement key": registration_id,
        "certificate": hashlib.sha256(certificate.octets).hexdigest(),
        "issuer and serial number": f"{hashlib.sha256(certificate.issuer).hexdigest()} {certificate.serial_number:x}",
        "firmware": "id:00001014 id:20191023",
        "authority": hashlib.sha256(maker.issuer_der).hexdigest(),
    }[how]
    deny_file = tmp_path / "deny"
    deny_file.write_text("")
    async with site_of(tmp_path, maker.root_der, deny_file=str(deny_file)) as site:
        await enroll(site)
        deny_file.write_text(f"{line}  # because\n")
        site.daemon.reload()
        async with raw_device(site, registration_id) as raw:
            audited = await refused(site, await raw.register(tpm=await certified_keys(certified, maker)), "ek-denied")
    told = next(check.finding for check in audited.trace if check.name == "ek-certificate")
    assert re.fullmatch(r"serial number [0-9a-f]+, issuer [0-9a-f]{64}", told)


async def test_an_enrollment_of_its_own_disables_one_tpm_of_a_group(tmp_path, maker, certified):
    registration_id = await certified.registration_id()
    material = TpmMaterial(endorsement_key=await certified.endorsement_key())
    async with site_of(tmp_path, maker.root_der) as site:
        await enroll(site)
        await site.admin.create_enrollment(individual(registration_id, material, enabled=False))
        async with raw_device(site, registration_id) as raw:
            tpm = await certified_keys(certified, maker)
            challenged = await raw.register(tpm=tpm)
            await certified.import_authentication_key(challenged.challenge)
            reply = await raw.register(tpm=tpm, authorization=await token_of(certified, registration_id))
    assert reply.body["status"] == "disabled"
    assert "authenticationKey" not in str(reply.body)
