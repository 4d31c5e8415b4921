"""Audit records, to rows and back."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from provisiond.model import AuditRecord, Check, EnrollmentKind
from provisiond.store.rows.document import decode, encode, storable, value_of


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
        "enrollmentKind": value_of(record.enrollment_kind),
        "enrollmentId": record.enrollment_id,
        "hub": record.hub,
        "actor": record.actor,
        "trace": [(check.name, check.passed, check.finding, check.clause) for check in record.trace],
    }
    at_s, tracking_id, registration_key, code = audit_columns(document)
    return AuditRow(
        at_s=at_s,
        tracking_id=tracking_id,
        registration_key=registration_key,
        code=code,
        record=encode({name: value for name, value in document.items() if value is not None}),
    )


def audit_columns(document: Mapping[str, Any]) -> tuple[int, str, str, int | None]:
    """What stands beside a document, for searching: time, tracking id, registration key, code."""
    at_s = int(datetime.fromisoformat(document["at"]).timestamp())
    return (
        at_s,
        storable(document["trackingId"]),
        storable(document["registrationId"].lower()),
        document.get("code"),
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
