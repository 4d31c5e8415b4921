"""Who watches the decisions: one log record for each finished registration, refusal and failure."""

from collections.abc import Sequence
from typing import Final

import structlog

from provisiond.errors import ConnectRefused, ServerFault
from provisiond.model import ConnectAttempt, Connection, Decision, Outcome
from provisiond.ports import Observer
from provisiond.registration.tpm_claim import identity_conflict

_UNFINISHED: Final = frozenset({Outcome.ASSIGNING, Outcome.CHALLENGED})


class LogObserver:
    """`ports.Observer` that writes the log.

    A finished registration and a refusal are INFO; unfinished business, and what a flood hears over again, are DEBUG; a
    TPM that asks to be another is a WARNING; a fault of ours is ERROR.
    """

    def __init__(self) -> None:
        self._log = structlog.get_logger("provisiond.registration")

    def connect_refused(self, attempt: ConnectAttempt, error: ConnectRefused) -> None:
        """For who debugs: the door logs it too, and keeps a flood of them from flooding the log."""
        self._log.debug(
            "connect refused",
            remote=attempt.remote_address,
            listener=attempt.listener,
            client=attempt.client_id[:128],
            return_code=error.return_code,
            reason=str(error),
        )

    def decided(self, connection: Connection, decision: Decision, *, event: str, elapsed_s: float) -> None:
        """One record a decision."""
        audit, error = decision.audit, decision.reply.error
        finished = decision.outcome not in _UNFINISHED and event != "poll"
        # Of a flood of refusals one has a row in the audit log, and a record at this level.
        is_news = audit is not None if error is not None else finished
        write = self._log.info if is_news else self._log.debug
        if identity_conflict(decision):
            write = self._log.warning
        optional = {
            "enrollment": audit.enrollment_id if audit else None,
            "hub": audit.hub if audit else None,
            "code": error.code if error else None,
            "reason": audit.reason if audit and audit.reason else None,
            "tracking_id": audit.tracking_id if audit else None,
        }
        write(
            f"{event} {decision.outcome.value}",
            registration_id=connection.claimed_id.text,
            remote=connection.remote_address,
            **{name: value for name, value in optional.items() if value is not None},
            ms=round(elapsed_s * 1000, 2),
        )

    def failed(self, connection: Connection, error: Exception, *, tracking_id: str) -> None:
        """One record a failure; a traceback only for what nobody foresaw."""
        self._log.error(
            "request failed",
            registration_id=connection.claimed_id.text,
            remote=connection.remote_address,
            reason=str(error) if isinstance(error, ServerFault) else repr(error),
            tracking_id=tracking_id,
            exc_info=None if isinstance(error, ServerFault) else error,
        )


class Observers:
    """Several observers as one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def connect_refused(self, attempt: ConnectAttempt, error: ConnectRefused) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.connect_refused(attempt, error)

    def decided(self, connection: Connection, decision: Decision, *, event: str, elapsed_s: float) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.decided(connection, decision, event=event, elapsed_s=elapsed_s)

    def failed(self, connection: Connection, error: Exception, *, tracking_id: str) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.failed(connection, error, tracking_id=tracking_id)
