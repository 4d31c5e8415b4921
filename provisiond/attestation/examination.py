"""One check of a decision: it passes with a finding or raises, and the trace hears of it either way."""

from collections.abc import Callable
from types import TracebackType

from provisiond.errors import AttestationError
from provisiond.model import Trace


class recording_failure:  # noqa: N801 - a context manager like contextlib's, at a quarter of the time
    """Record the AttestationError that leaves the block, if one does; the block records its own success.

    Args:
        trace: where the check is recorded.
        name: stable slug of the check, such as `certificate-validity`.
        clause: source of the rule, unless the error brings its own.

    Raises:
        AttestationError: the block's own.
    """

    __slots__ = ("_clause", "_name", "_trace")

    def __init__(self, trace: Trace, name: str, clause: str = "") -> None:
        self._trace = trace
        self._name = name
        self._clause = clause

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, AttestationError):
            self._trace.failed(self._name, str(error), error.clause or self._clause)


def examine(trace: Trace, name: str, check: Callable[[], str], clause: str = "") -> None:
    """Run a check and record it.

    Args:
        trace: where the check is recorded.
        name: stable slug of the check, such as `certificate-validity`.
        check: returns its finding for the operator, or raises AttestationError.
        clause: source of the rule; a failure may bring its own.

    Raises:
        AttestationError: the check's own.
    """
    with recording_failure(trace, name, clause):
        finding = check()
    trace.passed(name, finding, clause)
