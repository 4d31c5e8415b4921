"""Every exception provisiond raises on purpose, and whose fault it is.

    ProvisiondError
    ├── DeviceFault                 the device's request is at fault; answered on the wire with a code
    │   ├── MalformedRequest        400004  not a request of this protocol
    │   │   └── TpmStructureError           a TPM structure in it is not one
    │   ├── UnsealableKey           400004  the device's key cannot receive the secret that its hub needs
    │   ├── AttestationError        401002  the evidence does not prove the claimed identity
    │   ├── NotFound                404202  no such operation, or no such operation of this device
    │   ├── UnknownOperation        404001  a `$dps` or native operation that does not exist
    │   ├── PreconditionFailed      409203  two registrations of one id at once, too often
    │   └── Throttled               429001  ask again after `retry_after_s`
    ├── ServerFault                 our side is at fault; the device hears 500000 and may ask again
    │   ├── StoreError              the database did not do what was asked
    │   │   ├── SchemaTooNew        the database was written by a newer provisiond
    │   │   ├── VersionConflict     somebody else committed first; read and decide again
    │   │   ├── CorruptRecord       a stored record is not what was written
    │   │   └── StoreUnavailable    full, read-only, locked or broken
    │   ├── HubFault                    a hub did not do what was asked
    │   │   ├── HubUnavailable          it did not answer, or not in time: ask again
    │   │   ├── HubUnauthorized         it does not take our own credentials: an operator has to act
    │   │   └── HubRefused          400209  it will never take this device as it is
    │   └── AllocationError         400208  no hub can take the device
    ├── SealBroken                  a sealed credential is not for this key or context, or was altered
    ├── ConnectRefused              the MQTT CONNECT is inconsistent; carries the CONNACK return code
    ├── ConfigurationError          the configuration cannot be used; says which key and the way out
    │   └── AddressUnavailable          an address of it cannot be bound now: exit 75, for a supervisor to try again
    └── AdminError                  an operator's request cannot be done
        ├── InvalidArgument         exit 2
        ├── RecordNotFound          exit 3
        ├── AlreadyExists           exit 4
        └── EtagMismatch            exit 4

`str(error)` is for the operator. What a device hears is `public_message`, which never says more than the class does:
the operator finds the reason under the tracking id.

Codes are those of the Azure DPS table: HTTP class times 1000 + detail.
"""

import errno
from typing import ClassVar


class ProvisiondError(Exception):
    """Base of every exception raised on purpose."""


class DeviceFault(ProvisiondError):
    """The device's request is at fault.

    Args:
        reason: what was wrong, for the operator; never sent to the device unless `public` says so.
        public: replaces the class's public message; only for what the device already knows (its own syntax).
    """

    code: ClassVar[int] = 400004
    public_message: str = "Bad request"
    finding: str = "malformed-request"
    """Stable slug for the trace and `explain`; each has its paragraph in docs/refusals.md."""

    def __init__(self, reason: str, *, public: str | None = None) -> None:
        super().__init__(reason)
        if public is not None:
            self.public_message = public

    @property
    def status(self) -> int:
        """HTTP-like status for the reply topic: 400, 401, 404, 409 or 429."""
        return self.code // 1000


class MalformedRequest(DeviceFault):
    """The bytes are not a request of this protocol."""


class TpmStructureError(MalformedRequest):
    """The octets are not the TPM 2.0 structure they should be.

    Every parser in `attestation/tpm_*` raises this and nothing else, whatever the octets. What a well-formed structure
    says may still be refused: that is an `AttestationError`.

    Args:
        reason: what was wrong, for the operator.
        clause: where the layout comes from, such as `TPM 2.0 Part 2 TPMT_PUBLIC`.
    """

    finding = "tpm-structure"

    def __init__(self, reason: str, *, clause: str = "") -> None:
        super().__init__(reason)
        self.clause = clause


class AttestationError(DeviceFault):
    """The evidence does not prove the claimed identity.

    Unknown ids, wrong keys and bad certificates all look like this from outside (one code, one message).

    Args:
        reason: what was wrong, for the operator.
        finding: such as `certificate-expired`.
        clause: where the rule comes from, such as `RFC 5280 6.1.3 (a)(2)`.
    """

    code: ClassVar[int] = 401002
    public_message = "Unauthorized"

    def __init__(self, reason: str, *, finding: str, clause: str = "") -> None:
        super().__init__(reason)
        self.finding = finding
        self.clause = clause


class UnsealableKey(DeviceFault):
    """The device's key cannot receive the secret that its hub needs."""

    public_message = "The key of the device certificate cannot receive a sealed credential: use EC or RSA"
    finding = "unsealable-key"


