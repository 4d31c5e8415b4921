"""The nouns: frozen values that the rooms hand to each other, a module a noun.

Times are aware UTC `datetime`s. Keys, certificates and TPM structures are `bytes` (DER, TPM2B); text forms are made
at the edges. What has not been verified says so in its name.
"""

from provisiond.model.allocation import AllocationRequest, CustomAllocation
from provisiond.model.audit import AuditRecord
from provisiond.model.challenge import Answer, Challenge, IssuedChallenge
from provisiond.model.connection import ConnectAttempt, Connection, Message, Role
from provisiond.model.decision import Decision, Facts, Outcome
from provisiond.model.device import CloudMessage, DevicePresence, DeviceTwin
from provisiond.model.enrollment import (
    AllocationPolicy,
    Enrollment,
    EnrollmentKind,
    InitialTwin,
    ProvisioningStatus,
    ReprovisionPolicy,
)
from provisiond.model.evidence import Evidence, Possession, QuoteEvidence, TpmEvidence, Verified
from provisiond.model.hub import Hub, HubView
from provisiond.model.json_value import JSONValue
from provisiond.model.pending import PendingDevice
from provisiond.model.registration import Registration, RegistrationStatus, Retirement, RetirementAction, Substatus
from provisiond.model.registration_id import RegistrationId
from provisiond.model.reply import ErrorBody, Reply
from provisiond.model.request import PollRequest, RegisterRequest, Request
from provisiond.model.trace import Check, Trace
from provisiond.model.trust import (
    AttestationMaterial,
    AttestationType,
    SymmetricKeyMaterial,
    TpmMaterial,
    X509Material,
    attestation_type_of,
)

__all__ = [
    "AllocationPolicy",
    "AllocationRequest",
    "Answer",
    "AttestationMaterial",
    "AttestationType",
    "AuditRecord",
    "Challenge",
    "Check",
    "CloudMessage",
    "ConnectAttempt",
    "Connection",
    "CustomAllocation",
    "Decision",
    "DevicePresence",
    "DeviceTwin",
    "Enrollment",
    "EnrollmentKind",
    "ErrorBody",
    "Evidence",
    "Facts",
    "Hub",
    "HubView",
    "InitialTwin",
    "IssuedChallenge",
    "JSONValue",
    "Message",
    "Outcome",
    "PendingDevice",
    "PollRequest",
    "Possession",
    "ProvisioningStatus",
    "QuoteEvidence",
    "RegisterRequest",
    "Registration",
    "RegistrationId",
    "RegistrationStatus",
    "Reply",
    "ReprovisionPolicy",
    "Request",
    "Retirement",
    "RetirementAction",
    "Role",
    "Substatus",
    "SymmetricKeyMaterial",
    "TpmEvidence",
    "TpmMaterial",
    "Trace",
    "Verified",
    "X509Material",
    "attestation_type_of",
]
