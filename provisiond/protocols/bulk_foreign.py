"""Files of other services: what maps becomes an enrollment, what does not is named.

| from                    | becomes                                             | is only named                      |
|-------------------------|-----------------------------------------------------|------------------------------------|
| Azure `iotHubHostName`  | `iotHubs` with the one hub, allocation static       | `credentialPolicyName`             |
| AWS thing               | symmetric key, or its certificate; attributes: tags | ARN, version, CSR, policies        |
| Cumulocity bulk CSV     | symmetric key; TYPE, NAME, ICCID: tags              | passwords, IDTYPE, PATH, SHELL, …  |
"""

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from provisiond.errors import InvalidArgument
from provisiond.protocols.bulk_csv import Record, find_delimiter, read_records
from provisiond.protocols.bulk_rows import Row, without_mark

AWS_NAMES: Final = ("thingName", "ThingName", "thing_name")
CUMULOCITY_COLUMNS: Final = ("ID", "CREDENTIALS")

_AWS_CERTIFICATES: Final = ("certificatePem", "CertificatePem", "certificate_pem")
_AWS_UNMAPPED: Final = (
    "thingArn",
    "thingId",
    "version",
    "CSR",
    "certificateArn",
    "certificateId",
    "policyName",
    "policyNames",
    "shadow",
    "connectivity",
    "mqttContext",
    "mqtt_context",
)
_CUMULOCITY_TAGS: Final = {"TYPE": "type", "NAME": "name", "ICCID": "iccid"}
_KEY_SIZES_BYTES: Final = range(16, 65)


def from_azure(row: Row) -> Row:
    """An Azure record without what is only Azure's, or one of our own lists without what is only shown."""
    if row.body is None:
        return row
    body = dict(row.body)
    body.pop("origin", None)
    notes = []
    host = body.pop("iotHubHostName", None)
    if host and not body.get("iotHubs"):
        body |= {"iotHubs": [host], "allocationPolicy": body.get("allocationPolicy") or "static"}
    if body.pop("credentialPolicyName", None) is not None:
        notes.append("credentialPolicyName: certificates are not issued by policies here")
    return replace(row, body=body, notes=tuple(notes))


def from_aws(row: Row) -> Row:
    """A thing of AWS IoT: a line of a bulk registration, or of a list of things."""
    if row.body is None:
        return row
    thing = dict(row.body)
    name = next((thing.pop(key) for key in AWS_NAMES if isinstance(thing.get(key), str)), None)
    if name is None:
        return replace(row, body=None, error="it has no thingName")
    pem = next((thing.pop(key) for key in _AWS_CERTIFICATES if thing.get(key)), None)
    notes = [f"{key} is not imported" for key in _AWS_UNMAPPED if thing.pop(key, None) is not None]
    attributes = thing.pop("attributes", None)
    tags = {**(attributes if isinstance(attributes, dict) else {}), **thing}
    if pem is None:
        notes.append("a key was generated: AWS keeps no device's private key")
        attestation: dict[str, Any] = {"type": "symmetricKey"}
    else:
        attestation = {"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": pem}}}}
    body: dict[str, Any] = {"registrationId": name, "attestation": attestation}
    if tags:
        body["initialTwin"] = {"tags": tags}
    return replace(row, body=body, notes=tuple(notes))


def read_cumulocity(pieces: Iterable[bytes]) -> Iterator[Row]:
    """Read the CSV of Cumulocity's bulk device registration.

    Raises:
        InvalidArgument: the header is another one.
    """
    source = without_mark(pieces)
    first = next(source)
    delimiter = find_delimiter(first)
    header = next(read_records([first], delimiter), Record(line=1))
    names = [name.strip().upper() for name in header.cells]
    if header.error is not None or "ID" not in names:
        raise InvalidArgument("the first line must name the columns: ID, CREDENTIALS, TYPE, NAME …")
    for number, record in enumerate(read_records(source, delimiter), start=1):
        line = record.line + 1
        if record.error is None and len(record.cells) > len(names):
            record = replace(record, error=f"{len(record.cells)} fields, but the header has {len(names)}")  # noqa: PLW2901
        if record.error is not None:
            yield Row(number=number, line=line, error=record.error)
            continue
        yield _from_cumulocity(number, line, dict(zip(names, record.cells, strict=False)))


def _from_cumulocity(number: int, line: int, cells: Mapping[str, str]) -> Row:
    if cells.get("AUTH_TYPE", "").upper() == "CERTIFICATES":
        error = "AUTH_TYPE CERTIFICATES: enroll the devices' CA instead, `provisiond enrollment-group create`"
        return Row(number=number, line=line, error=error)
    attestation: dict[str, Any] = {"type": "symmetricKey"}
    notes = []
    key = cells.get("CREDENTIALS", "").strip()
    if _is_key(key):
        attestation["symmetricKey"] = {"primaryKey": key}
    else:
        notes.append("CREDENTIALS: a key was generated, for a password is none")
    known = {"ID", "CREDENTIALS", "AUTH_TYPE", *_CUMULOCITY_TAGS}
    notes += [f"{name} is not imported" for name, cell in cells.items() if cell and name not in known]
    tags = {tag: cells[name] for name, tag in _CUMULOCITY_TAGS.items() if cells.get(name)}
    body: dict[str, Any] = {"registrationId": cells.get("ID", "").strip(), "attestation": attestation}
    if tags:
        body["initialTwin"] = {"tags": tags}
    return Row(number=number, line=line, body=body, notes=tuple(notes))


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) in _KEY_SIZES_BYTES
    except (binascii.Error, ValueError):
        return False
