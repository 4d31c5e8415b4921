"""Reading the JSON bodies of the Azure service API: the strict shape of enrollments and groups.

What is only ever read (`registrationState`, `info`, timestamps) may stand in a body that is written back, and is
ignored.
"""

import base64
import binascii
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, ValidationError
from pydantic.alias_generators import to_camel

from provisiond.attestation.x509 import load_certificate
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
    ReprovisionPolicy,
    SymmetricKeyMaterial,
    TpmMaterial,
    X509Material,
)

_MOST_PROBLEMS_SHOWN: Final = 5
_LINKED_HUBS_MAX: Final = 50  # as Azure
CERTIFICATE_NAMES: Final = {
    EnrollmentKind.INDIVIDUAL: "clientCertificates",
    EnrollmentKind.GROUP: "signingCertificates",
}
"""What the certificates of each kind are called."""


# --- bodies ----------------------------------------------------------------------------------------------------------


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, allow_inf_nan=False)


class _Certificate(_Body):
    certificate: StrictStr | None = None
    info: dict[str, Any] | None = None


class _Certificates(_Body):
    primary: _Certificate
    secondary: _Certificate | None = None


class _X509(_Body):
    client_certificates: _Certificates | None = None
    signing_certificates: _Certificates | None = None
    ca_references: Any = None


class _SymmetricKey(_Body):
    primary_key: StrictStr | None = Field(default=None, repr=False)
    secondary_key: StrictStr | None = Field(default=None, repr=False)


class _Tpm(_Body):
    endorsement_key: StrictStr | None = None
    storage_root_key: StrictStr | None = None
    allowed_ids: list[StrictStr] | None = None
    pcr_policy: dict[str, Any] | None = None


class _Attestation(_Body):
    type: AttestationType
    x509: _X509 | None = None
    symmetric_key: _SymmetricKey | None = None
    tpm: _Tpm | None = None


class _Capabilities(_Body):
    iot_edge: StrictBool = False


class _TwinProperties(_Body):
    desired: dict[str, Any] | None = None


class _Twin(_Body):
    tags: dict[str, Any] | None = None
    properties: _TwinProperties | None = None


class _Reprovision(_Body):
    update_hub_assignment: StrictBool
    migrate_device_data: StrictBool


class _CustomAllocation(_Body):
    webhook_url: StrictStr
    api_version: StrictStr


class _Enrollment(_Body):
    attestation: _Attestation
    capabilities: _Capabilities | None = None
    etag: StrictStr | None = None
    provisioning_status: ProvisioningStatus | None = None
    reprovision_policy: _Reprovision | None = None
    allocation_policy: AllocationPolicy | None = None
    iot_hubs: Annotated[list[StrictStr], Field(max_length=_LINKED_HUBS_MAX)] | None = None
    custom_allocation_definition: _CustomAllocation | None = None
    initial_twin: _Twin | None = None
    created_date_time_utc: StrictStr | None = None
    last_updated_date_time_utc: StrictStr | None = None


class _Individual(_Enrollment):
    registration_id: StrictStr
    device_id: StrictStr | None = None
    registration_state: dict[str, Any] | None = None
    optional_device_information: dict[str, Any] | None = None


class _Group(_Enrollment):
    enrollment_group_id: StrictStr


# --- reading ---------------------------------------------------------------------------------------------------------


def enrollment_from_json(
    kind: EnrollmentKind, body: JSONValue, *, now: datetime, current: Enrollment | None = None
) -> Enrollment:
    """Read an IndividualEnrollment or an EnrollmentGroup.

    Keys that are left out or empty become empty here, for `admin` to generate; with `current`, they stay what they are,
    and so does a certificate of which only the `info` is given.

    Args:
        kind: which of the two.
        body: parsed JSON.
        now: aware UTC, for the timestamps.
        current: the record that the body replaces.

    Raises:
        InvalidArgument: the body is not of that shape; says where.
    """
    schema = _Individual if kind is EnrollmentKind.INDIVIDUAL else _Group
    try:
        parsed = schema.model_validate(body)
    except ValidationError as error:
        raise InvalidArgument(_describe(error)) from error
    individual = parsed if isinstance(parsed, _Individual) else None
    status = parsed.provisioning_status or ProvisioningStatus.ENABLED
    reprovision = parsed.reprovision_policy
    custom = parsed.custom_allocation_definition
    return Enrollment(
        kind=kind,
        id=individual.registration_id if individual else getattr(parsed, "enrollment_group_id", ""),
        attestation=_read_attestation(kind, parsed.attestation, current.attestation if current else None),
        provisioning_status=status,
        device_id=(individual.device_id or None) if individual else None,
        allocation_policy=parsed.allocation_policy,
        iot_hubs=tuple(parsed.iot_hubs or ()),
        custom_allocation=custom.model_dump(by_alias=True) if custom else None,
        reprovision_policy=ReprovisionPolicy(**reprovision.model_dump()) if reprovision else None,
        initial_twin=_read_twin(parsed.initial_twin),
        iot_edge=parsed.capabilities.iot_edge if parsed.capabilities else False,
        device_information=individual.optional_device_information if individual else None,
        etag=parsed.etag or "",
        created_at=current.created_at if current else now,
        updated_at=now,
    )


