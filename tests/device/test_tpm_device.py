import base64
import hashlib
import hmac
import re
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.attestation.symmetric_key import generate_sas_token
from provisiond.attestation.tpm_activation import activation_blob
from provisiond.attestation.tpm_structures import parse_public
from provisiond.device import TpmCredential, tpm_templates
from provisiond.device.errors import TPM_RC_HANDLE, TPM_RC_INTEGRITY, CredentialError, TpmError
from provisiond.device.swtpm import run_emulator
from provisiond.device.tpm_device import AUTHENTICATION_KEY_HANDLE, AuthenticationKeyBlob, KeyAlgorithm, open_tpm
from provisiond.device.tpm_wire import ALG_SHA256, tpm2b
from provisiond.system import SystemEntropy
from tests.device.tpm_challenger import make_authentication_key, name_of

swtpm = pytest.mark.swtpm


async def blob_for(device, key=b"k" * 32, **options):
    return make_authentication_key(await device.endorsement_key(), await device.storage_root_key(), key, **options)


@swtpm
async def test_the_keys_are_made_once_and_then_stay(device):
    first = await device.endorsement_key(), await device.storage_root_key()
    assert (await device.endorsement_key(), await device.storage_root_key()) == first
    assert int.from_bytes(first[0][:2]) == len(first[0]) - 2


@swtpm
async def test_the_keys_follow_the_templates(device):
    endorsement, storage = await device.endorsement_key(), await device.storage_root_key()
    for public, rsa, ecc in [
        (endorsement, tpm_templates.EK_RSA2048, tpm_templates.EK_P256),
        (storage, tpm_templates.SRK_RSA2048, tpm_templates.SRK_P256),
    ]:
        template = rsa if public[2:4] == b"\x00\x01" else ecc
        fixed = len(template) - (258 if template is rsa else 68)
        assert public[2 : 2 + fixed] == template[:fixed]


@swtpm
async def test_an_authentication_key_is_imported_and_signs(device):
    await device.import_authentication_key(await blob_for(device))
    assert await device.hmac(b"data") == hmac.digest(b"k" * 32, b"data", "sha256")


@swtpm
async def test_a_later_key_takes_the_place_of_the_earlier(ecc_device):
    await ecc_device.import_authentication_key(await blob_for(ecc_device, b"first"))
    await ecc_device.import_authentication_key(await blob_for(ecc_device, b"second"))
    assert await ecc_device.hmac(b"data") == hmac.digest(b"second", b"data", "sha256")


@swtpm
async def test_answering_a_challenge_leaves_the_hub_key_where_it_is(ecc_device):
    credential = TpmCredential(device=ecc_device)
    await credential.accept_hub_key(await blob_for(ecc_device, b"hub key"))
    answered = await credential.answer(
        await blob_for(ecc_device, b"challenge"), resource="scope/registrations/dev", expiry=1, key_name="registration"
    )
    assert answered == generate_sas_token(
        resource="scope/registrations/dev", key=b"challenge", expiry=1, key_name="registration"
    )
    # Should the service refuse now, or never answer, the device still gets in at its hub.
    assert await ecc_device.hmac(b"data") == hmac.digest(b"hub key", b"data", "sha256")
    for _ in range(4):  # and no slot of the TPM is used up
        async with ecc_device.authentication_key(await blob_for(ecc_device)) as key:
            assert await ecc_device.hmac(b"data", key) == hmac.digest(b"k" * 32, b"data", "sha256")


@swtpm
@pytest.mark.parametrize("tail", [b"", b"\0\0", b"\0\x03uri"])
async def test_the_last_part_of_the_blob_may_be_anything(ecc_device, tail):
    await ecc_device.import_authentication_key(await blob_for(ecc_device, tail=tail))


@swtpm
async def test_a_blob_for_another_tpm_is_refused_and_the_old_key_stays(ecc_device):
    await ecc_device.import_authentication_key(await blob_for(ecc_device))
    async with run_emulator() as path, open_tpm(f"socket:{path}", algorithm=KeyAlgorithm.ECC) as other:
        foreign = await blob_for(other, b"foreign")
    with pytest.raises(TpmError) as raised:
        await ecc_device.import_authentication_key(foreign)
    assert raised.value.base == TPM_RC_INTEGRITY
    assert await ecc_device.hmac(b"data") == hmac.digest(b"k" * 32, b"data", "sha256")


