"""The flags that make and change enrollments: their az names, and what they mean for the record."""

import dataclasses
import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from provisiond.cli.secret_files import STDIN, read_certificate, read_key, read_lines, read_object, read_tpm_public
from provisiond.enrollment.reprovision import POLICIES
from provisiond.errors import InvalidArgument
from provisiond.model import (
    AllocationPolicy,
    AttestationMaterial,
    AttestationType,
    Enrollment,
    EnrollmentKind,
    InitialTwin,
    JSONValue,
    ProvisioningStatus,
    SymmetricKeyMaterial,
    TpmMaterial,
    X509Material,
    attestation_type_of,
)


class ReprovisionChoice(StrEnum):
    """Names of the re-provisioning policies."""

    MIGRATE = "reprovisionandmigratedata"
    RESET = "reprovisionandresetdata"
    NEVER = "never"


_WEBHOOK_API_VERSION: Final = "2021-10-01"
"""The one that the Azure CLI gives when it is told none."""

_TRUST: Final = "Trust"
_ASSIGNMENT: Final = "Assignment"

AttestationTypeOption = Annotated[
    AttestationType | None,
    typer.Option(
        "--attestation-type",
        "--at",
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
        help="tpm: in which state the platform must be; needs the native protocol.",
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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EnrollmentFlags:
    """What was given; None is what was left out."""

    attestation_type: AttestationType | None = None
    certificate_path: Path | None = None
    secondary_certificate_path: Path | None = None
    remove_secondary_certificate: bool = False
    endorsement_key: str | None = None
    storage_root_key: str | None = None
    allowed_ids: str | None = None
    pcr_policy: str | None = None
    primary_key_file: Path | None = None
    secondary_key_file: Path | None = None
    regenerate_primary_key: bool = False
    regenerate_secondary_key: bool = False
    device_id: str | None = None
    allocation_policy: AllocationPolicy | None = None
    iot_hubs: list[str] | None = None
    webhook_url: str | None = None
    api_version: str | None = None
    provisioning_status: ProvisioningStatus | None = None
    initial_twin_tags: str | None = None
    initial_twin_properties: str | None = None
    reprovision_policy: ReprovisionChoice | None = None
    edge_enabled: bool | None = None

    def __post_init__(self) -> None:
        if self.primary_key_file == self.secondary_key_file == STDIN:
            raise InvalidArgument("only one of --primary-key-file and --secondary-key-file may be -")


def new_enrollment(kind: EnrollmentKind, enrollment_id: str, flags: EnrollmentFlags, *, now: datetime) -> Enrollment:
    """The enrollment that the flags ask for.

    Raises:
        InvalidArgument: flags that do not belong together, or files that hold something else.
        OSError: a file cannot be read.
    """
    bare = Enrollment(
        kind=kind, id=enrollment_id, attestation=_new_attestation(kind, flags), created_at=now, updated_at=now
    )
    return _with_options(bare, flags)


def changed_enrollment(enrollment: Enrollment, flags: EnrollmentFlags) -> Enrollment:
    """The enrollment with the given flags in the place of what it had; raises as `new_enrollment`."""
    kind = _attestation_type(flags)
    if kind is not None and kind is not enrollment.attestation_type:
        return _with_options(
            dataclasses.replace(enrollment, attestation=_new_attestation(enrollment.kind, flags)), flags
        )
    attestation = _changed_attestation(enrollment.attestation, flags)
    return _with_options(dataclasses.replace(enrollment, attestation=attestation), flags)


def makes_keys(flags: EnrollmentFlags) -> bool:
    """Whether a key is generated for a new symmetric-key enrollment."""
    return flags.primary_key_file is None or flags.secondary_key_file is None


def _attestation_type(flags: EnrollmentFlags) -> AttestationType | None:
    """The mechanism that the flags speak of, None when of none.

    Raises:
        InvalidArgument: they speak of several.
    """
    given = {
        AttestationType.X509: (flags.certificate_path, flags.secondary_certificate_path),
        AttestationType.TPM: (flags.endorsement_key, flags.storage_root_key, flags.allowed_ids, flags.pcr_policy),
        AttestationType.SYMMETRIC_KEY: (flags.primary_key_file, flags.secondary_key_file),
    }
    kinds = {kind for kind, values in given.items() if any(value is not None for value in values)}
    kinds |= {flags.attestation_type} if flags.attestation_type else set()
    if len(kinds) > 1:
        names = " and ".join(sorted(kinds))
        raise InvalidArgument(f"the flags are of {names}; an enrollment has one attestation type")
    return next(iter(kinds), None)


def _new_attestation(kind: EnrollmentKind, flags: EnrollmentFlags) -> AttestationMaterial:
    match _attestation_type(flags):
        case AttestationType.X509:
            if flags.certificate_path is None:
                raise InvalidArgument("attestation type x509 needs --certificate-path")
            return _with_certificates(X509Material(primary_der=b""), flags)
        case AttestationType.TPM:
            if kind is EnrollmentKind.INDIVIDUAL and flags.endorsement_key is None:
                raise InvalidArgument("attestation type tpm needs --endorsement-key")
            return _with_tpm(TpmMaterial(), flags)
        case AttestationType.SYMMETRIC_KEY:
            return _with_keys(SymmetricKeyMaterial(primary_key=b"", secondary_key=b""), flags)
        case None:
            raise InvalidArgument("--attestation-type is missing: x509, symmetricKey or tpm")


def _changed_attestation(material: AttestationMaterial, flags: EnrollmentFlags) -> AttestationMaterial:
    match material:
        case X509Material():
            changed: AttestationMaterial = _with_certificates(material, flags)
        case SymmetricKeyMaterial():
            changed = _with_keys(material, flags)
        case TpmMaterial():
            changed = _with_tpm(material, flags)
    is_x509 = isinstance(material, X509Material)
    is_keyed = isinstance(material, SymmetricKeyMaterial)
    if (flags.remove_secondary_certificate and not is_x509) or (
        (flags.regenerate_primary_key or flags.regenerate_secondary_key) and not is_keyed
    ):
        raise InvalidArgument(f"the enrollment's attestation type is {attestation_type_of(material)}")
    return changed


def _with_certificates(material: X509Material, flags: EnrollmentFlags) -> X509Material:
    primary, secondary = flags.certificate_path, flags.secondary_certificate_path
    if secondary is not None and flags.remove_secondary_certificate:
        raise InvalidArgument("give --secondary-certificate-path or --remove-secondary-certificate, not both")
    kept = None if flags.remove_secondary_certificate else material.secondary_der
    return X509Material(
        primary_der=read_certificate(primary) if primary else material.primary_der,
        secondary_der=read_certificate(secondary) if secondary else kept,
    )


def _with_keys(material: SymmetricKeyMaterial, flags: EnrollmentFlags) -> SymmetricKeyMaterial:
    def choose(kept: bytes, file: Path | None, *, regenerate: bool) -> bytes:
        return read_key(file) if file else (b"" if regenerate else kept)

    return SymmetricKeyMaterial(
        primary_key=choose(material.primary_key, flags.primary_key_file, regenerate=flags.regenerate_primary_key),
        secondary_key=choose(
            material.secondary_key, flags.secondary_key_file, regenerate=flags.regenerate_secondary_key
        ),
    )


def _with_tpm(material: TpmMaterial, flags: EnrollmentFlags) -> TpmMaterial:
    """Empty values take away what is there."""
    changes: dict[str, Any] = {}
    if flags.endorsement_key is not None:
        changes["endorsement_key"] = read_tpm_public(flags.endorsement_key, "--endorsement-key")
        if changes["endorsement_key"] != material.endorsement_key:
            changes["storage_root_key"] = None  # another TPM has another one: it is recorded anew at first use
    if flags.storage_root_key is not None:
        changes["storage_root_key"] = read_tpm_public(flags.storage_root_key, "--storage-root-key") or None
    if flags.allowed_ids is not None:
        changes["allowed_ids"] = read_lines(Path(flags.allowed_ids)) if flags.allowed_ids else ()
    if flags.pcr_policy is not None:
        changes["pcr_policy"] = read_object(flags.pcr_policy, "--pcr-policy") if flags.pcr_policy else None
    return dataclasses.replace(material, **changes)


def _with_options(enrollment: Enrollment, flags: EnrollmentFlags) -> Enrollment:
    hubs = None if flags.iot_hubs is None else tuple(re.split(r"[\s,]+", " ".join(flags.iot_hubs).strip()))
    given = {
        "provisioning_status": flags.provisioning_status,
        "allocation_policy": flags.allocation_policy,
        "reprovision_policy": POLICIES[flags.reprovision_policy] if flags.reprovision_policy else None,
        "iot_edge": flags.edge_enabled,
        "initial_twin": _initial_twin(enrollment.initial_twin, flags),
    }
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if flags.webhook_url is not None or flags.api_version is not None:
        changes["custom_allocation"] = _custom_allocation(enrollment.custom_allocation or {}, flags)
    if hubs is not None:
        changes["iot_hubs"] = tuple(name for name in hubs if name)
    if flags.device_id is not None:
        changes["device_id"] = flags.device_id or None
    return dataclasses.replace(enrollment, **changes)


def _custom_allocation(current: Mapping[str, JSONValue], flags: EnrollmentFlags) -> dict[str, JSONValue]:
    definition = {"apiVersion": _WEBHOOK_API_VERSION, **current}
    if flags.webhook_url is not None:
        url = flags.webhook_url
        definition["webhookUrl"] = url if "://" in url else Path(url).read_text().strip()
    if flags.api_version is not None:
        definition["apiVersion"] = flags.api_version
    return definition


def _initial_twin(current: InitialTwin | None, flags: EnrollmentFlags) -> InitialTwin | None:
    tags, properties = flags.initial_twin_tags, flags.initial_twin_properties
    if tags is None and properties is None:
        return None
    current = current or InitialTwin()
    return InitialTwin(
        tags=current.tags if tags is None else read_object(tags, "--initial-twin-tags"),
        desired=current.desired if properties is None else read_object(properties, "--initial-twin-properties"),
    )
