"""Audit records as commands show them."""

from typing import Any

from provisiond.cli.refusals import find_refusal
from provisiond.model import AuditRecord, Check
from provisiond.protocols.timestamps import format_timestamp


def audit_to_json(record: AuditRecord) -> dict[str, Any]:
    """An audit record as data; what is None is left out."""
    body = {
        "trackingId": record.tracking_id,
        "at": format_timestamp(record.at),
        "event": record.event,
        "registrationId": record.registration_id or None,
        "outcome": str(record.outcome),
        "code": record.code,
        "reason": record.reason or None,
        "enrollmentKind": record.enrollment_kind and record.enrollment_kind.value,
        "enrollmentId": record.enrollment_id,
        "hub": record.hub,
        "actor": record.actor,
        "trace": [check_to_json(check) for check in record.trace],
    }
    return {name: value for name, value in body.items() if value is not None}


def check_to_json(check: Check) -> dict[str, Any]:
    """One line of a trace as data."""
    return {"check": check.name, "passed": check.passed, "finding": check.finding, "clause": check.clause}


def advice(code: int | None, outcome: str, trace: tuple[Check, ...]) -> dict[str, Any]:
    """What is to be said about a refusal: `{"advice": {"meaning", "causes", "mending"}}`, or nothing."""
    failed = [check.name for check in reversed(trace) if not check.passed]
    found = find_refusal(code=code, outcome=outcome, findings=failed)
    if found is None:
        return {}
    return {"advice": {"meaning": found.meaning, "causes": found.causes, "mending": found.mending}}
