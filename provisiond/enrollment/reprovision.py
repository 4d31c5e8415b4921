"""What happens when a device that was assigned registers again (Azure DPS concepts, device reprovisioning)."""

from typing import Final

from provisiond.model import Registration, RegistrationStatus, ReprovisionPolicy, Substatus

POLICIES: Final = {
    "reprovisionandmigratedata": ReprovisionPolicy(update_hub_assignment=True, migrate_device_data=True),
    "reprovisionandresetdata": ReprovisionPolicy(update_hub_assignment=True, migrate_device_data=False),
    "never": ReprovisionPolicy(update_hub_assignment=False, migrate_device_data=False),
}
"""The three policies under the names the command line and the configuration use."""


def stays(existing: Registration | None, policy: ReprovisionPolicy) -> bool:
    """Whether the device keeps its hub without a new allocation."""
    return (
        existing is not None
        and existing.hub is not None
        and existing.status is not RegistrationStatus.FAILED
        and not policy.update_hub_assignment
    )


def substatus_after(existing: Registration | None, hub_name: str, policy: ReprovisionPolicy) -> Substatus:
    """The substatus of a device that is assigned to `hub_name` now."""
    if existing is None or existing.hub is None or existing.status is RegistrationStatus.FAILED:
        return Substatus.INITIAL_ASSIGNMENT
    if existing.hub == hub_name:
        return existing.substatus or Substatus.INITIAL_ASSIGNMENT
    return Substatus.DEVICE_DATA_MIGRATED if policy.migrate_device_data else Substatus.DEVICE_DATA_RESET
