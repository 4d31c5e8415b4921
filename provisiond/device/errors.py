"""What can go wrong on the device's side.

DeviceError
├── CannotConnect      no TCP, TLS or MQTT connection to the service
├── Refused            the service answered, and the answer is no
├── TimedOut           a deadline passed
├── CredentialError    a key, certificate or TPM cannot be used; nothing was sent
├── EmulatorError      swtpm is missing or does not run
└── TpmError           the TPM answered a command with a response code, or with nonsense
"""

from collections.abc import Mapping
from typing import Any, Final

from provisiond.errors import ProvisiondError


class DeviceError(ProvisiondError):
    """Base of every error of the device's side."""


class CannotConnect(DeviceError):
    """No connection to the service could be made, or it was lost and did not come back."""


class ConnectionLost(CannotConnect):
    """The connection ended before the answer came."""


class TimedOut(DeviceError):
    """A deadline passed; asking again is safe."""


class CredentialError(DeviceError):
    """A key, certificate or TPM cannot be used. The message names the file and the way out."""


class EmulatorError(DeviceError):
    """The TPM emulator is missing or does not run. The message says how to get it."""


class Refused(DeviceError):
    """The service answered, and the answer is no.

    Args:
        reason: for a person.
        status: HTTP-like status of the reply; 200 for a registration that is `failed` or `disabled`, 401 for a
            refused CONNECT.
        body: the reply's JSON as it came.
    """

    def __init__(self, reason: str, *, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(reason)
        self.status = status
        self.body = body

    @property
    def tracking_id(self) -> str:
        """What the operator finds the reason under; empty when the service gave none."""
        value = self.body.get("trackingId")
        return value if isinstance(value, str) else ""


_RESPONSE_CODES: Final = {  # TPM 2.0 Part 2 6.6.3: those that a person meets
    0x100: "TPM_RC_INITIALIZE",
    0x101: "TPM_RC_FAILURE",
    0x921: "TPM_RC_LOCKOUT",
    0x902: "TPM_RC_OBJECT_MEMORY",
    0x903: "TPM_RC_SESSION_MEMORY",
    0x12F: "TPM_RC_AUTH_UNAVAILABLE",
    0x14C: "TPM_RC_NV_DEFINED",
}
_FORMAT_ONE_CODES: Final = {  # TPM 2.0 Part 2 6.6.2: bit 7 set, number in bits 0 to 5
    0x02: "TPM_RC_ATTRIBUTES",
    0x04: "TPM_RC_VALUE",
    0x07: "TPM_RC_KEY_SIZE",
    0x0B: "TPM_RC_HANDLE",
    0x0E: "TPM_RC_AUTH_FAIL",
    0x12: "TPM_RC_SCHEME",
    0x15: "TPM_RC_SIZE",
    0x1B: "TPM_RC_SIGNATURE",
    0x1C: "TPM_RC_KEY",
    0x1D: "TPM_RC_POLICY_FAIL",
    0x1F: "TPM_RC_INTEGRITY",
    0x20: "TPM_RC_TICKET",
    0x22: "TPM_RC_BAD_AUTH",
}
TPM_RC_INITIALIZE: Final = 0x100
TPM_RC_HANDLE: Final = 0x08B
TPM_RC_POLICY_FAIL: Final = 0x09D
TPM_RC_INTEGRITY: Final = 0x09F


def base_response_code(response_code: int) -> int:
    """The code without the number of the handle, session or parameter it is about (TPM 2.0 Part 2 6.6.2)."""
    return response_code & 0xBF if response_code & 0x80 else response_code


class TpmError(DeviceError):
    """The TPM answered with a response code.

    Args:
        response_code: TPM_RC as it came; 0 when the answer itself was not understood.
        command: name of the command.
    """

    def __init__(self, response_code: int, command: str, detail: str = "") -> None:
        self.response_code = response_code
        self.command = command
        super().__init__(f"TPM2_{command}: {detail or describe(response_code)}")

    @property
    def base(self) -> int:
        """The code without handle, session or parameter number; compare this with `TPM_RC_…`."""
        return base_response_code(self.response_code)


def describe(response_code: int) -> str:
    """A response code as `TPM_RC_INTEGRITY (0x1df)`."""
    format_one = response_code & 0x80
    name = _FORMAT_ONE_CODES.get(response_code & 0x3F) if format_one else _RESPONSE_CODES.get(response_code)
    return f"{name or 'response code'} (0x{response_code:03x})"
