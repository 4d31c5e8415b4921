"""A device at its hub as JSON, in the names of the Azure IoT Hub service API."""

from collections.abc import Sequence
from typing import Any

from provisiond.model import DevicePresence, Enrollment, Registration, Retirement
from provisiond.protocols.timestamps import format_timestamp


def device_to_json(
    registration: Registration,
    *,
    enrollment: Enrollment | None,
    presence: DevicePresence | None,
    running: bool,
    watched: bool = True,
    departures: Sequence[Retirement] = (),
) -> dict[str, Any]:
    """Write a device.

    Args:
        registration: its identity.
        enrollment: what lets it in now; None when that is gone.
        presence: of a device that has ever connected to the embedded hub.
        running: whether there is a service that it could be connected to.
        departures: what it still has at hubs that it has moved from.
        watched: whether its hub is the embedded one; of the others it is not known who is connected.
    """
    if not watched:
        presence = None  # of the time when it was at the embedded hub
    connected = running and presence is not None and presence.connected
    state = "Connected" if connected else "Disconnected"
    fields = {
        "deviceId": registration.device_id,
        "registrationId": registration.registration_id,
        "hub": registration.hub,
        "assignedHub": registration.assigned_host,
        "status": "enabled" if enrollment is not None and enrollment.enabled else "disabled",
        "statusReason": None if enrollment is not None else "its enrollment is gone",
        "registrationStatus": registration.status.value,
        "attestation": registration.attestation_type.value,
        "enrollmentGroupId": registration.enrollment_id if registration.enrollment_kind == "group" else None,
        "connectionState": state if watched else "Unknown",
        "connectionStateUpdatedTime": presence and format_timestamp(presence.changed_at),
        "lastActivityTime": presence and format_timestamp(presence.last_seen_at),
        "remoteAddress": presence and presence.remote_address,
        "leaving": [departure_to_json(departure) for departure in departures] or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def departure_to_json(departure: Retirement) -> dict[str, Any]:
    """Write what a device still has at a hub that it has moved from, and until when."""
    return {
        "hub": departure.hub,
        "until": format_timestamp(departure.due_at),
        "orOnceSeenAtItsNewHub": departure.grace_s > 0,
        "reason": departure.reason,
    }
