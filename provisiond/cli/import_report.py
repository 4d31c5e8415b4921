"""The report of an import: one JSON object a row, written as the rows are settled, so that an import can go on."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from provisiond.admin.bulk import Action, Verdict
from provisiond.cli.output import note, plain
from provisiond.errors import InvalidArgument

SHOWN_MAX: Final = 20
"""Refused rows that are shown; all of them are in the report."""

NOTES_MAX: Final = 20
"""Different notes that are counted; they name members and columns of the file, of which it may have any number."""

_MORE_NOTES: Final = "there is more that is not imported"
_LINE_LIMIT_BYTES: Final = 64 * 1024


class ImportReport:
    """Writes verdicts to a file, and shows the first refusals.

    Args:
        path: the file; None keeps nothing.
        resume: go on after the rows that the file has already, which must be of the same import.
    """

    def __init__(self, path: Path | None, *, resume: bool = False) -> None:
        self.path = path
        self._shown = 0
        self._notes: Counter[str] = Counter()
        self._known = _read_known(path) if path is not None and resume else []
        self._stream: IO[str] | None = None
        if path is not None:
            descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | (0 if resume else os.O_TRUNC), 0o600)
            self._stream = os.fdopen(descriptor, "w", encoding="utf-8")
            if resume:  # a last line that was not finished is written anew
                self._stream.truncate(sum(size for _, size in self._known))
                self._stream.seek(0, os.SEEK_END)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    @property
    def settled(self) -> int:
        """Rows that an earlier run has settled."""
        return len(self._known)

    @property
    def notes(self) -> Mapping[str, int]:
        """What rows say and an enrollment cannot, with how many rows say it."""
        return self._notes

    def require_same(self, number: int, id_: str) -> None:
        """Require that a row is the one that the report has at its place.

        Raises:
            InvalidArgument: it is another one: the file was changed.
        """
        known, _ = self._known[number - 1]
        if known != id_:
            raise InvalidArgument(
                f"row {number} is {id_!r:.140}, but the report of the earlier run has {known!r:.140} there; "
                "the file was changed: import it without --resume"
            )

    def add(self, verdict: Verdict) -> None:
        """Write a verdict, and show it when it is one of the first refusals."""
        if verdict.action is Action.REFUSE:
            self._show(verdict)
        for text in verdict.row.notes:
            self._notes[text if text in self._notes or len(self._notes) < NOTES_MAX else _MORE_NOTES] += 1
        if self._stream is not None:
            self._stream.write(json.dumps(_to_json(verdict), ensure_ascii=False) + "\n")

    def flush(self) -> None:
        """Hand over to the system what was written."""
        if self._stream is not None:
            self._stream.flush()

    def _show(self, verdict: Verdict) -> None:
        self._shown += 1
        if self._shown <= SHOWN_MAX:
            name = f" ({verdict.id[:140]})" if verdict.id else ""
            note(plain(f"row {verdict.row.number}, line {verdict.row.line}{name}: {verdict.reason}"))
        elif self._shown == SHOWN_MAX + 1:
            note(f"and more: {self.path or '--report FILE'} has them all")


def _to_json(verdict: Verdict) -> dict[str, Any]:
    body: dict[str, Any] = {
        "row": verdict.row.number,
        "line": verdict.row.line,
        "id": verdict.id,
        "verdict": verdict.action.value,
    }
    if verdict.reason:
        body["reason"] = verdict.reason
    if verdict.row.notes:
        body["notes"] = list(verdict.row.notes)
    return body


def _read_known(path: Path) -> list[tuple[str, int]]:
    """Id and size of each whole line of an earlier report."""
    known: list[tuple[str, int]] = []
    if not path.exists():
        return known
    with path.open("rb") as stream:
        while (line := stream.readline(_LINE_LIMIT_BYTES)).endswith(b"\n"):
            try:
                body = json.loads(line)
                number, id_ = body["row"], str(body["id"])
            except (ValueError, KeyError, TypeError) as error:
                raise InvalidArgument(f"{path}: line {len(known) + 1} is no line of an import report") from error
            if number != len(known) + 1:
                raise InvalidArgument(f"{path}: line {len(known) + 1} is of row {number}; this is no import report")
            known.append((id_, len(line)))
    return known
