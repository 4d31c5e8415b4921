"""What enrollments trust: certificates, keys, TPMs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class AttestationType(StrEnum):
    """How a device proves who it is."""

    X509 = "x509"
    SYMMETRIC_KEY = "symmetricKey"
    TPM = "tpm"


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Material:
    """Trust material of an X.509 enrollment.

    `client`: the device's own certificate (individual enrollment, pinned). `signing`: a CA certificate, root or
    intermediate (group).
    """

    primary_der: bytes
    secondary_der: bytes | None = None

    @property
    def certificates(self) -> tuple[bytes, ...]:
        """The one or two certificates, DER."""
        return (self.primary_der,) if self.secondary_der is None else (self.primary_der, self.secondary_der)


@dataclass(frozen=True, slots=True, kw_only=True)
class SymmetricKeyMaterial:
    """Trust material of a symmetric-key enrollment: two keys of 16 to 64 bytes; for a group, the keys devices' keys
    are derived from.
    """

    primary_key: bytes = field(repr=False)
    secondary_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmMaterial:
    """Trust material of a TPM enrollment.

    Individual: the exact endorsement key (TPM2B_PUBLIC), and the storage root key once it has been seen.
    Group: neither; trust comes from the EK certificate and the configured manufacturer CAs. `allowed_ids` then
    lists the registration ids (keys) that may be claimed; empty means that the id must be the one derived from the EK.
    `pcr_policy` is the JSON of the enrollment's PCR policy, or None.
    """

    endorsement_key: bytes | None = None
    storage_root_key: bytes | None = None
    allowed_ids: tuple[str, ...] = ()
    pcr_policy: Mapping[str, Any] | None = None


AttestationMaterial = X509Material | SymmetricKeyMaterial | TpmMaterial


def attestation_type_of(material: AttestationMaterial) -> AttestationType:
    """The mechanism that this material belongs to."""
    match material:
        case X509Material():
            return AttestationType.X509
        case SymmetricKeyMaterial():
            return AttestationType.SYMMETRIC_KEY
        case TpmMaterial():
            return AttestationType.TPM
