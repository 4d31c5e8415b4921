"""The checks of a decision, in the order they were made."""

from typing import NamedTuple


class Check(NamedTuple):
    """One line of a decision's trace.

    Args:
        name: what was looked at, a stable slug such as `certificate-validity`.
        passed: whether it went the device's way.
        finding: what was found, for the operator.
        clause: where the rule comes from, such as `RFC 5280 6.1.3`; may be empty.
    """

    name: str
    passed: bool
    finding: str
    clause: str = ""


class Trace:
    """Collects the checks of one decision. Write-only for the checkers: nothing may be decided from it."""

    __slots__ = ("_checks",)

    def __init__(self) -> None:
        self._checks: list[Check] = []

    def passed(self, name: str, finding: str, clause: str = "") -> None:
        """Record a check that went the device's way."""
        self._checks.append(Check(name, True, finding, clause))

    def failed(self, name: str, finding: str, clause: str = "") -> None:
        """Record a check that did not."""
        self._checks.append(Check(name, False, finding, clause))

    def ends_with_failure(self, name: str, finding: str) -> bool:
        """Whether this very failure was the last thing recorded; nobody wants to read it twice."""
        last = self._checks[-1] if self._checks else None
        return last is not None and not last.passed and (last.name, last.finding) == (name, finding)

    def snapshot(self) -> tuple[Check, ...]:
        """The checks so far, in order."""
        return tuple(self._checks)
