"""Octets of TPM commands and responses: the little that a client needs (TPM 2.0 Part 1 18, Part 2).

    command    tag u16 | size u32 | code u32 | handles u32 … | [ authSize u32 | authorisations ] | parameters
    response   tag u16 | size u32 | rc u32   | [ handle u32 ] | [ parameterSize u32 ] | parameters | [ authorisations ]

Everything is big-endian. TPM2B(x) is UINT16 length, then x. Structures such as TPMT_PUBLIC stay opaque octets here.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from provisiond.device.errors import TpmError

HEADER_SIZE_BYTES: Final = 10
MAX_RESPONSE_SIZE_BYTES: Final = 4096  # TPM_PT_MAX_RESPONSE_SIZE of every TPM 2.0 in the field, libtpms included

TAG_NO_SESSIONS: Final = 0x8001
TAG_SESSIONS: Final = 0x8002

ALG_RSA: Final = 0x0001
ALG_SHA256: Final = 0x000B
ALG_NULL: Final = 0x0010
ALG_ECC: Final = 0x0023

RH_OWNER: Final = 0x40000001
RH_NULL: Final = 0x40000007
RS_PASSWORD: Final = 0x40000009
RH_LOCKOUT: Final = 0x4000000A
RH_ENDORSEMENT: Final = 0x4000000B

SYMMETRIC_NULL: Final = b"\x00\x10"
SYMMETRIC_AES128_CFB: Final = bytes.fromhex("000600800043")
SCHEME_NULL: Final = b"\x00\x10"


class CommandCode(IntEnum):
    """TPM_CC (TPM 2.0 Part 2 6.5.2)."""

    EvictControl = 0x120
    Clear = 0x126
    CreatePrimary = 0x131
    PCR_Extend = 0x182
    HMAC_Start = 0x15B
    NV_Read = 0x14E
    SequenceComplete = 0x13E
    Startup = 0x144
    ActivateCredential = 0x147
    Certify = 0x148
    PolicyCommandCode = 0x16C
    Duplicate = 0x14B
    PolicySecret = 0x151
    Create = 0x153
    HMAC = 0x155
    Import = 0x156
    Load = 0x157
    Quote = 0x158
    SequenceUpdate = 0x15C
    Sign = 0x15D
    FlushContext = 0x165
    LoadExternal = 0x167
    NV_ReadPublic = 0x169
    ReadPublic = 0x173
    StartAuthSession = 0x176
    GetCapability = 0x17A
    GetRandom = 0x17B
    PCR_Read = 0x17E


def tpm2b(data: bytes) -> bytes:
    """TPM2B: UINT16 length, then the octets (at most 65535)."""
    return struct.pack(">H", len(data)) + data


def pcr_selection(banks: Mapping[int, Iterable[int]]) -> bytes:
    """TPML_PCR_SELECTION from TPM_ALG_ID of the bank → PCR indices 0 to 23 (TPM 2.0 Part 2 10.9.7)."""
    selections = []
    for algorithm, indices in banks.items():
        bitmap = bytearray(3)
        for index in indices:
            bitmap[index // 8] |= 1 << (index % 8)
        selections.append(struct.pack(">HB", algorithm, len(bitmap)) + bitmap)
    return struct.pack(">I", len(selections)) + b"".join(selections)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """TPMS_AUTH_COMMAND: a password session by default, or a policy session by its handle (TPM 2.0 Part 2 10.13.2)."""

    session: int = RS_PASSWORD
    attributes: int = 0

    def encode(self) -> bytes:
        """Handle, empty nonce, attributes, empty HMAC: neither kind needs more."""
        return struct.pack(">IHBH", self.session, 0, self.attributes, 0)


PASSWORD: Final = Authorization()


def policy(session: int) -> Authorization:
    """Authorise with a policy session and keep it afterwards, so that who started it also flushes it."""
    return Authorization(session=session, attributes=0x01)  # continueSession


def encode_command(
    code: CommandCode, handles: Iterable[int], authorizations: Iterable[Authorization], parameters: bytes
) -> bytes:
    """One command, header included."""
    area = b"".join(authorization.encode() for authorization in authorizations)
    body = b"".join(struct.pack(">I", handle) for handle in handles)
    if area:
        body += struct.pack(">I", len(area)) + area
    body += parameters
    tag = TAG_SESSIONS if area else TAG_NO_SESSIONS
    return struct.pack(">HII", tag, HEADER_SIZE_BYTES + len(body), code) + body


class Reader:
    """Takes structures off the front of a response.

    Args:
        data: the octets.
        command: name of the command, for the error.
    """

    def __init__(self, data: bytes, command: str) -> None:
        self._data = data
        self._offset = 0
        self._command = command

    def take(self, size_bytes: int) -> bytes:
        """The next octets. Raises TpmError when there are fewer."""
        end = self._offset + size_bytes
        if end > len(self._data):
            raise TpmError(0, self._command, "the response is truncated")
        taken = self._data[self._offset : end]
        self._offset = end
        return taken

    def u8(self) -> int:
        """UINT8."""
        return self.take(1)[0]

    def u16(self) -> int:
        """UINT16."""
        return int.from_bytes(self.take(2))

    def u32(self) -> int:
        """UINT32."""
        return int.from_bytes(self.take(4))

    def tpm2b(self) -> bytes:
        """The content of a TPM2B, without its length."""
        return self.take(self.u16())

    def whole_tpm2b(self) -> bytes:
        """A TPM2B with its length."""
        return tpm2b(self.tpm2b())

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(len(self._data) - self._offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A successful response. `handle` is 0 for commands that return none."""

    handle: int
    parameters: Reader


def response_code_of(response: bytes, command: str) -> int:
    """The TPM_RC of a response.

    Raises:
        TpmError: the header's tag or size is wrong.
    """
    if len(response) < HEADER_SIZE_BYTES:
        raise TpmError(0, command, "the response is truncated")
    tag, size, response_code = struct.unpack_from(">HII", response)
    # TPM 2.0 Part 3 5.2: a TPM 1.2 answers with its own tag.
    if tag not in {TAG_NO_SESSIONS, TAG_SESSIONS} or size != len(response):
        raise TpmError(0, command, "the response is not one of a TPM 2.0")
    return int(response_code)


def decode_response(response: bytes, command: str, *, returns_handle: bool) -> Response:
    """Split a response whose code is TPM_RC_SUCCESS.

    Raises:
        TpmError: it is truncated.
    """
    reader = Reader(response, command)
    tag = reader.u16()
    reader.take(HEADER_SIZE_BYTES - 2)
    handle = reader.u32() if returns_handle else 0
    parameters = reader.take(reader.u32()) if tag == TAG_SESSIONS else reader.rest()
    return Response(handle=handle, parameters=Reader(parameters, command))
