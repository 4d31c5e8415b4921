"""Enrollments, to rows and back."""

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from provisiond.model import (
    AllocationPolicy,
    AttestationMaterial,
    AttestationType,
    Enrollment,
    EnrollmentKind,
    ProvisioningStatus,
    ReprovisionPolicy,
    SymmetricKeyMaterial,
    TpmMaterial,
    X509Material,
)
from provisiond.store.rows.digest import ENROLLMENT, RowDigest
from provisiond.store.rows.document import (
    decode,
    encode,
    from_base64,
    initial_twin,
    storable,
    to_base64,
    twin_document,
    value_of,
)

_PROVISIONING_STATUS: Final = {str(member): member for member in ProvisioningStatus}  # faster than a call


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollmentRow:
    """An enrollment as it is stored."""

    key: str
    kind: str
    attestation_type: str
    etag: str
    record: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollmentGuard:
    """An enrollment as it was read, by its etag."""

    key: str
    kind: str
    etag: str


def enrollment_guard(enrollment: Enrollment) -> EnrollmentGuard:
    """Encode."""
    return EnrollmentGuard(key=storable(enrollment.key), kind=enrollment.kind.value, etag=storable(enrollment.etag))


def enrollment_row(enrollment: Enrollment, digest: RowDigest) -> EnrollmentRow:
    """Encode.

    Raises:
        StoreError: it has a value that JSON cannot hold.
    """
    record = encode(
        {
            "id": enrollment.id,
            "attestation": _material_document(enrollment.attestation),
            "provisioningStatus": enrollment.provisioning_status.value,
            "deviceId": enrollment.device_id,
            "allocationPolicy": value_of(enrollment.allocation_policy),
            "iotHubs": enrollment.iot_hubs,
            "customAllocation": enrollment.custom_allocation,
            "reprovisionPolicy": _reprovision_document(enrollment.reprovision_policy),
            "initialTwin": twin_document(enrollment.initial_twin),
            "iotEdge": enrollment.iot_edge,
            "deviceInformation": enrollment.device_information,
            "origin": enrollment.origin,
            "etag": enrollment.etag,
            "createdAt": enrollment.created_at.isoformat(),
            "updatedAt": enrollment.updated_at.isoformat(),
        }
    )
    key, kind = storable(enrollment.key), enrollment.kind.value
    return EnrollmentRow(
        key=key,
        kind=kind,
        attestation_type=enrollment.attestation_type.value,
        etag=storable(enrollment.etag),
        record=record,
        digest=digest.of(ENROLLMENT, key.encode(), kind.encode(), record.encode()).decode(),
    )


def enrollment(kind: EnrollmentKind, record: bytes) -> Enrollment:
    """Decode a record whose digest has been checked."""
    document = decode(record)
    policy, allocation = document["reprovisionPolicy"], document["allocationPolicy"]
    return Enrollment(
        kind=kind,
        id=document["id"],
        attestation=_material(document["attestation"]),
        provisioning_status=_PROVISIONING_STATUS[document["provisioningStatus"]],
        device_id=document["deviceId"],
        allocation_policy=None if allocation is None else AllocationPolicy(allocation),
        iot_hubs=tuple(document["iotHubs"]),
        custom_allocation=document["customAllocation"],
        reprovision_policy=None
        if policy is None
        else ReprovisionPolicy(
            update_hub_assignment=policy["updateHubAssignment"], migrate_device_data=policy["migrateDeviceData"]
        ),
        initial_twin=initial_twin(document["initialTwin"]),
        iot_edge=document["iotEdge"],
        device_information=document["deviceInformation"],
        origin=document["origin"],
        etag=document["etag"],
        created_at=datetime.fromisoformat(document["createdAt"]),
        updated_at=datetime.fromisoformat(document["updatedAt"]),
    )


def _material_document(material: AttestationMaterial) -> dict[str, Any]:
    match material:
        case X509Material():
            return {
                "type": AttestationType.X509.value,
                "primary": to_base64(material.primary_der),
                "secondary": to_base64(material.secondary_der),
            }
        case SymmetricKeyMaterial():
            return {
                "type": AttestationType.SYMMETRIC_KEY.value,
                "primary": to_base64(material.primary_key),
                "secondary": to_base64(material.secondary_key),
            }
        case TpmMaterial():
            return {
                "type": AttestationType.TPM.value,
                "endorsementKey": to_base64(material.endorsement_key),
                "storageRootKey": to_base64(material.storage_root_key),
                "allowedIds": material.allowed_ids,
                "pcrPolicy": material.pcr_policy,
            }


def _material(document: Mapping[str, Any]) -> AttestationMaterial:
    match document["type"]:
        case "x509":
            return X509Material(
                primary_der=b64decode(document["primary"]), secondary_der=from_base64(document["secondary"])
            )
        case "symmetricKey":
            return SymmetricKeyMaterial(
                primary_key=b64decode(document["primary"]), secondary_key=b64decode(document["secondary"])
            )
        case _:
            return TpmMaterial(
                endorsement_key=from_base64(document["endorsementKey"]),
                storage_root_key=from_base64(document["storageRootKey"]),
                allowed_ids=tuple(document["allowedIds"]),
                pcr_policy=document["pcrPolicy"],
            )


def _reprovision_document(policy: ReprovisionPolicy | None) -> dict[str, bool] | None:
    if policy is None:
        return None
    return {"updateHubAssignment": policy.update_hub_assignment, "migrateDeviceData": policy.migrate_device_data}
