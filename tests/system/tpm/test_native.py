"""The native profile: an attestation key, its credential, and a quote where the enrollment has a PCR policy."""

import dataclasses
import hmac
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from provisiond.attestation.tpm_algorithms import ObjectAttributes
from provisiond.attestation.tpm_attest import encode_attest, parse_attest, parse_signature
from provisiond.attestation.tpm_attestation import verify_attest
from provisiond.attestation.tpm_structures import parse_public
from provisiond.device import Refused, Step, TpmCredential
from provisiond.device.dialect import NativeDialect
from provisiond.device.errors import TpmError
from provisiond.device.swtpm import run_emulator
from provisiond.device.tpm_device import KeyAlgorithm, open_tpm
from provisiond.device.tpm_wire import ALG_SHA256, RH_ENDORSEMENT, RH_OWNER
from provisiond.model import TpmMaterial, Trace
from tests.enrollment_factory import individual
from tests.running_service import run_site
from tests.system.tpm.raw_native import activate, proved, quoted, raw_native
from tests.system.tpm.software_key import (
    ATTESTATION_TEMPLATE,
    activates,
    import_below,
    load_into_null_hierarchy,
    make_software_key,
)
from tests.system.tpm.test_attacks import Later

pytestmark = pytest.mark.swtpm

USER, SIGN, RESTRICTED = ObjectAttributes.USER_WITH_AUTH, ObjectAttributes.SIGN, ObjectAttributes.RESTRICTED
PROFILE_OFFSET = 4  # objectAttributes of a template


async def enroll(site, device, **options):
    material = TpmMaterial(endorsement_key=await device.endorsement_key(), **options)
    await site.admin.create_enrollment(individual("pump-1", material))


async def register(site, device):
    site.service = dataclasses.replace(site.service, dialect=NativeDialect())
    return await site.register("pump-1", TpmCredential(device=device))


async def registers_of(device, *indices):
    """A PCR policy for what these registers hold now."""
    values = await device.tpm.pcr_read(ALG_SHA256, indices)
    return {"pcrs": {"sha256": {str(index): [value.hex()] for index, value in zip(indices, values, strict=True)}}}


async def finding_of(site, error):
    audited = await site.store.get_audit(error.value.tracking_id)
    return [check.name for check in audited.trace if not check.passed][-1]


@pytest.fixture
async def native(site):
    async with raw_native(site, "pump-1") as raw:
        yield raw


@asynccontextmanager
async def attestation_key(device, hierarchy=RH_ENDORSEMENT, template=ATTESTATION_TEMPLATE):
    key = await device.tpm.create_primary(hierarchy, template)
    async with device.tpm.loaded(key):
        yield key


@pytest.fixture
async def challenged(site, device, native):
    """The enrolled device's connection, its attestation key, and the challenge that is open."""
    await enroll(site, device)
    async with attestation_key(device) as key:
        heard = await native.register(device, key)
        assert heard.challenge, heard.body
        yield native, key, heard.challenge


# --- the flow --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
async def test_a_tpm_is_assigned_and_holds_its_hub_key(site, make_tpm, algorithm):
    device = await make_tpm(algorithm)
    await enroll(site, device)
    result, steps = await register(site, device)
    assert steps == [Step.CONNECTED, Step.CHALLENGE, Step.ASSIGNING, Step.ASSIGNED]
    assert (result.assigned_hub, result.device_id) == ("gateway.local", "pump-1")
    key = (await site.admin.get_registration("pump-1")).hub_key
    assert await device.hmac(b"to my hub") == hmac.digest(key, b"to my hub", "sha256")


async def test_both_protocols_give_the_same_hub_key(site, device):
    await enroll(site, device)
    await site.register("pump-1", TpmCredential(device=device))
    before = await device.hmac(b"x")
    await register(site, device)
    assert await device.hmac(b"x") == before


# --- the platform's state --------------------------------------------------------------------------------------------


async def test_a_platform_in_an_allowed_state_is_let_in_and_after_a_change_no_more(site, device):
    await enroll(site, device, pcr_policy=await registers_of(device, 0, 7))
    await register(site, device)
    before = await site.admin.get_registration("pump-1")
    await device.tpm.pcr_extend(7, {ALG_SHA256: bytes(32)})
    with pytest.raises(Refused) as raised:
        await register(site, device)
    assert raised.value.status == 401
    assert await finding_of(site, raised) == "quote-pcr-value"
    assert await site.admin.get_registration("pump-1") == before


@pytest.mark.parametrize(("floor", "finding"), [("0x2019000000000000", None), ("0x7fffffffffffffff", "quote-firmware")])
async def test_firmware_must_not_be_older_than_the_policy_says(site, device, floor, finding):
    await enroll(site, device, pcr_policy={"firmwareVersionMin": floor})
    if finding is None:
        await register(site, device)
        return
    with pytest.raises(Refused) as raised:
        await register(site, device)
    assert await finding_of(site, raised) == finding


