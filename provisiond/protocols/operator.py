"""What operators and local consumers ask over MQTT, both ends.

| who publishes | topic                                             | what                                           |
|---------------|---------------------------------------------------|------------------------------------------------|
| operator      | `provisiond/v1/_operator/req/{op}/{rid}`          | a request, JSON                                |
| service       | `provisiond/v1/_operator/res/{op}/{rid}`          | its answer, JSON with `status`                 |
| service       | `provisiond/v1/_events/registration/{id}`         | what was decided                               |
| service       | `provisiond/v1/_events/device/{deviceId}`         | a device connected to its hub, or went         |
| service       | `provisiond/v1/_status`                           | how the service is; at subscribing, at a stop    |
| service       | `devices/{deviceId}/messages/events/{properties}` | what a device sent, as it came                  |

`op`: `send`, `get-twin`, `update-twin`, `invoke-method`, `disconnect`. `rid`: 1 to 128 of `A-Z a-z 0-9 - . _`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from provisiond.errors import MalformedRequest, UnknownOperation
from provisiond.model import AuditRecord, Decision, JSONValue, Message, Registration, RegistrationId
from provisiond.protocols.base64_octets import Base64, encode_octets
from provisiond.protocols.iothub import CLOUD_MESSAGE_MAX_SIZE_BYTES, DEVICE_ID, METHOD_NAME, SYSTEM_PROPERTIES
from provisiond.protocols.json_body import encode_json, parse_json
from provisiond.protocols.timestamps import format_timestamp
from provisiond.protocols.topic_filters import is_filter

USER_NAME: Final = "operator"
STATUS_TOPIC: Final = "provisiond/v1/_status"
EVENTS_PREFIX: Final = "provisiond/v1/_events/"
RESPONSE_FILTER: Final = "provisiond/v1/_operator/res/#"

_REQUEST_PREFIX: Final = "provisiond/v1/_operator/req/"
_RESPONSE_PREFIX: Final = "provisiond/v1/_operator/res/"
_REQUEST_TOPIC: Final = re.compile(
    rf"{_REQUEST_PREFIX}(?P<operation>[a-z\-]{{1,32}})/(?P<rid>[A-Za-z0-9\-._]{{1,128}})", re.ASCII
)
_RESPONSE_TOPIC: Final = re.compile(
    rf"{_RESPONSE_PREFIX}(?P<operation>[a-z\-]{{1,32}})/(?P<rid>[A-Za-z0-9\-._]{{1,128}})", re.ASCII
)

MESSAGE_LIFETIME_S: Final = 3600
"""Of a cloud-to-device message that does not say: Azure's default."""
_MESSAGE_LIFETIME_MAX_S: Final = 2 * 24 * 3600
_PROPERTIES_MAX: Final = 32

METHOD_TIMEOUT_S: Final = 30
_METHOD_TIMEOUT_MAX_S: Final = 300


class Operation(StrEnum):
    """What an operator can ask for."""

    SEND = "send"
    GET_TWIN = "get-twin"
    UPDATE_TWIN = "update-twin"
    INVOKE_METHOD = "invoke-method"
    DISCONNECT = "disconnect"


