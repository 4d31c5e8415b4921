"""`provisiond enrollment`: individual enrollments."""

import asyncio
from pathlib import Path
from typing import Annotated, Final

import typer

from provisiond.attestation.tpm import derive_registration_id
from provisiond.cli import enrolled_records
from provisiond.cli.enrolled_records import PAGE, After, Top, Yes, choose_id
from provisiond.cli.enrollment_export import EXAMPLE as EXPORT_EXAMPLE
from provisiond.cli.enrollment_export import export
from provisiond.cli.enrollment_flags import EnrollmentFlags
from provisiond.cli.enrollment_import import EXAMPLE as IMPORT_EXAMPLE
from provisiond.cli.enrollment_import import import_
from provisiond.cli.enrollment_options import (
    AllocationPolicyOption,
    ApiVersion,
    AttestationTypeOption,
    CertificatePath,
    DeviceId,
    EdgeEnabled,
    EndorsementKey,
    Etag,
    InitialTwinProperties,
    InitialTwinTags,
    IotHubs,
    PcrPolicyOption,
    PrimaryKeyFile,
    ProvisioningStatusOption,
    RegeneratePrimaryKey,
    RegenerateSecondaryKey,
    RemoveSecondaryCertificate,
    ReprovisionPolicyOption,
    Revoke,
    SecondaryCertificatePath,
    SecondaryKeyFile,
    ShowKeys,
    StorageRootKey,
    WebhookUrl,
)
from provisiond.cli.output import Output, print_text
from provisiond.cli.revoking import revoke_all
from provisiond.cli.secret_files import read_tpm_public
from provisiond.cli.session import Config
from provisiond.model import EnrollmentKind, ProvisioningStatus

app = typer.Typer(
    no_args_is_help=True, epilog="Example: provisiond enrollment create sensor-7 --attestation-type symmetricKey"
)
app.command("import", epilog=IMPORT_EXAMPLE)(import_)
app.command("export", epilog=EXPORT_EXAMPLE)(export)

_KIND: Final = EnrollmentKind.INDIVIDUAL
_WHAT: Final = "the registration id"

Id = Annotated[str | None, typer.Argument(metavar="ID", help="Registration id.", show_default=False)]
IdOption = Annotated[
    str | None,
    typer.Option("--registration-id", "--rid", "--enrollment-id", "--eid", metavar="ID", help="The same, as az."),
]


@app.command(
    "create",
    epilog="Example: provisiond enrollment create sensor-7 --attestation-type x509 --certificate-path sensor-7.pem",
)
def create(
    registration_id: Id = None,
    id_option: IdOption = None,
    attestation_type: AttestationTypeOption = None,
    certificate_path: CertificatePath = None,
    secondary_certificate_path: SecondaryCertificatePath = None,
    endorsement_key: EndorsementKey = None,
    storage_root_key: StorageRootKey = None,
    pcr_policy: PcrPolicyOption = None,
    primary_key_file: PrimaryKeyFile = None,
    secondary_key_file: SecondaryKeyFile = None,
    device_id: DeviceId = None,
    allocation_policy: AllocationPolicyOption = None,
    iot_hubs: IotHubs = None,
    webhook_url: WebhookUrl = None,
    api_version: ApiVersion = None,
    provisioning_status: ProvisioningStatusOption = None,
    initial_twin_tags: InitialTwinTags = None,
    initial_twin_properties: InitialTwinProperties = None,
    reprovision_policy: ReprovisionPolicyOption = None,
    edge_enabled: EdgeEnabled = None,
    show_keys: ShowKeys = False,
    output: Output = None,
    config: Config = None,
) -> None:
    """Enroll one device. A TPM's registration id may be left out: it is derived from the endorsement key."""
    flags = EnrollmentFlags.given(locals())
    if registration_id is None and id_option is None and endorsement_key is not None:
        registration_id = derive_registration_id(read_tpm_public(endorsement_key, "--endorsement-key"))
    chosen = choose_id(registration_id, id_option, _WHAT)
    asyncio.run(enrolled_records.create(config, _KIND, chosen, flags, show_keys=show_keys, output=output))


@app.command("show", epilog="Example: provisiond enrollment show sensor-7 --show-keys -o json")
def show(
    registration_id: Id = None,
    id_option: IdOption = None,
    show_keys: ShowKeys = False,
    output: Output = None,
    config: Config = None,
) -> None:
    """Show one enrollment, and what became of its device."""
    chosen = choose_id(registration_id, id_option, _WHAT)
    asyncio.run(enrolled_records.show(config, _KIND, chosen, show_keys=show_keys, output=output))


