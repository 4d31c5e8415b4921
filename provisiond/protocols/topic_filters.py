"""MQTT topic filters: their syntax, and which topics they match (MQTT 3.1.1 4.7)."""

from typing import Final

FILTER_MAX_LENGTH: Final = 512


def is_filter(topic_filter: str) -> bool:
    """Whether the wildcards stand where they may: `+` and `#` alone in their level, `#` in the last."""
    levels = topic_filter.split("/")
    if not 0 < len(topic_filter) <= FILTER_MAX_LENGTH or "#" in levels[:-1]:
        return False
    return all(level in ("+", "#") or not set(level) & set("+#") for level in levels)


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a filter for which `is_filter` holds matches a topic name (MQTT-4.7.1-2, MQTT-4.7.1-3, MQTT-4.7.2-1)."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    if wanted[-1] == "#":  # `a/#` matches `a`, too
        wanted.pop()
        levels = levels[: len(wanted)]
    return len(wanted) == len(levels) and all(
        level in ("+", actual) for level, actual in zip(wanted, levels, strict=True)
    )
