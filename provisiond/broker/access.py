"""Who may publish and subscribe where. Pure rules by role; what no rule allows is refused.

| role           | publishes                                            | subscribes                            |
|----------------|------------------------------------------------------|---------------------------------------|
| dps            | anything under `$dps/registrations/`                 | `$dps/registrations/res/#`            |
| native         | `provisiond/v1/{id}/req/{op}/{rid}`, its own id      | `provisiond/v1/{id}/res/#`, its own id |
| iothub, operator | nothing                                            | nothing                               |

An operation that does not exist under `$dps/registrations/` is for the protocol to answer; a topic outside is not a
request at all. Delivery is by connection, never by matching filters, so a subscription decides only the QoS.
"""

from enum import Enum, auto
from typing import Final

from provisiond.model import Connection, Role

DPS_PREFIX: Final = "$dps/registrations/"
DPS_REPLY_FILTER: Final = "$dps/registrations/res/#"
REFUSED: Final = 0x80
"""SUBACK return code for a filter that is not granted (MQTT 3.1.1 3.9.3)."""
MAX_QOS: Final = 1

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
        case _:
            allowed = False
    return Verdict.DELIVER if allowed else Verdict.CLOSE


def judge_subscribe(connection: Connection, topic_filter: str, requested_qos: int) -> int:
    """The SUBACK return code: the granted QoS (QoS 2 is granted as 1) or `REFUSED`."""
    return min(requested_qos, MAX_QOS) if topic_filter == reply_filter(connection) else REFUSED


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


def _is_native_request(connection: Connection, topic: str) -> bool:
    prefix = f"provisiond/v1/{connection.claimed_id}/req/"
    if not topic.startswith(prefix):
        return False
    operation, slash, request_id = topic[len(prefix) :].partition("/")
    return bool(operation and slash and request_id) and "/" not in request_id
