"""The record of what was decided."""

from dataclasses import dataclass
from datetime import datetime

from provisiond.model.enrollment import EnrollmentKind
from provisiond.model.trace import Check


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One decision, for ever: who asked, what was decided, why.

    Args:
        tracking_id: UUID text; the device of a refusal hears it.
        event: `register`, `poll`, `enrollment.create`, ….
        code: error code of a refusal, else None.
        actor: remote address of a device, user name of an operator.
    """

    tracking_id: str
    at: datetime
    event: str
    registration_id: str
    outcome: str
    code: int | None = None
    reason: str = ""
    enrollment_kind: EnrollmentKind | None = None
    enrollment_id: str | None = None
    hub: str | None = None
    actor: str = ""
    trace: tuple[Check, ...] = ()
