"""Azure IoT Hub over MQTT: the topics of a device at its hub, both ends.

| what              | who publishes | topic                                                                        |
|-------------------|---------------|------------------------------------------------------------------------------|
| event             | device        | `devices/{id}/messages/events/{properties}`                                   |
| cloud message     | hub           | `devices/{id}/messages/devicebound/{properties}`                              |
| twin, get         | device        | `$iothub/twin/GET/?$rid={rid}`                                                |
| twin, report      | device        | `$iothub/twin/PATCH/properties/reported/?$rid={rid}[&$version={base}]`        |
| twin, reply       | hub           | `$iothub/twin/res/{status}/?$rid={rid}[&$version={version}]`                  |
| twin, desired     | hub           | `$iothub/twin/PATCH/properties/desired/?$version={version}`                   |
| method, call      | hub           | `$iothub/methods/POST/{name}/?$rid={rid}`                                     |
| method, answer    | device        | `$iothub/methods/res/{status}/?$rid={rid}`                                    |

Properties are `name=value` pairs joined by `&`, each part percent-encoded; names that begin with `$.` are the system's.
Device ids are never encoded. Some devices leave out the `/` before the `?`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from provisiond.errors import ConnectRefused, MalformedRequest
from provisiond.model import CloudMessage, ConnectAttempt, Connection, JSONValue, Message, RegistrationId, Role
from provisiond.protocols.json_body import encode_json
from provisiond.protocols.timestamps import format_timestamp

EVENT_MAX_SIZE_BYTES: Final = 256 * 1024
"""Of an event, its topic included, as Azure has it."""

CLOUD_MESSAGE_MAX_SIZE_BYTES: Final = 64 * 1024
METHOD_PAYLOAD_MAX_SIZE_BYTES: Final = 128 * 1024

SYSTEM_PROPERTIES: Final = {
    "messageId": "$.mid",
    "correlationId": "$.cid",
    "userId": "$.uid",
    "contentType": "$.ct",
    "contentEncoding": "$.ce",
    "outputName": "$.on",
    "to": "$.to",
    "expiryTimeUtc": "$.exp",
    "creationTimeUtc": "$.ctime",
}
"""The system's properties by their names in JSON."""

DEVICE_ID: Final = re.compile(r"[A-Za-z0-9\-._:=@,()!'*]{1,128}", re.ASCII)
"""Azure's device ids without what means something in a topic, a user name or a URL."""

METHOD_NAME: Final = re.compile(r"[A-Za-z0-9\-._~!*'+&^`|#%]{1,100}", re.ASCII)
"""What Azure allows: printable ASCII that separates nothing."""

_TWIN_GET: Final = "$iothub/twin/GET/"
_TWIN_REPORT: Final = "$iothub/twin/PATCH/properties/reported/"
_TWIN_REPLY: Final = "$iothub/twin/res/"
_TWIN_DESIRED: Final = "$iothub/twin/PATCH/properties/desired/"
_METHOD_CALL: Final = "$iothub/methods/POST/"
_METHOD_ANSWER: Final = "$iothub/methods/res/"

_RID_MAX_LENGTH: Final = 256
_NUMBER: Final = re.compile(r"[0-9]{1,15}", re.ASCII)
_STATUS: Final = re.compile(r"-?[0-9]{1,9}", re.ASCII)


# --- CONNECT ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class UserName:
    """The user name of a device at its hub: `{host}/{deviceId}/?api-version=…&DeviceClientType=…`."""

    host: str
    device_id: str
    api_version: str = ""
    client_version: str = ""


def is_hub_user_name(user_name: str | None) -> bool:
    """Whether a CONNECT's user name asks for the hub: two parts, and at most parameters after them."""
    parts = (user_name or "").split("/", 2)
    has_parameters = len(parts) == 3 and parts[2].startswith(("?", "api-version="))
    return len(parts) >= 2 and all(parts[:2]) and (len(parts) == 2 or not parts[2] or has_parameters)


def format_user_name(user_name: UserName) -> str:
    """Write a user name, as the SDKs do."""
    client_type = quote(user_name.client_version, safe="")
    return f"{user_name.host}/{user_name.device_id}/?api-version={user_name.api_version}&DeviceClientType={client_type}"


