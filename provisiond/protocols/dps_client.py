"""Azure DPS over MQTT, the device's half: `$dps` requests to publish, replies to read.

The service's half, and the table of topics, is in `dps`. On purpose the two share the topic prefix and the JSON codec
and nothing else: each is written from the protocol, so that a misreading of one is caught by the other.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from provisiond.errors import MalformedRequest, ProvisiondError
from provisiond.model import JSONValue
from provisiond.protocols.dps import RESPONSE_FILTER, TOPIC_PREFIX
from provisiond.protocols.json_body import encode_json, parse_json

__all__ = [
    "API_VERSION",
    "MAX_REPLY_SIZE_BYTES",
    "RESPONSE_FILTER",
    "ClientReply",
    "MalformedReply",
    "parse_reply",
    "poll_topic",
    "register_payload",
    "register_topic",
    "user_name",
]

API_VERSION: Final = "2019-03-31"
"""What nearly every Azure device SDK sends."""

MAX_REPLY_SIZE_BYTES: Final = 96 * 1024
"""The largest message of the service (Azure DPS quotas)."""

_REPLY_TOPIC: Final = re.compile(
    re.escape(TOPIC_PREFIX) + r"res/(?P<status>[1-5][0-9]{2})/\?\$rid=(?P<rid>[^&]{0,256})(?P<rest>(?:&[^&]*){0,16})",
    re.ASCII,
)
_RETRY_AFTER: Final = re.compile(r"[0-9]{1,6}", re.ASCII)


class MalformedReply(ProvisiondError):
    """What arrived is not a reply of this protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientReply:
    """A reply of the provisioning service.

    Args:
        status: HTTP-like, 100 to 599.
        rid: request id that is echoed.
        retry_after_s: whole seconds until the next request is welcome; None when the reply does not say.
        body: the JSON object, empty when the reply has none.
    """

    status: int
    rid: str
    retry_after_s: int | None
    body: Mapping[str, Any]

    @property
    def operation_id(self) -> str:
        """What polls name; empty when there is none."""
        return _text(self.body, "operationId")

    @property
    def status_text(self) -> str:
        """`assigning`, `assigned`, `failed`, `disabled`; empty in an error."""
        return _text(self.body, "status")

    @property
    def registration_state(self) -> Mapping[str, Any]:
        """The `registrationState` object, empty when there is none."""
        return _object(self.body, "registrationState")

    @property
    def challenge(self) -> bytes | None:
        """The `authenticationKey` blob of a TPM challenge (status 401), None in any other reply.

        Raises:
            MalformedReply: it is not base64.
        """
        return _octets(self.body, "authenticationKey") if self.status == 401 else None

    @property
    def key_name(self) -> str:
        """`skn` for the token that answers a TPM challenge."""
        return _text(self.body, "keyName") or "registration"

    @property
    def hub_key(self) -> bytes | None:
        """The `authenticationKey` blob that carries a TPM device's hub key, None when there is none.

        Raises:
            MalformedReply: it is not base64.
        """
        return _octets(_object(self.registration_state, "tpm"), "authenticationKey")

    @property
    def message(self) -> str:
        """What the service says went wrong; empty when it says nothing."""
        return _text(self.body, "message") or _text(self.registration_state, "errorMessage")


def user_name(id_scope: str, registration_id: str, *, client_version: str) -> str:
    """User name of the CONNECT; the client id is the registration id. There is no `?` in it."""
    return (
        f"{id_scope}/registrations/{registration_id}/api-version={API_VERSION}"
        f"&ClientVersion={quote(client_version, safe='')}"
    )


def register_topic(rid: str) -> str:
    """Where to publish a registration."""
    return f"{TOPIC_PREFIX}PUT/iotdps-register/?$rid={rid}"


def poll_topic(rid: str, operation_id: str) -> str:
    """Where to ask how an operation is doing."""
    return f"{TOPIC_PREFIX}GET/iotdps-get-operationstatus/?$rid={rid}&operationId={quote(operation_id, safe='')}"


def register_payload(registration_id: str, *, payload: JSONValue = None, **members: JSONValue) -> bytes:
    """Body of a registration; `members` are further top-level ones, such as `tpm` and `authorization`.

    Raises:
        ValueError: the payload is not JSON.
    """
    body: dict[str, JSONValue] = {"registrationId": registration_id, **members}
    if payload is not None:
        body["payload"] = payload
    return encode_json(body)


def parse_reply(topic: str, payload: bytes) -> ClientReply:
    """Read a message on `$dps/registrations/res/#`.

    Args:
        topic: `$dps/registrations/res/{status}/?$rid={rid}[&retry-after={seconds}]`.
        payload: a JSON object of at most MAX_REPLY_SIZE_BYTES, or empty.

    Raises:
        MalformedReply: anything else.
    """
    match = _REPLY_TOPIC.fullmatch(topic)
    if match is None:
        raise MalformedReply(f"{topic[:200]!r} is not the topic of a reply")
    return ClientReply(
        status=int(match["status"]),
        rid=match["rid"],
        retry_after_s=_parse_retry_after(match["rest"]),
        body=_parse_body(payload),
    )


def _parse_retry_after(parameters: str) -> int | None:
    for parameter in parameters.split("&"):
        name, _, value = parameter.partition("=")
        if name == "retry-after":
            if _RETRY_AFTER.fullmatch(value) is None:
                raise MalformedReply(f"retry-after {value[:40]!r} is not a number of seconds")
            return int(value)
    return None


def _parse_body(payload: bytes) -> Mapping[str, Any]:
    if len(payload) > MAX_REPLY_SIZE_BYTES:
        raise MalformedReply(f"the reply has {len(payload)} bytes")
    if not payload.strip():
        return {}
    try:
        body = parse_json(payload)
    except MalformedRequest as error:
        raise MalformedReply(str(error)) from error
    if not isinstance(body, dict):
        raise MalformedReply("the reply is not a JSON object")
    return body


def _text(value: Mapping[str, Any], name: str) -> str:
    member = value.get(name)
    return member if isinstance(member, str) else ""


def _object(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    member = value.get(name)
    return member if isinstance(member, dict) else {}


def _octets(value: Mapping[str, Any], name: str) -> bytes | None:
    text = _text(value, name)
    if not text:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedReply(f"{name} is not base64") from error
