"""Timestamps as the Azure service writes them."""

from datetime import UTC, datetime


def format_timestamp(moment: datetime) -> str:
    """UTC with seven fractional digits and a `Z`: `2023-01-10T21:52:50.5898400Z`.

    Args:
        moment: an aware datetime; microseconds are kept, the seventh digit is 0.
    """
    # Half the time of strftime; there are three in a reply.
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "0Z"
