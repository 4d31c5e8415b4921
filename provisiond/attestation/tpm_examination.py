"""A requirement on what a TPM said: noted in the trace when it is met, raised when it is not."""

from provisiond.errors import AttestationError
from provisiond.model import Trace


def require(met: bool, *, trace: Trace, check: str, found: str, finding: str, clause: str) -> None:
    """Record a requirement, and refuse when it is not met.

    Args:
        met: whether it is.
        trace: where it is recorded, either way.
        check: stable slug of what was looked at, such as `quote-signature`.
        found: what was found, for the operator.
        finding: stable slug of the refusal, such as `quote-signature-invalid`.
        clause: where the rule comes from.

    Raises:
        AttestationError: it is not met.
    """
    if met:
        trace.passed(check, found, clause)
        return
    trace.failed(check, found, clause)
    raise AttestationError(f"{check}: {found}", finding=finding, clause=clause)
