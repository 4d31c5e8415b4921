import asyncio
import contextlib
import hashlib
import hmac
import os
import struct

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from provisiond.device import tpm_templates
from provisiond.device.errors import TPM_RC_HANDLE, TPM_RC_INTEGRITY, TPM_RC_POLICY_FAIL, CredentialError, TpmError
from provisiond.device.tpm import Tpm
from provisiond.device.tpm_device import AUTHENTICATION_KEY_HANDLE, STORAGE_ROOT_KEY_HANDLE
from provisiond.device.tpm_transport import CharacterDeviceTransport, SocketTransport
from provisiond.device.tpm_wire import ALG_SHA256, RH_ENDORSEMENT, RH_OWNER, CommandCode
from tests.device.tpm_challenger import make_authentication_key, make_credential, name_of, parse_key

pytestmark = pytest.mark.swtpm


@pytest.fixture
async def tpm(emulator):
    async with Tpm(await SocketTransport.connect_unix(emulator)) as tpm:
        yield tpm


async def test_startup_of_a_started_tpm_is_not_an_error(tpm):
    await tpm.startup()
    await tpm.startup()


async def test_random_octets_come_from_the_tpm(tpm):
    assert len(await tpm.get_random(16)) == 16


async def test_capabilities_name_the_persistent_handles(tpm):
    key = await tpm.create_primary(RH_OWNER, tpm_templates.SRK_P256)
    await tpm.evict_control(key.handle, 0x81000007)
    handles = await tpm.get_capability(1, 0x81000000, 8)
    assert handles == struct.pack(">II", 1, 0x81000007)


async def test_reading_a_key_that_is_not_there_says_which_code(tpm):
    with pytest.raises(TpmError, match=r"ReadPublic: TPM_RC_HANDLE \(0x18b\)") as raised:
        await tpm.read_public(0x81000042)
    assert raised.value.base == TPM_RC_HANDLE


@pytest.mark.parametrize("template", ["EK_P256", "SRK_P256", "AK_P256", "EK_RSA2048", "SRK_RSA2048"])
async def test_a_primary_key_has_the_name_of_its_public_area(tpm, template):
    key = await tpm.create_primary(RH_ENDORSEMENT, getattr(tpm_templates, template))
    assert key.name == name_of(key.public)
    assert (await tpm.read_public(key.handle)).public == key.public


async def test_a_key_below_the_storage_root_key_can_be_loaded_again(tpm):
    parent = await tpm.create_primary(RH_OWNER, tpm_templates.SRK_P256)
    private, public = await tpm.create(parent.handle, tpm_templates.AK_P256)
    key = await tpm.load(parent.handle, private, public)
    assert key.name == name_of(public)


async def test_loaded_keys_are_flushed_so_that_slots_never_run_out(tpm):
    for _ in range(5):
        async with tpm.loaded(await tpm.create_primary(RH_OWNER, tpm_templates.SRK_P256)):
            pass


async def activate(tpm, endorsement, attestation, credential, secret):
    async with tpm.policy_session() as session:
        await tpm.policy_secret(session)
        return await tpm.activate_credential(
            attestation.handle, endorsement.handle, credential=credential, secret=secret, key_authorization=session
        )


async def duplicate_authentication_key(tpm):
    async with tpm.policy_session() as session:
        await tpm.policy_command_code(session, CommandCode.Duplicate)
        return await tpm.duplicate(AUTHENTICATION_KEY_HANDLE, authorization=session)


async def test_a_credential_is_activated_with_the_policy_of_a_low_range_endorsement_key(tpm):
    endorsement = await tpm.create_primary(RH_ENDORSEMENT, tpm_templates.EK_P256)
    attestation = await tpm.create_primary(RH_ENDORSEMENT, tpm_templates.AK_P256)
    credential, secret = make_credential(endorsement.public, attestation.name, b"s" * 32)
    assert await activate(tpm, endorsement, attestation, credential, secret) == b"s" * 32


