"""Files of enrollments: which form they have, and their records one by one."""

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from provisiond.errors import InvalidArgument
from provisiond.protocols.bulk_csv import find_delimiter, read_csv
from provisiond.protocols.bulk_foreign import AWS_NAMES, CUMULOCITY_COLUMNS, from_aws, from_azure, read_cumulocity
from provisiond.protocols.bulk_json import read_array, read_ndjson
from provisiond.protocols.bulk_rows import BYTE_ORDER_MARK, BulkFormat, Row, without_mark

__all__ = ["BulkFormat", "Row", "read_bulk"]

_PROBED_BYTES: Final = 64 * 1024


def read_bulk(pieces: Iterable[bytes], form: BulkFormat) -> Iterator[Row]:
    """Read the records of a file.

    Args:
        pieces: of the file, in order: its lines, a line that is too long in several pieces.
        form: of the file; `auto` looks at the beginning.

    Raises:
        InvalidArgument: it has another form, or cannot be told; says which.
    """
    source = without_mark(pieces)
    first = next(source)
    whole = chain([first], source)
    match _detect(first) if form is BulkFormat.AUTO else form:
        case BulkFormat.CSV:
            return read_csv(whole)
        case BulkFormat.CUMULOCITY:
            return read_cumulocity(whole)
        case BulkFormat.NDJSON:
            return map(from_azure, read_ndjson(whole))
        case BulkFormat.AWS:
            return map(from_aws, read_ndjson(whole))
        case _:
            return map(from_azure, read_array(whole))


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
    try:
        body = json.loads(first)
    except (ValueError, RecursionError):
        return BulkFormat.AZURE  # an object of several lines
    if any(name in body for name in AWS_NAMES):
        return BulkFormat.AWS
    if isinstance(body.get("enrollments", body.get("enrollmentGroups")), list):
        return BulkFormat.AZURE
    return BulkFormat.NDJSON
