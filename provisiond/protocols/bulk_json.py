"""NDJSON, JSON arrays and Azure bulk bodies as records, read piece by piece in bounded memory."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from provisiond.errors import InvalidArgument
from provisiond.protocols.bulk_rows import RECORD_LIMIT_BYTES, Row, without_mark

LISTS: Final = ("enrollments", "enrollmentGroups", "things")
"""Members of an Azure bulk body, or of a list of AWS things, that hold the records."""

_WHITE_SPACE: Final = " \t\r\n"
_DECODER: Final = json.JSONDecoder()


def read_ndjson(pieces: Iterable[bytes]) -> Iterator[Row]:
    """Read one JSON object a line; blank lines are none."""
    number, line, held, size_bytes = 0, 1, b"", 0
    for piece in _closed(without_mark(pieces)):
        size_bytes += len(piece)
        if size_bytes <= RECORD_LIMIT_BYTES:
            held += piece
        if not piece.endswith(b"\n"):
            continue
        if held.strip():
            number += 1
            yield _line_row(number, line, held, size_bytes)
        held, size_bytes, line = b"", 0, line + 1


def read_array(pieces: Iterable[bytes]) -> Iterator[Row]:
    """Read a JSON array of objects, or an Azure bulk body, `{"mode": …, "enrollments": […]}`.

    A record that is no object is an error of its own; after one that is no JSON, nothing can be read.

    Raises:
        InvalidArgument: it is neither.
    """
    return _Array(without_mark(pieces)).rows()


def _closed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces, the last one with a newline."""
    last = b"\n"
    for piece in pieces:
        last = piece
        yield piece
    if not last.endswith(b"\n"):
        yield b"\n"


def _line_row(number: int, line: int, held: bytes, size_bytes: int) -> Row:
    if size_bytes > RECORD_LIMIT_BYTES:
        return Row(number=number, line=line, error=f"{size_bytes} bytes; a record may have {RECORD_LIMIT_BYTES}")
    try:
        body = json.loads(held.strip())
    except (ValueError, RecursionError) as error:
        return Row(number=number, line=line, error=f"not JSON: {error}")
    return _row(number, line, body)


def _row(number: int, line: int, body: Any) -> Row:
    if not isinstance(body, dict):
        return Row(number=number, line=line, error="not a JSON object")
    return Row(number=number, line=line, body=body)


class _Array:
    """A reader over text that comes in pieces; it holds one record and one piece."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._text = ""
        self._position = 0
        self._line = 1
        self._rest = b""
        self._ended = False
        self._number = 0
        self._broken = False

    def rows(self) -> Iterator[Row]:
        opening = self._peek()
        if opening == "{":
            yield from self._lists()
        elif opening == "[":
            yield from self._list()
        else:
            raise InvalidArgument("this is no JSON array of enrollments, nor an Azure bulk body")
        if not self._broken and self._peek():
            yield self._break("there is more after the end, which was not read")

    def _lists(self) -> Iterator[Row]:
        """The records of every list in a body.

        Raises:
            InvalidArgument: there is none, or it asks for something else than creating or updating.
        """
        found = False
        self._skip(1)
        while not self._broken and self._peek() == '"':
            try:
                name = self._name()
                if name in LISTS and self._peek() == "[":
                    found = True
                    yield from self._list()
                else:
                    self._check_member(name, self._value())
                self._end_member()
            except (ValueError, InvalidArgument) as error:
                if not found:
                    raise InvalidArgument(f"line {self._line}: {error}") from error
                if not self._broken:
                    yield self._break(str(error))
        if not found:
            raise InvalidArgument(
                f'there is no "{LISTS[0]}" list in it; an enrollment by itself stands on one line, or in brackets'
            )
        if not self._broken and self._peek() != "}":
            yield self._break("the file was cut off: the body has no end")
        self._skip(1)

    def _end_member(self) -> None:
        following = self._peek()
        if following not in (",", "}") and not self._broken:
            raise ValueError("not JSON: a comma or a brace is missing")
        self._skip(following == ",")

    def _check_member(self, name: Any, value: Any) -> None:
        if name == "mode" and value not in ("create", "update", "updateIfMatchETag"):
            raise InvalidArgument(f'mode {value!r:.40} is not imported; only "create" and "update" are')

    def _list(self) -> Iterator[Row]:
        self._skip(1)
        first = True
        while (following := self._peek()) not in ("]", ""):
            if not first:
                if following != ",":
                    yield self._break("not JSON: a comma is missing between records")
                    return
                self._skip(1)
                self._peek()
            first = False
            line = self._line
            try:
                body = self._value()
            except ValueError as error:
                yield self._break(f"not JSON, so nothing after it can be read: {error}", line)
                return
            self._number += 1
            yield _row(self._number, line, body)
        if following == "":
            yield self._break("the file was cut off: the array has no end")
        self._skip(1)

    def _break(self, error: str, line: int = 0) -> Row:
        """The last row, after which nothing can be read."""
        self._broken = True
        self._number += 1
        return Row(number=self._number, line=line or self._line, error=error)

    def _name(self) -> Any:
        name = self._value()
        if self._peek() != ":":
            raise ValueError("not JSON: a colon is missing")
        self._skip(1)
        return name

    def _peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            while self._position < len(self._text):
                character = self._text[self._position]
                if character not in _WHITE_SPACE:
                    return character
                self._skip(1)
            if not self._fill():
                return ""

    def _value(self) -> Any:
        """The value that begins here.

        Raises:
            ValueError: it is none, cut off, or too long.
        """
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._position)
            except RecursionError as error:
                raise ValueError("nested too deeply") from error
            except ValueError as error:
                if len(self._text) - self._position > RECORD_LIMIT_BYTES:
                    raise ValueError(f"a record may have {RECORD_LIMIT_BYTES} bytes") from error
                if not self._fill():
                    raise
                continue
            if end == len(self._text) and not self._ended and self._fill():
                continue  # a number may go on in the next piece
            self._skip(end - self._position)
            return value

    def _skip(self, count: int) -> None:
        self._line += self._text.count("\n", self._position, self._position + count)
        self._position += count

    def _fill(self) -> bool:
        """Add the next piece; False at the end."""
        piece = next(self._pieces, None)
        if piece is None:
            self._ended = True
            return False
        data = self._rest + piece
        try:
            text, self._rest = data.decode("utf-8"), b""
        except UnicodeDecodeError as error:
            if len(data) - error.start > 3:
                raise InvalidArgument(f"line {self._line}: not UTF-8") from error
            text, self._rest = data[: error.start].decode("utf-8"), data[error.start :]
        self._text, self._position = self._text[self._position :] + text, 0
        return True
