"""What of a configuration that was read again a running daemon takes over, and what has to wait for a restart."""

from typing import Final

from provisiond.settings.schema import Settings

_FIXED_SECTIONS: Final = ("service", "store", "broker", "metrics", "crl")
_RELOADED: Final = frozenset({("broker", "limits"), ("crl", "lifetime_s")})


def take_over(running: Settings, read: Settings) -> tuple[Settings, tuple[str, ...]]:
    """Put together what is in force after a reload.

    Sockets, the database and the id scope stay as they are, so that a device never meets half of two configurations.

    Args:
        running: what has been in force.
        read: what the file says now.

    Returns:
        The settings in force from now on, and the keys that differ from the file until a restart.
    """
    sections, waiting = {}, []
    for name in _FIXED_SECTIONS:
        old, new = getattr(running, name), getattr(read, name)
        fields = type(old).model_fields
        fixed = [field for field in fields if (name, field) not in _RELOADED]
        sections[name] = new.model_copy(update={field: getattr(old, field) for field in fixed})
        waiting += [f"{name}.{field}" for field in fixed if getattr(old, field) != getattr(new, field)]
    return read.model_copy(update=sections), tuple(waiting)
