"""What a provisioned device does with its TPM: shows its keys, answers challenges, signs with keys nobody can copy.

The handles are those every Azure client uses, so that a device may change its software and keep its identity:

    0x81010001  endorsement key        0x81000001  storage root key        0x81000100  authentication key
"""

import base64
import hashlib
import urllib.parse
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from provisiond.device import tpm_templates
from provisiond.device.errors import TPM_RC_HANDLE, CredentialError, TpmError
from provisiond.device.tpm import Key, Tpm
from provisiond.device.tpm_transport import CharacterDeviceTransport, SocketTransport, Transport
from provisiond.device.tpm_wire import (
    PASSWORD,
    RH_ENDORSEMENT,
    RH_OWNER,
    SYMMETRIC_AES128_CFB,
    Authorization,
    Reader,
)

ENDORSEMENT_KEY_HANDLE: Final = 0x81010001
STORAGE_ROOT_KEY_HANDLE: Final = 0x81000001
AUTHENTICATION_KEY_HANDLE: Final = 0x81000100

# Where makers put EK certificates (TCG EK Credential Profile 2.2.1.4, 2.2.1.5), by what their keys begin with: type,
# nameAlg, objectAttributes.
_EK_CERTIFICATE_INDICES: Final = {
    bytes.fromhex("0001000b000300b2"): (0x01C00002,),
    bytes.fromhex("0023000b000300b2"): (0x01C0000A,),
    bytes.fromhex("0001000b000300f2"): (0x01C00012,),
    bytes.fromhex("0023000b000300f2"): (0x01C00014,),
    bytes.fromhex("0023000c000300f2"): (0x01C00016,),
    bytes.fromhex("0023000d000300f2"): (0x01C00018,),
    bytes.fromhex("0001000c000300f2"): (0x01C0001C, 0x01C0001E),
}

_USER_WITH_AUTH: Final = 1 << 6  # TPMA_OBJECT (TPM 2.0 Part 2 8.3.2)
_OBJECT_ATTRIBUTES_OFFSET: Final = 2 + 2 + 2  # after the TPM2B's length, type and nameAlg


class KeyAlgorithm(StrEnum):
    """Algorithm of the keys that are made when a TPM has none yet."""

    RSA = "rsa"
    ECC = "ecc"
    ECC384 = "ecc384"
    """A P-384 endorsement key over a P-256 storage root key, as newer TPMs are delivered."""


