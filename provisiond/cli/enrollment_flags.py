"""What the options that make and change enrollments mean for the record."""

import dataclasses
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from provisiond.cli.enrollment_options import ReprovisionChoice
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

_WEBHOOK_API_VERSION: Final = "2021-10-01"
"""The one that the Azure CLI gives when it is told none."""


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

    @classmethod
    def given(cls, arguments: Mapping[str, Any]) -> Self:
        """The flags among all arguments of a command, by their names here; what it has no option for is left out."""
        return cls(**{name: arguments[name] for name in cls.__dataclass_fields__ if name in arguments})

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
