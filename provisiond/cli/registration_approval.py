"""`provisiond registration accept|reject`: devices that nobody enrolled, and that wait for an operator."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from provisiond.admin import Admin, approval
from provisiond.admin.fingerprint import six_words
from provisiond.cli.enrolled_records import Yes, choose_id
from provisiond.cli.enrollment_flags import EnrollmentFlags, changed_enrollment
from provisiond.cli.enrollment_options import (
    AllocationPolicyOption,
    DeviceId,
    EdgeEnabled,
    InitialTwinProperties,
    InitialTwinTags,
    IotHubs,
    ReprovisionPolicyOption,
)
from provisiond.cli.output import Output, OutputFormat, confirm, note, print_record, print_records, print_text, suggest
from provisiond.cli.secret_files import read_certificate, read_tpm_public
from provisiond.cli.session import Config, command, load, make_admin, open_store
from provisiond.errors import InvalidArgument
from provisiond.model import AttestationType, PendingDevice
from provisiond.protocols.service_api import certificate_info, enrollment_to_json
from provisiond.protocols.timestamps import format_timestamp
from provisiond.store.pending_devices import PendingDevices

EXAMPLE: Final = "Example: provisiond registration accept sensor-7 --fingerprint amber-canoe-lily-moon-radio-tulip"
REJECT_EXAMPLE: Final = "Example: provisiond registration reject sensor-7 --yes"
FINGERPRINT_EXAMPLE: Final = "Example: provisiond registration fingerprint --certificate-path sensor-7.pem"

_WHAT: Final = "the registration id"
_COLUMNS: Final = {
    "id": "registrationId",
    "attestation": "attestationType",
    "six words": "fingerprint",
    "from": "remoteAddress",
    "first seen": "firstSeenDateTimeUtc",
    "last seen": "lastSeenDateTimeUtc",
    "attempts": "attempts",
    "key proved": "proved",
}

Id = Annotated[str | None, typer.Argument(metavar="ID", help="Registration id.", show_default=False)]
IdOption = Annotated[
    str | None, typer.Option("--registration-id", "--rid", metavar="ID", help="The same, as az has it.")
]
Fingerprint = Annotated[
    str | None,
    typer.Option("--fingerprint", metavar="WORDS", help="Its six words, as read from the device; spaces or hyphens."),
]


def accept(
    registration_id: Id = None,
    id_option: IdOption = None,
    fingerprint: Fingerprint = None,
    device_id: DeviceId = None,
    allocation_policy: AllocationPolicyOption = None,
    iot_hubs: IotHubs = None,
    initial_twin_tags: InitialTwinTags = None,
    initial_twin_properties: InitialTwinProperties = None,
    reprovision_policy: ReprovisionPolicyOption = None,
    edge_enabled: EdgeEnabled = None,
    yes: Yes = False,
    output: Output = None,
    config: Config = None,
) -> None:
    """Enroll a device that waits, by the certificate or endorsement key that it has shown."""
    flags = EnrollmentFlags(
        device_id=device_id,
        allocation_policy=allocation_policy,
        iot_hubs=iot_hubs,
        initial_twin_tags=initial_twin_tags,
        initial_twin_properties=initial_twin_properties,
        reprovision_policy=reprovision_policy,
        edge_enabled=edge_enabled,
    )
    chosen = choose_id(registration_id, id_option, _WHAT)
    asyncio.run(_accept(config, chosen, fingerprint, flags, output, yes=yes))


def reject(
    registration_id: Id = None,
    id_option: IdOption = None,
    fingerprint: Fingerprint = None,
    yes: Yes = False,
    config: Config = None,
) -> None:
    """Keep a device that waits out of the list, for as long as it comes back."""
    chosen = choose_id(registration_id, id_option, _WHAT)
    asyncio.run(_reject(config, chosen, fingerprint, yes=yes))


def fingerprint(
    certificate_path: Annotated[
        Path | None, typer.Option("--certificate-path", "--cp", metavar="FILE", help="x509: the device's certificate.")
    ] = None,
    endorsement_key: Annotated[
        str | None, typer.Option("--endorsement-key", "--ek", metavar="BASE64|FILE", help="tpm: the endorsement key.")
    ] = None,
    output: Output = None,
) -> None:
    """Print the six words of a certificate or an endorsement key, to compare with those of a device that waits."""
    if (certificate_path is None) == (endorsement_key is None):
        raise InvalidArgument("give --certificate-path or --endorsement-key")
    if certificate_path is not None:
        evidence = read_certificate(certificate_path)
    else:
        evidence = read_tpm_public(endorsement_key or "", "--endorsement-key")
    print_text(six_words(evidence), output)


async def list_pending(config: Path | None, output: OutputFormat | None, *, rejected: bool) -> None:
    """Print the devices that wait, or were rejected, oldest first."""
    settings = load(config).settings
    async with await open_store(settings) as store:
        found = await PendingDevices(store).list(rejected=rejected)
    if not rejected and len(found) >= settings.registration.pending_devices:
        note("note: the list is full, so that no other device can wait; accept or reject some")
    print_records([_body(device) for device in found], _COLUMNS, output)
    if found and not rejected:
        suggest(f"compare the words, then: {command(config)} registration accept {found[0].registration_id}")


async def _accept(
    config: Path | None,
    registration_id: str,
    words: str | None,
    flags: EnrollmentFlags,
    output: OutputFormat | None,
    *,
    yes: bool,
) -> None:
    async with _queue(config) as (admin, queue):
        device = await approval.find(queue, registration_id, fingerprint=words, or_rejected=True)
        if words is None:
            confirm(f"Does the device say: {six_words(device.evidence)}?", yes=yes)
        enrollment = await approval.accept(
            admin,
            queue,
            registration_id,
            fingerprint=six_words(device.evidence),
            options=lambda enrollment: changed_enrollment(enrollment, flags),
        )
    print_record(enrollment_to_json(enrollment), output)
    note(f"enrolled {enrollment.id}; its next request is assigned")
    suggest(f"{command(config)} registration watch --registration-id {enrollment.id}")


async def _reject(config: Path | None, registration_id: str, words: str | None, *, yes: bool) -> None:
    async with _queue(config) as (admin, queue):
        device = await approval.find(queue, registration_id, fingerprint=words)
        confirm(f"Reject {device.registration_id}, {six_words(device.evidence)}?", yes=yes)
        await approval.reject(admin, queue, registration_id, fingerprint=six_words(device.evidence))
    note(f"rejected {device.registration_id}; `registration list --rejected` shows it for as long as it comes back")


@asynccontextmanager
async def _queue(config: Path | None) -> AsyncIterator[tuple[Admin, PendingDevices]]:
    settings = load(config).settings
    async with await open_store(settings) as store:
        yield make_admin(settings, store), PendingDevices(store)


def _body(device: PendingDevice) -> dict[str, Any]:
    body: dict[str, Any] = {
        "registrationId": device.registration_id,
        "attestationType": device.attestation_type.value,
        "fingerprint": six_words(device.evidence),
        "proved": device.proved,
        "firstSeenDateTimeUtc": format_timestamp(device.first_seen_at),
        "lastSeenDateTimeUtc": format_timestamp(device.last_seen_at),
        "attempts": device.attempts,
        "remoteAddress": device.remote_address,
        "trackingId": device.tracking_id,
    }
    if device.attestation_type is AttestationType.TPM:
        body["endorsementKey"] = b64encode(device.evidence).decode("ascii")
    else:
        body["certificate"] = b64encode(device.evidence).decode("ascii")
        try:
            body["certificateInfo"] = certificate_info(device.evidence)
        except ValueError:
            note(f"the certificate of {device.registration_id} cannot be read")
    return body
