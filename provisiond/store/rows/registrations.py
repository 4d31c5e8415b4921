"""Registrations, to rows and back."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from provisiond.model import AttestationType, EnrollmentKind, Registration, RegistrationStatus, Substatus
from provisiond.store.rows.digest import REGISTRATION, RowDigest
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

# A look-up takes a fifth of the time of calling the Enum, and there are six in a pair of records.
_REGISTRATION_STATUS: Final = {str(member): member for member in RegistrationStatus}
_SUBSTATUS: Final = {str(member): member for member in Substatus}
_ENROLLMENT_KIND: Final = {str(member): member for member in EnrollmentKind}
_ATTESTATION_TYPE: Final = {str(member): member for member in AttestationType}


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
            "substatus": value_of(registration.substatus),
            "operationId": registration.operation_id,
            "version": registration.version,
            "hub": registration.hub,
            "assignedHost": registration.assigned_host,
            "deviceId": registration.device_id,
            "enrollmentKind": registration.enrollment_kind.value,
            "enrollmentId": registration.enrollment_id,
            "attestationType": registration.attestation_type.value,
            "endorsementKeyHash": to_base64(registration.endorsement_key_hash),
            "endorsementKey": to_base64(registration.endorsement_key),
            "storageRootKey": to_base64(registration.storage_root_key),
            "hubKey": to_base64(registration.hub_key),
            "certificate": to_base64(registration.certificate_der),
            "initialTwin": twin_document(registration.initial_twin),
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
        substatus=value_of(registration.substatus),
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
    substatus = document["substatus"]
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
        endorsement_key_hash=from_base64(document["endorsementKeyHash"]),
        endorsement_key=from_base64(document["endorsementKey"]),
        storage_root_key=from_base64(document["storageRootKey"]),
        hub_key=from_base64(document["hubKey"]),
        certificate_der=from_base64(document["certificate"]),
        initial_twin=initial_twin(document["initialTwin"]),
        payload=document["payload"],
        error_code=document["errorCode"],
        error_message=document["errorMessage"],
        etag=document["etag"],
        created_at=datetime.fromisoformat(document["createdAt"]),
        updated_at=datetime.fromisoformat(document["updatedAt"]),
    )
