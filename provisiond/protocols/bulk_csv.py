"""CSV (RFC 4180) as records: quoted newlines, any of the usual delimiters, and limits that csv itself does not keep."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from provisiond.errors import InvalidArgument
from provisiond.protocols.bulk_rows import RECORD_LIMIT_BYTES, Row, without_mark

_DELIMITERS: Final = (",", ";", "\t", "|")
_COLUMNS_MAX: Final = 256
_BOOLEANS: Final = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}

# What the cells of a dotted column become; every other cell is text.
_BOOLEAN_COLUMNS: Final = {
    "capabilities.iotEdge",
    "reprovisionPolicy.updateHubAssignment",
    "reprovisionPolicy.migrateDeviceData",
}
_LIST_COLUMNS: Final = {"iotHubs", "attestation.tpm.allowedIds"}
_JSON_COLUMNS: Final = {
    "initialTwin.tags",
    "initialTwin.properties.desired",
    "optionalDeviceInformation",
    "attestation.tpm.pcrPolicy",
    "customAllocationDefinition",
}
_JSON_PREFIXES: Final = tuple(
    f"{name}." for name in ("initialTwin.tags", "initialTwin.properties.desired", "optionalDeviceInformation")
)

COLUMNS: Final = (
    "attestation.type",
    "attestation.symmetricKey.primaryKey",
    "attestation.symmetricKey.secondaryKey",
    "attestation.tpm.endorsementKey",
    "attestation.tpm.storageRootKey",
    "attestation.tpm.allowedIds",
    "attestation.tpm.pcrPolicy",
    "attestation.x509.clientCertificates.primary.certificate",
    "attestation.x509.clientCertificates.secondary.certificate",
    "attestation.x509.signingCertificates.primary.certificate",
    "attestation.x509.signingCertificates.secondary.certificate",
    "deviceId",
    "provisioningStatus",
    "allocationPolicy",
    "iotHubs",
    "reprovisionPolicy.updateHubAssignment",
    "reprovisionPolicy.migrateDeviceData",
    "capabilities.iotEdge",
    "initialTwin.tags",
    "initialTwin.properties.desired",
    "optionalDeviceInformation",
    "customAllocationDefinition",
)
"""The columns that are written, behind the id; when reading, `initialTwin.tags.site` and the like are columns too."""

_IDS: Final = ("registrationId", "enrollmentGroupId")
_IGNORED: Final = ("etag", "createdDateTimeUtc", "lastUpdatedDateTimeUtc")
_SPELLINGS: Final = {name.lower(): name for name in (*_IDS, *COLUMNS, *_IGNORED)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A CSV record: its cells, or what is wrong with it."""

    line: int
    cells: tuple[str, ...] = ()
    error: str | None = None


def read_records(pieces: Iterable[bytes], delimiter: str) -> Iterator[Record]:
    """Split into records; a blank line is none.

    A record that is too long, not UTF-8 or badly quoted is an error of its own, and the next one is read.

    Args:
        pieces: of the file: lines, or parts of lines that are too long to be held.
        delimiter: between cells.
    """
    held: list[bytes] = []
    quoting = _Quoting(delimiter)
    size_bytes, line, begins_at = 0, 1, 1
    for piece in pieces:
        size_bytes += len(piece)
        quoting.feed(piece)
        if size_bytes <= RECORD_LIMIT_BYTES:
            held.append(piece)
        if piece.endswith(b"\n"):
            line += 1
            if not quoting.is_open:
                yield from _record(held, size_bytes, begins_at, delimiter)
                held, size_bytes, begins_at = [], 0, line
    if quoting.is_open:
        yield Record(line=begins_at, error="a quote that opens here is never closed")
    else:
        yield from _record(held, size_bytes, begins_at, delimiter)


def read_csv(pieces: Iterable[bytes]) -> Iterator[Row]:
    """Read enrollments from CSV whose first record names the columns, dotted as in the JSON.

    Raises:
        InvalidArgument: the header is no header; says what is wrong with it.
    """
    source = without_mark(pieces)
    first = next(source)
    delimiter = find_delimiter(first)
    names = _header(first, delimiter)
    for number, record in enumerate(read_records(source, delimiter), start=1):
        line = record.line + 1
        if record.error is not None:
            yield Row(number=number, line=line, error=record.error)
        elif len(record.cells) != len(names):
            problem = f"{len(record.cells)} fields, but the header has {len(names)}"
            yield Row(number=number, line=line, error=problem)
        else:
            yield _row(number, line, names, record.cells)


def find_delimiter(header: bytes) -> str:
    """The delimiter that splits a header best; a comma when none does."""
    text = header.decode("utf-8", errors="replace")
    return max(_DELIMITERS, key=lambda delimiter: (text.count(delimiter), -_DELIMITERS.index(delimiter)))


