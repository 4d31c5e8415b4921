"""[registration]: what a registering device is told, and what enrollments leave open."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from provisiond.enrollment.reprovision import POLICIES
from provisiond.model import AllocationPolicy, ReprovisionPolicy
from provisiond.settings.section import FilePath, Section
from provisiond.settings.units import Seconds, duration_within


class RegistrationSettings(Section):
    """What a registering device is told, and the defaults of enrollments."""

    reply: Literal["auto", "poll", "immediate"] = Field(
        default="auto",
        description='"poll": 202, then 200 at the first poll, as Azure does. "immediate": 200 at once. '
        '"auto": at once for clients that are known to take it, else poll.',
    )
    retry_after_s: Annotated[Seconds, duration_within("1s", "5m")] = Field(
        default=3.0,
        description="When a device is told to ask again, in whole seconds; what Azure says.",
    )
    default_allocation: AllocationPolicy = Field(
        default=AllocationPolicy.HASHED,
        description='How a hub is chosen where an enrollment does not say: "hashed" spreads by weight.',
    )
    reprovision: Literal["reprovisionandmigratedata", "reprovisionandresetdata", "never"] = Field(
        default="reprovisionandmigratedata",
        description="What happens when an assigned device registers again, where an enrollment does not say. Devices "
        "of Azure API versions up to 2018-04-01 stay at their hub all the same.",
    )
    retire_after_s: Annotated[Seconds, duration_within("0s", "30d")] = Field(
        default=3600.0,
        description="How long a device that was moved may still connect to the hub that it left, unless it was seen at "
        "its new one before: one that crashed before it heard of the move must not be locked out.",
    )
    webhook_ca_file: FilePath | None = Field(
        default=None,
        description="PEM certificates that webhooks of custom allocations must chain to; without it the system's.",
    )
    unknown: Literal["reject", "pending"] = Field(
        default="reject",
        description='What happens to devices that nobody enrolled: "reject", or "pending": those with a certificate or '
        "a TPM wait in `registration list --pending` until an operator accepts or rejects them.",
    )
    pending_devices: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=1000,
        description="Unknown devices that may wait at a time, 1 KB each; a stranger must not fill the disk.",
    )
    pending_ttl_s: Annotated[Seconds, duration_within("1m", "365d")] = Field(
        default=7 * 86400.0,
        description="How long they wait after they were last seen: a technician's week.",
    )

    @field_validator("retry_after_s")
    @classmethod
    def _check_whole_seconds(cls, seconds: float) -> float:
        if seconds % 1:
            raise ValueError("devices are told whole seconds")
        return seconds

    @field_validator("default_allocation")
    @classmethod
    def _check_allocation(cls, policy: AllocationPolicy) -> AllocationPolicy:
        if policy in (AllocationPolicy.CUSTOM, AllocationPolicy.STATIC):
            raise ValueError(f'"{policy}" needs an enrollment that says where to; write "hashed"')
        return policy

    @property
    def reprovision_policy(self) -> ReprovisionPolicy:
        """`reprovision`, as the decision takes it."""
        return POLICIES[self.reprovision]