def parse_user_name(text: str) -> UserName:
    """Read a user name for which `is_hub_user_name` holds. Some devices leave the parameters out.

    Raises:
        ConnectRefused: the device id cannot be one.
    """
    host, device_id, parameters = (*text.split("/", 2), "")[:3]
    if DEVICE_ID.fullmatch(device_id) is None:
        raise ConnectRefused(f"device id {device_id[:140]!r} of the user name cannot be one", return_code=2)
    values = parse_properties(parameters.removeprefix("?"))
    return UserName(
        host=host[:255],
        device_id=device_id,
        api_version=values.get("api-version", "")[:64],
        client_version=values.get("DeviceClientType", "")[:256],
    )


def claim(attempt: ConnectAttempt) -> Connection:
    """Read a CONNECT to the hub: consistent, and nothing proved.

    Raises:
        ConnectRefused: a user name that cannot be one, a client id that is not its device id, or a password that is
            not text.
    """
    user_name = parse_user_name(attempt.username or "")
    if attempt.client_id != user_name.device_id:
        raise ConnectRefused(f"client id {attempt.client_id[:140]!r} is not device id {user_name.device_id}")
    try:
        password = attempt.password.decode("utf-8") if attempt.password else None
    except UnicodeDecodeError as error:
        raise ConnectRefused("password is not text") from error
    return Connection(
        connection_id=attempt.connection_id,
        role=Role.IOTHUB,
        claimed_id=RegistrationId(user_name.device_id),
        listener=attempt.listener,
        remote_address=attempt.remote_address,
        unverified_chain=attempt.unverified_chain,
        sas_token=password,
        api_version=user_name.api_version,
        client_version=user_name.client_version,
    )


# --- what a device may do --------------------------------------------------------------------------------------------


def own_filters(device_id: str) -> frozenset[str]:
    """Everything a device may subscribe to."""
    return frozenset(
        {
            f"devices/{device_id}/messages/devicebound/#",
            f"{_TWIN_REPLY}#",
            f"{_TWIN_DESIRED}#",
            f"{_METHOD_CALL}#",
        }
    )


def may_publish(device_id: str, topic: str) -> bool:
    """Whether a topic is the device's to publish to."""
    twin_or_method = topic.startswith(("$iothub/twin/GET/", "$iothub/twin/PATCH/properties/reported/", _METHOD_ANSWER))
    return twin_or_method or topic.startswith(f"devices/{device_id}/messages/events/")


# --- device to hub ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A device-to-cloud message; `properties` decoded, `$.` names are the system's."""

    properties: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinGet:
    """The device wants its twin."""

    rid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinReport:
    """The device patches its reported properties; `base_version` is the version they must have now, or None."""

    rid: str
    base_version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodAnswer:
    """The device answers a direct method; `status` is its own."""

    rid: str
    status: int


HubRequest = Event | TwinGet | TwinReport | MethodAnswer


def parse(device_id: str, topic: str) -> HubRequest:
    """Read the topic of a PUBLISH that `may_publish` allows.

    Raises:
        MalformedRequest: it is none of a hub's.
    """
    events = f"devices/{device_id}/messages/events/"
    if topic.startswith(events):
        return Event(properties=parse_properties(topic.removeprefix(events).removesuffix("/")))
    path, _, query = topic.partition("?")
    parameters = parse_properties(query)
    rid = _request_id(parameters)
    if path == _TWIN_GET:
        return TwinGet(rid=rid)
    if path == _TWIN_REPORT:
        return TwinReport(rid=rid, base_version=_number(parameters.get("$version")))
    status = path.removeprefix(_METHOD_ANSWER).removesuffix("/")
    if path.startswith(_METHOD_ANSWER) and _STATUS.fullmatch(status):
        return MethodAnswer(rid=rid, status=int(status))
    raise MalformedRequest(f"a hub has no {topic[:200]!r}")


def event_topic(device_id: str, properties: Mapping[str, str]) -> str:
    """Where an event is published, and where the hub's consumers hear it."""
    return f"devices/{device_id}/messages/events/{format_properties(properties)}"


def twin_get(rid: str) -> Message:
    """Ask for the twin."""
    return Message(topic=f"{_TWIN_GET}?$rid={quote(rid, safe='')}", payload=b"", qos=0)


def twin_report(rid: str, patch: Mapping[str, JSONValue]) -> Message:
    """Patch the reported properties."""
    return Message(topic=f"{_TWIN_REPORT}?$rid={quote(rid, safe='')}", payload=encode_json(patch), qos=0)