def put(body: dict[str, Any], dotted: str, value: Any) -> None:
    """Put a value where a dotted name says.

    Raises:
        ValueError: something else is there already.
    """
    *tables, last = dotted.split(".")
    for table in tables:
        body = body.setdefault(table, {})
        if not isinstance(body, dict):
            raise ValueError(f"{dotted}: {table} is a value already")  # noqa: TRY004 - of the file, not of a caller
    if last in body:
        raise ValueError(f"{dotted} is given twice")
    body[last] = value


class _Quoting:
    """Whether a cell is open that may hold newlines; as for `csv`, only a quote at a cell's beginning opens one."""

    def __init__(self, delimiter: str) -> None:
        self._delimiter = delimiter.encode()
        self._may_open = True
        self.is_open = False

    def feed(self, piece: bytes) -> None:
        """Go on with the next line, or part of one."""
        position, closed_at, may_open = 0, -1, self._may_open
        while True:
            if self.is_open:
                position = piece.find(b'"', position) + 1
                if not position:
                    break
                self.is_open, may_open, closed_at = False, True, position
            elif may_open and piece.startswith(b'"', position):  # also one that is doubled, for it had just closed
                self.is_open, position = True, position + 1
            else:
                may_open = False
                position = piece.find(self._delimiter + b'"', position) + 2
                if position == 1:
                    break
                self.is_open = True
        self._may_open = piece.endswith((b"\n", self._delimiter)) or closed_at == len(piece)


def _record(held: Sequence[bytes], size_bytes: int, line: int, delimiter: str) -> Iterator[Record]:
    if size_bytes > RECORD_LIMIT_BYTES:
        yield Record(line=line, error=f"{size_bytes} bytes; a record may have {RECORD_LIMIT_BYTES}")
        return
    try:
        text = b"".join(held).decode("utf-8")
        if not text.strip():
            return
        found = list(csv.reader([text], delimiter=delimiter, strict=True))
    except UnicodeDecodeError:
        yield Record(line=line, error="not UTF-8")
    except csv.Error as error:
        yield Record(line=line, error=f"not CSV: {error}")
    else:
        yield Record(line=line, cells=tuple(found[0]))


def _header(first: bytes, delimiter: str) -> tuple[str, ...]:
    if b"\r" in first.rstrip(b"\r\n"):
        raise InvalidArgument("lines end with a carriage return alone; save the file with LF or CRLF")
    record = next(_record([first], len(first), 1, delimiter), Record(line=1, error="it is blank"))
    if record.error is not None:
        raise InvalidArgument(f"the header: {record.error}")
    names = tuple(_SPELLINGS.get(name.strip().lower(), name.strip()) for name in record.cells)
    if len(names) > _COLUMNS_MAX:
        raise InvalidArgument(f"the header has {len(names)} columns; there may be {_COLUMNS_MAX}")
    if not set(names) & set(_IDS):
        shown = ", ".join(names[:5])
        raise InvalidArgument(
            "the first line must name the columns, among them registrationId or enrollmentGroupId; "
            f"it says: {shown:.200}"
        )
    for name in names:
        if name not in (*_IDS, *COLUMNS, *_IGNORED) and not name.startswith(_JSON_PREFIXES):
            raise InvalidArgument(
                f"column {name[:80]!r} is not known; `provisiond enrollment export` shows the columns"
            )
        if names.count(name) > 1:
            raise InvalidArgument(f"column {name!r} is there twice")
    return names


def _row(number: int, line: int, names: Sequence[str], cells: Sequence[str]) -> Row:
    body: dict[str, Any] = {}
    try:
        for name, cell in zip(names, cells, strict=True):
            if cell != "" and name not in _IGNORED:
                put(body, name, _value(name, cell))
    except ValueError as error:
        claimed = next((cell for name, cell in zip(names, cells, strict=True) if name in _IDS and cell), "")
        return Row(number=number, line=line, error=str(error), id=claimed)
    return Row(number=number, line=line, body=body)


def _value(name: str, cell: str) -> Any:
    if name in _BOOLEAN_COLUMNS:
        if cell.strip().lower() not in _BOOLEANS:
            raise ValueError(f"{name}: {cell[:40]!r} is neither true nor false")
        return _BOOLEANS[cell.strip().lower()]
    if name in _LIST_COLUMNS:
        return cell.replace(",", " ").split()
    if name in _JSON_COLUMNS:
        return _json(name, cell)
    if name.startswith(_JSON_PREFIXES):
        try:
            return json.loads(cell, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return cell
    return cell


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")  # though Python reads it


def _json(name: str, cell: str) -> Any:
    try:
        return json.loads(cell, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: not JSON: {error}") from error
