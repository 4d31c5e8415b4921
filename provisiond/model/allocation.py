"""What a custom allocation is asked, and what it answered."""

from dataclasses import dataclass

from provisiond.model.enrollment import Enrollment, InitialTwin
from provisiond.model.hub import Hub
from provisiond.model.json_value import JSONValue
from provisiond.model.registration import Registration
from provisiond.model.trust import AttestationType


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationRequest:
    """What a custom allocation is asked: which of these hubs shall this verified device get.

    Args:
        enrollment: that let it in, with the webhook.
        registration: its record, when it has one.
        hubs: the linked hubs it may get, by host.
        payload: what the device sent, any JSON or None.
    """

    enrollment: Enrollment
    registration_id: str
    attestation_type: AttestationType
    certificate_der: bytes | None = None
    endorsement_key: bytes | None = None
    registration: Registration | None = None
    hubs: tuple[Hub, ...] = ()
    payload: JSONValue = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomAllocation:
    """What a custom allocation answered, for one state of one enrollment.

    Args:
        enrollment_etag: of the enrollment that it was asked about.
        host: the chosen hub's; empty when there is an error.
        error: why there is no answer, for the operator; empty when there is one.
        public_error: the same as the device may hear it.
    """

    enrollment_etag: str
    host: str = ""
    initial_twin: InitialTwin | None = None
    payload: JSONValue = None
    error: str = ""
    public_error: str = ""
