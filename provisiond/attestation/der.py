"""Reading DER without giving up its octets: tags, lengths and values, as they stand.

Signatures are over octets. TPM makers have certificates that general readers refuse or, worse, mend (multi-valued
names whose parts are not sorted): here nothing is ever encoded again.

Source: ITU-T X.690, clauses 8.1 and 10.1 (definite, shortest lengths; low tag numbers).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Final

from provisiond.errors import AttestationError

OID_MAX_SIZE_BYTES: Final = 64
"""Registered object identifiers take under 20."""


class DerTag(IntEnum):
    """Identifier octets of the types that certificates are made of."""

    BOOLEAN = 0x01
    INTEGER = 0x02
    BIT_STRING = 0x03
    OCTET_STRING = 0x04
    NULL = 0x05
    OBJECT_IDENTIFIER = 0x06
    UTF8_STRING = 0x0C
    PRINTABLE_STRING = 0x13
    IA5_STRING = 0x16
    UTC_TIME = 0x17
    GENERALIZED_TIME = 0x18
    SEQUENCE = 0x30
    SET = 0x31


def malformed(reason: str) -> AttestationError:
    """The error to raise for octets that are not the DER they should be; finding `certificate-encoding`."""
    return AttestationError(f"certificate encoding: {reason}", finding="certificate-encoding", clause="X.690 10.1")


@dataclass(frozen=True, slots=True)
class DerValue:
    """One value.

    Args:
        tag: its identifier octet.
        content: what is inside.
        octets: all of it, identifier and length included.
    """

    tag: int
    content: bytes
    octets: bytes

    def expect(self, tag: int) -> "DerValue":
        """This value, if it has that tag; raises AttestationError if not."""
        if self.tag != tag:
            raise malformed(f"tag {self.tag:#04x} where {tag:#04x} belongs")
        return self

    def reader(self, tag: int = DerTag.SEQUENCE) -> "DerReader":
        """A reader of the content, if the value has that tag; raises AttestationError if not."""
        return DerReader(self.expect(tag).content)


class DerReader:
    """Takes the values of a constructed one apart, from the front."""

    __slots__ = ("_octets", "_position")

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._position = 0

    def peek(self) -> int | None:
        """The next value's tag, or None at the end."""
        return self._octets[self._position] if self._position < len(self._octets) else None

    def next(self, tag: int | None = None) -> DerValue:
        """The next value, which must have `tag` when one is given.

        Raises:
            AttestationError: it has not, or is no DER.
        """
        value = read_value(self._octets, self._position)
        self._position += len(value.octets)
        return value if tag is None else value.expect(tag)

    def optional(self, tag: int) -> DerValue | None:
        """The next value if it has that tag; raises AttestationError when it is no DER."""
        return self.next() if self.peek() == tag else None

    def rest(self) -> Iterator[DerValue]:
        """Every value that is left; raises AttestationError when one is no DER."""
        while self.peek() is not None:
            yield self.next()

    def end(self) -> None:
        """Say that nothing follows; raises AttestationError if something does."""
        if self.peek() is not None:
            raise malformed(f"{len(self._octets) - self._position} octets left over")


def read_value(octets: bytes, position: int = 0) -> DerValue:
    """Read the value that starts at `position`; what follows it is not looked at.

    Raises:
        AttestationError: truncated, of indefinite or padded length, or with a multi-octet tag.
    """
    header = octets[position : position + 2]
    if len(header) < 2 or header[0] & 0x1F == 0x1F:
        raise malformed(f"no value at offset {position}")
    start, size_bytes = position + 2, header[1]
    if size_bytes >= 0x80:
        count = size_bytes & 0x7F
        length = octets[start : start + count]
        # Two length octets reach 65535, and no certificate here is longer.
        if not 1 <= count <= 2 or len(length) < count or length[0] == 0 or int.from_bytes(length, "big") < 0x80:
            raise malformed(f"length at offset {position} is not the shortest, or above 65535")
        start, size_bytes = start + count, int.from_bytes(length, "big")
    end = start + size_bytes
    if end > len(octets):
        raise malformed(f"value at offset {position} is cut off")
    return DerValue(header[0], octets[start:end], octets[position:end])


def read_exactly(octets: bytes, tag: int = DerTag.SEQUENCE) -> DerValue:
    """Read one value of a tag that is all of `octets`; raises AttestationError when it is not."""
    reader = DerReader(octets)
    value = reader.next(tag)
    reader.end()
    return value


def read_object_identifier(value: DerValue) -> str:
    """An object identifier in dotted form (X.690 8.19).

    Raises:
        AttestationError: it is none.
    """
    content = value.expect(DerTag.OBJECT_IDENTIFIER).content
    if not content or len(content) > OID_MAX_SIZE_BYTES or content[-1] & 0x80:
        raise malformed("object identifier is empty, cut off or too long")
    arcs: list[int] = []
    arc, fresh = 0, True
    for octet in content:
        if fresh and octet == 0x80:
            raise malformed("object identifier with a padded arc")
        arc, fresh = arc << 7 | octet & 0x7F, octet < 0x80
        if fresh:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def read_unsigned(value: DerValue) -> int:
    """A non-negative integer (X.690 8.3); raises AttestationError for anything else."""
    content = value.expect(DerTag.INTEGER).content
    if not content or content[0] & 0x80 or (len(content) > 1 and content[0] == 0 and content[1] < 0x80):
        raise malformed("integer is empty, negative or padded")
    return int.from_bytes(content, "big")


def read_serial_number(value: DerValue) -> int:
    """A serial number, negative or padded ones too: users are to handle them gracefully (RFC 5280 4.1.2.2).

    Raises:
        AttestationError: it is no integer.
    """
    content = value.expect(DerTag.INTEGER).content
    if not content:
        raise malformed("integer is empty")
    return int.from_bytes(content, "big", signed=True)


def read_boolean(value: DerValue) -> bool:
    """A boolean (X.690 8.2, 11.1); raises AttestationError for anything else."""
    content = value.expect(DerTag.BOOLEAN).content
    if content not in {b"\x00", b"\xff"}:
        raise malformed("boolean is neither 00 nor FF")
    return content == b"\xff"


def read_bit_string(value: DerValue) -> tuple[bytes, int]:
    """The octets of a bit string, and how many bits of the last one are unused (X.690 8.6, 11.2).

    Raises:
        AttestationError: anything else, or an unused bit that is set.
    """
    content = value.expect(DerTag.BIT_STRING).content
    if not content or content[0] > 7 or (content[0] and len(content) == 1):
        raise malformed("bit string without its count of unused bits")
    unused = content[0]
    if unused and content[-1] & ((1 << unused) - 1):
        raise malformed("bit string with unused bits set")
    return content[1:], unused


def read_time(value: DerValue) -> datetime:
    """A UTCTime or GeneralizedTime in the forms of RFC 5280 4.1.2.5: seconds given, zone Z.

    Raises:
        AttestationError: anything else.
    """
    text = value.content.decode("latin-1")
    if not (text.isascii() and text.endswith("Z") and text[:-1].isdigit()):
        raise malformed("time is not in seconds of UTC")
    digits = text[:-1]
    match value.tag, len(digits):
        case DerTag.UTC_TIME, 12:
            digits = ("19" if int(digits[:2]) >= 50 else "20") + digits
        case DerTag.GENERALIZED_TIME, 14:
            pass
        case _:
            raise malformed("time of another form than RFC 5280's")
    try:
        year, rest = int(digits[:4]), digits[4:]
        month, day, hour, minute, second = (int(rest[start : start + 2]) for start in range(0, 10, 2))
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise malformed("time does not exist") from error
