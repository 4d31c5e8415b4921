"""Where in a TOML text a key stands. `tomllib` does not say, and a person wants to know."""

import re
from typing import Final

KeyPath = tuple[str | int, ...]
"""Keys from the top, with indexes where tables repeat: `("broker", "listeners", 0, "bind")`."""


def lines_of(text: str) -> list[str]:
    """The lines as TOML has them; `str.splitlines` ends them at marks that a comment may hold as well."""
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


_HEADER: Final = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?")
_KEY: Final = re.compile(
    r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*="""
)
_PART: Final = re.compile(r"""[A-Za-z0-9_-]+|"([^"]*)"|'([^']*)'""")


def find_line(text: str, path: KeyPath) -> int | None:
    """The number, from 1, of the line that sets `path`, or that opens the table it would be in; None without either.

    A search, not a parser: keys inside inline tables and multi-line strings are taken for what they look like.
    """
    lines = _index_lines(text)
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def _index_lines(text: str) -> dict[KeyPath, int]:
    lines: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, line in enumerate(lines_of(text), start=1):
        if header := _HEADER.fullmatch(line):
            table = _open_table(_split(header[2]), counts, repeats=header[1] == "[[")
            for length in range(1, len(table) + 1):
                lines.setdefault(table[:length], number)
        elif key := _KEY.match(line):
            path = table + _split(key[1])
            for length in range(len(table) + 1, len(path) + 1):
                lines.setdefault(path[:length], number)
    return lines


def _open_table(keys: KeyPath, counts: dict[KeyPath, int], *, repeats: bool) -> KeyPath:
    """The path of a table header, with the index of the newest element of every repeating table on the way."""
    path: KeyPath = ()
    for position, key in enumerate(keys):
        path += (key,)
        if repeats and position == len(keys) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path += (counts[path],)
    return path


def _split(dotted: str) -> KeyPath:
    return tuple(part[1] or part[2] or part[0] for part in _PART.finditer(dotted))
