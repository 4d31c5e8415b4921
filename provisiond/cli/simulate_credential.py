"""From the flags of `simulate` to devices with credentials."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import typer

from provisiond.attestation.ek_anchor import read_anchor_file
from provisiond.cli.output import note
from provisiond.device.credentials import Credential, SymmetricKeyCredential, TpmCredential, X509Credential, read_key
from provisiond.device.errors import CredentialError
from provisiond.device.issuing import IssuingAuthority, keep_self_signed
from provisiond.device.simulator import SimulatedDevice
from provisiond.device.swtpm import run_emulator
from provisiond.device.tpm_device import KeyAlgorithm, TpmDevice, open_tpm
from provisiond.errors import AttestationError, MalformedRequest
from provisiond.model import AttestationType, RegistrationId


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFlags:
    """The flags of `simulate device` that say who the device is."""

    registration_id: str | None
    attestation: AttestationType
    certificate_path: Path | None
    key_path: Path | None
    key_file: Path | None
    group_key_file: Path | None
    tpm: str
    tpm_algorithm: KeyAlgorithm
    state_dir: Path | None


@asynccontextmanager
async def open_device(flags: DeviceFlags) -> AsyncIterator[SimulatedDevice]:
    """The device of the flags; its TPM, if it has one, runs until the block ends.

    Raises:
        typer.BadParameter: flags are missing or do not go together.
        DeviceError: a file or TPM cannot be used.
    """
    if flags.attestation is AttestationType.TPM:
        async with open_device_tpm(flags) as tpm:
            registration_id = flags.registration_id or await tpm.registration_id()
            credential = TpmCredential(device=tpm, ek_chain=_read_issuers(flags.certificate_path))
            yield SimulatedDevice(registration_id=registration_id, credential=credential)
        return
    if flags.registration_id is None:
        raise typer.BadParameter("a registration id is needed (only a TPM can do without)")
    yield SimulatedDevice(
        registration_id=flags.registration_id, credential=_file_credential(flags, flags.registration_id)
    )


@asynccontextmanager
async def open_device_tpm(flags: DeviceFlags) -> AsyncIterator[TpmDevice]:
    """The TPM of the flags: an emulator of its own, or one that is there.

    Raises:
        DeviceError: swtpm is missing, or there is no such TPM.
    """
    if flags.tpm != "swtpm":
        async with open_tpm(flags.tpm, algorithm=flags.tpm_algorithm) as device:
            yield device
        return
    state_dir = None if flags.state_dir is None else flags.state_dir / "swtpm"
    async with (
        run_emulator(state_dir) as socket_path,
        open_tpm(f"socket:{socket_path}", algorithm=flags.tpm_algorithm) as device,
    ):
        yield device


def _read_issuers(path: Path | None) -> tuple[bytes, ...]:
    """What is between a TPM and its maker's root, DER as it stands."""
    if path is None:
        return ()
    try:
        return read_anchor_file(path.read_bytes())
    except OSError as error:
        raise CredentialError(f"cannot read {path}: {error.strerror}") from error
    except AttestationError as error:
        raise CredentialError(f"{path}: not the certificates of a TPM maker: {error}") from error


def _file_credential(flags: DeviceFlags, registration_id: str) -> Credential:
    if flags.attestation is AttestationType.X509:
        return _certificate(flags, registration_id)
    match flags.key_file, flags.group_key_file:
        case Path() as key_file, None:
            return SymmetricKeyCredential.from_file(key_file)
        case None, Path() as group_key_file:
            return SymmetricKeyCredential.from_group_key(read_key(group_key_file), registration_id)
        case _:
            raise typer.BadParameter("symmetricKey needs either --key-file or --group-key-file")


def _certificate(flags: DeviceFlags, registration_id: str) -> X509Credential:
    match flags.certificate_path, flags.key_path, flags.state_dir:
        case Path() as certificate_path, Path() as key_path, _:
            return X509Credential.from_files(certificate_path, key_path)
        case None, None, Path() as state_dir:
            credential, certificate_path = keep_self_signed(registration_id, state_dir)
            note(f"self-signed certificate to enroll: {certificate_path}")
            return credential
        case _:
            raise typer.BadParameter(
                "x509 needs --certificate-path and --key-path, or --dir to make and keep a self-signed certificate"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetFlags:
    """The flags of `simulate fleet` that say who its devices are."""

    attestation: AttestationType
    group_key_file: Path | None
    ca_certificate_path: Path | None
    ca_key_path: Path | None
    id_prefix: str
    first: int


def make_fleet(flags: FleetFlags, count: int) -> Iterator[SimulatedDevice]:
    """The devices of the flags, each made when its turn comes.

    Raises:
        typer.BadParameter: flags are missing.
        DeviceError: a file cannot be used.
    """
    names = (f"{flags.id_prefix}{number:06d}" for number in range(flags.first, flags.first + count))
    match flags.attestation, flags.group_key_file, flags.ca_certificate_path, flags.ca_key_path:
        case AttestationType.SYMMETRIC_KEY, Path() as group_key_file, _, _:
            group_key = read_key(group_key_file)
            return (_derived(group_key, name) for name in names)
        case AttestationType.X509, _, Path() as certificate_path, Path() as key_path:
            authority = IssuingAuthority.from_files(certificate_path, key_path)
            return (SimulatedDevice(registration_id=name, credential=authority.issue(name)) for name in names)
        case AttestationType.TPM, _, _, _:
            raise typer.BadParameter("a fleet is symmetricKey or x509; each TPM would have to be enrolled by itself")
        case _:
            raise typer.BadParameter(
                "a fleet needs --group-key-file (symmetricKey) or --ca-certificate-path and --ca-key-path (x509)"
            )


def _derived(group_key: bytes, name: str) -> SimulatedDevice:
    return SimulatedDevice(registration_id=name, credential=SymmetricKeyCredential.from_group_key(group_key, name))


def check_registration_id(text: str) -> str:
    """A well-formed registration id, as it was given.

    Raises:
        typer.BadParameter: it is not one.
    """
    try:
        return RegistrationId.parse(text).text
    except MalformedRequest as error:
        raise typer.BadParameter(str(error)) from error
