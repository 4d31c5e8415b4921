"""The options of the command line that make and change enrollments, by their az names."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from provisiond.model import AllocationPolicy, AttestationType, ProvisioningStatus


class ReprovisionChoice(StrEnum):
    """Names of the re-provisioning policies."""

    MIGRATE = "reprovisionandmigratedata"
    RESET = "reprovisionandresetdata"
    NEVER = "never"


_TRUST: Final = "Trust"
_ASSIGNMENT: Final = "Assignment"

AttestationTypeOption = Annotated[
    AttestationType | None,
    typer.Option(
        "--attestation-type",
        "--at",
        metavar="<x509|symmetricKey|tpm>",  # as it is spelt everywhere; the library would write it small
        case_sensitive=False,
        help="How devices prove themselves; told by the other flags when left out.",
        rich_help_panel=_TRUST,
    ),
]
CertificatePath = Annotated[
    Path | None,
    typer.Option(
        "--certificate-path",
        "--cp",
        metavar="FILE",
        help="x509: the device's certificate, or a group's CA; .pem or .cer.",
        rich_help_panel=_TRUST,
    ),
]
SecondaryCertificatePath = Annotated[
    Path | None,
    typer.Option(
        "--secondary-certificate-path",
        "--scp",
        metavar="FILE",
        help="x509: another certificate that is as good, for a roll-over.",
        rich_help_panel=_TRUST,
    ),
]
EndorsementKey = Annotated[
    str | None,
    typer.Option(
        "--endorsement-key", "--ek", metavar="BASE64|FILE", help="tpm: the endorsement key.", rich_help_panel=_TRUST
    ),
]
StorageRootKey = Annotated[
    str | None,
    typer.Option(
        "--storage-root-key",
        "--srk",
        metavar="BASE64|FILE",
        help="tpm: the storage root key; recorded when the device first registers, if left out.",
        rich_help_panel=_TRUST,
    ),
]
AllowedIds = Annotated[
    str | None,
    typer.Option(
        "--allowed-ids",
        metavar="FILE|-",
        help="tpm: registration ids that the group's TPMs may claim, one a line; without, each TPM has the id derived "
        "from its endorsement key.",
        rich_help_panel=_TRUST,
    ),
]
PcrPolicyOption = Annotated[
    str | None,
    typer.Option(
        "--pcr-policy",
        metavar="JSON|FILE",
        help='tpm: in which state the platform must be, {"pcrs": {"sha256": {"7": [HEX, …]}}}; needs native topics.',
        rich_help_panel=_TRUST,
    ),
]
PrimaryKeyFile = Annotated[
    Path | None,
    typer.Option(
        "--primary-key-file",
        metavar="FILE|-",
        help="symmetricKey: base64 of 16 to 64 bytes; generated when left out.",
        rich_help_panel=_TRUST,
    ),
]
SecondaryKeyFile = Annotated[
    Path | None,
    typer.Option(
        "--secondary-key-file", metavar="FILE|-", help="symmetricKey: as the primary.", rich_help_panel=_TRUST
    ),
]
RemoveSecondaryCertificate = Annotated[
    bool, typer.Option("--remove-secondary-certificate", "--rsc", help="x509: at the end of a roll-over.")
]
RegeneratePrimaryKey = Annotated[bool, typer.Option("--regenerate-primary-key", help="symmetricKey: make a new one.")]
RegenerateSecondaryKey = Annotated[
    bool, typer.Option("--regenerate-secondary-key", help="symmetricKey: make a new one.")
]
DeviceId = Annotated[
    str | None,
    typer.Option(
        "--device-id",
        metavar="ID",
        help="Device id at the hub, when it is not the registration id.",
        rich_help_panel=_ASSIGNMENT,
    ),
]
AllocationPolicyOption = Annotated[
    AllocationPolicy | None,
    typer.Option(
        "--allocation-policy",
        "--ap",
        case_sensitive=False,
        help="How a hub is chosen; the configuration's default when left out.",
        rich_help_panel=_ASSIGNMENT,
    ),
]
WebhookUrl = Annotated[
    str | None,
    typer.Option(
        "--webhook-url",
        "--wh",
        metavar="URL|FILE",
        help="custom: what is asked; a file keeps a key in the URL off the command line.",
        rich_help_panel=_ASSIGNMENT,
    ),
]
ApiVersion = Annotated[
    str | None,
    typer.Option(
        "--api-version",
        "--av",
        metavar="DATE",
        help="custom: of the webhook's interface; 2021-10-01 when left out.",
        rich_help_panel=_ASSIGNMENT,
    ),
]
IotHubs = Annotated[
    list[str] | None,
    typer.Option(
        "--iot-hubs",
        "--ih",
        metavar="NAMES",
        help="Names or hosts of the hubs to choose among, separated by spaces; all when left out.",
        rich_help_panel=_ASSIGNMENT,
    ),
]
ProvisioningStatusOption = Annotated[
    ProvisioningStatus | None,
    typer.Option("--provisioning-status", "--ps", help="Whether devices may be assigned.", rich_help_panel=_ASSIGNMENT),
]
InitialTwinTags = Annotated[
    str | None,
    typer.Option(
        "--initial-twin-tags", "--tags", metavar="JSON|FILE", help="Tags of the twin.", rich_help_panel=_ASSIGNMENT
    ),
]
InitialTwinProperties = Annotated[
    str | None,
    typer.Option(
        "--initial-twin-properties",
        "--props",
        metavar="JSON|FILE",
        help="Desired properties of the twin.",
        rich_help_panel=_ASSIGNMENT,
    ),
]
ReprovisionPolicyOption = Annotated[
    ReprovisionChoice | None,
    typer.Option(
        "--reprovision-policy",
        "--rp",
        case_sensitive=False,
        help="What happens when an assigned device registers again.",
        rich_help_panel=_ASSIGNMENT,
    ),
]
EdgeEnabled = Annotated[
    bool | None,
    typer.Option("--edge-enabled/--no-edge-enabled", help="Whether it is an edge device.", rich_help_panel=_ASSIGNMENT),
]
ShowKeys = Annotated[bool, typer.Option("--show-keys", "--keys", help="Show symmetric keys.")]
Revoke = Annotated[
    bool,
    typer.Option(
        "--revoke",
        help="Take the devices that it let in from their hubs as well, cut them off, try to connect as each would, and "
        "print the receipts.",
    ),
]
Etag = Annotated[
    str | None, typer.Option("--etag", metavar="ETAG", help="Only when the record has this etag still; * for any.")
]
