"""What would become of the devices of a hub that takes no more, or is no more: the same policies, asked beforehand."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from provisiond.assignment.policies import allocate
from provisiond.enrollment.reprovision import stays
from provisiond.errors import AllocationError
from provisiond.model import AllocationPolicy, Enrollment, Hub, Registration, ReprovisionPolicy, Trace


class Fate(StrEnum):
    """What a device does when it next registers."""

    MOVES = "moves"
    STAYS = "stays"
    """Its reprovisioning policy never updates the hub assignment."""
    WEBHOOK = "webhook"
    """Its custom allocation decides."""
    STRANDED = "stranded"
    """No other hub is allowed and eligible: it would hear `failed`, 400208."""
    UNENROLLED = "unenrolled"
    """Nothing enabled lets it in any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A device and its fate; `target` is the hub that it would move to."""

    registration: Registration
    fate: Fate
    target: str | None = None


def plan_move(
    registration: Registration,
    enrollment: Enrollment | None,
    hubs: Sequence[Hub],
    *,
    default_allocation: AllocationPolicy,
    default_reprovision: ReprovisionPolicy,
) -> Move:
    """Say what a device does when it next registers, the hub that it is on being not eligible.

    Args:
        registration: the device's.
        enrollment: that lets it in now, None for nothing.
        hubs: every linked hub, with what is known of them now.
        default_allocation: for an enrollment that does not say.
        default_reprovision: likewise.
    """
    if enrollment is None or not enrollment.enabled:
        return Move(registration=registration, fate=Fate.UNENROLLED)
    if stays(registration, enrollment.reprovision_policy or default_reprovision):
        return Move(registration=registration, fate=Fate.STAYS)
    policy = enrollment.allocation_policy or default_allocation
    if policy is AllocationPolicy.CUSTOM:
        return Move(registration=registration, fate=Fate.WEBHOOK)
    others = [replace(hub, eligible=hub.eligible and hub.name != registration.hub) for hub in hubs]
    try:
        chosen = allocate(
            policy=policy,
            hubs=others,
            allowed=enrollment.iot_hubs,
            registration_key=registration.key,
            current_hub=registration.hub,
            trace=Trace(),
        ).hub
    except AllocationError:
        return Move(registration=registration, fate=Fate.STRANDED)
    return Move(registration=registration, fate=Fate.MOVES, target=chosen.name)
