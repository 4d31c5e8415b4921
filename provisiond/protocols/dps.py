"""Azure DPS over MQTT: the `$dps` topics and bodies, byte-compatible with the device SDKs.

| what      | topic                                                                          |
|-----------|--------------------------------------------------------------------------------|
| register  | `$dps/registrations/PUT/iotdps-register/?$rid={rid}`                            |
| poll      | `$dps/registrations/GET/iotdps-get-operationstatus/?$rid={rid}&operationId={op}` |
| reply     | `$dps/registrations/res/{status}/?$rid={rid}[&retry-after={seconds}]`           |

A TPM device adds `tpm: {endorsementKey, storageRootKey}` to its register body, hears 401 with `authenticationKey` and
`keyName`, and registers again with `authorization`, as Azure has it over HTTPS; over MQTT it is ours.

Identity comes from the CONNECT, never from a body. `$rid` is the first parameter of a reply: SDKs find it by position.
"""

import re
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import unquote

from provisiond.errors import AttestationError, ConnectRefused, MalformedRequest, NotFound, UnknownOperation
from provisiond.model import (
    Answer,
    Challenge,
    ConnectAttempt,
    Connection,
    Evidence,
    IssuedChallenge,
    JSONValue,
    Message,
    PollRequest,
    Possession,
    RegisterRequest,
    Registration,
    RegistrationId,
    Reply,
    Request,
    Role,
    TpmEvidence,
)
from provisiond.protocols.base64_octets import Base64, encode_octets
from provisiond.protocols.json_body import encode_json, parse_json
from provisiond.protocols.timestamps import format_timestamp

TOPIC_PREFIX: Final = "$dps/registrations/"
RESPONSE_FILTER: Final = "$dps/registrations/res/#"

_REGISTER_PATH: Final = "PUT/iotdps-register/"
_POLL_PATH: Final = "GET/iotdps-get-operationstatus/"

_RID_MAX_LENGTH: Final = 256
"""SDKs send a UUID or a packet id; an echo need not be a way to make us send kilobytes."""

_TPM_KEY_MAX_SIZE_BYTES: Final = 1024
"""The largest public area is that of an RSA-4096 key, 572 octets."""

_EK_CERTIFICATE_MAX_SIZE_BYTES: Final = 4096
"""NV storage of a TPM is small; EK certificates are 0.8 to 1.6 KiB."""

_EK_CHAIN_MAX_CERTIFICATES: Final = 5

_API_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_LAST_WITHOUT_REPROVISIONING: Final = "2018-04-01"
"""The last API version without reprovisioning policies (Azure DPS concepts, device reprovisioning)."""

_IMMEDIATE_CLIENTS: Final = (
    "azure-iot-device-provisioning-py/",
    "azure-iot-provisioning-device/",
    "provisiond-device/",
)
"""Clients that were run and take a 200 `assigned` as the first answer; others insist on a 202 first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserName:
    """The user name of a provisioning CONNECT: `{idScope}/registrations/{registrationId}/{parameters}`."""

    id_scope: str
    registration_id: str
    api_version: str
    client_version: str


def is_provisioning_user_name(user_name: str | None) -> bool:
    """Whether a CONNECT's user name asks for the provisioning role."""
    return user_name is not None and user_name.partition("/")[2].startswith("registrations/")


def parse_user_name(user_name: str) -> UserName:
    """Split the user name of a provisioning CONNECT.

    Raises:
        ConnectRefused: it has a `?`, or is not of that form.
    """
    parts = user_name.split("/", 3)
    if "?" in user_name or len(parts) != 4 or parts[1] != "registrations":
        raise ConnectRefused(
            f"user name {user_name[:200]!r} is not {{idScope}}/registrations/{{registrationId}}/api-version=…"
        )
    parameters = dict(_split_parameter(part) for part in parts[3].split("&"))
    return UserName(
        id_scope=parts[0],
        registration_id=parts[2],
        api_version=parameters.get("api-version", "")[:64],
        client_version=parameters.get("ClientVersion", "")[:256],
    )


def admit(attempt: ConnectAttempt, *, id_scope: str) -> Connection:
    """Judge the CONNECT of a provisioning device: consistent, not yet proved.

    A wrong key or certificate is *not* refused here: SDKs expect to hear of it in answer to the register message.

    Raises:
        ConnectRefused: malformed user name, another id scope, a client id that is not the registration id.
    """
    user_name = parse_user_name(attempt.username or "")
    if user_name.id_scope.lower() != id_scope.lower():
        raise ConnectRefused(f"id scope {user_name.id_scope[:64]!r} is not this service's")
    try:
        claimed_id = RegistrationId.parse(attempt.client_id)
    except MalformedRequest as error:
        raise ConnectRefused(f"client id: {error}") from error
    if user_name.registration_id.lower() != claimed_id.key:
        raise ConnectRefused(
            f"client id {claimed_id} and registration id {user_name.registration_id[:140]!r} of the user name differ"
        )
    return Connection(
        connection_id=attempt.connection_id,
        role=Role.DPS,
        claimed_id=claimed_id,
        listener=attempt.listener,
        remote_address=attempt.remote_address,
        unverified_chain=attempt.unverified_chain,
        sas_token=_decode_password(attempt.password),
        api_version=user_name.api_version,
        client_version=user_name.client_version,
    )


