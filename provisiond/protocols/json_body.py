"""Reading JSON that a stranger wrote, and writing JSON that every SDK can read."""

import json
import math
from typing import Any, Final, NoReturn

from provisiond.errors import MalformedRequest
from provisiond.model import JSONValue

MAX_DEPTH: Final = 64
"""Deeper nesting is refused: no device payload needs it, and what reads it afterwards may recurse."""


def parse_json(data: bytes) -> JSONValue:
    """Parse a body as I-JSON (RFC 7493): UTF-8, no duplicate names, no NaN, numbers that a double can hold.

    Args:
        data: at most as long as the transport lets through.

    Raises:
        MalformedRequest: anything that is not such a document, or one nested deeper than `MAX_DEPTH`.
    """
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_object_without_duplicates,
            parse_float=_finite_float,
            parse_int=_bounded_int,
            parse_constant=_refuse_constant,
        )
    except UnicodeDecodeError as error:
        raise _malformed("body is not UTF-8") from error
    except RecursionError as error:
        raise _malformed("body is nested too deeply") from error
    except ValueError as error:
        raise _malformed(f"body is not JSON: {error}") from error
    _check_depth_and_text(value)
    return value


def encode_json(value: JSONValue) -> bytes:
    """Compact ASCII JSON; some SDKs decode bodies as ASCII."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return value


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is out of range")
    return value


def _bounded_int(text: str) -> int:
    # An IEEE double has at most 309 digits before the point (RFC 7493 2.2).
    if len(text) > 309:
        raise ValueError("a number is out of range")
    return int(text)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check_depth_and_text(value: JSONValue) -> None:
    """Walk without recursion: the document is a stranger's."""
    level = [value]
    for _ in range(MAX_DEPTH):
        following: list[Any] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, dict):
                following.extend(item.keys())
                following.extend(item.values())
            elif isinstance(item, list):
                following.extend(item)
        if not following:
            return
        level = following
    raise _malformed("body is nested too deeply")


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _malformed("body has a lone surrogate") from error


def _malformed(reason: str) -> MalformedRequest:
    # What is wrong with its own syntax is nothing a device may not know.
    return MalformedRequest(reason, public=reason[:200])
