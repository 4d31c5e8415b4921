"""The native topics, both ends.

| who publishes | topic                                             |
|---------------|---------------------------------------------------|
| device        | `provisiond/v1/{registrationId}/req/{op}/{rid}`    |
| service       | `provisiond/v1/{registrationId}/res/{op}/{rid}`    |

`op`: `register`, `answer` or `status`.
`rid`: the device's own, 1 to 128 of `A-Z a-z 0-9 - . _ ~ : @ =`, echoed as it came.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from provisiond.errors import MalformedRequest, UnknownOperation
from provisiond.model import RegistrationId

TOPIC_PREFIX: Final = "provisiond/v1/"

REQUEST_FILTER: Final = "provisiond/v1/+/req/#"
"""Every request; what the service subscribes to at a broker of somebody else's."""

RESERVED_IDS: Final = frozenset({"_events", "_operator", "_status"})
"""Levels beside those of devices, which no device may have for its own."""

REQUEST_ID_MAX_LENGTH: Final = 128
"""Room for two UUIDs; an echo need not be a way to make us send kilobytes."""

_RESPONSE_TOPIC_MAX_LENGTH: Final = 512
_REQUEST_ID: Final = re.compile(rf"[A-Za-z0-9\-._~:@=]{{1,{REQUEST_ID_MAX_LENGTH}}}", re.ASCII)
_OPERATION: Final = re.compile(r"[A-Za-z][A-Za-z0-9\-]{0,31}", re.ASCII)
_UNECHOABLE: Final = "invalid"


class Operation(StrEnum):
    """What a device can ask for."""

    REGISTER = "register"
    ANSWER = "answer"
    STATUS = "status"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTopic:
    """A request's topic, taken apart and found sound."""

    claimed_id: RegistrationId
    operation: Operation
    rid: str


def request_topic(registration_id: RegistrationId, operation: Operation, rid: str) -> str:
    """Where a device publishes a request.

    Raises:
        ValueError: the request id cannot be a topic level of this protocol.
    """
    if not _is_request_id(rid):
        raise ValueError(f"request id {rid[:140]!r} is not 1 to {REQUEST_ID_MAX_LENGTH} of A-Z a-z 0-9 - . _ ~ : @ =")
    return f"{TOPIC_PREFIX}{registration_id}/req/{operation}/{rid}"


def response_filter(registration_id: RegistrationId) -> str:
    """What a device subscribes to before it publishes."""
    return f"{TOPIC_PREFIX}{registration_id}/res/#"


def parse_request_topic(topic: str) -> RequestTopic:
    """Take the topic of a request apart.

    Raises:
        MalformedRequest: not a request's topic, or a registration id or request id that cannot be one.
        UnknownOperation: the operation is none of `Operation`.
    """
    levels = _request_levels(topic)
    if levels is None:
        raise MalformedRequest(f"{topic[:200]!r} is not provisiond/v1/{{registrationId}}/req/{{op}}/{{rid}}")
    claimed_id, operation, rid = parse_claimed_id(levels[0]), levels[1], levels[2]
    if not _is_request_id(rid):
        raise MalformedRequest(f"request id {rid[:140]!r} cannot be echoed", public="Request id is malformed")
    if operation not in frozenset(Operation):
        raise UnknownOperation(f"no operation {operation[:64]!r}")
    return RequestTopic(claimed_id=claimed_id, operation=Operation(operation), rid=rid)


def parse_claimed_id(text: str) -> RegistrationId:
    """A registration id that a device may have on these topics.

    Raises:
        MalformedRequest: it is not one, or it is one of `RESERVED_IDS`.
    """
    claimed_id = RegistrationId.parse(text)
    if claimed_id.key in RESERVED_IDS:
        raise MalformedRequest(f"registration id {claimed_id} is reserved", public="Registration id is reserved")
    return claimed_id


def claimed_id_of(topic: str) -> RegistrationId | None:
    """Who a topic says it belongs to; None when that can be no device."""
    levels = topic.removeprefix(TOPIC_PREFIX).split("/", 1)
    try:
        return parse_claimed_id(levels[0]) if topic.startswith(TOPIC_PREFIX) else None
    except MalformedRequest:
        return None


def parse_reply_topic(topic: str, registration_id: RegistrationId) -> str | None:
    """The request id that a reply's topic repeats; None when it is no reply to this device."""
    levels = topic.split("/")
    if len(levels) != 6 or levels[:4] != f"{TOPIC_PREFIX}{registration_id}/res".split("/"):
        return None
    return levels[5]


def reply_topic(topic: str) -> str | None:
    """Where the answer to a request goes, whatever is wrong with it.

    A level that cannot be echoed is answered as `invalid`, still under the device's own `res/`.

    Args:
        topic: of the request.

    Returns:
        None when the topic names no registration id to answer to.
    """
    prefix, _, rest = topic.partition("/req/")
    claimed_id = claimed_id_of(prefix)
    if claimed_id is None or prefix != f"{TOPIC_PREFIX}{claimed_id}":
        return None
    operation, _, rid = rest.partition("/")
    shown_operation = operation if _OPERATION.fullmatch(operation) else _UNECHOABLE
    return f"{TOPIC_PREFIX}{claimed_id}/res/{shown_operation}/{rid if _is_request_id(rid) else _UNECHOABLE}"


def own_response_topic(response_topic: str | None, registration_id: RegistrationId) -> str | None:
    """The response topic that an MQTT 5 request asks for, when it may have it (MQTT 5 3.3.2.3.5).

    Args:
        response_topic: property of the PUBLISH.
        registration_id: who asks.

    Returns:
        None unless it is a topic name inside the device's own `res/`: then the reply goes where it always does.
    """
    if response_topic is None or len(response_topic) > _RESPONSE_TOPIC_MAX_LENGTH or not response_topic.isascii():
        return None
    own = f"{TOPIC_PREFIX}{registration_id}/res/"
    inside = response_topic.startswith(own) and len(response_topic) > len(own)
    safe = response_topic.isprintable() and not set("+#") & set(response_topic)
    return response_topic if inside and safe else None


def _request_levels(topic: str) -> tuple[str, str, str] | None:
    levels = topic.removeprefix(TOPIC_PREFIX).split("/", 4)
    if not topic.startswith(TOPIC_PREFIX) or len(levels) != 4 or levels[1] != "req":
        return None
    return levels[0], levels[2], levels[3]


def _is_request_id(rid: str) -> bool:
    return _REQUEST_ID.fullmatch(rid) is not None
