"""What `doctor` finds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line: `ok`, `warn` or `FAIL`; `mend` is a command, or what to do."""

    level: str
    subject: str
    text: str
    mend: str = ""
