"""What is looked at for a decision, and what follows from it."""

from dataclasses import dataclass
from enum import StrEnum

from provisiond.model.allocation import AllocationRequest, CustomAllocation
from provisiond.model.audit import AuditRecord
from provisiond.model.challenge import IssuedChallenge
from provisiond.model.enrollment import Enrollment
from provisiond.model.evidence import TpmEvidence
from provisiond.model.hub import Hub
from provisiond.model.pending import PendingDevice
from provisiond.model.registration import Registration, Retirement
from provisiond.model.reply import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything stored that a decision may look at, read in one transaction.

    Args:
        individual: the individual enrollment of the claimed id, if any.
        groups: the groups that could claim the request: CA groups whose certificate is or has signed one of the
            presented ones (by name), symmetric-key groups when a SAS token was presented, TPM groups when a TPM was.
        registration: the current record of the claimed id.
        endorsement_key_owner: lower-case id of the registration that has the presented endorsement key, if any.
        registered_group: the group that the registration says let it in, if it is still there; for polls that prove
            nothing.
        hubs: every linked hub.
        custom_allocation: what the webhook answered, when it was asked.
    """

    individual: Enrollment | None = None
    groups: tuple[Enrollment, ...] = ()
    registration: Registration | None = None
    endorsement_key_owner: str | None = None
    registered_group: Enrollment | None = None
    hubs: tuple[Hub, ...] = ()
    custom_allocation: CustomAllocation | None = None


class Outcome(StrEnum):
    """How a decision ended, for audit, metrics and the log."""

    ASSIGNED = "assigned"
    ASSIGNING = "assigning"
    REFUSED = "refused"
    DISABLED = "disabled"
    FAILED = "failed"
    CHALLENGED = "challenged"
    PENDING = "pending"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What follows from a request and the facts: what to write, what to say, and why.

    Args:
        registration: record to write, with its `version` already the new one; None when nothing changes.
        expected_version: version that was read, 0 when there was no record.
        audit: row to append, None for requests that decide nothing (a poll that only looks).
        challenge: to be kept, durably, before the reply goes out.
        proved: a TPM that has proved itself; its connection may poll.
        guard: the enrollment that let the device in; it must be unchanged when the decision is committed.
        retire: the identity at the hub that the device leaves.
        allocation: a custom allocation has to be asked first; then decide again with its answer among the facts.
        pending: an unknown device that is to wait for an operator.
    """

    reply: Reply
    outcome: Outcome
    registration: Registration | None = None
    expected_version: int = 0
    audit: AuditRecord | None = None
    challenge: IssuedChallenge | None = None
    proved: TpmEvidence | None = None
    guard: Enrollment | None = None
    retire: Retirement | None = None
    allocation: AllocationRequest | None = None
    pending: PendingDevice | None = None
