"""One check of a decision: it passes with a finding or raises, and the trace hears of it either way."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from provisiond.errors import AttestationError
from provisiond.model import Trace


@contextmanager
def recording_failure(trace: Trace, name: str, clause: str = "") -> Iterator[None]:
    """Record the AttestationError that leaves the block, if one does; the block records its own success.

    Args:
        trace: where the check is recorded.
        name: stable slug of the check, such as `certificate-validity`.
        clause: source of the rule, unless the error brings its own.

    Raises:
        AttestationError: the block's own.
    """
    try:
        yield
    except AttestationError as error:
        trace.failed(name, str(error), error.clause or clause)
        raise


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
    try:
        finding = check()
    except AttestationError as error:
        trace.failed(name, str(error), error.clause or clause)
        raise
    trace.passed(name, finding, clause)
