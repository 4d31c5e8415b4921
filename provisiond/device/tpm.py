"""An asyncio TPM 2.0 client: one method a command, octets in, octets out (TPM 2.0 Part 3).

It speaks raw commands to swtpm or `/dev/tpmrm0`, with password and policy sessions only: no native library. Structures
(TPM2B_PUBLIC, TPMS_ATTEST …) pass through unopened. A TPM has three slots for transient objects, so every handle that
is not persistent is flushed by whoever made it.

    tpm = Tpm(await SocketTransport.connect_unix(path))
    async with tpm:
        random = await tpm.get_random(16)
"""

import asyncio
import secrets
import struct
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from provisiond.device.errors import TPM_RC_INITIALIZE, TpmError
from provisiond.device.tpm_transport import Transport
from provisiond.device.tpm_wire import (
    ALG_NULL,
    ALG_SHA256,
    PASSWORD,
    RH_ENDORSEMENT,
    RH_LOCKOUT,
    RH_NULL,
    RH_OWNER,
    SCHEME_NULL,
    SYMMETRIC_NULL,
    Authorization,
    CommandCode,
    Response,
    decode_response,
    encode_command,
    pcr_selection,
    policy,
    response_code_of,
    tpm2b,
)

# TPM_RC_YIELDED, TPM_RC_TESTING, TPM_RC_NV_RATE, TPM_RC_RETRY: submit the same command again (TPM 2.0 Part 2 6.6.3).
_RESUBMIT_CODES: Final = frozenset({0x908, 0x90A, 0x920, 0x922})
_RESUBMIT_LIMIT: Final = 40  # with the delays below about 15 s, longer than any self-test
_RESUBMIT_FIRST_DELAY_S: Final = 0.005
_RESUBMIT_MAX_DELAY_S: Final = 0.5
INPUT_BUFFER_SIZE_BYTES: Final = 1024  # TPM_PT_INPUT_BUFFER, the same in every TPM 2.0 profile
_NONCE_SIZE_BYTES: Final = 16  # the least that StartAuthSession takes
_SESSION_POLICY: Final = 0x01  # TPM_SE
_STARTUP_CLEAR: Final = 0x0000


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key in the TPM: its handle, TPM2B_PUBLIC with its length, and Name (algorithm and digest)."""

    handle: int
    public: bytes
    name: bytes


class Tpm:
    """A TPM 2.0 behind a transport. Commands of several tasks are queued, one at a time.

    Every method raises TpmError for a response code other than success.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._transport.close()

    async def execute(
        self,
        code: CommandCode,
        handles: Iterable[int] = (),
        parameters: bytes = b"",
        *,
        authorizations: Iterable[Authorization] = (),
        returns_handle: bool = False,
    ) -> Response:
        """Send one command, again while the TPM asks for that, and split its response.

        Raises:
            TpmError: any response code but success, or a response that is not one.
        """
        command = encode_command(code, handles, authorizations, parameters)
        delay_s = _RESUBMIT_FIRST_DELAY_S
        for _ in range(_RESUBMIT_LIMIT):
            async with self._lock:
                response = await self._transport.transmit(command)
            response_code = response_code_of(response, code.name)
            if response_code not in _RESUBMIT_CODES:
                break
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _RESUBMIT_MAX_DELAY_S)
        if response_code:
            raise TpmError(response_code, code.name)
        return decode_response(response, code.name, returns_handle=returns_handle)

    # --- start, capabilities, randomness -----------------------------------------------------------------------------

    async def startup(self) -> None:
        """TPM2_Startup(CLEAR); one that has been started already is left alone."""
        try:
            await self.execute(CommandCode.Startup, parameters=struct.pack(">H", _STARTUP_CLEAR))
        except TpmError as error:
            if error.response_code != TPM_RC_INITIALIZE:
                raise

    async def get_capability(self, capability: int, first: int, count: int) -> bytes:
        """TPM2_GetCapability: TPMU_CAPABILITIES octets, without `moreData` and the capability's number."""
        parameters = struct.pack(">III", capability, first, count)
        reader = (await self.execute(CommandCode.GetCapability, parameters=parameters)).parameters
        reader.take(1 + 4)
        return reader.rest()

    async def get_random(self, size_bytes: int) -> bytes:
        """TPM2_GetRandom: at most as many octets as the TPM's largest digest."""
        parameters = struct.pack(">H", size_bytes)
        return (await self.execute(CommandCode.GetRandom, parameters=parameters)).parameters.tpm2b()

    async def clear(self) -> None:
        """TPM2_Clear with the lockout hierarchy's empty authorisation: the owner's keys are gone, and so is the storage
        root key, for a new one comes from a new seed. The endorsement key can be made again.
        """
        await self.execute(CommandCode.Clear, [RH_LOCKOUT], authorizations=[PASSWORD])

    # --- keys --------------------------------------------------------------------------------------------------------

    async def create_primary(self, hierarchy: int, template: bytes) -> Key:
        """TPM2_CreatePrimary from a TPMT_PUBLIC template, with empty authorisation; the handle is transient."""
        parameters = tpm2b(tpm2b(b"") + tpm2b(b"")) + tpm2b(template) + tpm2b(b"") + bytes(4)
        response = await self.execute(
            CommandCode.CreatePrimary, [hierarchy], parameters, authorizations=[PASSWORD], returns_handle=True
        )
        public = response.parameters.whole_tpm2b()
        response.parameters.tpm2b()  # creationData
        response.parameters.tpm2b()  # creationHash
        response.parameters.take(2 + 4)  # creationTicket: tag, hierarchy
        response.parameters.tpm2b()  # and its digest
        return Key(handle=response.handle, public=public, name=response.parameters.tpm2b())

    async def create(self, parent: int, template: bytes) -> tuple[bytes, bytes]:
        """TPM2_Create below a storage key with empty authorisation: TPM2B_PRIVATE and TPM2B_PUBLIC for `load`."""
        parameters = tpm2b(tpm2b(b"") + tpm2b(b"")) + tpm2b(template) + tpm2b(b"") + bytes(4)
        reader = (await self.execute(CommandCode.Create, [parent], parameters, authorizations=[PASSWORD])).parameters
        return reader.whole_tpm2b(), reader.whole_tpm2b()

    async def load(self, parent: int, private: bytes, public: bytes, *, authorization: Authorization = PASSWORD) -> Key:
        """TPM2_Load of TPM2B_PRIVATE and TPM2B_PUBLIC; the handle is transient."""
        response = await self.execute(
            CommandCode.Load, [parent], private + public, authorizations=[authorization], returns_handle=True
        )
        return Key(handle=response.handle, public=public, name=response.parameters.tpm2b())

    async def load_external(self, sensitive: bytes, public: bytes, hierarchy: int = RH_NULL) -> Key:
        """TPM2_LoadExternal of TPMT_SENSITIVE (empty for a public key alone) and TPM2B_PUBLIC."""
        response = await self.execute(
            CommandCode.LoadExternal,
            parameters=tpm2b(sensitive) + public + struct.pack(">I", hierarchy),
            returns_handle=True,
        )
        return Key(handle=response.handle, public=public, name=response.parameters.tpm2b())

    async def read_public(self, handle: int) -> Key:
        """TPM2_ReadPublic; TPM_RC_HANDLE when nothing is there."""
        reader = (await self.execute(CommandCode.ReadPublic, [handle])).parameters
        return Key(handle=handle, public=reader.whole_tpm2b(), name=reader.tpm2b())

    async def evict_control(self, handle: int, persistent_handle: int) -> None:
        """TPM2_EvictControl with the owner's empty authorisation: persist a transient key, or remove a persistent one
        when both handles are the same.
        """
        parameters = struct.pack(">I", persistent_handle)
        await self.execute(CommandCode.EvictControl, [RH_OWNER, handle], parameters, authorizations=[PASSWORD])

    async def flush_context(self, handle: int) -> None:
        """TPM2_FlushContext of a transient object or a session."""
        await self.execute(CommandCode.FlushContext, parameters=struct.pack(">I", handle))

    @asynccontextmanager
    async def loaded(self, key: Key) -> AsyncIterator[Key]:
        """Flush a transient key when the block ends."""
        try:
            yield key
        finally:
            await self.flush_context(key.handle)

    async def import_key(
        self,
        parent: int,
        *,
        public: bytes,
        duplicate: bytes,
        seed: bytes,
        inner_key: bytes = b"",
        symmetric: bytes = SYMMETRIC_NULL,
        authorization: Authorization = PASSWORD,
    ) -> bytes:
        """TPM2_Import of a duplication blob below a storage key: TPM2B_PRIVATE for `load`.

        Args:
            parent: handle of the storage key that the blob is wrapped to.
            public: TPM2B_PUBLIC of the object, with its length like the next two.
            duplicate: TPM2B_PRIVATE, the wrapped sensitive area.
            seed: TPM2B_ENCRYPTED_SECRET for the parent.
            inner_key: key of the inner wrapper; empty when there is none.
            symmetric: TPMT_SYM_DEF_OBJECT of the inner wrapper.
            authorization: for the parent.
        """
        parameters = tpm2b(inner_key) + public + duplicate + seed + symmetric
        response = await self.execute(CommandCode.Import, [parent], parameters, authorizations=[authorization])
        return response.parameters.whole_tpm2b()

    async def duplicate(self, handle: int, new_parent: int = RH_NULL, *, authorization: Authorization) -> bytes:
        """TPM2_Duplicate without inner wrapper: TPM2B_PRIVATE. Needs a policy session with PolicyCommandCode."""
        response = await self.execute(
            CommandCode.Duplicate, [handle, new_parent], tpm2b(b"") + SYMMETRIC_NULL, authorizations=[authorization]
        )
        response.parameters.tpm2b()  # encryptionKeyOut
        return response.parameters.whole_tpm2b()

    # --- sessions ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def policy_session(self) -> AsyncIterator[Authorization]:
        """TPM2_StartAuthSession for an unsalted, unbound SHA-256 policy session, flushed when the block ends."""
        parameters = (
            tpm2b(secrets.token_bytes(_NONCE_SIZE_BYTES))
            + tpm2b(b"")
            + struct.pack(">B", _SESSION_POLICY)
            + SYMMETRIC_NULL
            + struct.pack(">H", ALG_SHA256)
        )
        response = await self.execute(CommandCode.StartAuthSession, [RH_NULL, RH_NULL], parameters, returns_handle=True)
        try:
            yield policy(response.handle)
        finally:
            await self.flush_context(response.handle)

    async def policy_secret(self, session: Authorization, entity: int = RH_ENDORSEMENT) -> None:
        """TPM2_PolicySecret with the entity's empty authorisation and an empty policyRef (PolicyA of low-range EKs)."""
        parameters = tpm2b(b"") * 3 + bytes(4)
        await self.execute(CommandCode.PolicySecret, [entity, session.session], parameters, authorizations=[PASSWORD])

    async def policy_command_code(self, session: Authorization, code: CommandCode) -> None:
        """TPM2_PolicyCommandCode."""
        await self.execute(CommandCode.PolicyCommandCode, [session.session], struct.pack(">I", code))

    # --- attestation -------------------------------------------------------------------------------------------------

    async def activate_credential(
        self, activated: int, key: int, *, credential: bytes, secret: bytes, key_authorization: Authorization
    ) -> bytes:
        """TPM2_ActivateCredential: the secret, if `activated` is resident and its Name the one challenged.

        Args:
            activated: handle of the object whose Name was challenged (SRK or AK).
            key: handle of the endorsement key.
            credential: TPM2B_ID_OBJECT, with its length.
            secret: TPM2B_ENCRYPTED_SECRET, with its length.
            key_authorization: for the endorsement key, its policy session as a rule.
        """
        response = await self.execute(
            CommandCode.ActivateCredential,
            [activated, key],
            credential + secret,
            authorizations=[PASSWORD, key_authorization],
        )
        return response.parameters.tpm2b()

    async def quote(
        self, key: int, *, qualifying_data: bytes, banks: Mapping[int, Iterable[int]]
    ) -> tuple[bytes, bytes]:
        """TPM2_Quote with the key's own scheme: TPMS_ATTEST and TPMT_SIGNATURE."""
        parameters = tpm2b(qualifying_data) + SCHEME_NULL + pcr_selection(banks)
        reader = (await self.execute(CommandCode.Quote, [key], parameters, authorizations=[PASSWORD])).parameters
        return reader.tpm2b(), reader.rest()

    async def certify(self, certified: int, key: int, *, qualifying_data: bytes) -> tuple[bytes, bytes]:
        """TPM2_Certify with the key's own scheme: TPMS_ATTEST and TPMT_SIGNATURE."""
        parameters = tpm2b(qualifying_data) + SCHEME_NULL
        reader = (
            await self.execute(CommandCode.Certify, [certified, key], parameters, authorizations=[PASSWORD] * 2)
        ).parameters
        return reader.tpm2b(), reader.rest()

    async def sign(self, key: int, digest: bytes, *, scheme: bytes = SCHEME_NULL) -> bytes:
        """TPM2_Sign of a digest that was not made by the TPM: TPMT_SIGNATURE. A restricted key refuses it."""
        null_ticket = struct.pack(">HIH", 0x8024, RH_NULL, 0)  # TPMT_TK_HASHCHECK
        parameters = tpm2b(digest) + scheme + null_ticket
        return (await self.execute(CommandCode.Sign, [key], parameters, authorizations=[PASSWORD])).parameters.rest()

    # --- HMAC --------------------------------------------------------------------------------------------------------

    async def hmac(self, key: int, data: bytes) -> bytes:
        """HMAC with a keyed-hash key's own hash; any length, as a sequence beyond INPUT_BUFFER_SIZE_BYTES."""
        if len(data) > INPUT_BUFFER_SIZE_BYTES:
            return await self._hmac_sequence(key, data)
        parameters = tpm2b(data) + struct.pack(">H", ALG_NULL)
        return (await self.execute(CommandCode.HMAC, [key], parameters, authorizations=[PASSWORD])).parameters.tpm2b()

    async def _hmac_sequence(self, key: int, data: bytes) -> bytes:
        started = await self.execute(
            CommandCode.HMAC_Start,
            [key],
            tpm2b(b"") + struct.pack(">H", ALG_NULL),
            authorizations=[PASSWORD],
            returns_handle=True,
        )
        blocks = [data[at : at + INPUT_BUFFER_SIZE_BYTES] for at in range(0, len(data), INPUT_BUFFER_SIZE_BYTES)]
        try:
            for block in blocks[:-1]:
                await self.execute(
                    CommandCode.SequenceUpdate, [started.handle], tpm2b(block), authorizations=[PASSWORD]
                )
        except TpmError:
            await self.flush_context(started.handle)
            raise
        completion = tpm2b(blocks[-1]) + struct.pack(">I", RH_NULL)
        completed = await self.execute(
            CommandCode.SequenceComplete, [started.handle], completion, authorizations=[PASSWORD]
        )
        return completed.parameters.tpm2b()

    # --- PCR and NV --------------------------------------------------------------------------------------------------

    async def pcr_read(self, algorithm: int, indices: Iterable[int]) -> list[bytes]:
        """TPM2_PCR_Read of at most eight PCRs of one bank, ascending."""
        parameters = pcr_selection({algorithm: indices})
        reader = (await self.execute(CommandCode.PCR_Read, parameters=parameters)).parameters
        reader.u32()  # pcrUpdateCounter
        for _ in range(reader.u32()):  # pcrSelectionOut
            reader.u16()
            reader.take(reader.u8())
        return [reader.tpm2b() for _ in range(reader.u32())]

    async def pcr_extend(self, index: int, digests: Mapping[int, bytes]) -> None:
        """TPM2_PCR_Extend: TPM_ALG_ID of the bank → digest."""
        values = b"".join(struct.pack(">H", algorithm) + digest for algorithm, digest in digests.items())
        parameters = struct.pack(">I", len(digests)) + values
        await self.execute(CommandCode.PCR_Extend, [index], parameters, authorizations=[PASSWORD])

    async def nv_read_public(self, index: int) -> bytes:
        """TPM2_NV_ReadPublic: TPMS_NV_PUBLIC, whose last two octets are the size of the data."""
        return (await self.execute(CommandCode.NV_ReadPublic, [index])).parameters.tpm2b()

    async def nv_read(self, index: int) -> bytes:
        """The whole content of an NV index that the owner may read, such as an EK certificate at 0x01C00002."""
        size = int.from_bytes((await self.nv_read_public(index))[-2:])
        content = b""
        while len(content) < size:
            block = min(size - len(content), INPUT_BUFFER_SIZE_BYTES)
            parameters = struct.pack(">HH", block, len(content))
            response = await self.execute(CommandCode.NV_Read, [RH_OWNER, index], parameters, authorizations=[PASSWORD])
            content += response.parameters.tpm2b()
        return content
