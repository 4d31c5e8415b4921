"""The registration machine: every state, every event, one table. Rule: nothing else changes a registration's status.

| from, event  | PLACED   | RESERVED  | CONFIRMED | HUB_REFUSED | KEPT      | REVOKED  |
|--------------|----------|-----------|-----------|-------------|-----------|----------|
| unassigned   | assigned | assigning |           |             |           |          |
| assigning    | assigned | assigning | assigned  | failed      | assigning | disabled |
| assigned     | assigned | assigning |           |             | assigned  | disabled |
| failed       | assigned | assigning |           |             |           | disabled |
| disabled     | assigned | assigning |           |             |           | disabled |

`unassigned` is a registration without a record. `disabled` says that the identity was taken from the hub; what keeps
the device out is its enrollment, and when that is enabled again, the device comes back by asking.
"""

from enum import Enum, auto
from typing import Final

from provisiond.errors import ServerFault
from provisiond.model import RegistrationStatus


class Event(Enum):
    """What can happen to a registration."""

    PLACED = auto()
    """Allocated to a hub that needs no call: the record itself is the identity there."""
    RESERVED = auto()
    """Allocated to a hub that has to be called first; the row is the outbox."""
    CONFIRMED = auto()
    """The hub has the identity."""
    HUB_REFUSED = auto()
    """The hub will never take it."""
    KEPT = auto()
    """The device asked again and nothing changes."""
    REVOKED = auto()
    """An operator took the identity from the hub."""


_UNASSIGNED: Final = RegistrationStatus.UNASSIGNED
_ASSIGNING: Final = RegistrationStatus.ASSIGNING
_ASSIGNED: Final = RegistrationStatus.ASSIGNED
_FAILED: Final = RegistrationStatus.FAILED
_DISABLED: Final = RegistrationStatus.DISABLED

TRANSITIONS: Final = {
    (_UNASSIGNED, Event.PLACED): _ASSIGNED,
    (_UNASSIGNED, Event.RESERVED): _ASSIGNING,
    (_ASSIGNING, Event.PLACED): _ASSIGNED,
    (_ASSIGNING, Event.RESERVED): _ASSIGNING,
    (_ASSIGNING, Event.CONFIRMED): _ASSIGNED,
    (_ASSIGNING, Event.HUB_REFUSED): _FAILED,
    (_ASSIGNING, Event.KEPT): _ASSIGNING,
    (_ASSIGNED, Event.PLACED): _ASSIGNED,
    (_ASSIGNED, Event.RESERVED): _ASSIGNING,
    (_ASSIGNED, Event.KEPT): _ASSIGNED,
    (_FAILED, Event.PLACED): _ASSIGNED,
    (_FAILED, Event.RESERVED): _ASSIGNING,
    (_DISABLED, Event.PLACED): _ASSIGNED,
    (_DISABLED, Event.RESERVED): _ASSIGNING,
    (_ASSIGNING, Event.REVOKED): _DISABLED,
    (_ASSIGNED, Event.REVOKED): _DISABLED,
    (_FAILED, Event.REVOKED): _DISABLED,
    (_DISABLED, Event.REVOKED): _DISABLED,
}


def step(status: RegistrationStatus, event: Event) -> RegistrationStatus:
    """The status after an event.

    Raises:
        ServerFault: the event cannot happen in that status; a bug of ours, never a device's doing.
    """
    try:
        return TRANSITIONS[status, event]
    except KeyError as error:
        raise ServerFault(f"a registration that is {status} cannot be {event.name}") from error