@swtpm
async def test_every_flipped_part_of_the_blob_is_refused(ecc_device):
    blob = await blob_for(ecc_device)
    offset = 0
    for _ in range(5):
        size = 2 + int.from_bytes(blob[offset : offset + 2])
        broken = bytearray(blob)
        broken[offset + size - 1] ^= 1
        with pytest.raises(TpmError):
            await ecc_device.import_authentication_key(bytes(broken))
        offset += size


@swtpm
async def test_signing_without_a_key_says_that_there_is_none(ecc_device):
    with pytest.raises(TpmError) as raised:
        await ecc_device.hmac(b"data")
    assert raised.value.base == TPM_RC_HANDLE


@swtpm
async def test_a_sas_token_is_signed_over_its_own_resource_and_expiry(ecc_device):
    await ecc_device.import_authentication_key(await blob_for(ecc_device))
    token = await ecc_device.sign_sas(resource="scope/registrations/dev", expiry=1700000000, key_name="registration")
    match = re.fullmatch(
        r"SharedAccessSignature sr=(scope%2Fregistrations%2Fdev)&sig=(\S+)&se=1700000000&skn=registration", token
    )
    expected = hmac.digest(b"k" * 32, f"{match[1]}\n1700000000".encode(), "sha256")
    assert base64.b64decode(urllib.parse.unquote(match[2])) == expected


@swtpm
async def test_the_derived_registration_id_is_the_base32_hash_of_the_endorsement_key(ecc_device):
    derived = await ecc_device.registration_id()
    digest = hashlib.sha256(await ecc_device.endorsement_key()).digest()
    assert base64.b32decode(derived.upper() + "====") == digest


@swtpm
async def test_a_quote_is_made_with_an_attestation_key(ecc_device):
    key = await ecc_device.create_attestation_key()
    async with ecc_device.tpm.loaded(key):
        attested, signature = await ecc_device.quote(key, qualifying_data=b"nonce", banks={ALG_SHA256: [0]})
    assert key.name == name_of(key.public)
    assert b"nonce" in attested
    assert signature.startswith(bytes.fromhex("0018000b"))


@swtpm
async def test_a_tpm_without_endorsement_certificate_has_none(ecc_device):
    assert await ecc_device.endorsement_certificate() is None


@pytest.mark.parametrize("specification", ["", "swtpm", "socket", "socket:", "tcp:host", "tcp:host:x", "device:"])
async def test_a_malformed_specification_is_refused(specification):
    with pytest.raises(CredentialError, match="is not socket:PATH"):
        async with open_tpm(specification):
            pass


@pytest.mark.parametrize("specification", ["socket:/nowhere/s", "tcp:127.0.0.1:1", "device:/nowhere"])
async def test_a_tpm_that_is_not_there_is_a_credential_error(specification):
    with pytest.raises(CredentialError):
        async with open_tpm(specification):
            pass


@given(st.lists(st.binary(max_size=300), min_size=5, max_size=6))
def test_a_blob_of_five_or_six_parts_is_split(parts):
    parsed = AuthenticationKeyBlob.parse(b"".join(map(tpm2b, parts)))
    assert [parsed.credential, parsed.credential_secret, parsed.duplicate, parsed.duplication_seed, parsed.public] == [
        tpm2b(part) for part in parts[:5]
    ]


@given(st.binary(max_size=200))
def test_any_octets_are_a_blob_or_a_documented_error(octets):
    try:
        AuthenticationKeyBlob.parse(octets)
    except TpmError:
        return


@swtpm
async def test_the_services_blob_is_taken_in_by_a_tpm(device):
    """The service's implementation against a real TPM; elsewhere in this file it is the tests' own."""
    blob = activation_blob(
        endorsement_key=parse_public(await device.endorsement_key()),
        storage_root_key=parse_public(await device.storage_root_key()),
        key=b"s" * 32,
        entropy=SystemEntropy(),
    )
    await device.import_authentication_key(blob)
    assert await device.hmac(b"data") == hmac.digest(b"s" * 32, b"data", "sha256")
    assert await device.tpm.hmac(AUTHENTICATION_KEY_HANDLE, bytes(2000)) == hmac.digest(
        b"s" * 32, bytes(2000), "sha256"
    )
