"""Octets in JSON: strict base64, as a pydantic type.

signature: Annotated[bytes, Base64(max_size_bytes=512)]
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema


@dataclass(frozen=True, slots=True)
class Base64:
    """Standard base64 with padding, no white space, no stray bits (RFC 4648 4 and 3.5).

    Args:
        max_size_bytes, min_size_bytes: what the octets may measure, decoded.
    """

    max_size_bytes: int
    min_size_bytes: int = 1

    def decode(self, text: str) -> bytes:
        """The octets.

        Raises:
            PydanticCustomError: not base64, or of a wrong size.
        """
        try:
            octets = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise PydanticCustomError("base64", "not base64 (RFC 4648 section 4, with padding)") from error
        if base64.b64encode(octets) != text.encode():
            raise PydanticCustomError("base64", "not base64 (RFC 4648 section 4, with padding)")
        if not self.min_size_bytes <= len(octets) <= self.max_size_bytes:
            raise PydanticCustomError(
                "size",
                "{actual} octets where {smallest} to {largest} fit",
                {"actual": len(octets), "smallest": self.min_size_bytes, "largest": self.max_size_bytes},
            )
        return octets

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Text in, octets out; nothing longer than the limit is decoded."""
        text = core_schema.str_schema(strict=True, max_length=_encoded_length(self.max_size_bytes))
        return core_schema.no_info_after_validator_function(self.decode, text)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """JSON Schema: a string with its encoding (JSON Schema validation 8.3)."""
        return {
            "type": "string",
            "contentEncoding": "base64",
            "minLength": _encoded_length(self.min_size_bytes),
            "maxLength": _encoded_length(self.max_size_bytes),
        }


def _encoded_length(size_bytes: int) -> int:
    return (size_bytes + 2) // 3 * 4


def encode_octets(octets: bytes) -> str:
    """Standard base64 with padding, on one line."""
    return base64.b64encode(octets).decode("ascii")