def _read_attestation(
    kind: EnrollmentKind, body: _Attestation, current: AttestationMaterial | None
) -> AttestationMaterial:
    given = {
        name for name, part in {"x509": body.x509, "symmetricKey": body.symmetric_key, "tpm": body.tpm}.items() if part
    }
    if given - {body.type.value}:
        raise InvalidArgument(f"attestation: type is {body.type}, but there is {', '.join(sorted(given))}")
    match body.type:
        case AttestationType.X509:
            return _read_x509(kind, body.x509, current if isinstance(current, X509Material) else None)
        case AttestationType.SYMMETRIC_KEY:
            kept = current if isinstance(current, SymmetricKeyMaterial) else None
            return _read_symmetric_key(body.symmetric_key or _SymmetricKey(), kept)
        case AttestationType.TPM:
            return _read_tpm(kind, body.tpm or _Tpm())


def _read_x509(kind: EnrollmentKind, body: _X509 | None, current: X509Material | None) -> X509Material:
    name = CERTIFICATE_NAMES[kind]
    body = body or _X509()
    pair = (body.client_certificates, body.signing_certificates)
    certificates, other = pair if kind is EnrollmentKind.INDIVIDUAL else reversed(pair)
    if certificates is None or other is not None or body.ca_references is not None:
        owner = "individual enrollment" if kind is EnrollmentKind.INDIVIDUAL else "enrollment group"
        raise InvalidArgument(f"attestation.x509: an {owner} has {name}, and only those")
    secondary = certificates.secondary
    return X509Material(
        primary_der=_read_certificate(f"{name}.primary", certificates.primary, current),
        secondary_der=_read_certificate(f"{name}.secondary", secondary, current) if secondary else None,
    )


def _read_certificate(where: str, body: _Certificate, current: X509Material | None) -> bytes:
    if body.certificate:
        text = body.certificate.strip()
        data = text.encode() if text.startswith("-----") else _decode_base64(f"attestation.x509.{where}", text)
        try:
            return load_certificate(data)
        except InvalidArgument as error:
            raise InvalidArgument(f"attestation.x509.{where}: {error}") from error
    thumbprint = str((body.info or {}).get("sha256Thumbprint", "")).upper()
    for certificate_der in current.certificates if current else ():
        if sha256(certificate_der).hexdigest().upper() == thumbprint:
            return certificate_der
    raise InvalidArgument(f"attestation.x509.{where}: there is no certificate")


def _read_symmetric_key(body: _SymmetricKey, current: SymmetricKeyMaterial | None) -> SymmetricKeyMaterial:
    def read(name: str, text: str | None, kept: bytes) -> bytes:
        return _decode_base64(f"attestation.symmetricKey.{name}", text) if text else kept

    return SymmetricKeyMaterial(
        primary_key=read("primaryKey", body.primary_key, current.primary_key if current else b""),
        secondary_key=read("secondaryKey", body.secondary_key, current.secondary_key if current else b""),
    )


def _read_tpm(kind: EnrollmentKind, body: _Tpm) -> TpmMaterial:
    if kind is EnrollmentKind.INDIVIDUAL and not body.endorsement_key:
        raise InvalidArgument("attestation.tpm: there is no endorsementKey")

    def read(name: str, text: str | None) -> bytes | None:
        return _decode_base64(f"attestation.tpm.{name}", text) if text else None

    return TpmMaterial(
        endorsement_key=read("endorsementKey", body.endorsement_key),
        storage_root_key=read("storageRootKey", body.storage_root_key),
        allowed_ids=tuple(body.allowed_ids or ()),
        pcr_policy=body.pcr_policy,
    )


def _read_twin(body: _Twin | None) -> InitialTwin | None:
    if body is None:
        return None
    return InitialTwin(tags=body.tags or {}, desired=(body.properties and body.properties.desired) or {})


def _decode_base64(where: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgument(f"{where}: not base64") from error


def _describe(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_input=False)
    lines = [f"{'.'.join(map(str, problem['loc'])) or 'body'}: {problem['msg']}" for problem in problems]
    more = [f"and {len(lines) - _MOST_PROBLEMS_SHOWN} more"] if len(lines) > _MOST_PROBLEMS_SHOWN else []
    return "; ".join(lines[:_MOST_PROBLEMS_SHOWN] + more)