def method_answer(rid: str, status: int, payload: JSONValue) -> Message:
    """Answer a direct method."""
    return Message(topic=f"{_METHOD_ANSWER}{status}/?$rid={quote(rid, safe='')}", payload=encode_json(payload), qos=0)


# --- hub to device ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinReply:
    """How a twin request ended; `version` of the reported properties, after a report."""

    rid: str
    status: int
    version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredPatch:
    """The desired properties have changed."""

    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodCall:
    """A direct method to answer."""

    name: str
    rid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudMessageArrival:
    """A cloud-to-device message; `properties` decoded, `$.` names are the system's."""

    properties: Mapping[str, str]


HubMessage = TwinReply | DesiredPatch | MethodCall | CloudMessageArrival


def twin_reply(rid: str, status: int, *, body: JSONValue = None, version: int | None = None) -> Message:
    """Answer a twin request, at QoS 0 as its questions come; a report that went well has no body."""
    suffix = "" if version is None else f"&$version={version}"
    payload = b"" if body is None else encode_json(body)
    return Message(topic=f"{_TWIN_REPLY}{status}/?$rid={quote(rid, safe='')}{suffix}", payload=payload, qos=0)


def desired_patch(patch: Mapping[str, JSONValue], version: int) -> Message:
    """Tell a device what has changed of its desired properties."""
    return Message(topic=f"{_TWIN_DESIRED}?$version={version}", payload=encode_json({**patch, "$version": version}))


def method_call(name: str, rid: str, payload: JSONValue) -> Message:
    """Call a direct method."""
    return Message(
        topic=f"{_METHOD_CALL}{quote(name, safe='')}/?$rid={quote(rid, safe='')}", payload=encode_json(payload), qos=0
    )


def cloud_message(device_id: str, message: CloudMessage) -> Message:
    """Deliver a cloud-to-device message."""
    properties = {
        "$.mid": message.message_id,
        "$.to": f"/devices/{device_id}/messages/devicebound",
        "$.exp": format_timestamp(message.expires_at),
        **message.properties,
    }
    topic = f"devices/{device_id}/messages/devicebound/{format_properties(properties)}"
    return Message(topic=topic, payload=message.payload)


def parse_hub_message(device_id: str, topic: str) -> HubMessage:
    """Read the topic of what a hub publishes to a device.

    Raises:
        MalformedRequest: it is none of a hub's.
    """
    cloud = f"devices/{device_id}/messages/devicebound/"
    if topic.startswith(cloud):
        return CloudMessageArrival(properties=parse_properties(topic.removeprefix(cloud)))
    path, _, query = topic.partition("?")
    parameters = parse_properties(query)
    version = _number(parameters.get("$version"))
    if path == _TWIN_DESIRED and version is not None:
        return DesiredPatch(version=version)
    status = path.removeprefix(_TWIN_REPLY).removesuffix("/")
    if path.startswith(_TWIN_REPLY) and _STATUS.fullmatch(status):
        return TwinReply(rid=_request_id(parameters), status=int(status), version=version)
    name = unquote(path.removeprefix(_METHOD_CALL).removesuffix("/"))
    if path.startswith(_METHOD_CALL) and METHOD_NAME.fullmatch(name):
        return MethodCall(name=name, rid=_request_id(parameters))
    raise MalformedRequest(f"a hub says nothing at {topic[:200]!r}")


# --- properties ------------------------------------------------------------------------------------------------------


def parse_properties(text: str) -> dict[str, str]:
    """Decode `name=value&…`; a name alone has an empty value, and of a name that occurs twice the last value counts."""
    pairs = (part.partition("=") for part in text.split("&") if part)
    return {unquote(name): unquote(value) for name, _, value in pairs}


def format_properties(properties: Mapping[str, str]) -> str:
    """Encode `name=value&…`; safe as one level of a topic."""
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in properties.items() if name)


def _request_id(parameters: Mapping[str, str]) -> str:
    rid = parameters.get("$rid", "")
    if not rid or len(rid) > _RID_MAX_LENGTH or not rid.isascii() or not rid.isprintable():
        raise MalformedRequest("$rid is missing, too long or not printable")
    return rid


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if _NUMBER.fullmatch(text) is None:
        raise MalformedRequest("$version is not a number")
    return int(text)