def _whole(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def check(text: str) -> str:
        if pattern.fullmatch(text) is None:
            raise ValueError("not a name of that kind")
        return text

    return check


class _Request(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
    )

    device_id: Annotated[str, AfterValidator(_whole(DEVICE_ID))]


_BASE64_OR_NONE: Final = PlainSerializer(lambda octets: None if octets is None else encode_octets(octets))
_Text = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class SendMessage(_Request):
    """Send a cloud-to-device message: `payload` as text, or any octets as `payloadBase64`."""

    payload: Annotated[str | None, Field(max_length=CLOUD_MESSAGE_MAX_SIZE_BYTES)] = None
    payload_base64: Annotated[Annotated[bytes, Base64(CLOUD_MESSAGE_MAX_SIZE_BYTES, 0)] | None, _BASE64_OR_NONE] = None
    message_id: _Text | None = None
    correlation_id: _Text | None = None
    user_id: _Text | None = None
    content_type: _Text | None = None
    content_encoding: _Text | None = None
    properties: Annotated[dict[_Text, Annotated[str, Field(max_length=1024)]], Field(max_length=_PROPERTIES_MAX)] = {}
    expiry_s: Annotated[int, Field(ge=1, le=_MESSAGE_LIFETIME_MAX_S)] = MESSAGE_LIFETIME_S

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.payload is not None and self.payload_base64 is not None:
            raise ValueError("payload and payloadBase64: one of them")
        if len(self.octets) > CLOUD_MESSAGE_MAX_SIZE_BYTES:
            raise ValueError(f"the payload has more than {CLOUD_MESSAGE_MAX_SIZE_BYTES} bytes")
        if any(name.startswith("$.") for name in self.properties):
            raise ValueError("a property's name begins with $.: those are the system's")
        return self

    @property
    def octets(self) -> bytes:
        """The payload."""
        return self.payload_base64 if self.payload_base64 is not None else (self.payload or "").encode()

    @property
    def all_properties(self) -> dict[str, str]:
        """The system's properties that were given, and the message's own."""
        given = {
            "correlationId": self.correlation_id,
            "userId": self.user_id,
            "contentType": self.content_type,
            "contentEncoding": self.content_encoding,
        }
        system = {SYSTEM_PROPERTIES[name]: value for name, value in given.items() if value is not None}
        return system | self.properties


class GetTwin(_Request):
    """Show a twin."""


class TwinProperties(BaseModel):
    """The properties of a twin that an operator may change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    desired: dict[str, Any] | None = None


class UpdateTwin(_Request):
    """Patch tags and desired properties; `etag` must be the twin's when it is given."""

    tags: dict[str, Any] | None = None
    properties: TwinProperties = TwinProperties()
    etag: _Text | None = None


class InvokeMethod(_Request):
    """Call a direct method and wait for the device's answer; with `connectTimeoutInSeconds` for the device, too."""

    method_name: Annotated[str, AfterValidator(_whole(METHOD_NAME))]
    payload: Any = None
    response_timeout_in_seconds: Annotated[int, Field(ge=1, le=_METHOD_TIMEOUT_MAX_S)] = METHOD_TIMEOUT_S
    connect_timeout_in_seconds: Annotated[int, Field(ge=0, le=_METHOD_TIMEOUT_MAX_S)] = 0


class Disconnect(_Request):
    """Cut a device's connection."""

    reason: Annotated[str, Field(max_length=256)] = "an operator asked for it"


OperatorRequest = SendMessage | GetTwin | UpdateTwin | InvokeMethod | Disconnect

_BODIES: Final[Mapping[Operation, type[OperatorRequest]]] = {
    Operation.SEND: SendMessage,
    Operation.GET_TWIN: GetTwin,
    Operation.UPDATE_TWIN: UpdateTwin,
    Operation.INVOKE_METHOD: InvokeMethod,
    Operation.DISCONNECT: Disconnect,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorReply:
    """An answer; `body` has the result, or `error` with `errorCode` and `message`."""

    rid: str
    status: int
    body: Mapping[str, JSONValue]

    @property
    def error_message(self) -> str:
        """What was wrong, or empty."""
        error = self.body.get("error")
        return str(error.get("message", "")) if isinstance(error, dict) else ""


# --- access ----------------------------------------------------------------------------------------------------------


def may_publish(topic: str) -> bool:
    """Whether a topic is an operator's to publish to."""
    return topic.startswith(_REQUEST_PREFIX)


def may_subscribe(topic_filter: str) -> bool:
    """Whether an operator may listen there: what devices send, events, the status, and its own answers."""
    if not is_filter(topic_filter):
        return False
    levels = topic_filter.split("/")
    is_telemetry = levels[0] == "devices" and levels[2:4] == ["messages", "events"]
    known = topic_filter in (STATUS_TOPIC, RESPONSE_FILTER)
    return known or is_telemetry or topic_filter.startswith((EVENTS_PREFIX, _RESPONSE_PREFIX))


# --- requests and answers --------------------------------------------------------------------------------------------


def parse(message: Message) -> OperatorRequest:
    """Read a request.

    Raises:
        MalformedRequest: bad topic, JSON or members; its public message says which.
        UnknownOperation: there is no such operation.
    """
    topic = _REQUEST_TOPIC.fullmatch(message.topic)
    if topic is None:
        raise _malformed(f"{message.topic[:200]!r} is not {_REQUEST_PREFIX}{{op}}/{{rid}}")
    if topic["operation"] not in frozenset(Operation):
        raise UnknownOperation(f"operators cannot ask for {topic['operation']}")
    body = parse_json(message.payload)
    try:
        return _BODIES[Operation(topic["operation"])].model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _malformed(f"{where}: {first['msg']}" if where else first["msg"]) from error


def answer(topic: str, status: int, body: Mapping[str, JSONValue]) -> Message | None:
    """Answer the request that came on `topic`; None when there is nowhere to."""
    match = _REQUEST_TOPIC.fullmatch(topic)
    if match is None:
        return None
    return Message(
        topic=f"{_RESPONSE_PREFIX}{match['operation']}/{match['rid']}", payload=encode_json({"status": status, **body})
    )


def error_body(code: int, message: str) -> dict[str, JSONValue]:
    """The body of an answer that is a refusal."""
    return {"error": {"errorCode": code, "message": message}}


def request(rid: str, body: OperatorRequest) -> Message:
    """Ask."""
    operation = next(operation for operation, kind in _BODIES.items() if isinstance(body, kind))
    document = body.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return Message(topic=f"{_REQUEST_PREFIX}{operation}/{rid}", payload=encode_json(document))


def parse_answer(message: Message) -> OperatorReply | None:
    """Read an answer; None for any other message.

    Raises:
        MalformedRequest: it is none of this protocol's.
    """
    topic = _RESPONSE_TOPIC.fullmatch(message.topic)
    if topic is None:
        return None
    body = parse_json(message.payload)
    if not isinstance(body, dict) or not isinstance(body.get("status"), int):
        raise _malformed("the answer has no status")
    return OperatorReply(rid=topic["rid"], status=body.pop("status"), body=body)


# --- events ----------------------------------------------------------------------------------------------------------


def registration_event(registration_id: RegistrationId, decision: Decision, *, event: str) -> Message | None:
    """What operators hear of a decision; None for one that decides nothing, such as a poll."""
    audit = decision.audit
    if audit is None:
        return None
    return _registration_message(registration_id.text, audit, event=event, outcome=decision.outcome.value)


def assignment_event(registration: Registration, audit: AuditRecord) -> Message:
    """What operators hear when a registration that waited for its hub is finished."""
    own = replace(audit, actor="")  # no address of a device's: the service did this by itself
    return _registration_message(registration.registration_id, own, event=audit.event, outcome=audit.outcome)


def _registration_message(registration_id: str, audit: AuditRecord, *, event: str, outcome: str) -> Message:
    document = {
        "event": event,
        "registrationId": registration_id,
        "outcome": outcome,
        "errorCode": audit.code,
        "reason": audit.reason or None,
        "enrollmentType": audit.enrollment_kind.value if audit.enrollment_kind else None,
        "enrollmentId": audit.enrollment_id,
        "hub": audit.hub,
        "trackingId": audit.tracking_id,
        "remoteAddress": audit.actor or None,
        "timestampUtc": format_timestamp(audit.at),
    }
    body = {name: value for name, value in document.items() if value is not None}
    return Message(topic=f"{EVENTS_PREFIX}registration/{registration_id}", payload=encode_json(body))


def device_event(device_id: str, document: Mapping[str, JSONValue]) -> Message:
    """What operators hear of a device at its hub."""
    return Message(topic=f"{EVENTS_PREFIX}device/{device_id}", payload=encode_json({"deviceId": device_id, **document}))


def status_message(document: Mapping[str, JSONValue]) -> Message:
    """How the service is."""
    return Message(topic=STATUS_TOPIC, payload=encode_json(document))


def _malformed(reason: str) -> MalformedRequest:
    return MalformedRequest(reason, public=reason[:200])