_TEMPLATES: Final = {
    KeyAlgorithm.RSA: (tpm_templates.EK_RSA2048, tpm_templates.SRK_RSA2048),
    KeyAlgorithm.ECC: (tpm_templates.EK_P256, tpm_templates.SRK_P256),
    KeyAlgorithm.ECC384: (tpm_templates.EK_P384, tpm_templates.SRK_P256),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticationKeyBlob:
    """The six parts of an Azure `authenticationKey`, each with its own length.

        TPM2B_ID_OBJECT | TPM2B_ENCRYPTED_SECRET | TPM2B_PRIVATE | TPM2B_ENCRYPTED_SECRET | TPM2B_PUBLIC | TPM2B_DATA

    The first two challenge the EK and the SRK's Name with the 16-byte inner key; the next three are the key itself,
    wrapped to the SRK and under the inner key; the last is not needed and may be missing.
    """

    credential: bytes
    credential_secret: bytes
    duplicate: bytes
    duplication_seed: bytes
    public: bytes

    @classmethod
    def parse(cls, blob: bytes) -> Self:
        """Split a blob.

        Raises:
            TpmError: it is truncated or has trailing octets.
        """
        reader = Reader(blob, "authenticationKey")
        parts = [reader.whole_tpm2b() for _ in range(5)]
        if rest := reader.rest():
            tail = Reader(rest, "authenticationKey")
            tail.tpm2b()
            if tail.rest():
                raise TpmError(0, "authenticationKey", "octets follow the last part")
        return cls(
            credential=parts[0],
            credential_secret=parts[1],
            duplicate=parts[2],
            duplication_seed=parts[3],
            public=parts[4],
        )


class TpmDevice:
    """A device's TPM. Make one with `open_tpm`.

    Args:
        tpm: started.
        algorithm: of the endorsement and storage root keys that are made where the TPM has none; those that it has are
            used whatever they are.
        endorsement_key_handle: where the endorsement key is, or shall be.
    """

    def __init__(
        self,
        tpm: Tpm,
        *,
        algorithm: KeyAlgorithm = KeyAlgorithm.RSA,
        endorsement_key_handle: int = ENDORSEMENT_KEY_HANDLE,
    ) -> None:
        self.tpm = tpm
        self._ek_handle = endorsement_key_handle
        self._known: dict[int, bytes] = {}
        self._ek_template, self._srk_template = _TEMPLATES[algorithm]

    async def endorsement_key(self) -> bytes:
        """TPM2B_PUBLIC of the endorsement key, which is made and persisted when there is none."""
        return await self._primary(self._ek_handle, RH_ENDORSEMENT, self._ek_template)

    async def storage_root_key(self) -> bytes:
        """TPM2B_PUBLIC of the storage root key, which is made and persisted when there is none."""
        return await self._primary(STORAGE_ROOT_KEY_HANDLE, RH_OWNER, self._srk_template)

    async def registration_id(self) -> str:
        """The id Azure clients derive when they are given none: base32 of SHA-256 of the EK, lower case, unpadded."""
        return base64.b32encode(hashlib.sha256(await self.endorsement_key()).digest()).decode().lower().rstrip("=")

    async def clear(self) -> None:
        """TPM2_Clear: what belonged to the owner is gone, and new keys are made when they are asked for."""
        self._known.clear()
        await self.tpm.clear()

    async def _primary(self, handle: int, hierarchy: int, template: bytes) -> bytes:
        """A persistent key, read once: a TPM is asked a dozen commands in a registration as it is."""
        if handle not in self._known:
            found = await self._find(handle)
            if found is None:
                found = await self.tpm.create_primary(hierarchy, template)
                async with self.tpm.loaded(found):
                    await self.tpm.evict_control(found.handle, handle)
            self._known[handle] = found.public
        return self._known[handle]

    async def _find(self, handle: int) -> Key | None:
        try:
            return await self.tpm.read_public(handle)
        except TpmError as error:
            if error.base != TPM_RC_HANDLE:
                raise
            return None

    async def import_authentication_key(self, blob: bytes, persistent_handle: int = AUTHENTICATION_KEY_HANDLE) -> None:
        """Take the key in an Azure `authenticationKey` blob into the TPM for good, in place of the one before.

        Raises:
            TpmError: the blob is not whole, or not for this TPM (TPM_RC_INTEGRITY and others); the key that was there
                stays.
        """
        async with self.authentication_key(blob) as handle:
            await self._remove(persistent_handle)
            await self.tpm.evict_control(handle, persistent_handle)

    @asynccontextmanager
    async def authentication_key(self, blob: bytes) -> AsyncIterator[int]:
        """Handle of the key in an Azure `authenticationKey` blob until the block ends; the persistent one stays.

        Raises:
            TpmError: the blob is not whole, or not for this TPM.
        """
        parts = AuthenticationKeyBlob.parse(blob)
        inner_key = await self.activate_credential(STORAGE_ROOT_KEY_HANDLE, parts.credential, parts.credential_secret)
        private = await self.tpm.import_key(
            STORAGE_ROOT_KEY_HANDLE,
            public=parts.public,
            duplicate=parts.duplicate,
            seed=parts.duplication_seed,
            inner_key=inner_key,
            symmetric=SYMMETRIC_AES128_CFB,
        )
        loaded = await self.tpm.load(STORAGE_ROOT_KEY_HANDLE, private, parts.public)
        async with self.tpm.loaded(loaded):
            yield loaded.handle

    async def _remove(self, persistent_handle: int) -> None:
        """Make room; there may be nothing."""
        try:
            await self.tpm.evict_control(persistent_handle, persistent_handle)
        except TpmError as error:
            if error.base != TPM_RC_HANDLE:
                raise

    async def activate_credential(self, activated: int, credential: bytes, secret: bytes) -> bytes:
        """The secret that was made for this TPM's endorsement key and the Name of `activated` (SRK or AK handle).

        Raises:
            TpmError: it was made for another TPM or another key.
        """
        endorsement_key = await self.endorsement_key()
        await self.storage_root_key()
        async with self._endorsement_authorization(endorsement_key) as authorization:
            return await self.tpm.activate_credential(
                activated,
                self._ek_handle,
                credential=credential,
                secret=secret,
                key_authorization=authorization,
            )

    @asynccontextmanager
    async def _endorsement_authorization(self, endorsement_key: bytes) -> AsyncIterator[Authorization]:
        """Low-range EKs want their policy, high-range ones an empty password (TCG EK Credential Profile B.2)."""
        attributes = int.from_bytes(endorsement_key[_OBJECT_ATTRIBUTES_OFFSET : _OBJECT_ATTRIBUTES_OFFSET + 4])
        if attributes & _USER_WITH_AUTH:
            yield PASSWORD
            return
        async with self.tpm.policy_session() as session:
            await self.tpm.policy_secret(session)
            yield session

    async def hmac(self, data: bytes, key_handle: int = AUTHENTICATION_KEY_HANDLE) -> bytes:
        """HMAC-SHA256 with the imported authentication key; any length.

        Raises:
            TpmError: no key was imported (TPM_RC_HANDLE).
        """
        return await self.tpm.hmac(key_handle, data)

    async def sign_sas(
        self, *, resource: str, expiry: int, key_name: str | None = None, key_handle: int = AUTHENTICATION_KEY_HANDLE
    ) -> str:
        """A shared access signature made by the TPM.

        Args:
            resource: `{idScope}/registrations/{id}` or `{hub}/devices/{id}`, not encoded.
            expiry: seconds since the epoch.
            key_name: `registration` towards the provisioning service, None towards a hub.
            key_handle: of the key that signs.
        """
        encoded = urllib.parse.quote(resource, safe="")
        digest = await self.hmac(f"{encoded}\n{expiry}".encode(), key_handle)
        signature = urllib.parse.quote(base64.b64encode(digest), safe="")
        token = f"SharedAccessSignature sr={encoded}&sig={signature}&se={expiry}"
        return token if key_name is None else f"{token}&skn={key_name}"

    async def create_attestation_key(self, algorithm: KeyAlgorithm = KeyAlgorithm.ECC) -> Key:
        """A restricted signing key, primary in the endorsement hierarchy; transient: use it within `tpm.loaded(key)`.

        Only there does a quote show the true firmware version and reset counters (TPM 2.0 Part 1 36.7).
        """
        template = tpm_templates.AK_P256 if algorithm is KeyAlgorithm.ECC else tpm_templates.AK_RSA2048
        return await self.tpm.create_primary(RH_ENDORSEMENT, template)

    async def quote(
        self, key: Key, *, qualifying_data: bytes, banks: Mapping[int, Iterable[int]]
    ) -> tuple[bytes, bytes]:
        """TPMS_ATTEST and TPMT_SIGNATURE over PCRs (TPM_ALG_ID of the bank → indices) and the verifier's nonce."""
        return await self.tpm.quote(key.handle, qualifying_data=qualifying_data, banks=banks)

    async def endorsement_certificate(self) -> bytes | None:
        """The manufacturer's certificate of the endorsement key as it lies in NV storage, maybe padded; or None."""
        public = await self.endorsement_key()
        for index in _EK_CERTIFICATE_INDICES.get(public[2 : _OBJECT_ATTRIBUTES_OFFSET + 4], ()):
            try:
                return await self.tpm.nv_read(index)
            except TpmError as error:
                if error.base != TPM_RC_HANDLE:
                    raise
        return None


async def _connect(specification: str) -> Transport:
    kind, _, target = specification.partition(":")
    match kind:
        case "socket" if target:
            return await SocketTransport.connect_unix(Path(target))
        case "tcp" if target.rpartition(":")[2].isdecimal():
            host, _, port = target.rpartition(":")
            return await SocketTransport.connect_tcp(host, int(port))
        case "device" if target:
            return CharacterDeviceTransport.open(Path(target))
        case _:
            raise CredentialError(f"TPM {specification!r} is not socket:PATH, tcp:HOST:PORT or device:PATH")


@asynccontextmanager
async def open_tpm(
    specification: str,
    *,
    algorithm: KeyAlgorithm = KeyAlgorithm.RSA,
    endorsement_key_handle: int = ENDORSEMENT_KEY_HANDLE,
) -> AsyncIterator[TpmDevice]:
    """Open a TPM that runs already, and start it if it was not.

    Args:
        specification: `socket:PATH`, `tcp:HOST:PORT` or `device:PATH` (such as `device:/dev/tpmrm0`).
        algorithm: of the keys made where the TPM has none.
        endorsement_key_handle: persistent handle of the endorsement key; makers of TPMs use others for other templates.

    Raises:
        CredentialError: there is no TPM there.
        TpmError: it does not work.
    """
    async with Tpm(await _connect(specification)) as tpm:
        await tpm.startup()
        yield TpmDevice(tpm, algorithm=algorithm, endorsement_key_handle=endorsement_key_handle)
