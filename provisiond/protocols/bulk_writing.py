"""Writing enrollments so that `bulk` reads the same ones back: CSV, NDJSON, a JSON array, an Azure bulk body."""

import base64
import csv
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from provisiond.model import Enrollment, EnrollmentKind, X509Material
from provisiond.protocols.bulk_csv import COLUMNS
from provisiond.protocols.bulk_rows import BulkFormat
from provisiond.protocols.service_api import enrollment_to_json

_ID_COLUMNS: Final = {EnrollmentKind.INDIVIDUAL: "registrationId", EnrollmentKind.GROUP: "enrollmentGroupId"}
_CERTIFICATES: Final = {EnrollmentKind.INDIVIDUAL: "clientCertificates", EnrollmentKind.GROUP: "signingCertificates"}
_READ_ONLY: Final = ("etag", "createdDateTimeUtc", "lastUpdatedDateTimeUtc", "registrationState")


def export_body(enrollment: Enrollment, *, show_keys: bool) -> dict[str, Any]:
    """An enrollment as it can be imported: whole certificates, and nothing that only this service can know."""
    body = enrollment_to_json(enrollment, show_keys=show_keys)
    material = enrollment.attestation
    if isinstance(material, X509Material):
        names = zip(("primary", "secondary"), material.certificates, strict=False)
        body["attestation"]["x509"][_CERTIFICATES[enrollment.kind]] = {
            name: {"certificate": base64.b64encode(certificate).decode("ascii")} for name, certificate in names
        }
    return {name: value for name, value in body.items() if name not in _READ_ONLY}


class BulkWriter:
    """The text of a file of enrollments of one kind, piece by piece: `begin`, `add` for each, `end`.

    Args:
        form: CSV, NDJSON, JSON or Azure; any other is written as NDJSON.
        kind: of all of them.
        show_keys: with symmetric keys; without, an import makes new ones.
    """

    def __init__(self, form: BulkFormat, kind: EnrollmentKind, *, show_keys: bool) -> None:
        self._form = form
        self._kind = kind
        self._show_keys = show_keys
        self._columns = (_ID_COLUMNS[kind], *COLUMNS)
        self._separator = "\n"

    def begin(self) -> str:
        """What comes before the first."""
        match self._form:
            case BulkFormat.CSV:
                return _line(self._columns)
            case BulkFormat.JSON:
                return "["
            case BulkFormat.AZURE:
                name = "enrollments" if self._kind is EnrollmentKind.INDIVIDUAL else "enrollmentGroups"
                return f'{{"mode": "create", "{name}": ['
            case _:
                return ""

    def add(self, enrollment: Enrollment) -> str:
        """One enrollment."""
        body = export_body(enrollment, show_keys=self._show_keys)
        if self._form is BulkFormat.CSV:
            return _line(_cell(_at(body, column)) for column in self._columns)
        text = json.dumps(body, ensure_ascii=False)
        if self._form not in (BulkFormat.JSON, BulkFormat.AZURE):
            return text + "\n"
        separator, self._separator = self._separator, ",\n"
        return separator + text

    def end(self) -> str:
        """What comes after the last."""
        return {BulkFormat.JSON: "\n]\n", BulkFormat.AZURE: "\n]}\n"}.get(self._form, "")


def _at(body: Mapping[str, Any], dotted: str) -> Any:
    value: Any = body
    for name in dotted.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case [*items]:
            return " ".join(map(str, items))
        case _:
            return json.dumps(value, ensure_ascii=False)


def _line(cells: Iterable[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(list(cells))
    return buffer.getvalue()
