"""The PCR policy of an enrollment: in which state a device's platform must be.

    {"pcrs": {"sha256": {"0": ["<hex>", …], "7": ["<hex>"]}},
     "firmwareVersionMin": "0x0007000200000000",
     "requireSafeClock": true}

Every register that is named must be quoted and hold one of its values. `firmwareVersionMin` is a number or its text,
decimal or with `0x` (JSON readers lose the low bits of large numbers).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from provisiond.attestation.tpm_algorithms import HASHES_BY_NAME
from provisiond.attestation.tpm_attest import PCR_COUNT, PcrSlot
from provisiond.errors import InvalidArgument

ALLOWED_VALUES_MAX: Final = 64
"""A register changes with every firmware release; more values than this is a policy nobody has looked at."""

EXAMPLE: Final = '{"pcrs": {"sha256": {"7": ["<64 hexadecimal digits>"]}}, "requireSafeClock": true}'
"""For whoever has to write one."""

_ANY_REGISTER: Final = (PcrSlot("sha256", 0),)
_UINT64_MAX: Final = 2**64 - 1

_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{64,128}$")]
_Index = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]?)$")]
_Version = Annotated[str, StringConstraints(pattern=r"^(0x[0-9A-Fa-f]{1,16}|[0-9]{1,20})$")]


class _PcrPolicyDocument(BaseModel):
    """The JSON, as operators write it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pcrs: dict[
        Literal["sha256", "sha384", "sha512"],
        dict[_Index, Annotated[list[_Digest], Field(min_length=1, max_length=ALLOWED_VALUES_MAX)]],
    ] = Field(default_factory=dict)
    firmware_version_min: Annotated[int, Field(strict=True, ge=0, le=_UINT64_MAX)] | _Version | None = Field(
        default=None, alias="firmwareVersionMin"
    )
    require_safe_clock: bool = Field(default=False, alias="requireSafeClock", strict=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class PcrPolicy:
    """In which state a platform must be.

    Args:
        allowed: values that each named register may hold.
        firmware_version_min: lowest TPM firmware version; needs an attestation key in the endorsement hierarchy.
        require_safe_clock: the TPM's clock must not have gone back.
    """

    allowed: Mapping[PcrSlot, frozenset[bytes]] = field(default_factory=dict)
    firmware_version_min: int | None = None
    require_safe_clock: bool = False

    @property
    def selection(self) -> tuple[PcrSlot, ...]:
        """The registers to quote, by bank and index.

        A policy that names none has one quoted all the same: firmware version and clock are in every quote.
        """
        return tuple(sorted(self.allowed)) or _ANY_REGISTER


def parse_pcr_policy(document: Mapping[str, Any]) -> PcrPolicy:
    """Read a PCR policy.

    Args:
        document: the parsed JSON object.

    Raises:
        InvalidArgument: unknown keys, banks or registers, values that are not digests of their bank, or numbers out
            of range; the message names the place.
    """
    try:
        parsed = _PcrPolicyDocument.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].replace("Extra inputs are not permitted", "there is no such member")
        raise InvalidArgument(f"PCR policy, {place}: {message}; a policy is such as {EXAMPLE}") from error
    allowed = {
        _slot(bank, index): frozenset(_value(bank, index, text) for text in values)
        for bank, registers in parsed.pcrs.items()
        for index, values in registers.items()
    }
    version = parsed.firmware_version_min
    firmware_version_min = int(version, 16 if "x" in version else 10) if isinstance(version, str) else version
    if firmware_version_min is not None and firmware_version_min > _UINT64_MAX:
        raise InvalidArgument("PCR policy, firmwareVersionMin: more than 64 bits")
    return PcrPolicy(
        allowed=MappingProxyType(allowed),
        firmware_version_min=firmware_version_min,
        require_safe_clock=parsed.require_safe_clock,
    )


def _slot(bank: str, index: str) -> PcrSlot:
    if int(index) >= PCR_COUNT:
        raise InvalidArgument(f"PCR policy, pcrs.{bank}.{index}: registers are 0 to {PCR_COUNT - 1}")
    return PcrSlot(bank, int(index))


def _value(bank: str, index: str, text: str) -> bytes:
    value = bytes.fromhex(text) if len(text) % 2 == 0 else b""
    if len(value) != HASHES_BY_NAME[bank].digest_size_bytes:
        raise InvalidArgument(f"PCR policy, pcrs.{bank}.{index}: not a {bank} digest")
    return value