@app.command("list", epilog="Example: provisiond enrollment list --top 20 --after sensor-7")
def list_(
    top: Top = PAGE, after: After = "", show_keys: ShowKeys = False, output: Output = None, config: Config = None
) -> None:
    """List enrollments in the order of their ids."""
    asyncio.run(enrolled_records.list_(config, _KIND, top=top, after=after, show_keys=show_keys, output=output))


@app.command("update", epilog="Example: provisiond enrollment update sensor-7 --device-id pump-3 --etag '*'")
def update(
    registration_id: Id = None,
    id_option: IdOption = None,
    attestation_type: AttestationTypeOption = None,
    certificate_path: CertificatePath = None,
    secondary_certificate_path: SecondaryCertificatePath = None,
    remove_secondary_certificate: RemoveSecondaryCertificate = False,
    endorsement_key: EndorsementKey = None,
    storage_root_key: StorageRootKey = None,
    pcr_policy: PcrPolicyOption = None,
    primary_key_file: PrimaryKeyFile = None,
    secondary_key_file: SecondaryKeyFile = None,
    regenerate_primary_key: RegeneratePrimaryKey = False,
    regenerate_secondary_key: RegenerateSecondaryKey = False,
    device_id: DeviceId = None,
    allocation_policy: AllocationPolicyOption = None,
    iot_hubs: IotHubs = None,
    webhook_url: WebhookUrl = None,
    api_version: ApiVersion = None,
    provisioning_status: ProvisioningStatusOption = None,
    initial_twin_tags: InitialTwinTags = None,
    initial_twin_properties: InitialTwinProperties = None,
    reprovision_policy: ReprovisionPolicyOption = None,
    edge_enabled: EdgeEnabled = None,
    etag: Etag = None,
    show_keys: ShowKeys = False,
    output: Output = None,
    config: Config = None,
) -> None:
    """Change what is given and leave the rest. An empty --device-id, --iot-hubs or --pcr-policy takes it away."""
    flags = EnrollmentFlags.given(locals())
    chosen = choose_id(registration_id, id_option, _WHAT)
    asyncio.run(enrolled_records.update(config, _KIND, chosen, flags, etag=etag, show_keys=show_keys, output=output))


@app.command("delete", epilog="Example: provisiond enrollment delete sensor-7 --yes")
def delete(
    registration_id: Id = None, id_option: IdOption = None, etag: Etag = None, yes: Yes = False, config: Config = None
) -> None:
    """Delete one enrollment. Its registration record stays, and so does the device at its hub."""
    chosen = choose_id(registration_id, id_option, _WHAT)
    asyncio.run(enrolled_records.delete(config, _KIND, chosen, etag=etag, yes=yes))


@app.command("enable", epilog="Example: provisiond enrollment enable sensor-7")
def enable(
    registration_id: Id = None,
    id_option: IdOption = None,
    etag: Etag = None,
    output: Output = None,
    config: Config = None,
) -> None:
    """Let the device be assigned."""
    chosen = choose_id(registration_id, id_option, _WHAT)
    status = ProvisioningStatus.ENABLED
    asyncio.run(enrolled_records.set_status(config, _KIND, chosen, status, etag=etag, output=output))


@app.command("disable", epilog="Example: provisiond enrollment disable sensor-7")
def disable(
    registration_id: Id = None,
    id_option: IdOption = None,
    etag: Etag = None,
    revoke: Revoke = False,
    output: Output = None,
    config: Config = None,
) -> None:
    """Refuse the device, even when a group would let it in."""
    chosen = choose_id(registration_id, id_option, _WHAT)
    if revoke:
        asyncio.run(revoke_all(config, _KIND, chosen, output))
        return
    status = ProvisioningStatus.DISABLED
    asyncio.run(enrolled_records.set_status(config, _KIND, chosen, status, etag=etag, output=output))


@app.command(
    "compute-device-key",
    epilog="Example: provisiond enrollment compute-device-key sensor-7 --group-id line-4 > sensor-7.key",
)
def compute_device_key(
    registration_id: Id = None,
    id_option: Annotated[
        str | None, typer.Option("--registration-id", "--rid", metavar="ID", help="The same, as az has it.")
    ] = None,
    group_id: Annotated[
        str | None,
        typer.Option("--group-id", "--enrollment-id", "--eid", metavar="GROUP", help="Enrollment group of the device."),
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", metavar="FILE|-", help="The group's key in base64, instead.")
    ] = None,
    output: Output = None,
    config: Config = None,
) -> None:
    """Derive a device's key from the primary key of its symmetric-key group; spell the id as the device will."""
    chosen = choose_id(registration_id, id_option, _WHAT)
    key = asyncio.run(
        enrolled_records.compute_device_key(config, registration_id=chosen, group_id=group_id, key_file=key_file)
    )
    print_text(key, output)