def takes_immediate_assignment(client_version: str) -> bool:
    """Whether this client is known to accept `assigned` as the first answer (by its `ClientVersion`)."""
    return client_version.startswith(_IMMEDIATE_CLIENTS)


def request_id(topic: str) -> str:
    """The `$rid` to echo: what the device sent when that is safe to send back, else empty."""
    values = _parameters(topic).get("$rid", [])
    return values[0] if values and _is_echoable(values[0]) else ""


def parse(connection: Connection, message: Message) -> Request:
    """Read a PUBLISH to a `$dps` topic as a request of this connection.

    Raises:
        UnknownOperation: the topic names no operation of ours.
        MalformedRequest: bad parameters or body.
        AttestationError: the body names another registration id than the connection.
        NotFound: a poll without an operation id.
    """
    path = message.topic.removeprefix(TOPIC_PREFIX).partition("?")[0]
    parameters = _parameters(message.topic)
    if path == _REGISTER_PATH:
        _check_request_id(parameters)
        return _parse_register(connection, message.payload)
    if path == _POLL_PATH:
        _check_request_id(parameters)
        return _parse_poll(connection, parameters)
    raise UnknownOperation(f"no operation at {message.topic[:200]!r}")


def encode(reply: Reply, *, rid: str) -> Message:
    """Make the reply message: JSON in ASCII on `$dps/registrations/res/{status}/?$rid={rid}`."""
    topic = f"{TOPIC_PREFIX}res/{reply.status}/?$rid={rid}"
    if reply.retry_after_s is not None:
        topic += f"&retry-after={reply.retry_after_s}"
    return Message(topic=topic, payload=encode_json(_reply_body(reply)))


def registration_state(registration: Registration) -> dict[str, JSONValue]:
    """The `registrationState` of a reply: what is absent is left out, never null (Java refuses nulls)."""
    in_group = {"enrollmentGroupId": registration.enrollment_id} if registration.enrollment_kind == "group" else {}
    state: dict[str, JSONValue] = {
        registration.attestation_type.value: in_group,
        "registrationId": registration.registration_id,
        "createdDateTimeUtc": format_timestamp(registration.created_at),
        "assignedHub": registration.assigned_host,
        "deviceId": registration.device_id,
        "status": registration.status.value,
        "substatus": registration.substatus.value if registration.substatus else None,
        "lastUpdatedDateTimeUtc": format_timestamp(registration.updated_at),
        "etag": registration.etag,
        "payload": registration.payload,
        "errorCode": registration.error_code,
        "errorMessage": registration.error_message,
    }
    return {name: value for name, value in state.items() if value is not None}


def _challenge_body(challenge: Challenge) -> dict[str, JSONValue]:
    """No `status`: the C SDK tells a challenge by its absence."""
    return {
        "message": "Sign the next request with the key that only this TPM can import",
        "authenticationKey": encode_octets(challenge.authentication_key),
        "keyName": "registration",
        "challengeId": challenge.challenge_id,
        "expiresAt": format_timestamp(challenge.expires_at),
    }


def _reply_body(reply: Reply) -> dict[str, JSONValue]:
    if reply.challenge is not None:
        return _challenge_body(reply.challenge)
    if reply.error is not None:
        return {
            "errorCode": reply.error.code,
            "trackingId": reply.error.tracking_id,
            "message": reply.error.message,
            "timestampUtc": format_timestamp(reply.error.timestamp),
        }
    status_text = reply.status_text.value if reply.status_text is not None else ""
    body: dict[str, JSONValue] = {"operationId": reply.operation_id, "status": status_text}
    if reply.registration is not None:
        body["registrationState"] = registration_state(reply.registration)
        if reply.authentication_key is not None:
            body["registrationState"]["tpm"]["authenticationKey"] = encode_octets(reply.authentication_key)
    elif reply.registration_id:
        body["registrationState"] = {"registrationId": reply.registration_id, "status": status_text}
    return body


def _parse_register(connection: Connection, payload: bytes) -> RegisterRequest:
    body = _parse_object(payload)
    named = body.get("registrationId")
    if named is not None and not isinstance(named, str):
        raise MalformedRequest("registrationId is not a string", public="registrationId is not a string")
    if named is not None and named.lower() != connection.claimed_id.key:
        raise AttestationError(
            f"body names {named[:140]!r}, the connection is {connection.claimed_id}", finding="registration-id-mismatch"
        )
    tpm, answer = _parse_tpm(body), _parse_authorization(body)
    return RegisterRequest(
        claimed_id=connection.claimed_id,
        evidence=_evidence(connection, tpm),
        payload=body.get("payload"),
        protocol=Role.DPS,
        predates_reprovisioning=_predates_reprovisioning(connection.api_version),
        octets=payload,
        answer=answer,
    )


