"""What a device proves itself with: a certificate, a symmetric key, or a TPM."""

import base64
import binascii
import os
import ssl
import sys
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from provisiond.attestation.symmetric_key import derive_device_key, generate_sas_token
from provisiond.device.errors import CredentialError, TpmError
from provisiond.device.tpm_device import TpmDevice
from provisiond.model import AttestationType, JSONValue
from provisiond.protocols.hub_password import derive_hub_password, password_message

_KEY_MIN_SIZE_BYTES: Final = 16  # Azure DPS: symmetric keys of 16 to 64 bytes
_KEY_MAX_SIZE_BYTES: Final = 64
_STDIN: Final = Path("-")
_FILE_MAX_SIZE_BYTES: Final = 256 * 1024  # a chain of five RSA-4096 certificates has 10 KiB


class Credential:
    """What every credential answers; this base is one that proves nothing."""

    attestation_type: ClassVar[AttestationType]

    def load_into(self, context: ssl.SSLContext) -> None:
        """Present a certificate in the TLS handshake, where there is one."""

    async def password(self, *, resource: str, expiry: int) -> str | None:
        """Password of the CONNECT to the provisioning service; None to send none."""
        del resource, expiry
        return None

    async def register_members(self) -> Mapping[str, JSONValue]:
        """Members of the registration's body that carry evidence."""
        return {}

    async def answer(self, challenge: bytes, *, resource: str, expiry: int, key_name: str) -> str:
        """The token that answers a TPM challenge.

        Raises:
            CredentialError: this credential cannot answer it.
        """
        del challenge, resource, expiry, key_name
        raise CredentialError("the service asks for a TPM, and this device was started without one")

    async def accept_hub_key(self, blob: bytes | None) -> None:
        """Keep the key that the service made for the hub, where there is one."""

    async def hub_password(self, *, resource: str, expiry: int) -> str | None:
        """Password of the CONNECT to the assigned hub; None to send none."""
        return await self.password(resource=resource, expiry=expiry)

    async def derived_password(self, *, hub_host: str, device_id: str) -> str | None:
        """Password at a hub that takes no tokens, as `protocols.hub_password`; None without a key for it."""
        del hub_host, device_id
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Credential(Credential):
    """A certificate chain, leaf first, and the leaf's private key, both PEM; made by `from_pem` or `from_files`."""

    attestation_type = AttestationType.X509
    chain_pem: bytes
    key_pem: bytes = field(repr=False)

    @classmethod
    def from_files(cls, certificate_path: Path, key_path: Path) -> Self:
        """Read and check a chain and a key.

        Raises:
            CredentialError: a file cannot be read, is no such PEM, or the key is not the certificate's.
        """
        return cls.from_pem(_read(certificate_path), _read(key_path), origin=f"{certificate_path} and {key_path}")

    @classmethod
    def from_pem(cls, chain_pem: bytes, key_pem: bytes, *, origin: str = "the credential") -> Self:
        """Check a chain and a key.

        Raises:
            CredentialError: one is no such PEM, the key is encrypted, or it is not the certificate's.
        """
        try:
            leaf = x509.load_pem_x509_certificates(chain_pem)[0]
            key = load_pem_private_key(key_pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise CredentialError(f"{origin}: not a PEM certificate and an unencrypted PEM key: {error}") from error
        encoding = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if leaf.public_key().public_bytes(*encoding) != key.public_key().public_bytes(*encoding):
            raise CredentialError(f"{origin}: the private key is not the first certificate's")
        return cls(chain_pem=chain_pem, key_pem=key_pem)

    def load_into(self, context: ssl.SSLContext) -> None:
        """See Credential. The key goes through memory only: OpenSSL wants a file, so it gets an anonymous one."""
        descriptor = os.memfd_create("credential", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(self.key_pem + b"\n" + self.chain_pem)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        except (ssl.SSLError, OSError) as error:
            raise CredentialError(f"TLS cannot use this certificate: {error}") from error
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class SymmetricKeyCredential(Credential):
    """A device's own symmetric key, 16 to 64 bytes."""

    attestation_type = AttestationType.SYMMETRIC_KEY
    key: bytes = field(repr=False)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a base64 key.

        Raises:
            CredentialError: the file cannot be read, or is not such a key.
        """
        return cls(key=read_key(path))

    @classmethod
    def from_group_key(cls, group_key: bytes, registration_id: str) -> Self:
        """Derive the key of one device of an enrollment group."""
        return cls(key=derive_device_key(group_key, registration_id))

    async def password(self, *, resource: str, expiry: int) -> str:
        """See Credential."""
        return generate_sas_token(resource=resource, key=self.key, expiry=expiry, key_name="registration")

    async def hub_password(self, *, resource: str, expiry: int) -> str:
        """See Credential; a hub knows no key names."""
        return generate_sas_token(resource=resource, key=self.key, expiry=expiry)

    async def derived_password(self, *, hub_host: str, device_id: str) -> str:
        """See Credential."""
        return derive_hub_password(self.key, hub_host=hub_host, device_id=device_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmCredential(Credential):
    """A TPM 2.0: shows its endorsement key, answers the challenge, keeps the hub key.

    Args:
        device: the TPM.
        ek_chain: DER certificates between the one that the TPM holds for its endorsement key and its maker's root.
    """

    attestation_type = AttestationType.TPM
    device: TpmDevice
    ek_chain: tuple[bytes, ...] = ()

    async def register_members(self) -> Mapping[str, JSONValue]:
        """See Credential: the keys, base64 of TPM2B_PUBLIC, and the certificates of the first where there are any."""
        members: dict[str, JSONValue] = {
            "endorsementKey": base64.b64encode(await self.device.endorsement_key()).decode(),
            "storageRootKey": base64.b64encode(await self.device.storage_root_key()).decode(),
        }
        certificate = await self.device.endorsement_certificate()
        if certificate is not None:
            members["ekCertificate"] = base64.b64encode(certificate).decode()
        if self.ek_chain:
            members["ekChain"] = [base64.b64encode(issuer).decode() for issuer in self.ek_chain]
        return {"tpm": members}

    async def answer(self, challenge: bytes, *, resource: str, expiry: int, key_name: str) -> str:
        """See Credential; the hub key stays in the TPM meanwhile, for it may be needed again."""
        try:
            async with self.device.authentication_key(challenge) as key:
                return await self.device.sign_sas(resource=resource, expiry=expiry, key_name=key_name, key_handle=key)
        except TpmError as error:
            raise CredentialError(f"the TPM does not accept the service's challenge: {error}") from error

    async def accept_hub_key(self, blob: bytes | None) -> None:
        """See Credential. Without it the device could prove itself to nobody.

        Raises:
            CredentialError: the service sent none, or one for another TPM.
        """
        if blob is None:
            raise CredentialError("the service assigned the device and sent no hub key for its TPM")
        try:
            await self.device.import_authentication_key(blob)
        except TpmError as error:
            raise CredentialError(f"the TPM does not accept its hub key: {error}") from error

    async def hub_password(self, *, resource: str, expiry: int) -> str:
        """See Credential: signed inside the TPM with the key that came with the assignment."""
        return await self.device.sign_sas(resource=resource, expiry=expiry)

    async def derived_password(self, *, hub_host: str, device_id: str) -> str:
        """See Credential: computed inside the TPM with the same key."""
        digest = await self.device.hmac(password_message(hub_host=hub_host, device_id=device_id))
        return base64.b64encode(digest).decode()


def read_key(path: Path) -> bytes:
    """A symmetric key of 16 to 64 bytes from a file with its base64; `-` is stdin.

    Raises:
        CredentialError: the file cannot be read, or is not such a key.
    """
    key = b""
    with suppress(binascii.Error, ValueError):
        key = base64.b64decode(_read(path).strip(), validate=True)
    if not _KEY_MIN_SIZE_BYTES <= len(key) <= _KEY_MAX_SIZE_BYTES:
        raise CredentialError(f"{path}: not the base64 of a key of 16 to 64 bytes")
    return key


def read_password(path: Path) -> str:
    """A password from a file, without the newline at its end; `-` is stdin.

    Raises:
        CredentialError: the file cannot be read, or is no text.
    """
    try:
        return _read(path).decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise CredentialError(f"{path}: not UTF-8 text") from error


def _read(path: Path) -> bytes:
    try:
        with nullcontext(sys.stdin.buffer) if path == _STDIN else path.open("rb") as file:
            content = file.read(_FILE_MAX_SIZE_BYTES + 1)
    except OSError as error:
        raise CredentialError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > _FILE_MAX_SIZE_BYTES:
        raise CredentialError(f"{path} has more than {_FILE_MAX_SIZE_BYTES} bytes")
    return content
