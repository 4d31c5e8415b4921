"""Enrollments in the configuration file, `[[enrollments]]` and `[[enrollment_groups]]`, in the command line's words.

Keys stand in files of their own, never in this one. Keys of symmetric-key enrollments whose file is left out are
generated once, and kept.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from provisiond.model import AllocationPolicy, AttestationType, ProvisioningStatus
from provisiond.settings.section import FilePath, Section

Id = Annotated[str, Field(min_length=1, max_length=128)]


class DeclaredSettings(Section):
    """What both kinds have."""

    attestation_type: AttestationType = Field(description='"x509", "symmetricKey" or "tpm".')
    certificate_file: FilePath | None = Field(
        default=None, description="x509: the device's certificate, or the group's CA."
    )
    secondary_certificate_file: FilePath | None = Field(default=None, description="x509: for a roll-over.")
    primary_key_file: FilePath | None = Field(default=None, description="symmetricKey: base64; else generated once.")
    secondary_key_file: FilePath | None = Field(default=None, description="symmetricKey: as the primary.")
    pcr_policy: dict[str, Any] | None = Field(default=None, description="tpm: the state of the platform.")
    provisioning_status: ProvisioningStatus | None = Field(
        default=None, description="Left out, it is what an operator last said."
    )
    allocation_policy: AllocationPolicy | None = None
    iot_hubs: tuple[str, ...] = ()
    reprovision_policy: Literal["reprovisionandmigratedata", "reprovisionandresetdata", "never"] | None = None
    initial_twin_tags: dict[str, Any] | None = None
    initial_twin_properties: dict[str, Any] | None = None
    edge_enabled: bool = False

    _place: str = PrivateAttr(default="")

    @property
    def place(self) -> str:
        """File and line; for the operator."""
        return self._place

    def note_place(self, place: str) -> None:
        """Remember file and line."""
        self._place = place

    @model_validator(mode="after")
    def _check_material(self) -> Self:
        of_type = {
            AttestationType.X509: ("certificate_file", "secondary_certificate_file"),
            AttestationType.SYMMETRIC_KEY: ("primary_key_file", "secondary_key_file"),
            AttestationType.TPM: ("pcr_policy", "endorsement_key", "allowed_ids"),
        }
        for attestation_type, names in of_type.items():
            given = [name for name in names if getattr(self, name, None)]
            if given and attestation_type is not self.attestation_type:
                raise ValueError(
                    f"{given[0]} is for {attestation_type}, but attestation_type is {self.attestation_type}"
                )
        if self.attestation_type is AttestationType.X509 and self.certificate_file is None:
            raise ValueError("attestation_type x509 needs certificate_file")
        return self


class EnrollmentSettings(DeclaredSettings):
    """A device that is enrolled by this file."""

    registration_id: Id
    device_id: Id | None = None
    endorsement_key: str | None = Field(default=None, description="tpm: TPM2B_PUBLIC, base64; it is no secret.")


class EnrollmentGroupSettings(DeclaredSettings):
    """A group that is enrolled by this file."""

    group_id: Id
    allowed_ids: tuple[Id, ...] = Field(default=(), description="tpm: registration ids that may be claimed.")
