"""Device twins: what may be in one, how a patch changes it, and how devices and operators see it.

A patch is merged (RFC 7396): objects member by member, null removes a member, anything else, arrays too, is replaced.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from provisiond.errors import EtagMismatch, MalformedRequest
from provisiond.model import DeviceTwin, InitialTwin, JSONValue
from provisiond.protocols.json_body import parse_json
from provisiond.protocols.timestamps import format_timestamp

Change = Callable[[DeviceTwin], DeviceTwin]
"""Makes of a twin what it is to be."""

PART_MAX_SIZE_BYTES: Final = 32 * 1024
"""Of tags, of desired and of reported properties, each as compact JSON: what Azure IoT Hub keeps of the latter two."""

_DEPTH_MAX: Final = 10
_NAME_MAX_SIZE_BYTES: Final = 1024
_TEXT_MAX_SIZE_BYTES: Final = 4096
_INTEGER_MAX: Final = 2**52
"""The limits of Azure IoT Hub, so that what a twin takes here it takes there."""

_BOOKKEEPING: Final = ("$version", "$metadata")
"""Ours; tools send them back with what they have read."""

_SEPARATORS: Final = frozenset(". $")


def new_twin(device_id: str, initial: InitialTwin | None, *, now: datetime) -> DeviceTwin:
    """The twin that a device starts with."""
    initial = initial or InitialTwin()
    return DeviceTwin(
        device_id=device_id,
        tags=_merged({}, clean_patch(initial.tags)),
        desired=_merged({}, clean_patch(initial.desired)),
        updated_at=now,
    )


def check_initial(initial: InitialTwin) -> None:
    """See that a twin may start like this.

    Raises:
        MalformedRequest: it is beyond what a twin may hold.
    """
    _patched("tags", {}, initial.tags)
    _patched("desired properties", {}, initial.desired)


def parse_patch(payload: bytes) -> Mapping[str, JSONValue]:
    """Read a patch.

    Raises:
        MalformedRequest: not I-JSON, or no object.
    """
    patch = parse_json(payload)
    if not isinstance(patch, dict):
        raise _refused("a twin patch is a JSON object")
    return patch


def report(
    twin: DeviceTwin, patch: Mapping[str, JSONValue], *, now: datetime, base_version: int | None = None
) -> DeviceTwin:
    """Patch the reported properties.

    Args:
        twin: as it is.
        patch: from the device.
        now: aware UTC.
        base_version: what the reported properties' version must be, or None.

    Raises:
        MalformedRequest: the patch, or what it would make, is not allowed.
        EtagMismatch: the version is another.
    """
    if base_version not in (None, twin.reported_version):
        raise EtagMismatch(f"the reported properties are at version {twin.reported_version}, not {base_version}")
    return replace(
        twin,
        reported=_patched("reported properties", twin.reported, patch),
        reported_version=twin.reported_version + 1,
        version=twin.version + 1,
        updated_at=now,
    )


def update(
    twin: DeviceTwin,
    *,
    now: datetime,
    tags: Mapping[str, JSONValue] | None = None,
    desired: Mapping[str, JSONValue] | None = None,
    if_match: str | None = None,
) -> DeviceTwin:
    """Patch tags and desired properties, for an operator.

    Args:
        twin: as it is.
        now: aware UTC.
        tags: patch; None changes nothing.
        desired: patch; None changes nothing.
        if_match: the etag that the twin must have, None or `*` for any.

    Raises:
        MalformedRequest: a patch, or what it would make, is not allowed.
        EtagMismatch: the twin has another etag.
    """
    if if_match not in (None, "*", etag(twin)):
        raise EtagMismatch(f"the twin of {twin.device_id} has changed: its etag is {etag(twin)} now")
    if tags is not None:
        twin = replace(twin, tags=_patched("tags", twin.tags, tags))
    if desired is not None:
        desired = _patched("desired properties", twin.desired, desired)
        twin = replace(twin, desired=desired, desired_version=twin.desired_version + 1)
    return replace(twin, version=twin.version + 1, updated_at=now)


def etag(twin: DeviceTwin) -> str:
    """Changes whenever the twin does."""
    return f'"{twin.version}"'


def clean_patch(patch: Mapping[str, JSONValue]) -> dict[str, JSONValue]:
    """A patch without what is ours to keep."""
    return {name: value for name, value in patch.items() if name not in _BOOKKEEPING}


def device_view(twin: DeviceTwin) -> dict[str, JSONValue]:
    """What a device gets to see."""
    return {
        "desired": {**twin.desired, "$version": twin.desired_version},
        "reported": {**twin.reported, "$version": twin.reported_version},
    }


def operator_view(twin: DeviceTwin) -> dict[str, JSONValue]:
    """What an operator gets to see, shaped as the Azure service API shapes it."""
    return {
        "deviceId": twin.device_id,
        "etag": etag(twin),
        "version": twin.version,
        "lastUpdatedDateTimeUtc": format_timestamp(twin.updated_at),
        "tags": dict(twin.tags),
        "properties": device_view(twin),
    }


def _patched(what: str, current: Mapping[str, Any], patch: Mapping[str, Any]) -> Mapping[str, Any]:
    patch = clean_patch(patch)
    _check(what, patch)
    merged = _merged(current, patch)
    size_bytes = len(json.dumps(merged, separators=(",", ":"), ensure_ascii=False).encode())
    if size_bytes > PART_MAX_SIZE_BYTES:
        raise _refused(f"{what}: {size_bytes} bytes of JSON; there may be {PART_MAX_SIZE_BYTES}")
    return merged


def _merged(current: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7396; as deep as the patch, whose depth is bounded."""
    merged = dict(current)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping):
            below = merged.get(name)
            merged[name] = _merged(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[name] = value
    return merged


def _check(what: str, value: JSONValue, depth: int = 0) -> None:
    if depth > _DEPTH_MAX:
        raise _refused(f"{what}: nested more than {_DEPTH_MAX} deep")
    match value:
        case dict():
            for name, below in value.items():
                _check_name(what, name)
                _check(what, below, depth + 1)
        case list():
            for below in value:
                _check(what, below, depth + 1)
        case str() if len(value.encode()) > _TEXT_MAX_SIZE_BYTES:
            raise _refused(f"{what}: a text has more than {_TEXT_MAX_SIZE_BYTES} bytes")
        case bool() | str() | float() | None:
            pass
        case int() if abs(value) > _INTEGER_MAX:
            raise _refused(f"{what}: an integer is beyond 2**52")


def _check_name(what: str, name: str) -> None:
    if not name or len(name.encode()) > _NAME_MAX_SIZE_BYTES or not name.isprintable() or set(name) & _SEPARATORS:
        raise _refused(f"{what}: {name[:64]!r} cannot be a name: it is empty, too long, or holds '.', '$' or a space")


def _refused(reason: str) -> MalformedRequest:
    return MalformedRequest(reason, public=reason[:200])
