"""Records to rows and back: JSON documents, and the digest that notices a flipped bit.

Encoding needs no database, so a record that cannot be stored is found out before it meets others in a group.
"""

import json
import sqlite3
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final

from pydantic_core import from_json, to_json

from provisiond.errors import CorruptRecord, StoreError
from provisiond.model import (
    AllocationPolicy,
    AttestationMaterial,
    AttestationType,
    AuditRecord,
    Check,
    Enrollment,
    EnrollmentKind,
    InitialTwin,
    ProvisioningStatus,
    Registration,
    RegistrationStatus,
    ReprovisionPolicy,
    Substatus,
    SymmetricKeyMaterial,
    TpmMaterial,
    X509Material,
)


class RowDigest:
    """BLAKE2b-64 over a row's table, key and record, keyed with the database's own secret.

    It notices accidents (a flipped bit, an edit by hand), with a miss in 2**64. It stops no attacker: the secret is in
    the same file, for there is no better place on a gateway without a TPM.
    """

    def __init__(self, key: bytes) -> None:
        self._base = blake2b(key=key, digest_size=8)

    def of(self, table: bytes, key: bytes, *parts: bytes) -> bytes:
        """Digest of a row, 16 lower-case hexadecimal digits. No part but the last may contain the octet 0x1f."""
        digest = self._base.copy()
        digest.update(b"\x1f".join((table, key, *parts)))
        return digest.hexdigest().encode()

    def check(self, stored: bytes, table: bytes, key: bytes, *parts: bytes) -> None:
        """Compare.

        Raises:
            CorruptRecord: the row is not what was written.
        """
        if self.of(table, key, *parts) != stored:
            raise corrupt(table, key)


def read_digest_key(connection: sqlite3.Connection) -> bytes:
    """The database's own secret for the row digests.

    Raises:
        CorruptRecord: it is not there.
    """
    found = connection.execute("SELECT value FROM meta WHERE name = 'digest_key'").fetchone()
    if found is None or not isinstance(found[0], bytes) or len(found[0]) != 32:
        raise CorruptRecord("meta", "digest_key")
    return found[0]


def corrupt(table: bytes, key: bytes) -> CorruptRecord:
    """The error for a row, whatever its key has become."""
    return CorruptRecord(table.decode(), key.decode(errors="backslashreplace"))


