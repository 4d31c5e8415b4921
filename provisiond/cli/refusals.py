"""What every refusal means, what brings it about, and what mends it: for `explain`, and for docs/refusals.md."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

_INTRODUCTION: Final = """\
<!-- Made by `python -m provisiond.cli.refusals`; the text is in provisiond/cli/refusals.toml. -->
# Refusals

A device hears a code, a coarse message and a tracking id. The operator sees everything else:

    provisiond explain --tracking-id 0f7c7f5e-…          what was decided then, check by check
    provisiond explain --registration-id sensor-7 \\
        --certificate-path sensor-7.pem                  what would be decided now; nothing is written

The last line that FAILed has a *finding*; here is what each of them means. Lines before it are the steps that led
there; `authorisation` stands for `disabled`, and `allocation` for 400207 and 400208.
"""
_HEADINGS: Final = {
    "codes": "Codes: what the device hears",
    "outcomes": "Outcomes that are not refusals",
    "findings": "Findings: what the operator sees",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A paragraph: what it means, likely causes, and the way out. Markdown."""

    meaning: str
    causes: str
    mending: str


@cache
def refusals() -> Mapping[str, Mapping[str, Refusal]]:
    """By `codes`, `outcomes` and `findings`, then by name."""
    text = (resources.files("provisiond.cli") / "refusals.toml").read_text(encoding="utf-8")
    return {
        kind: {name: Refusal(**paragraph) for name, paragraph in entries.items()}
        for kind, entries in tomllib.loads(text).items()
    }


def find_refusal(*, code: int | None, outcome: str, findings: Iterator[str] | list[str]) -> Refusal | None:
    """The most telling paragraph: that of a finding, else of the code, else of the outcome."""
    known = refusals()
    for finding in findings:
        if finding in known["findings"]:
            return known["findings"][finding]
    return known["codes"].get(str(code)) or known["outcomes"].get(outcome)


def render_document() -> str:
    """The text of docs/refusals.md."""
    parts = [_INTRODUCTION]
    for kind, heading in _HEADINGS.items():
        parts.append(f"## {heading}\n")
        for name, refusal in sorted(refusals()[kind].items()):
            parts.append(
                f"### {name}\n\n{refusal.meaning}\n\n"
                f"*Likely causes.* {refusal.causes}\n\n*Mending.* {refusal.mending}\n"
            )
    return "\n".join(parts)


if __name__ == "__main__":
    print(render_document(), end="")
