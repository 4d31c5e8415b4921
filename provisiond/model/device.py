"""Devices at the embedded hub."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from provisiond.model.json_value import JSONValue


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTwin:
    """What a hub and its device know of each other (Azure IoT Hub device twins).

    Args:
        device_id: at the hub.
        tags: for operators; the device never sees them.
        desired: what operators want of the device.
        reported: what the device says it is.
        version: +1 at every change; the etag is made of it.
        desired_version, reported_version: +1 at every change of that part.
        updated_at: aware UTC.
    """

    device_id: str
    tags: Mapping[str, JSONValue] = field(default_factory=dict)
    desired: Mapping[str, JSONValue] = field(default_factory=dict)
    reported: Mapping[str, JSONValue] = field(default_factory=dict)
    version: int = 1
    desired_version: int = 1
    reported_version: int = 1
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePresence:
    """Whether a device is connected to the embedded hub, and when it was last heard.

    Args:
        device_key: lower-case device id.
        changed_at: when it connected, or went; aware UTC, whole seconds.
        last_seen_at: when it last sent anything; aware UTC, whole seconds.
    """

    device_key: str
    connected: bool
    changed_at: datetime
    last_seen_at: datetime
    remote_address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudMessage:
    """A cloud-to-device message.

    Args:
        message_id: 1 to 128 characters.
        payload: any octets.
        properties: the message's own properties, as text; `$.` names are the system's.
        expires_at: not delivered from then on; aware UTC.
        sequence: its place in the queue, 0 until it is there.
        deliveries: how often it was sent.
    """

    message_id: str
    payload: bytes
    properties: Mapping[str, str] = field(default_factory=dict)
    expires_at: datetime
    sequence: int = 0
    deliveries: int = 0
