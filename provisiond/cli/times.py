"""Times as operators write them: `2026-05-01`, `2026-05-01T12:30`, or how long ago: `2h`, `3d`."""

from datetime import UTC, datetime, timedelta

from provisiond.errors import InvalidArgument
from provisiond.settings.units import parse_duration


def parse_time(text: str, option: str, *, now: datetime) -> datetime:
    """A time, aware UTC; what has no offset is UTC.

    Raises:
        InvalidArgument: it is none; the message names the option.
    """
    try:
        return now - timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError):
        pass
    try:
        parsed = datetime.fromisoformat(text)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(
            f"{option}: {text[:80]!r} is no time; write 2026-05-01T12:30, or 2h for two hours ago"
        ) from error
