"""Durations and sizes as an operator writes them: a number with its unit, such as `"5s"` and `"64KiB"`."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES: Final = {"B": 1, "kB": 10**3, "KB": 10**3, "KiB": 2**10, "MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30}
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?) ?(ms|s|m|h|d|w)", re.ASCII)
_SIZE: Final = re.compile(r"(\d{1,12}) ?(B|kB|KB|KiB|MB|MiB|GB|GiB)", re.ASCII)
# Up to here seconds read better than minutes: "120s", but "1h".
_LONGEST_IN_SECONDS: Final = 300.0


def parse_duration(value: object) -> float:
    """Seconds of `"1500ms"`, `"5s"`, `"2m"`, `"1h"`, `"90d"` or `"2w"`.

    Raises:
        ValueError: no such text; a bare number has no unit and is refused as well.
    """
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            f'{_shown(value)} is not a duration; write a number and its unit, such as "1500ms", "5s", "90d"'
        )
    return float(match[1]) * _SECONDS[match[2]]


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back as `seconds`, which are whole milliseconds."""
    if seconds % 1:
        return f"{round(seconds * 1000)}ms"
    for unit in ("d", "h", "m"):
        if seconds > _LONGEST_IN_SECONDS and seconds % _SECONDS[unit] == 0:
            return f"{round(seconds / _SECONDS[unit])}{unit}"
    return f"{round(seconds)}s"


def parse_size(value: object) -> int:
    """Bytes of `"512B"`, `"64KiB"`, `"1MiB"` (or `kB`, `MB`, `GB`: powers of ten).

    Raises:
        ValueError: no such text; a bare number has no unit and is refused as well.
    """
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{_shown(value)} is not a size; write a number and its unit, such as "512B", "64KiB", "1MiB"')
    return int(match[1]) * _BYTES[match[2]]


def format_size(size_bytes: int) -> str:
    """The shortest text that `parse_size` reads back as `size_bytes`."""
    for unit in ("GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % _BYTES[unit] == 0:
            return f"{size_bytes // _BYTES[unit]}{unit}"
    return f"{size_bytes}B"


def duration_within(least: str, most: str) -> AfterValidator:
    """Bounds for a `Seconds` field, both included, written as the operator would."""
    low, high = parse_duration(least), parse_duration(most)

    def check(seconds: float) -> float:
        if not low <= seconds <= high:
            raise ValueError(f"{format_duration(seconds)} is not between {least} and {most}")
        return seconds

    return AfterValidator(check)


def size_within(least: str, most: str) -> AfterValidator:
    """Bounds for a `Bytes` field, both included, written as the operator would."""
    low, high = parse_size(least), parse_size(most)

    def check(size_bytes: int) -> int:
        if not low <= size_bytes <= high:
            raise ValueError(f"{format_size(size_bytes)} is not between {least} and {most}")
        return size_bytes

    return AfterValidator(check)


def _shown(value: object) -> str:
    return repr(value)[:40]


Seconds = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$"}),
]
"""A duration: text outside, seconds inside."""

Bytes = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_SIZE.pattern}$"}),
]
"""A size: text outside, bytes inside."""