class NotFound(DeviceFault):
    """The operation asked about does not exist, or belongs to another registration."""

    code: ClassVar[int] = 404202
    public_message = "Operation not found"
    finding = "operation-not-found"


class UnknownOperation(DeviceFault):
    """The topic names an operation that this service does not have."""

    code: ClassVar[int] = 404001
    public_message = "Unknown operation"
    finding = "unknown-operation"


class PreconditionFailed(DeviceFault):
    """Another registration of the same id kept winning the race."""

    code: ClassVar[int] = 409203
    public_message = "Another registration of this id is in progress"
    finding = "registration-race"


class Throttled(DeviceFault):
    """Too many requests; `retry_after_s` says when to ask again (whole seconds, at least 1).

    Args:
        reason: for the operator.
        retry_after_s: seconds.
        repeated: the same device was told so a moment ago, and the operator as well.
    """

    code: ClassVar[int] = 429001
    public_message = "Too many requests"
    finding = "throttled"

    def __init__(self, reason: str, *, retry_after_s: int, repeated: bool = False) -> None:
        super().__init__(reason)
        self.retry_after_s = max(1, retry_after_s)
        self.repeated = repeated


class ServerFault(ProvisiondError):
    """Our side is at fault; the device may ask again."""

    code: int = 500000
    public_message: str = "Internal error"
    finding: str = "server-fault"
    retry_after_s: int = 5
    """What the device is told to wait: long enough for a restart, short enough not to be noticed."""


class StoreError(ServerFault):
    """The database did not do what was asked."""


class SchemaTooNew(StoreError):
    """The database was written by a newer provisiond; upgrade provisiond or restore a backup."""


class VersionConflict(StoreError):
    """Somebody else committed this record first: read and decide again."""


class StoreUnavailable(StoreError):
    """The database is full, read-only, locked or broken: nothing was committed."""


class CorruptRecord(StoreError):
    """A stored record is not what was written: a flipped bit, or an edit by hand. Restore a backup.

    Args:
        table: where it is.
        key: its key there, as far as it can still be read.
    """

    def __init__(self, table: str, key: str) -> None:
        super().__init__(f"the record {key!r} in table {table} is damaged; `provisiond db check` lists what else is")
        self.table = table
        self.key = key


class AllocationError(ServerFault):
    """No hub can take the device: 400208, or 400207 when it was the custom allocation that failed."""

    code = 400208
    public_message = "No eligible hub"

    def __init__(self, reason: str, *, code: int = 400208, public: str | None = None) -> None:
        super().__init__(reason)
        self.code = code
        if public is not None:
            self.public_message = public


class HubFault(ServerFault):
    """A hub did not do what was asked of it.

    Args:
        reason: for the operator; names neither passwords nor keys.
    """


class HubUnavailable(HubFault):
    """The hub did not answer, not in time, or not with sense: asking again may help."""


class HubUnauthorized(HubFault):
    """The hub does not take the credentials that we administer it with: an operator has to act."""


class HubRefused(HubFault):
    """The hub will never take this device as it is."""

    code = 400209
    public_message = "The assigned hub does not take this device"


class SealBroken(ProvisiondError):
    """A sealed credential is not for this key or this context, or it was altered."""


class ConnectRefused(ProvisiondError):
    """The CONNECT is malformed or inconsistent.

    Args:
        reason: for the operator.
        return_code: CONNACK return code of MQTT 3.1.1 table 3.1 (2 identifier rejected, 3 unavailable, 5 not
            authorised). Never 1: SDKs would fall back to MQTT 3.1.
    """

    def __init__(self, reason: str, *, return_code: int = 5) -> None:
        super().__init__(reason)
        self.return_code = return_code


class ConfigurationError(ProvisiondError):
    """The configuration cannot be used. The message names the file, the key and the way out."""


class AddressUnavailable(ConfigurationError):
    """An address cannot be bound now: another program has it, or this machine does not have it yet."""


def binding_error(reason: str, error: OSError) -> ConfigurationError:
    """The error for an address that cannot be bound: one that time may mend, or one that only an operator does."""
    if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
        return AddressUnavailable(reason)
    return ConfigurationError(reason)


class AdminError(ProvisiondError):
    """An operator's request cannot be done."""


class InvalidArgument(AdminError):
    """What the operator gave cannot be used."""


class RecordNotFound(AdminError):
    """No such record."""


class AlreadyExists(AdminError):
    """A record of that id exists."""


class EtagMismatch(AdminError):
    """The record has changed since the etag was read."""