def _predates_reprovisioning(api_version: str) -> bool:
    """Whether devices of this API version are never moved on their own, such as `2017-08-31-preview`."""
    date = _API_DATE.match(api_version)
    return date is not None and date[0] <= _LAST_WITHOUT_REPROVISIONING


def recall(request: RegisterRequest, issued: IssuedChallenge | None) -> RegisterRequest:
    """Add to an answer the challenge that was taken out for it; one that leaves its TPM's keys out gets them back.

    Raises:
        MalformedRequest: the record is not of a register message on these topics.
    """
    request = replace(request, issued=issued)
    if request.evidence.tpm is not None or issued is None or issued.protocol is not Role.DPS:
        return request
    return replace(request, evidence=replace(request.evidence, tpm=_parse_tpm(_parse_object(issued.request))))


def _parse_object(payload: bytes) -> dict[str, Any]:
    body: Any = parse_json(payload) if payload.strip() else {}
    if not isinstance(body, dict):
        raise MalformedRequest("body is not a JSON object", public="Body is not a JSON object")
    return body


def _parse_tpm(body: dict[str, Any]) -> TpmEvidence | None:
    tpm = body.get("tpm")
    if tpm is None:
        return None
    if not isinstance(tpm, dict):
        raise MalformedRequest("tpm is not an object", public="tpm is not an object")
    chain = tpm.get("ekChain", [])
    if not isinstance(chain, list) or len(chain) > _EK_CHAIN_MAX_CERTIFICATES:
        raise MalformedRequest("ekChain is not a short list", public="tpm.ekChain is not a list of at most 5")
    certificate = tpm.get("ekCertificate")
    certificates = ([certificate] if certificate is not None else []) + chain
    return TpmEvidence(
        endorsement_key=_octets(tpm, "endorsementKey", _TPM_KEY_MAX_SIZE_BYTES),
        storage_root_key=_octets(tpm, "storageRootKey", _TPM_KEY_MAX_SIZE_BYTES),
        unverified_ek_chain=tuple(
            _octets({"ekCertificate": one}, "ekCertificate", _EK_CERTIFICATE_MAX_SIZE_BYTES) for one in certificates
        ),
    )


def _octets(tpm: dict[str, Any], name: str, max_size_bytes: int) -> bytes:
    text = tpm.get(name)
    try:
        return Base64(max_size_bytes).decode(text if isinstance(text, str) else "")
    except ValueError as error:
        raise MalformedRequest(f"tpm.{name}: {error}", public=f"tpm.{name} is not base64 of a TPM structure") from error


def _parse_authorization(body: dict[str, Any]) -> Answer | None:
    authorization = body.get("authorization")
    if authorization is None:
        return None
    if not isinstance(authorization, str):
        raise MalformedRequest("authorization is not a string", public="authorization is not a string")
    return Answer(sas_token=authorization)


def _parse_poll(connection: Connection, parameters: dict[str, list[str]]) -> PollRequest:
    operation_ids = parameters.get("operationId", [])
    if len(operation_ids) != 1 or not 0 < len(operation_ids[0]) <= 128:
        raise NotFound("a poll without one operationId")
    return PollRequest(claimed_id=connection.claimed_id, evidence=_evidence(connection), operation_id=operation_ids[0])


def _evidence(connection: Connection, tpm: TpmEvidence | None = None) -> Evidence:
    return Evidence(
        unverified_chain=connection.unverified_chain, sas_token=connection.sas_token, tpm=tpm, possession=Possession.TLS
    )


def _decode_password(password: bytes | None) -> str | None:
    if not password:
        return None
    try:
        return password.decode("utf-8")
    except UnicodeDecodeError:
        # As wrong as any other wrong token, and told like it; as it reads now, it is none for sure.
        return repr(password)


def _parameters(topic: str) -> dict[str, list[str]]:
    parameters: dict[str, list[str]] = {}
    for part in topic.partition("?")[2].split("&", 16)[:16]:
        name, value = _split_parameter(part)
        parameters.setdefault(name, []).append(value)
    return parameters


def _split_parameter(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return name, value if name == "$rid" else unquote(value)


def _check_request_id(parameters: dict[str, list[str]]) -> None:
    values = parameters.get("$rid", [])
    if len(values) > 1:
        raise MalformedRequest("$rid occurs twice", public="$rid occurs twice")
    if values and not _is_echoable(values[0]):
        raise MalformedRequest("$rid is too long or not printable", public="$rid is too long or not printable")


def _is_echoable(rid: str) -> bool:
    """Whether it is harmless to who reads the reply's topic, with its escapes resolved as well."""
    plain = unquote(rid)
    return len(rid) <= _RID_MAX_LENGTH and rid.isascii() and plain.isprintable() and "&" not in plain
