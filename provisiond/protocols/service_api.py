"""JSON of the Azure service API: enrollments, enrollment groups, registrations.

One shape for the command line's JSON, import and export, and REST. Bodies are read in `service_api_bodies`.
"""

import base64
import hashlib
import uuid
from typing import Any, Final

from cryptography import x509

from provisiond.model import Enrollment, EnrollmentKind, Registration, SymmetricKeyMaterial, TpmMaterial, X509Material
from provisiond.protocols.service_api_bodies import CERTIFICATE_NAMES, enrollment_from_json
from provisiond.protocols.timestamps import format_timestamp

__all__ = [
    "attestation_to_json",
    "certificate_info",
    "enrollment_from_json",
    "enrollment_to_json",
    "format_etag",
    "registration_to_json",
]

_ID_NAMES: Final = {EnrollmentKind.INDIVIDUAL: "registrationId", EnrollmentKind.GROUP: "enrollmentGroupId"}


def enrollment_to_json(
    enrollment: Enrollment, *, show_keys: bool = False, registration: Registration | None = None
) -> dict[str, Any]:
    """Write an IndividualEnrollment or an EnrollmentGroup.

    Args:
        enrollment: either kind.
        show_keys: with symmetric keys; without, as the Azure service answers, only their type is told.
        registration: the device's record, shown as `registrationState` (individual only).
    """
    reprovision, twin = enrollment.reprovision_policy, enrollment.initial_twin
    fields = {
        _ID_NAMES[enrollment.kind]: enrollment.id,
        "deviceId": enrollment.device_id,
        "registrationState": registration_to_json(registration) if registration else None,
        "optionalDeviceInformation": enrollment.device_information,
        "attestation": attestation_to_json(enrollment, show_keys=show_keys),
        "capabilities": {"iotEdge": enrollment.iot_edge},
        "etag": enrollment.etag,
        "provisioningStatus": enrollment.provisioning_status.value,
        "reprovisionPolicy": reprovision
        and {
            "updateHubAssignment": reprovision.update_hub_assignment,
            "migrateDeviceData": reprovision.migrate_device_data,
        },
        "allocationPolicy": enrollment.allocation_policy and enrollment.allocation_policy.value,
        "iotHubs": list(enrollment.iot_hubs) or None,
        "customAllocationDefinition": enrollment.custom_allocation
        and dict(sorted(enrollment.custom_allocation.items())),
        "initialTwin": twin and {"tags": dict(twin.tags), "properties": {"desired": dict(twin.desired)}},
        "createdDateTimeUtc": format_timestamp(enrollment.created_at),
        "lastUpdatedDateTimeUtc": format_timestamp(enrollment.updated_at),
    }
    return {name: value for name, value in fields.items() if value is not None}


def attestation_to_json(enrollment: Enrollment, *, show_keys: bool = False) -> dict[str, Any]:
    """Write an AttestationMechanism: certificates as their `info`, keys only when `show_keys`.

    The `allowedIds` of a TPM group and the `pcrPolicy` are ours; Azure has neither.
    """
    body: dict[str, Any] = {"type": enrollment.attestation_type.value}
    match enrollment.attestation:
        case X509Material() as material:
            names = zip(("primary", "secondary"), material.certificates, strict=False)
            certificates = {name: {"info": certificate_info(certificate)} for name, certificate in names}
            body["x509"] = {CERTIFICATE_NAMES[enrollment.kind]: certificates}
        case SymmetricKeyMaterial() as material if show_keys:
            body["symmetricKey"] = {
                "primaryKey": base64.b64encode(material.primary_key).decode(),
                "secondaryKey": base64.b64encode(material.secondary_key).decode(),
            }
        case TpmMaterial() as material:
            keys = {"endorsementKey": material.endorsement_key, "storageRootKey": material.storage_root_key}
            body["tpm"] = {name: base64.b64encode(key).decode() for name, key in keys.items() if key}
            if material.allowed_ids:
                body["tpm"]["allowedIds"] = list(material.allowed_ids)
            if material.pcr_policy is not None:
                body["tpm"]["pcrPolicy"] = dict(material.pcr_policy)
    return body


def certificate_info(certificate_der: bytes) -> dict[str, Any]:
    """Write an X509CertificateInfo of a certificate that was enrolled, and so can be read."""
    certificate = x509.load_der_x509_certificate(certificate_der)
    return {
        "subjectName": certificate.subject.rfc4514_string(),
        "sha1Thumbprint": hashlib.sha1(certificate_der, usedforsecurity=False).hexdigest().upper(),
        "sha256Thumbprint": hashlib.sha256(certificate_der).hexdigest().upper(),
        "issuerName": certificate.issuer.rfc4514_string(),
        "notBeforeUtc": format_timestamp(certificate.not_valid_before_utc),
        "notAfterUtc": format_timestamp(certificate.not_valid_after_utc),
        "serialNumber": f"{certificate.serial_number:X}",
        "version": certificate.version.value + 1,
    }


def registration_to_json(registration: Registration) -> dict[str, Any]:
    """Write a DeviceRegistrationState."""
    fields = {
        "registrationId": registration.registration_id,
        "createdDateTimeUtc": format_timestamp(registration.created_at),
        "assignedHub": registration.assigned_host,
        "deviceId": registration.device_id,
        "status": registration.status.value,
        "substatus": registration.substatus and registration.substatus.value,
        "errorCode": registration.error_code,
        "errorMessage": registration.error_message,
        "lastUpdatedDateTimeUtc": format_timestamp(registration.updated_at),
        "etag": registration.etag,
        "payload": registration.payload,
    }
    return {name: value for name, value in fields.items() if value is not None}


def format_etag(random_bytes: bytes) -> str:
    """An etag of 16 random bytes, in Azure's form: base64 of a UUID in quotes."""
    return base64.b64encode(f'"{uuid.UUID(bytes=random_bytes, version=4)}"'.encode()).decode("ascii")
