"""What a decision is given besides the request and the facts: the operator's settings, the time, fresh names."""

from dataclasses import dataclass, field
from datetime import datetime

from provisiond.model import AllocationPolicy, ReprovisionPolicy
from provisiond.ports import Entropy
from provisiond.registration.attest import AttestationPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationPolicy:
    """The operator's settings that a decision depends on.

    Args:
        retry_after_s: what an unfinished operation tells the device to wait, whole seconds.
        default_allocation, default_reprovision: for enrollments that do not say.
        retire_after_s: how long at the most a device that moves may still use its identity at the hub that it leaves.
        unknown_pending: devices that nobody enrolled wait for an operator, instead of being refused and forgotten.
    """

    attestation: AttestationPolicy
    retry_after_s: int = 3
    default_allocation: AllocationPolicy = AllocationPolicy.HASHED
    default_reprovision: ReprovisionPolicy = field(default_factory=ReprovisionPolicy)
    retire_after_s: float = 3600.0
    unknown_pending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a decision is given besides the request and the facts.

    Args:
        now: wall time, aware UTC.
        immediate: whether this device takes `assigned` as its first answer.
        tracking_id: fresh UUID text, for the audit row and, on a refusal, the device.
        operation_id: fresh and unguessable, for a new registration.
        etag: fresh, for a changed registration.
        challenge_id: fresh and unguessable, for a challenge.
        connection_id: of the connection that asks; empty where connections are not ours to know.
        entropy: makes what a challenge or a sealed key needs.
        actor: remote address of the device.
    """

    now: datetime
    immediate: bool
    tracking_id: str
    operation_id: str
    etag: str
    challenge_id: str
    connection_id: str
    entropy: Entropy
    actor: str = ""


def uuid_text(random: bytes) -> str:
    """A version 4 UUID (RFC 9562 5.4) of 16 random octets; three a registration, at a quarter of `uuid.UUID`'s time."""
    digits = random.hex()
    variant = "89ab"[random[8] >> 4 & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