def storable(text: str) -> str:
    """Text as SQLite can hold it: lone surrogates, which UTF-8 has no form for, become escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


# --- enrollments -----------------------------------------------------------------------------------------------------

ENROLLMENT: Final = b"enrollment"
REGISTRATION: Final = b"registration"


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
            "allocationPolicy": _value(enrollment.allocation_policy),
            "iotHubs": enrollment.iot_hubs,
            "customAllocation": enrollment.custom_allocation,
            "reprovisionPolicy": _reprovision_document(enrollment.reprovision_policy),
            "initialTwin": _twin_document(enrollment.initial_twin),
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
    policy, twin, allocation = document["reprovisionPolicy"], document["initialTwin"], document["allocationPolicy"]
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
        initial_twin=None if twin is None else InitialTwin(tags=twin["tags"], desired=twin["desired"]),
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
                "primary": _base64(material.primary_der),
                "secondary": _base64(material.secondary_der),
            }
        case SymmetricKeyMaterial():
            return {
                "type": AttestationType.SYMMETRIC_KEY.value,
                "primary": _base64(material.primary_key),
                "secondary": _base64(material.secondary_key),
            }
        case TpmMaterial():
            return {
                "type": AttestationType.TPM.value,
                "endorsementKey": _base64(material.endorsement_key),
                "storageRootKey": _base64(material.storage_root_key),
                "allowedIds": material.allowed_ids,
                "pcrPolicy": material.pcr_policy,
            }


def _material(document: Mapping[str, Any]) -> AttestationMaterial:
    match document["type"]:
        case "x509":
            return X509Material(
                primary_der=b64decode(document["primary"]), secondary_der=_from_base64(document["secondary"])
            )
        case "symmetricKey":
            return SymmetricKeyMaterial(
                primary_key=b64decode(document["primary"]), secondary_key=b64decode(document["secondary"])
            )
        case _:
            return TpmMaterial(
                endorsement_key=_from_base64(document["endorsementKey"]),
                storage_root_key=_from_base64(document["storageRootKey"]),
                allowed_ids=tuple(document["allowedIds"]),
                pcr_policy=document["pcrPolicy"],
            )


def _reprovision_document(policy: ReprovisionPolicy | None) -> dict[str, bool] | None:
    if policy is None:
        return None
    return {"updateHubAssignment": policy.update_hub_assignment, "migrateDeviceData": policy.migrate_device_data}


def _twin_document(twin: InitialTwin | None) -> dict[str, Any] | None:
    return None if twin is None else {"tags": twin.tags, "desired": twin.desired}


# --- registrations ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationRow:
    """A registration as it is stored."""

    key: str
    version: int
    status: str
    substatus: str | None
    hub: str | None
    group_key: str | None
    endorsement_key_hash: str | None
    device_key: str
    record: str
    digest: str


def registration_row(registration: Registration, digest: RowDigest) -> RegistrationRow:
    """Encode.

    Raises:
        StoreError: it has a value that JSON cannot hold.
    """
    record = encode(
        {
            "registrationId": registration.registration_id,
            "status": registration.status.value,
            "substatus": _value(registration.substatus),
            "operationId": registration.operation_id,
            "version": registration.version,
            "hub": registration.hub,
            "assignedHost": registration.assigned_host,
            "deviceId": registration.device_id,
            "enrollmentKind": registration.enrollment_kind.value,
            "enrollmentId": registration.enrollment_id,
            "attestationType": registration.attestation_type.value,
            "endorsementKeyHash": _base64(registration.endorsement_key_hash),
            "endorsementKey": _base64(registration.endorsement_key),
            "storageRootKey": _base64(registration.storage_root_key),
            "hubKey": _base64(registration.hub_key),
            "certificate": _base64(registration.certificate_der),
            "initialTwin": _twin_document(registration.initial_twin),
            "payload": registration.payload,
            "errorCode": registration.error_code,
            "errorMessage": registration.error_message,
            "etag": registration.etag,
            "createdAt": registration.created_at.isoformat(),
            "updatedAt": registration.updated_at.isoformat(),
        }
    )
    key, version = storable(registration.key), registration.version
    of_group = registration.enrollment_kind is EnrollmentKind.GROUP
    return RegistrationRow(
        key=key,
        version=version,
        status=registration.status.value,
        substatus=_value(registration.substatus),
        hub=None if registration.hub is None else storable(registration.hub),
        group_key=storable(registration.enrollment_id.lower()) if of_group else None,
        endorsement_key_hash=None
        if registration.endorsement_key_hash is None
        else registration.endorsement_key_hash.hex(),
        device_key=storable(registration.device_id.lower()),
        record=record,
        digest=digest.of(REGISTRATION, key.encode(), b"%d" % version, record.encode()).decode(),
    )


def registration(record: bytes) -> Registration:
    """Decode a record whose digest has been checked."""
    document = decode(record)
    substatus, twin = document["substatus"], document["initialTwin"]
    return Registration(
        registration_id=document["registrationId"],
        status=_REGISTRATION_STATUS[document["status"]],
        substatus=None if substatus is None else _SUBSTATUS[substatus],
        operation_id=document["operationId"],
        version=document["version"],
        hub=document["hub"],
        assigned_host=document["assignedHost"],
        device_id=document["deviceId"],
        enrollment_kind=_ENROLLMENT_KIND[document["enrollmentKind"]],
        enrollment_id=document["enrollmentId"],
        attestation_type=_ATTESTATION_TYPE[document["attestationType"]],
        endorsement_key_hash=_from_base64(document["endorsementKeyHash"]),
        endorsement_key=_from_base64(document["endorsementKey"]),
        storage_root_key=_from_base64(document["storageRootKey"]),
        hub_key=_from_base64(document["hubKey"]),
        certificate_der=_from_base64(document["certificate"]),
        initial_twin=None if twin is None else InitialTwin(tags=twin["tags"], desired=twin["desired"]),
        payload=document["payload"],
        error_code=document["errorCode"],
        error_message=document["errorMessage"],
        etag=document["etag"],
        created_at=datetime.fromisoformat(document["createdAt"]),
        updated_at=datetime.fromisoformat(document["updatedAt"]),
    )


# --- audit -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """An audit record as it is stored; sequence number and hash come in commit order, from the writer."""

    at_s: int
    tracking_id: str
    registration_key: str
    code: int | None
    record: str


def audit_row(record: AuditRecord) -> AuditRow:
    """Encode; what is None is left out.

    Raises:
        StoreError: it has a value that JSON cannot hold.
    """
    document = {
        "trackingId": record.tracking_id,
        "at": record.at.isoformat(),
        "event": record.event,
        "registrationId": record.registration_id,
        "outcome": record.outcome,
        "code": record.code,
        "reason": record.reason,
        "enrollmentKind": _value(record.enrollment_kind),
        "enrollmentId": record.enrollment_id,
        "hub": record.hub,
        "actor": record.actor,
        "trace": [(check.name, check.passed, check.finding, check.clause) for check in record.trace],
    }
    return AuditRow(
        at_s=int(record.at.timestamp()),
        tracking_id=storable(record.tracking_id),
        registration_key=storable(record.registration_id.lower()),
        code=record.code,
        record=encode({name: value for name, value in document.items() if value is not None}),
    )


def audit_record(record: bytes) -> AuditRecord:
    """Decode."""
    document = decode(record)
    kind = document.get("enrollmentKind")
    return AuditRecord(
        tracking_id=document["trackingId"],
        at=datetime.fromisoformat(document["at"]),
        event=document["event"],
        registration_id=document["registrationId"],
        outcome=document["outcome"],
        code=document.get("code"),
        reason=document["reason"],
        enrollment_kind=None if kind is None else EnrollmentKind(kind),
        enrollment_id=document.get("enrollmentId"),
        hub=document.get("hub"),
        actor=document["actor"],
        trace=tuple(Check(*check) for check in document["trace"]),
    )


# --- values ----------------------------------------------------------------------------------------------------------

# A look-up takes a fifth of the time of calling the Enum, and there are six in a pair of records.
_PROVISIONING_STATUS: Final = {str(member): member for member in ProvisioningStatus}
_REGISTRATION_STATUS: Final = {str(member): member for member in RegistrationStatus}
_SUBSTATUS: Final = {str(member): member for member in Substatus}
_ENROLLMENT_KIND: Final = {str(member): member for member in EnrollmentKind}
_ATTESTATION_TYPE: Final = {str(member): member for member in AttestationType}


def encode(document: dict[str, Any]) -> str:
    """Compact JSON.

    Raises:
        StoreError: it has a value that JSON cannot hold.
    """
    try:
        return to_json(document).decode()  # a third of the time of the standard library's
    except ValueError:  # such as a lone surrogate, which UTF-8 has no form for, but a JSON escape has
        return _encode_strictly(document)


def _encode_strictly(document: dict[str, Any]) -> str:
    try:
        return json.dumps(document, separators=(",", ":"), allow_nan=False, default=dict)
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"a record has a value that cannot be stored: {error}") from error


def decode(record: bytes) -> dict[str, Any]:
    """What `encode` was given."""
    document: dict[str, Any]
    try:
        document = from_json(record)
    except ValueError:
        document = json.loads(record)
    return document


def _value(member: StrEnum | None) -> str | None:
    return None if member is None else str(member.value)  # the encoder takes four times as long over a member


def _base64(octets: bytes | None) -> str | None:
    return None if octets is None else b64encode(octets).decode("ascii")


def _from_base64(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)
