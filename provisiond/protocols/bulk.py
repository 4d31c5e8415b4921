"""Files of enrollments: which form they have, and their records one by one."""

import json
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Final

from provisiond.errors import InvalidArgument
from provisiond.protocols.bulk_csv import find_delimiter, read_csv
from provisiond.protocols.bulk_foreign import CUMULOCITY_COLUMNS, from_aws, from_json, is_thing, read_cumulocity
from provisiond.protocols.bulk_json import LISTS, read_array, read_ndjson
from provisiond.protocols.bulk_rows import BYTE_ORDER_MARK, BulkFormat, Row, without_mark

__all__ = ["BulkFormat", "Row", "read_bulk"]

_PROBED_BYTES: Final = 64 * 1024
_BLANK_MAX: Final = 1000
_OPENS_LIST: Final = re.compile(b'"(?:%s)"\\s*:\\s*\\[' % "|".join(LISTS).encode())


def read_bulk(pieces: Iterable[bytes], form: BulkFormat, *, linked_hubs: Container[str] = ()) -> Iterator[Row]:
    """Read the records of a file.

    Args:
        pieces: of the file, in order: its lines, a line that is too long in several pieces.
        form: of the file; `auto` looks at the beginning.
        linked_hubs: hosts of the hubs, in lower case; Azure's others are named, not imported.

    Raises:
        InvalidArgument: it has another form, or cannot be told; says which.
    """
    source = without_mark(pieces)
    blank, first = _beginning(source)
    whole = chain(blank, [first], source)
    convert = partial(from_json, linked_hubs=linked_hubs)
    match _detect(first) if form is BulkFormat.AUTO else form:
        case BulkFormat.CSV:
            return read_csv(whole)
        case BulkFormat.CUMULOCITY:
            return read_cumulocity(whole)
        case BulkFormat.NDJSON:
            return map(convert, read_ndjson(whole))
        case BulkFormat.AWS:
            reads_lines = first.lstrip().startswith(b"{") and _detect_object(first) is not BulkFormat.AZURE
            return map(from_aws, read_ndjson(whole) if reads_lines else read_array(whole))
        case _:
            return map(convert, read_array(whole))


def _beginning(source: Iterator[bytes]) -> tuple[Sequence[bytes], bytes]:
    """The blank lines at the beginning, and the first piece that has something.

    Raises:
        InvalidArgument: there is nothing but blank lines.
    """
    blank: list[bytes] = []
    for piece in source:
        if piece.strip() or len(blank) == _BLANK_MAX:
            return blank, piece
        blank.append(piece)
    raise InvalidArgument("the file is empty")


def _detect(first: bytes) -> BulkFormat:
    text = first.removeprefix(BYTE_ORDER_MARK).lstrip()[:_PROBED_BYTES]
    if text.startswith(b"["):
        return BulkFormat.JSON
    if text.startswith(b"{"):
        return _detect_object(first)
    if not text:
        return BulkFormat.JSON  # only white space so far: JSON may go on after it, CSV may not
    delimiter = find_delimiter(first)
    names = {name.strip().strip('"').upper() for name in text.decode(errors="replace").split(delimiter)}
    if names.issuperset(CUMULOCITY_COLUMNS):
        return BulkFormat.CUMULOCITY
    if len(names) == 1 and not names & {"REGISTRATIONID", "ENROLLMENTGROUPID", "ID"}:
        raise InvalidArgument(
            "the form of the file cannot be told: it begins with neither {, [ nor a line of column names; "
            "say --format csv, ndjson, json, azure, aws or cumulocity"
        )
    return BulkFormat.CSV


def _detect_object(first: bytes) -> BulkFormat:
    """Whether an object has its records in a list, or is one of them: NDJSON."""
    try:
        body = json.loads(first)
    except (ValueError, RecursionError):
        if first.endswith(b"\n"):  # an object that ends on this line is a bad record; else it has several lines
            return BulkFormat.NDJSON if first.rstrip().endswith(b"}") else BulkFormat.AZURE
        return BulkFormat.AZURE if _OPENS_LIST.search(first) else BulkFormat.NDJSON
    if is_thing(body):
        return BulkFormat.AWS
    return BulkFormat.AZURE if any(isinstance(body.get(name), list) for name in LISTS) else BulkFormat.NDJSON
