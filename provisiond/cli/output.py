"""What a command prints: data on stdout as a table, JSON, NDJSON or TSV; everything else on stderr."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

_CONTROL_CHARACTERS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class OutputFormat(StrEnum):
    """Forms of data."""

    TABLE = "table"
    JSON = "json"
    NDJSON = "ndjson"
    TSV = "tsv"


Output = Annotated[
    OutputFormat | None,
    typer.Option("--output", "-o", help="Form of the data; a table on a terminal, JSON otherwise.", show_default=False),
]

Columns = Mapping[str, str]
"""Titles and where their values are: `{"status": "registrationState.status"}`."""


def print_record(body: Mapping[str, Any], output: OutputFormat | None) -> None:
    """Print one record; as a table or TSV, one line a field with its dotted name."""
    match resolve_format(output):
        case OutputFormat.JSON:
            _write(json.dumps(body, indent=2, ensure_ascii=False))
        case OutputFormat.NDJSON:
            _write(json.dumps(body, ensure_ascii=False))
        case OutputFormat.TSV:
            _write_lines("\t".join(pair) for pair in _flatten(body))
        case OutputFormat.TABLE:
            _write_table(("FIELD", "VALUE"), list(_flatten(body)))


def print_records(bodies: Sequence[Mapping[str, Any]], columns: Columns, output: OutputFormat | None) -> None:
    """Print a list of records; `columns` are for tables and TSV."""
    match resolve_format(output):
        case OutputFormat.JSON:
            _write(json.dumps(bodies, indent=2, ensure_ascii=False))
        case OutputFormat.NDJSON:
            _write_lines(json.dumps(body, ensure_ascii=False) for body in bodies)
        case OutputFormat.TSV:
            _write_lines("\t".join(row) for row in _rows(bodies, columns))
        case OutputFormat.TABLE:
            _write_table(tuple(columns), list(_rows(bodies, columns)))


def print_stream(columns: Columns, output: OutputFormat | None) -> Callable[[Mapping[str, Any]], None]:
    """A function that prints one record at a time, at once; JSON comes as one object a line."""
    form = resolve_format(output)
    if form is OutputFormat.TABLE:
        form = OutputFormat.TSV  # nobody knows yet how wide the columns will be
        _write("\t".join(title.upper() for title in columns))

    def write(body: Mapping[str, Any]) -> None:
        if form is OutputFormat.TSV:
            _write_lines("\t".join(row) for row in _rows([body], columns))
        else:
            _write(json.dumps(body, ensure_ascii=False))
        sys.stdout.flush()

    return write


def print_text(text: str, output: OutputFormat | None) -> None:
    """Print one value: as it is, or as a JSON string when JSON was asked for."""
    as_json = output in (OutputFormat.JSON, OutputFormat.NDJSON)
    _write(json.dumps(text, ensure_ascii=False) if as_json else text)


def note(message: str) -> None:
    """Tell the person something that is not data."""
    print(message, file=sys.stderr)


def suggest(command: str) -> None:
    """Tell the person what to do next."""
    note(f"next: {command}")


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal, unless `yes`; without a terminal there is nobody to ask.

    Raises:
        typer.Abort: the answer is no.
    """
    if not yes and sys.stdin.isatty() and sys.stderr.isatty():
        typer.confirm(question, abort=True, err=True)


def plain(text: str) -> str:
    """Text without control characters, for a terminal or a line of TSV."""
    return _CONTROL_CHARACTERS.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def resolve_format(output: OutputFormat | None) -> OutputFormat:
    """The form asked for, else a table on a terminal and JSON elsewhere."""
    return output or (OutputFormat.TABLE if sys.stdout.isatty() else OutputFormat.JSON)


def _rows(bodies: Iterable[Mapping[str, Any]], columns: Columns) -> Iterable[tuple[str, ...]]:
    for body in bodies:
        yield tuple(_text(_value_at(body, path)) for path in columns.values())


def _value_at(body: Any, path: str) -> Any:
    for key in path.split("."):
        body = body.get(key) if isinstance(body, Mapping) else None
    return body


def _flatten(body: Any, name: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(body, Mapping) and body:
        for key, value in body.items():
            yield from _flatten(value, f"{name}.{key}" if name else str(key))
    else:
        yield plain(name), _text(body)


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return plain(value)
        case [*items] if all(isinstance(item, str) for item in items):
            return plain(" ".join(items))
        case _:
            return plain(json.dumps(value, ensure_ascii=False))


def _write_table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Columns as wide as they must be: a value that was cut off is of no use to anybody."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    heading = "  ".join(title.upper().ljust(width) for title, width in zip(titles, widths, strict=True)).rstrip()
    _write_lines([f"\x1b[1m{heading}\x1b[0m" if sys.stdout.isatty() else heading, *lines])


def _write_lines(lines: Iterable[str]) -> None:
    for line in lines:
        _write(line)


def _write(text: str) -> None:
    # A lone surrogate, which JSON allows, is written as the escape that JSON has for it.
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))
