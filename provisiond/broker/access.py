"""Who may publish and subscribe where. Pure rules by role; what no rule allows is refused.

| role     | publishes                                       | subscribes                                  |
|----------|-------------------------------------------------|---------------------------------------------|
| dps      | anything under `$dps/`                          | `$dps/registrations/res/#`                  |
| native   | `provisiond/v1/{id}/req/{op}/{rid}`, its own id | `provisiond/v1/{id}/res/#`, or less of it   |
| iothub   | its own events, twin requests, method answers   | what its hub says to it                     |
| operator | `provisiond/v1/_operator/req/…`                 | telemetry, events, status, its answers      |

An operation that does not exist under `$dps/` is for the protocol to answer; a topic outside is not a request at all.
Delivery is by connection: who provisions hears its replies whether it subscribed or not, and a subscription decides
only the QoS; the others hear what they have subscribed to.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from provisiond.model import Connection, Role
from provisiond.protocols import iothub, operator
from provisiond.protocols.topic_filters import is_filter, matches

DPS_PREFIX: Final = "$dps/"
DPS_REPLY_FILTER: Final = "$dps/registrations/res/#"
REFUSED: Final = 0x80
"""SUBACK return code for a filter that is not granted (MQTT 3.1.1 3.9.3)."""
MAX_QOS: Final = 1
GRANTED_MAX: Final = 64
"""Filters that one connection may have at a time: an operator may choose among very many, a device has four."""

_PROVISIONING: Final = frozenset({Role.DPS, Role.NATIVE})


class Verdict(Enum):
    """What becomes of a PUBLISH."""

    DELIVER = auto()
    CLOSE = auto()


def judge_publish(connection: Connection, topic: str) -> Verdict:
    """Whether a PUBLISH of this connection is handed to the service or ends the connection.

    Args:
        connection: who publishes.
        topic: a topic name: not empty, no wildcards (MQTT-3.3.2-2).
    """
    match connection.role:
        case Role.DPS:
            allowed = topic.startswith(DPS_PREFIX)
        case Role.NATIVE:
            allowed = _is_native_request(connection, topic)
        case Role.IOTHUB:
            allowed = iothub.may_publish(connection.claimed_id.text, topic)
        case Role.OPERATOR:
            allowed = operator.may_publish(topic)
    return Verdict.DELIVER if allowed else Verdict.CLOSE


def judge_subscribe(connection: Connection, topic_filter: str, requested_qos: int) -> int:
    """The SUBACK return code: the granted QoS (QoS 2 is granted as 1) or `REFUSED`."""
    match connection.role:
        case Role.IOTHUB:
            allowed = topic_filter in iothub.own_filters(connection.claimed_id.text)
        case Role.OPERATOR:
            allowed = operator.may_subscribe(topic_filter)
        case Role.NATIVE:
            allowed = _is_within_own_replies(connection, topic_filter)
        case _:
            allowed = topic_filter == reply_filter(connection)
    return min(requested_qos, MAX_QOS) if allowed else REFUSED


def delivery_qos(connection: Connection, granted: Mapping[str, int], topic: str) -> int | None:
    """The QoS at which a message may go to this connection at the most; None when it has not asked for it.

    Args:
        connection: who is to hear it.
        granted: the filters that it was granted, with their QoS.
        topic: of the message.
    """
    if connection.role is Role.DPS:
        return granted.get(DPS_REPLY_FILTER, 0)
    if connection.role is Role.NATIVE:
        return max((qos for topic_filter, qos in granted.items() if matches(topic_filter, topic)), default=0)
    return max((qos for topic_filter, qos in granted.items() if matches(topic_filter, topic)), default=None)


def reply_filter(connection: Connection) -> str | None:
    """The filter that covers this connection's replies; None when its role has no replies."""
    match connection.role:
        case Role.DPS:
            return DPS_REPLY_FILTER
        case Role.NATIVE:
            return f"provisiond/v1/{connection.claimed_id}/res/#"
        case _:
            return None


def is_provisioning(role: Role) -> bool:
    """Whether connections of this role come only to be provisioned, and are closed when they idle."""
    return role in _PROVISIONING


def takes_over(role: Role) -> bool:
    """Whether a newer connection of the same id ends the older one.

    Only for roles that are authenticated at CONNECT: a provisioning connection proves its id later, so a stranger
    using a device's id must not cut the true device off.
    """
    return role not in _PROVISIONING


def _is_within_own_replies(connection: Connection, topic_filter: str) -> bool:
    """All replies, those to one operation, or one: what matches the filter begins with the device's own levels."""
    prefix = f"provisiond/v1/{connection.claimed_id}/res/"
    return topic_filter.startswith(prefix) and len(topic_filter) > len(prefix) and is_filter(topic_filter)


def _is_native_request(connection: Connection, topic: str) -> bool:
    prefix = f"provisiond/v1/{connection.claimed_id}/req/"
    if not topic.startswith(prefix):
        return False
    operation, slash, request_id = topic[len(prefix) :].partition("/")
    return bool(operation and slash and request_id) and "/" not in request_id