async def test_a_credential_for_another_name_is_refused(tpm):
    endorsement = await tpm.create_primary(RH_ENDORSEMENT, tpm_templates.EK_P256)
    attestation = await tpm.create_primary(RH_ENDORSEMENT, tpm_templates.AK_P256)
    credential, secret = make_credential(endorsement.public, b"\x00\x0b" + bytes(32), b"s" * 32)
    with pytest.raises(TpmError) as raised:
        await activate(tpm, endorsement, attestation, credential, secret)
    assert raised.value.base == TPM_RC_INTEGRITY


def verify_ecdsa(public, signature, attested):
    r_size = int.from_bytes(signature[4:6])
    r, s = signature[6 : 6 + r_size], signature[8 + r_size :]
    der = encode_dss_signature(int.from_bytes(r), int.from_bytes(s))
    parse_key(public).verify(der, attested, ec.ECDSA(hashes.SHA256()))


async def test_a_quote_signs_the_nonce_and_the_registers(tpm):
    key = await tpm.create_primary(RH_ENDORSEMENT, tpm_templates.AK_P256)
    attested, signature = await tpm.quote(key.handle, qualifying_data=b"nonce", banks={ALG_SHA256: [0, 7, 16]})
    verify_ecdsa(key.public, signature, attested)
    registers = await tpm.pcr_read(ALG_SHA256, [0, 7, 16])
    assert attested.startswith(bytes.fromhex("ff5443478018"))
    assert b"nonce" in attested
    assert attested.endswith(hashlib.sha256(b"".join(registers)).digest())


async def test_a_key_certifies_another(tpm):
    attestation = await tpm.create_primary(RH_ENDORSEMENT, tpm_templates.AK_P256)
    certified = await tpm.create_primary(RH_OWNER, tpm_templates.SRK_P256)
    attested, signature = await tpm.certify(certified.handle, attestation.handle, qualifying_data=b"nonce")
    verify_ecdsa(attestation.public, signature, attested)
    assert certified.name in attested


async def test_extending_a_register_changes_it(tpm):
    before = await tpm.pcr_read(ALG_SHA256, [16])
    await tpm.pcr_extend(16, {ALG_SHA256: b"m" * 32})
    assert await tpm.pcr_read(ALG_SHA256, [16]) == [hashlib.sha256(before[0] + b"m" * 32).digest()]


async def test_a_restricted_key_does_not_sign_what_others_wrote(tpm):
    key = await tpm.create_primary(RH_ENDORSEMENT, tpm_templates.AK_P256)
    with pytest.raises(TpmError, match="TPM_RC_TICKET"):
        await tpm.sign(key.handle, bytes(32))


async def test_a_public_key_alone_can_be_loaded(tpm):
    key = await tpm.create_primary(RH_OWNER, tpm_templates.SRK_P256)
    loaded = await tpm.load_external(b"", key.public)
    assert loaded.name == key.name


async def test_commands_of_several_tasks_do_not_mix(tpm):
    async with asyncio.TaskGroup() as tasks:
        readers = [tasks.create_task(tpm.get_random(size)) for size in range(1, 20)]
    assert [len(reader.result()) for reader in readers] == list(range(1, 20))


async def test_a_command_given_up_does_not_shift_the_responses_after_it(tpm):
    abandoned = asyncio.create_task(tpm.create_primary(RH_OWNER, tpm_templates.SRK_RSA2048))
    await asyncio.sleep(0)
    assert tpm._transport._outstanding
    abandoned.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await abandoned
    assert len(await tpm.get_random(7)) == 7


async def test_an_emulator_that_is_gone_is_a_tpm_error(tpm):
    tpm._transport._writer.close()
    with pytest.raises(TpmError, match="the TPM is gone"):
        await tpm.get_random(1)