async def test_a_clock_that_may_have_gone_back_is_not_safe(site, tmp_path):
    """It may have, when the TPM lost its power without a shutdown."""
    async with run_emulator(tmp_path / "tpm") as path, open_tpm(f"socket:{path}", algorithm=KeyAlgorithm.ECC) as device:
        await enroll(site, device, pcr_policy={"requireSafeClock": True})
        await register(site, device)
    async with run_emulator(tmp_path / "tpm") as path, open_tpm(f"socket:{path}") as device:
        with pytest.raises(Refused) as raised:
            await register(site, device)
    assert await finding_of(site, raised) == "quote-clock"


async def test_an_answer_without_the_quote_is_refused(site, device, native, refuses):
    await enroll(site, device, pcr_policy=await registers_of(device, 0))
    async with attestation_key(device) as key:
        challenge = (await native.register(device, key)).challenge
        assert challenge.pcr_selection == {"sha256": [0]}
        answer = proved(native.transcript(challenge), await activate(device, key, challenge))
        await refuses(await native.answer(answer), "quote-missing")


async def test_a_quote_of_other_registers_is_refused(site, device, native, refuses):
    await enroll(site, device, pcr_policy=await registers_of(device, 0, 7))
    async with attestation_key(device) as key:
        challenge = (await native.register(device, key)).challenge
        transcript = native.transcript(challenge)
        quote = await quoted(device, key, transcript, registers=(0,))
        answer = proved(transcript, await activate(device, key, challenge), **quote)
        await refuses(await native.answer(answer), "quote-pcr-missing")


async def test_a_quote_that_is_bound_to_another_challenge_is_refused(site, device, native, refuses):
    await enroll(site, device, pcr_policy=await registers_of(device, 0))
    async with attestation_key(device) as key:
        first = (await native.register(device, key)).challenge
        stale = native.transcript(first)
        challenge = (await native.register(device, key)).challenge
        transcript = native.transcript(challenge)
        quote = await quoted(device, key, transcript, bound_to=stale)
        answer = proved(transcript, await activate(device, key, challenge), **quote)
        await refuses(await native.answer(answer), "attest-extra-data")


async def test_a7_an_attestation_key_of_the_owner_hides_the_firmware_version(site, device, native, refuses):
    await enroll(site, device, pcr_policy={"firmwareVersionMin": 1})
    async with attestation_key(device, RH_OWNER) as key:
        challenge = (await native.register(device, key)).challenge
        transcript = native.transcript(challenge)
        quote = await quoted(device, key, transcript)
        answer = proved(transcript, await activate(device, key, challenge), **quote)
        await refuses(await native.answer(answer), "attest-hierarchy")


# --- attestation keys ------------------------------------------------------------------------------------------------


async def test_a1_a_software_attestation_key_in_the_null_hierarchy_activates_and_is_refused(
    site, device, native, refuses
):
    await enroll(site, device)
    software = make_software_key(ATTESTATION_TEMPLATE, attributes=USER | SIGN)
    async with device.tpm.loaded(await load_into_null_hierarchy(device.tpm, software)) as key:
        assert await activates(device, key, software.public.name)
        await refuses(await native.register(device, key), "attestation-key-not-resident")


async def test_a3_a_software_attestation_key_below_the_storage_root_key_activates_and_is_refused(
    site, device, native, refuses
):
    await enroll(site, device)
    software = make_software_key(ATTESTATION_TEMPLATE, attributes=USER | SIGN | RESTRICTED)
    async with device.tpm.loaded(await import_below(device, software)) as key:
        assert await activates(device, key, software.public.name)
        await refuses(await native.register(device, key), "attestation-key-not-resident")


async def test_a4_an_unrestricted_key_signs_a_forged_quote_and_is_refused(site, device, native, refuses):
    unrestricted = ATTESTATION_TEMPLATE[:PROFILE_OFFSET] + bytes.fromhex("00040072") + ATTESTATION_TEMPLATE[8:]
    await enroll(site, device)
    async with attestation_key(device, template=unrestricted) as key:
        attest, _ = await device.quote(key, qualifying_data=b"n", banks={ALG_SHA256: [7]})
        genuine = parse_attest(attest)
        body = dataclasses.replace(genuine.body, pcr_digest=bytes(32))
        forged = encode_attest(dataclasses.replace(genuine, body=body))
        public = parse_public(key.public)
        signature = await device.tpm.sign(key.handle, public.template.scheme.hash.digest(forged))
        assert parse_signature(signature)
        verify_attest(public, forged, signature, b"n", Trace())  # the forgery is as good as the genuine one
        await refuses(await native.register(device, key), "attestation-key-not-restricted")
    async with attestation_key(device) as restricted:
        with pytest.raises(TpmError):
            await device.tpm.sign(restricted.handle, public.template.scheme.hash.digest(forged))


