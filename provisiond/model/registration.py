"""Registrations, and the identities they leave behind at hubs."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from provisiond.model.enrollment import EnrollmentKind, InitialTwin
from provisiond.model.json_value import JSONValue
from provisiond.model.trust import AttestationType


class RegistrationStatus(StrEnum):
    """Azure DPS `RegistrationStatus`."""

    UNASSIGNED = "unassigned"
    ASSIGNING = "assigning"
    ASSIGNED = "assigned"
    FAILED = "failed"
    DISABLED = "disabled"


class Substatus(StrEnum):
    """Azure DPS `RegistrationSubstatus`: how an assigned device came to its hub."""

    INITIAL_ASSIGNMENT = "initialAssignment"
    DEVICE_DATA_MIGRATED = "deviceDataMigrated"
    DEVICE_DATA_RESET = "deviceDataReset"
    REPROVISIONED_TO_INITIAL_ASSIGNMENT = "reprovisionedToInitialAssignment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """The record of one registration id: at most one per id, on at most one hub.

    Args:
        registration_id: as the device spelt it when it was first seen.
        operation_id: the newest operation; unguessable; polls name it.
        version: 1 at creation, +1 at every commit; the optimistic lock.
        hub: name of the hub in the configuration; `assigned_host` is what the device hears.
        enrollment_kind, enrollment_id: what let the device in, last time.
        endorsement_key_hash: SHA-256 of the TPM2B_PUBLIC EK, for TPM registrations.
        endorsement_key, storage_root_key: TPM2B_PUBLIC, for TPM registrations; frozen at the first success.
        hub_key: what a TPM device signs with at its hub, which never leaves us but sealed to that TPM; for a device
            with a symmetric key, the one that it has proved, where the hub has to be told what follows from it.
        certificate_der: the device's own certificate, for X.509; its hub knows it by this one.
        initial_twin: what a custom allocation wants the twin to start with; it goes before the enrollment's.
        payload: what a custom allocation returned for the device, any JSON or None.
    """

    registration_id: str
    status: RegistrationStatus
    substatus: Substatus | None = None
    operation_id: str
    version: int
    hub: str | None = None
    assigned_host: str | None = None
    device_id: str
    enrollment_kind: EnrollmentKind
    enrollment_id: str
    attestation_type: AttestationType
    endorsement_key_hash: bytes | None = None
    endorsement_key: bytes | None = None
    storage_root_key: bytes | None = None
    hub_key: bytes | None = field(default=None, repr=False)
    certificate_der: bytes | None = field(default=None, repr=False)
    initial_twin: InitialTwin | None = None
    payload: JSONValue = None
    error_code: int | None = None
    error_message: str | None = None
    etag: str
    created_at: datetime
    updated_at: datetime

    @property
    def key(self) -> str:
        """The spelling the record is stored and compared under."""
        return self.registration_id.lower()


class RetirementAction(StrEnum):
    """What becomes of an identity that a hub has no more use for."""

    DELETE = "delete"
    DISABLE = "disable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    """An identity that is to go from a hub; at most one a hub and device.

    Args:
        hub: name of the hub.
        device_id: at that hub.
        registration_id: whose identity it is.
        due_at: not before.
        grace_s: seconds that a device which has moved may take to be seen at its new hub, from when it was made there;
            `due_at` is their end. 0: nobody is waited for.
        reason: for the operator.
    """

    hub: str
    device_id: str
    registration_id: str
    action: RetirementAction = RetirementAction.DELETE
    due_at: datetime
    grace_s: int = 0
    reason: str = ""
