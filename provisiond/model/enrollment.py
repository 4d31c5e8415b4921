"""Enrollments: which devices may come, by what they are believed, and where they go."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from provisiond.model.trust import AttestationMaterial, AttestationType, attestation_type_of


class EnrollmentKind(StrEnum):
    """One device, or every device that a shared trust material vouches for."""

    INDIVIDUAL = "individual"
    GROUP = "group"


class ProvisioningStatus(StrEnum):
    """Whether devices of an enrollment may be assigned."""

    ENABLED = "enabled"
    DISABLED = "disabled"


class AllocationPolicy(StrEnum):
    """How a hub is chosen among the eligible ones."""

    HASHED = "hashed"
    GEO_LATENCY = "geoLatency"
    STATIC = "static"
    CUSTOM = "custom"
    LEAST_LOADED = "leastLoaded"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReprovisionPolicy:
    """What happens when an assigned device registers again (Azure `reprovisionPolicy`)."""

    update_hub_assignment: bool = True
    migrate_device_data: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialTwin:
    """Tags and desired properties a device's twin starts with at its hub."""

    tags: Mapping[str, Any] = field(default_factory=dict)
    desired: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrollment:
    """An individual enrollment or an enrollment group (Azure DPS service API nouns).

    Args:
        kind: individual or group.
        id: registration id or group id, as the operator spelt it. `key` is what it is compared under.
        device_id: device id at the hub, when it differs from the registration id (individual only).
        allocation_policy: None falls back to the configured default.
        iot_hubs: names or hosts of the hubs to choose among; empty means all.
        custom_allocation: `{"webhookUrl": …, "apiVersion": …}` for the custom policy.
        etag: opaque, changes at every update; includes its quotes.
        origin: `operator` or `config` (declared in the configuration file).
    """

    kind: EnrollmentKind
    id: str
    attestation: AttestationMaterial
    provisioning_status: ProvisioningStatus = ProvisioningStatus.ENABLED
    device_id: str | None = None
    allocation_policy: AllocationPolicy | None = None
    iot_hubs: tuple[str, ...] = ()
    custom_allocation: Mapping[str, Any] | None = None
    reprovision_policy: ReprovisionPolicy | None = None
    initial_twin: InitialTwin | None = None
    iot_edge: bool = False
    device_information: Mapping[str, Any] | None = None
    origin: str = "operator"
    etag: str = ""
    created_at: datetime
    updated_at: datetime

    @property
    def key(self) -> str:
        """The spelling the record is stored and compared under."""
        return self.id.lower()

    @property
    def enabled(self) -> bool:
        """Whether its devices may be assigned."""
        return self.provisioning_status is ProvisioningStatus.ENABLED

    @property
    def attestation_type(self) -> AttestationType:
        """The mechanism its devices prove themselves with."""
        return attestation_type_of(self.attestation)
