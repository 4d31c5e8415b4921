"""`provisiond enrollment-group`: every device that a CA, a key or the maker of its TPM vouches for."""

import asyncio
from pathlib import Path
from typing import Annotated, Final

import typer

from provisiond.cli import enrolled_records
from provisiond.cli.enrolled_records import PAGE, After, Top, Yes, choose_id
from provisiond.cli.enrollment_flags import EnrollmentFlags
from provisiond.cli.enrollment_options import (
    AllocationPolicyOption,
    AllowedIds,
    ApiVersion,
    AttestationTypeOption,
    CertificatePath,
    EdgeEnabled,
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
    WebhookUrl,
)
from provisiond.cli.output import Output, print_text
from provisiond.cli.revoking import revoke_all
from provisiond.cli.session import Config
from provisiond.model import AttestationType, EnrollmentKind, ProvisioningStatus

app = typer.Typer(
    no_args_is_help=True, epilog="Example: provisiond enrollment-group create line-4 --attestation-type symmetricKey"
)

_KIND: Final = EnrollmentKind.GROUP
_WHAT: Final = "the enrollment group id"

Id = Annotated[str | None, typer.Argument(metavar="ID", help="Enrollment group id.", show_default=False)]
IdOption = Annotated[
    str | None,
    typer.Option("--enrollment-id", "--eid", "--group-id", metavar="ID", help="The same, as az has it."),
]


@app.command(
    "create",
    epilog="Example: provisiond enrollment-group create line-4 --certificate-path ca.pem --iot-hubs local",
)
def create(
    group_id: Id = None,
    id_option: IdOption = None,
    attestation_type: AttestationTypeOption = None,
    certificate_path: CertificatePath = None,
    secondary_certificate_path: SecondaryCertificatePath = None,
    allowed_ids: AllowedIds = None,
    pcr_policy: PcrPolicyOption = None,
    primary_key_file: PrimaryKeyFile = None,
    secondary_key_file: SecondaryKeyFile = None,
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
    """Enroll every device of a CA, of a group key, or with a TPM of a maker that the configuration trusts.

    With no word of certificates or TPMs it is a symmetric-key group, as with az.
    """
    told = (certificate_path, secondary_certificate_path, allowed_ids, pcr_policy)
    is_keyed = all(value is None for value in told)
    attestation_type = attestation_type or (AttestationType.SYMMETRIC_KEY if is_keyed else None)
    flags = EnrollmentFlags.given(locals())
    chosen = choose_id(group_id, id_option, _WHAT)
    asyncio.run(enrolled_records.create(config, _KIND, chosen, flags, show_keys=show_keys, output=output))


@app.command("show", epilog="Example: provisiond enrollment-group show line-4 --show-keys -o json")
def show(
    group_id: Id = None,
    id_option: IdOption = None,
    show_keys: ShowKeys = False,
    output: Output = None,
    config: Config = None,
) -> None:
    """Show one enrollment group."""
    chosen = choose_id(group_id, id_option, _WHAT)
    asyncio.run(enrolled_records.show(config, _KIND, chosen, show_keys=show_keys, output=output))


@app.command("list", epilog="Example: provisiond enrollment-group list -o tsv")
def list_(
    top: Top = PAGE, after: After = "", show_keys: ShowKeys = False, output: Output = None, config: Config = None
) -> None:
    """List enrollment groups in the order of their ids."""
    asyncio.run(enrolled_records.list_(config, _KIND, top=top, after=after, show_keys=show_keys, output=output))


@app.command(
    "update", epilog="Example: provisiond enrollment-group update line-4 --secondary-certificate-path next-ca.pem"
)
def update(
    group_id: Id = None,
    id_option: IdOption = None,
    attestation_type: AttestationTypeOption = None,
    certificate_path: CertificatePath = None,
    secondary_certificate_path: SecondaryCertificatePath = None,
    remove_secondary_certificate: RemoveSecondaryCertificate = False,
    allowed_ids: AllowedIds = None,
    pcr_policy: PcrPolicyOption = None,
    primary_key_file: PrimaryKeyFile = None,
    secondary_key_file: SecondaryKeyFile = None,
    regenerate_primary_key: RegeneratePrimaryKey = False,
    regenerate_secondary_key: RegenerateSecondaryKey = False,
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
    """Change what is given and leave the rest. An empty --iot-hubs, --allowed-ids or --pcr-policy takes it away."""
    flags = EnrollmentFlags.given(locals())
    chosen = choose_id(group_id, id_option, _WHAT)
    asyncio.run(enrolled_records.update(config, _KIND, chosen, flags, etag=etag, show_keys=show_keys, output=output))


@app.command("delete", epilog="Example: provisiond enrollment-group delete line-4 --yes")
def delete(
    group_id: Id = None, id_option: IdOption = None, etag: Etag = None, yes: Yes = False, config: Config = None
) -> None:
    """Delete one enrollment group. The registration records of its devices stay."""
    chosen = choose_id(group_id, id_option, _WHAT)
    asyncio.run(enrolled_records.delete(config, _KIND, chosen, etag=etag, yes=yes))


@app.command("enable", epilog="Example: provisiond enrollment-group enable line-4")
def enable(
    group_id: Id = None, id_option: IdOption = None, etag: Etag = None, output: Output = None, config: Config = None
) -> None:
    """Let the group's devices be assigned."""
    chosen = choose_id(group_id, id_option, _WHAT)
    status = ProvisioningStatus.ENABLED
    asyncio.run(enrolled_records.set_status(config, _KIND, chosen, status, etag=etag, output=output))


@app.command("disable", epilog="Example: provisiond enrollment-group disable line-4")
def disable(
    group_id: Id = None,
    id_option: IdOption = None,
    etag: Etag = None,
    revoke: Revoke = False,
    output: Output = None,
    config: Config = None,
) -> None:
    """Refuse the group's devices, except those with an enrollment of their own."""
    chosen = choose_id(group_id, id_option, _WHAT)
    if revoke:
        asyncio.run(revoke_all(config, _KIND, chosen, output))
        return
    status = ProvisioningStatus.DISABLED
    asyncio.run(enrolled_records.set_status(config, _KIND, chosen, status, etag=etag, output=output))


@app.command(
    "compute-device-key",
    epilog="Example: provisiond enrollment-group compute-device-key line-4 --registration-id sensor-7 > sensor-7.key",
)
def compute_device_key(
    group_id: Id = None,
    id_option: IdOption = None,
    registration_id: Annotated[
        str | None, typer.Option("--registration-id", "--rid", metavar="ID", help="The device, spelt as it will.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", metavar="FILE|-", help="The group's key in base64, instead of ID.")
    ] = None,
    output: Output = None,
    config: Config = None,
) -> None:
    """Derive a device's key from the group's primary key."""
    group = None if key_file and not (group_id or id_option) else choose_id(group_id, id_option, _WHAT)
    device = choose_id(None, registration_id, "--registration-id")
    key = asyncio.run(
        enrolled_records.compute_device_key(config, registration_id=device, group_id=group, key_file=key_file)
    )
    print_text(key, output)
