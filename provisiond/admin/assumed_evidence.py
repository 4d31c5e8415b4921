"""What a device would present, as far as it was given or can be told from what is kept; for explanations."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from provisiond.attestation.symmetric_key import PROVISIONING_KEY_NAME, derive_device_key, generate_sas_token
from provisiond.attestation.tpm_templates import STORAGE_TEMPLATES
from provisiond.model import (
    Enrollment,
    EnrollmentKind,
    Evidence,
    Possession,
    RegistrationId,
    SymmetricKeyMaterial,
    TpmEvidence,
    TpmMaterial,
    X509Material,
)
from provisiond.ports import StoredFacts

_SRK_TEMPLATE_ID: Final = "SRK-P256"
_TOKEN_LIFETIME_S: Final = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """What the device would present; all empty means what its enrollment asks for.

    Args:
        chain: DER certificates, leaf first.
        sas_token: as the device would send it.
        endorsement_key, storage_root_key: TPM2B_PUBLIC.
        ek_chain: DER certificates of the endorsement key, leaf first.
    """

    chain: tuple[bytes, ...] = ()
    sas_token: str | None = field(default=None, repr=False)
    endorsement_key: bytes | None = None
    storage_root_key: bytes | None = None
    ek_chain: tuple[bytes, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was given."""
        return not self.chain and self.sas_token is None and self.endorsement_key is None


def assume_evidence(
    presented: Presented, known: StoredFacts, claimed_id: RegistrationId, *, id_scope: str, now: datetime
) -> tuple[Evidence, tuple[str, ...]]:
    """The evidence of a request, and what was taken for true about it because only the device can show it.

    Args:
        presented: what was given; when it is empty, what is enrolled, or else what let the device in the last time.
        known: enrollment, registration and symmetric-key groups of the id.
        claimed_id: whose request.
        id_scope: of this service, for a token.
        now: aware UTC, for a token.

    Returns:
        Evidence and assumptions; without either when nothing was given and nothing is known.
    """
    if presented.is_empty:
        resource = f"{id_scope}/registrations/{claimed_id}"
        if known.individual is not None:
            return _enrolled_evidence(known.individual, known, resource, now)
        return _recorded_evidence(known, claimed_id, resource, now)
    assumptions: list[str] = []
    possession = Possession.UNPROVED
    if presented.chain:
        possession = Possession.TLS
        assumptions.append("the device holds the private key of the certificate")
    tpm = None
    if presented.endorsement_key is not None:
        possession = Possession.ANSWERED
        tpm, assumed = _tpm_evidence(presented, known)
        assumptions += assumed
    evidence = Evidence(unverified_chain=presented.chain, sas_token=presented.sas_token, tpm=tpm, possession=possession)
    return evidence, tuple(assumptions)


def _enrolled_evidence(
    enrollment: Enrollment, known: StoredFacts, resource: str, now: datetime
) -> tuple[Evidence, tuple[str, ...]]:
    """What the individual enrollment asks for."""
    match enrollment.attestation:
        case X509Material() as material:
            assumed = "the device presents the enrolled primary certificate, and holds its private key"
            return Evidence(unverified_chain=(material.primary_der,), possession=Possession.TLS), (assumed,)
        case TpmMaterial() as material:
            tpm, assumed_too = _tpm_evidence(Presented(endorsement_key=material.endorsement_key), known)
            return Evidence(tpm=tpm, possession=Possession.ANSWERED), (
                "the device presents the enrolled endorsement key",
                *assumed_too,
            )
        case SymmetricKeyMaterial() as material:
            return Evidence(sas_token=_token(resource, material.primary_key, now)), (
                "the device holds the enrolled primary key",
            )


def _recorded_evidence(
    known: StoredFacts, claimed_id: RegistrationId, resource: str, now: datetime
) -> tuple[Evidence, tuple[str, ...]]:
    """What a group let the device in with; a TPM's EK certificates are not kept, so only the device can tell of it."""
    registration = known.registration
    if registration is None or registration.enrollment_kind is not EnrollmentKind.GROUP:
        return Evidence(), ()
    group = next((group for group in known.groups if group.key == registration.enrollment_id.lower()), None)
    if group is not None and isinstance(group.attestation, SymmetricKeyMaterial):
        key = derive_device_key(group.attestation.primary_key, claimed_id.text)
        assumed = f"the device holds the key that is derived from the primary key of group {group.id}"
        return Evidence(sas_token=_token(resource, key, now)), (assumed,)
    if registration.certificate_der is not None:
        return Evidence(unverified_chain=(registration.certificate_der,), possession=Possession.TLS), (
            "the device presents the certificate that it registered with, and holds its private key",
        )
    return Evidence(), ()


def _token(resource: str, key: bytes, now: datetime) -> str:
    expiry_s = int(now.timestamp()) + _TOKEN_LIFETIME_S
    return generate_sas_token(resource=resource, key=key, expiry=expiry_s, key_name=PROVISIONING_KEY_NAME)


def _tpm_evidence(presented: Presented, known: StoredFacts) -> tuple[TpmEvidence, tuple[str, ...]]:
    assumptions = ["the TPM activates the challenge, and meets the enrollment's PCR policy if it has one"]
    storage_root_key = presented.storage_root_key
    if storage_root_key is None:
        storage_root_key = _recorded_storage_root_key(known)
        assumptions.append("the storage root key is " + ("the recorded one" if storage_root_key else "a usable one"))
    evidence = TpmEvidence(
        endorsement_key=presented.endorsement_key or b"",
        storage_root_key=storage_root_key or _any_storage_root_key(),
        unverified_ek_chain=presented.ek_chain,
    )
    return evidence, tuple(assumptions)


def _recorded_storage_root_key(known: StoredFacts) -> bytes | None:
    material = known.individual.attestation if known.individual else None
    enrolled = material.storage_root_key if isinstance(material, TpmMaterial) else None
    return enrolled or (known.registration.storage_root_key if known.registration else None)


def _any_storage_root_key() -> bytes:
    """A key that follows a storage template: only its form is looked at before the device proves itself."""
    templates = [known for size in STORAGE_TEMPLATES.values() for known in size]
    template = next(known for known in templates if known.id == _SRK_TEMPLATE_ID)
    point = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    size_bytes = template.unique_size_bytes
    x, y = point.x.to_bytes(size_bytes, "big"), point.y.to_bytes(size_bytes, "big")
    return template.prefix + x + size_bytes.to_bytes(2, "big") + y