async def test_who_knows_both_keys_of_another_tpm_cannot_answer(site, make_tpm, device, native):
    await enroll(site, device)
    thief = await make_tpm()
    async with attestation_key(device) as key, attestation_key(thief) as own:
        challenge = (await native.register(device, key)).challenge
        with pytest.raises(TpmError):
            await activate(thief, own, challenge)


async def test_an_attestation_key_of_another_tpm_cannot_answer(site, make_tpm, device, native):
    await enroll(site, device)
    other = await make_tpm()
    async with attestation_key(device) as own, attestation_key(other) as foreign:
        challenge = (await native.register(device, foreign)).challenge
        for tpm, key in ((device, own), (other, foreign)):
            with pytest.raises(TpmError):
                await activate(tpm, key, challenge)


# --- challenges ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {"id_scope": "0ne0OTHER"},
        {"registration_id": "Pump-1"},
        {"challenge_id": "another"},
        {"session_id": "another"},
        {"request_sha256": bytes(32)},
    ],
    ids=lambda changed: next(iter(changed)),
)
async def test_an_answer_covers_all_that_was_said(device, challenged, refuses, changed):
    native, key, challenge = challenged
    secret = await activate(device, key, challenge)
    answer = proved(native.transcript(challenge, **changed), secret).replace(
        b'"another"', f'"{challenge.challenge_id}"'.encode()
    )
    await refuses(await native.answer(answer), "credential-proof")


async def test_a_challenge_is_answered_once(device, challenged, refuses):
    native, key, challenge = challenged
    answer = proved(native.transcript(challenge), await activate(device, key, challenge))
    assert (await native.answer(answer)).state["status"] == "assigned"
    await refuses(await native.answer(answer), "challenge-missing")


async def test_a_late_answer_is_refused(site, device, challenged, refuses):
    native, key, challenge = challenged
    answer = proved(native.transcript(challenge), await activate(device, key, challenge))
    pipeline = site.daemon._pipeline
    pipeline._clock = Later(pipeline._clock, timedelta(seconds=121))
    await refuses(await native.answer(answer), "challenge-expired")


async def test_an_answer_by_another_connection_or_registration_is_refused(site, device, challenged, refuses):
    native, key, challenge = challenged
    answer = proved(native.transcript(challenge), await activate(device, key, challenge))
    async with raw_native(site, "pump-2") as other:
        await refuses(await other.answer(answer), "enrollment-unknown")
    challenge = (await native.register(device, key)).challenge
    answer = proved(native.transcript(challenge), await activate(device, key, challenge))
    async with raw_native(site, "Pump-1") as other:
        await refuses(await other.answer(answer), "challenge-other-connection")
        await refuses(await native.answer(answer), "challenge-missing")


async def test_a_challenge_does_not_outlive_a_restart(tmp_path, device, log):
    async with run_site(tmp_path) as site:
        await enroll(site, device)
        async with raw_native(site, "pump-1") as native, attestation_key(device) as key:
            challenge = (await native.register(device, key)).challenge
            answer = proved(native.transcript(challenge), await activate(device, key, challenge))
    async with run_site(tmp_path) as site:
        async with raw_native(site, "pump-1") as native:
            reply = await native.answer(answer)
        audited = await site.store.get_audit(reply.body["trackingId"])
        assert audited.trace[-1].name in {"challenge-missing", "challenge-other-connection"}
        await register(site, device)


async def test_a_wrong_proof_consumes_the_challenge_and_nothing_else(site, device, challenged, refuses):
    native, key, challenge = challenged
    secret = await activate(device, key, challenge)
    transcript = native.transcript(challenge)
    await refuses(await native.answer(proved(transcript, bytes(32))), "credential-proof")
    await refuses(await native.answer(proved(transcript, secret)), "challenge-missing")
    assert await site.admin.find_registration("pump-1") is None
    again = (await native.register(device, key)).challenge
    heard = await native.answer(proved(native.transcript(again), await activate(device, key, again)))
    assert heard.state["status"] == "assigned"


async def test_nobody_is_challenged_who_is_neither_enrolled_nor_certified(site, make_tpm, native, refuses):
    stranger = await make_tpm()
    async with attestation_key(stranger) as key:
        await refuses(await native.register(stranger, key), "enrollment-unknown")


@pytest.mark.parametrize("junk", [b"", b"\x00", bytes(1024), b"\xff" * 118])
async def test_an_attestation_key_that_is_none_is_malformed(site, device, native, refuses, junk):
    await enroll(site, device)
    async with attestation_key(device) as key:
        reply = await native.register(device, key, attestation_key=junk)
    await refuses(reply, "tpm-structure" if junk else "malformed-request", code=400004)
