"""Files of other services: what maps becomes an enrollment, what does not is named.

| from                    | becomes                                             | is only named                      |
|-------------------------|-----------------------------------------------------|------------------------------------|
| Azure `iotHubHostName`  | `iotHubs` with the one hub, allocation static       | hubs of Azure that are not linked  |
| AWS thing               | symmetric key, or its certificate; attributes: tags | ARN, version, CSR, policies, keys  |
| Cumulocity bulk CSV     | symmetric key; TYPE, NAME, ICCID: tags              | passwords, IDTYPE, PATH, SHELL, …  |
"""

import base64
import binascii
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from provisiond.errors import InvalidArgument
from provisiond.protocols.bulk_csv import Record, find_delimiter, read_records
from provisiond.protocols.bulk_rows import Row, without_mark

_AWS_NAMES: Final = ("thingName", "ThingName", "thing_name")
_AWS_CLIENT_IDS: Final = ("clientId", "client_id")
_AWS_CONTEXTS: Final = ("mqttContext", "mqtt_context", "mqtt-context")
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
    *_AWS_CONTEXTS,
    "privateKey",
    "PrivateKey",
    "private_key",
    "keyPair",
)
_AZURE_DOMAINS: Final = (".azure-devices.net", ".azure-devices.cn", ".azure-devices.us")
_IDS: Final = ("registrationId", "enrollmentGroupId")
_CUMULOCITY_TAGS: Final = {"TYPE": "type", "NAME": "name", "ICCID": "iccid"}
_CUMULOCITY_KNOWN: Final = {"ID", "CREDENTIALS", "AUTH_TYPE", *_CUMULOCITY_TAGS}
_KEY_SIZES_BYTES: Final = range(16, 65)


def is_thing(body: Mapping[str, Any]) -> bool:
    """Whether a record is a thing of AWS's."""
    return not any(name in body for name in _IDS) and _thing_name(body) is not None


def from_json(row: Row, *, linked_hubs: Container[str] = ()) -> Row:
    """A record of Azure's, of AWS's, or of our own lists."""
    if row.body is None:
        return row
    if is_thing(row.body):
        return from_aws(row)
    return _from_azure(row, row.body, linked_hubs)


def _from_azure(row: Row, record: Mapping[str, Any], linked_hubs: Container[str]) -> Row:
    """Without what is only Azure's, or only shown."""
    body = dict(record)
    body.pop("origin", None)
    notes = []
    host = body.pop("iotHubHostName", None)
    if host and not body.get("iotHubs"):
        body |= {"iotHubs": [host], "allocationPolicy": body.get("allocationPolicy") or "static"}
    foreign = [hub for hub in _listed(body.get("iotHubs")) if _is_azures(hub) and hub.lower() not in linked_hubs]
    if foreign:
        notes.append("iotHubs: hubs of Azure that are not linked here are left out: " + ", ".join(foreign)[:200])
        body["iotHubs"] = [hub for hub in body["iotHubs"] if hub not in foreign] or None
        if body["iotHubs"] is None and body.get("allocationPolicy") == "static":
            body["allocationPolicy"] = None
    if body.pop("credentialPolicyName", None) is not None:
        notes.append("credentialPolicyName: certificates are not issued by policies here")
    return replace(row, body=body, notes=tuple(notes))


def _listed(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _is_azures(hub: str) -> bool:
    return hub.lower().endswith(_AZURE_DOMAINS)


def _thing_name(thing: Mapping[str, Any]) -> str | None:
    """The name of a thing, or the client id that it connects with, which AWS wants to be the same."""
    contexts = [context for name in _AWS_CONTEXTS if isinstance(context := thing.get(name), Mapping)]
    found = [thing.get(name) for name in _AWS_NAMES]
    found += [place.get(name) for place in (thing, *contexts) for name in _AWS_CLIENT_IDS]
    return next((name for name in found if isinstance(name, str) and name), None)


def from_aws(row: Row) -> Row:
    """A thing of AWS IoT: a line of a bulk registration, or of a list of things."""
    if row.body is None:
        return row
    name = _thing_name(row.body)
    if name is None:
        return replace(row, body=None, error="it has neither a thingName nor a clientId")
    thing = {key: value for key, value in row.body.items() if key not in (*_AWS_NAMES, *_AWS_CLIENT_IDS)}
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
    names = [name.strip() for name in header.cells]
    names = [name.upper() if name.upper() in _CUMULOCITY_KNOWN else name for name in names]
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
        return Row(number=number, line=line, error=error, id=cells.get("ID", "").strip())
    attestation: dict[str, Any] = {"type": "symmetricKey"}
    notes = []
    key = cells.get("CREDENTIALS", "").strip()
    if _is_key(key):
        attestation["symmetricKey"] = {"primaryKey": key}
    else:
        notes.append("CREDENTIALS: a key was generated, for a password is none")
    notes += [f"{name} is not imported" for name, cell in cells.items() if cell and name not in _CUMULOCITY_KNOWN]
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
