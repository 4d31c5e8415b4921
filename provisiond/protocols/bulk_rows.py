"""One record of an import, whatever file it came from, and the limits that hold for all of them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from provisiond.errors import InvalidArgument

RECORD_LIMIT_BYTES: Final = 1024 * 1024
"""A record with two certificates and two full twin parts is under 100 KiB."""

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")


class BulkFormat(StrEnum):
    """Forms of files of enrollments."""

    AUTO = "auto"
    CSV = "csv"
    NDJSON = "ndjson"
    JSON = "json"
    AZURE = "azure"
    AWS = "aws"
    CUMULOCITY = "cumulocity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A record of a file.

    Args:
        number: 1 for the first record.
        line: where it begins, 1 for the first line.
        body: of the service API, not checked yet; None when there is an error.
        error: why there is no body, for the operator.
        notes: what the record says and an enrollment cannot.
        id: of a record with an error, as far as it can be told.
    """

    number: int
    line: int
    body: dict[str, Any] | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()
    id: str = ""


def without_mark(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces without the byte order mark that some programs begin UTF-8 files with.

    Raises:
        InvalidArgument: the file is UTF-16, or empty.
    """
    source = iter(pieces)
    first = next(source, b"")
    if first.startswith(_UTF_16):
        raise InvalidArgument("the file is UTF-16; save it as UTF-8")
    first = first.removeprefix(BYTE_ORDER_MARK)
    if not first:
        first = next(source, b"")
    if not first:
        raise InvalidArgument("the file is empty")
    yield first
    yield from source
