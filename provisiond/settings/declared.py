"""What the enrollments in the configuration file are, with the certificates and keys that they name."""

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from provisiond.attestation.x509 import load_certificate
from provisiond.enrollment.reprovision import POLICIES
from provisiond.errors import ConfigurationError, InvalidArgument
from provisiond.model import (
    AttestationMaterial,
    AttestationType,
    Enrollment,
    EnrollmentKind,
    InitialTwin,
    ProvisioningStatus,
    SymmetricKeyMaterial,
    TpmMaterial,
    X509Material,
)
from provisiond.settings.enrollments import DeclaredSettings, EnrollmentGroupSettings, EnrollmentSettings
from provisiond.settings.problems import join_problems
from provisiond.settings.schema import Settings
from provisiond.settings.trust import read_file

ORIGIN: Final = "config"
"""`Enrollment.origin` of what is declared in the configuration."""

_MAX_DECLARED: Final = 10_000
"""A file of 1 MiB holds no more; a fleet is imported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredEnrollment:
    """An enrollment as the configuration declares it.

    Args:
        enrollment: keys that are to be generated are empty.
        where: file and line, for the operator.
        sets_status: whether the file says if it is enabled.
    """

    enrollment: Enrollment
    where: str
    sets_status: bool


def declared_enrollments(settings: Settings, *, now: datetime) -> tuple[DeclaredEnrollment, ...]:
    """The enrollments that the configuration declares, with what their files hold.

    Raises:
        ConfigurationError: a file cannot be read or holds something else, or an id is there twice; says which line.
    """
    every: list[EnrollmentSettings | EnrollmentGroupSettings] = list(settings.enrollments)
    every += settings.enrollment_groups
    if len(every) > _MAX_DECLARED:
        raise ConfigurationError(
            f"{len(every)} enrollments in the file; import so many: `provisiond enrollment import`"
        )
    declared: list[DeclaredEnrollment] = []
    problems: list[str] = []
    seen: dict[tuple[EnrollmentKind, str], str] = {}
    for settings_of_one in every:
        try:
            one = _declared(settings_of_one, now)
        except ConfigurationError as error:
            problems.append(str(error))
            continue
        key = (one.enrollment.kind, one.enrollment.key)
        if key in seen:
            problems.append(f"{one.where}: {one.enrollment.id} is declared twice; first at {seen[key]}")
        seen.setdefault(key, one.where)
        declared.append(one)
    if problems:
        raise ConfigurationError(join_problems(problems))
    return tuple(declared)


def _declared(one: EnrollmentSettings | EnrollmentGroupSettings, now: datetime) -> DeclaredEnrollment:
    twin_parts = (one.initial_twin_tags, one.initial_twin_properties)
    individual = isinstance(one, EnrollmentSettings)
    enrollment = Enrollment(
        kind=EnrollmentKind.INDIVIDUAL if individual else EnrollmentKind.GROUP,
        id=one.registration_id if isinstance(one, EnrollmentSettings) else one.group_id,
        attestation=_material(one),
        provisioning_status=one.provisioning_status or ProvisioningStatus.ENABLED,
        device_id=one.device_id if isinstance(one, EnrollmentSettings) else None,
        allocation_policy=one.allocation_policy,
        iot_hubs=one.iot_hubs,
        reprovision_policy=POLICIES[one.reprovision_policy] if one.reprovision_policy else None,
        initial_twin=None
        if twin_parts == (None, None)
        else InitialTwin(tags=one.initial_twin_tags or {}, desired=one.initial_twin_properties or {}),
        iot_edge=one.edge_enabled,
        origin=ORIGIN,
        created_at=now,
        updated_at=now,
    )
    return DeclaredEnrollment(enrollment=enrollment, where=one.place, sets_status=one.provisioning_status is not None)


def _material(one: EnrollmentSettings | EnrollmentGroupSettings) -> AttestationMaterial:
    match one.attestation_type:
        case AttestationType.X509:
            primary = _certificate(one, one.certificate_file) or b""
            return X509Material(primary_der=primary, secondary_der=_certificate(one, one.secondary_certificate_file))
        case AttestationType.SYMMETRIC_KEY:
            return SymmetricKeyMaterial(
                primary_key=_key(one, one.primary_key_file), secondary_key=_key(one, one.secondary_key_file)
            )
        case AttestationType.TPM:
            endorsement_key = getattr(one, "endorsement_key", None)
            return TpmMaterial(
                endorsement_key=_decode(one, "endorsement_key", endorsement_key.encode()) if endorsement_key else None,
                allowed_ids=getattr(one, "allowed_ids", ()),
                pcr_policy=one.pcr_policy,
            )


def _certificate(one: DeclaredSettings, file: Path | None) -> bytes | None:
    if file is None:
        return None
    try:
        return load_certificate(read_file(file, one.place))
    except InvalidArgument as error:
        raise ConfigurationError(f"{one.place}: {file}: {error}") from error


def _key(one: DeclaredSettings, file: Path | None) -> bytes:
    return b"" if file is None else _decode(one, str(file), read_file(file, one.place).strip())


def _decode(one: DeclaredSettings, what: str, text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigurationError(f"{one.place}: {what}: not base64") from error
