"""Devices that nobody enrolled."""

from dataclasses import dataclass
from datetime import datetime

from provisiond.model.trust import AttestationType


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingDevice:
    """A device that nobody enrolled, waiting for an operator.

    Args:
        registration_id: as the device spells it.
        attestation_type: X.509 or TPM; a symmetric key cannot be looked at.
        evidence: its certificate (DER) or endorsement key (TPM2B_PUBLIC).
        proved: whether it has shown that it holds the key.
        first_seen_at, last_seen_at: aware UTC.
        remote_address: of the newest attempt, as its `tracking_id`.
    """

    registration_id: str
    attestation_type: AttestationType
    evidence: bytes
    proved: bool
    first_seen_at: datetime
    last_seen_at: datetime
    attempts: int = 1
    remote_address: str = ""
    tracking_id: str = ""
    rejected: bool = False