@pytest.mark.parametrize(
    "answer",
    [
        bytes(10),
        bytes.fromhex("00c4 0000000a 00000000"),
        bytes.fromhex("8001 00001001 00000000"),
        bytes.fromhex("8001 00000009 00000000"),
        bytes.fromhex("8001 0000000c 00000000 0010"),
        bytes.fromhex("8002 0000000e 00000000 0000ffff"),
        b"\x80",
    ],
)
async def test_nonsense_from_the_tpm_is_a_tpm_error(answer):
    async def speak(reader, writer):
        await reader.readexactly(12)
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Tpm(await SocketTransport.connect_tcp("127.0.0.1", port)) as tpm:
            with pytest.raises(TpmError):
                await tpm.get_random(16)


async def test_a_command_is_sent_again_while_the_tpm_asks_for_that():
    answers = [bytes.fromhex("8001 0000000a 00000922"), bytes.fromhex("8001 0000000a 00000908")]
    answers.append(bytes.fromhex("8001 0000000d 00000000 0001 2a"))

    async def speak(reader, writer):
        for answer in answers:
            await reader.readexactly(12)
            writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Tpm(await SocketTransport.connect_tcp("127.0.0.1", port)) as tpm:
            assert await tpm.get_random(1) == b"\x2a"


async def test_a_device_file_that_is_not_there_is_a_credential_error(tmp_path):
    with pytest.raises(CredentialError, match="cannot open the TPM"):
        CharacterDeviceTransport.open(tmp_path / "tpmrm0")


async def test_a_device_file_carries_commands(tmp_path):
    """A pseudo-terminal stands for the character device: it has the same read and write."""
    controller, terminal = os.openpty()
    import tty

    tty.setraw(terminal)
    try:
        async with Tpm(CharacterDeviceTransport.open(os.ttyname(terminal))) as tpm:
            asking = asyncio.create_task(tpm.get_random(1))
            command = await asyncio.to_thread(os.read, controller, 100)
            os.write(controller, bytes.fromhex("8001 0000000d 00000000 0001 2a"))
            assert command[6:10] == struct.pack(">I", CommandCode.GetRandom)
            assert await asking == b"\x2a"
    finally:
        os.close(controller)
        os.close(terminal)


async def test_an_imported_key_cannot_be_duplicated_out_of_the_tpm(ecc_device):
    endorsement, storage = await ecc_device.endorsement_key(), await ecc_device.storage_root_key()
    await ecc_device.import_authentication_key(make_authentication_key(endorsement, storage, b"k" * 32))
    with pytest.raises(TpmError) as raised:
        await duplicate_authentication_key(ecc_device.tpm)
    assert raised.value.base == TPM_RC_POLICY_FAIL


async def test_a_key_with_a_duplication_policy_does_come_out(ecc_device):
    """So the test above fails for the right reason: the empty policy is what holds the key."""
    endorsement, storage = await ecc_device.endorsement_key(), await ecc_device.storage_root_key()
    policy = hashlib.sha256(bytes(32) + struct.pack(">II", CommandCode.PolicyCommandCode, CommandCode.Duplicate))
    blob = make_authentication_key(endorsement, storage, b"k" * 32, policy=policy.digest())
    await ecc_device.import_authentication_key(blob)
    private = await duplicate_authentication_key(ecc_device.tpm)
    assert private.endswith(b"k" * 32)


@pytest.mark.parametrize("size", [0, 1, 1024, 1025, 2048, 3000])
async def test_hmac_of_any_length_is_the_keys(ecc_device, size):
    endorsement, storage = await ecc_device.endorsement_key(), await ecc_device.storage_root_key()
    await ecc_device.import_authentication_key(make_authentication_key(endorsement, storage, b"k" * 32))
    data = os.urandom(size)
    assert await ecc_device.tpm.hmac(AUTHENTICATION_KEY_HANDLE, data) == hmac.digest(b"k" * 32, data, "sha256")


async def test_an_unusable_key_leaves_no_sequence_behind(ecc_device):
    await ecc_device.storage_root_key()
    for _ in range(4):
        with pytest.raises(TpmError):
            await ecc_device.tpm.hmac(STORAGE_ROOT_KEY_HANDLE, bytes(3000))
    assert await ecc_device.tpm.get_capability(1, 0x80000000, 8) == bytes(4)
