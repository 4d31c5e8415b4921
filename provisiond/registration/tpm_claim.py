"""What a TPM claims: the keys it presents, and the enrollment that knows them. Believing it takes a challenge."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from provisiond.attestation.ek_certificate import NOTHING_DENIED, EkDenyList, verify_ek_certificate
from provisiond.attestation.tpm import (
    derive_registration_id,
    endorsement_key_hash,
    parse_attestation_key,
    parse_endorsement_key,
    parse_storage_root_key,
)
from provisiond.attestation.tpm_pcr_policy import PcrPolicy, parse_pcr_policy
from provisiond.attestation.tpm_public import TpmPublic
from provisiond.attestation.transcript import frame
from provisiond.errors import AttestationError
from provisiond.model import Decision, Enrollment, Facts, RegistrationId, TpmEvidence, TpmMaterial, Trace

IDENTITY_CONFLICTS: Final = frozenset(
    {"endorsement-key-in-use", "endorsement-key-changed", "endorsement-key-mismatch", "storage-root-key-changed"}
)
"""Findings that say that one TPM asks to be another, or two to be one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmPolicy:
    """Whose word about TPMs is taken.

    Args:
        anchors: DER certificates of the TPM makers that are trusted; with none, no TPM group lets anybody in.
        deny: what is refused however well it is certified.
    """

    anchors: tuple[bytes, ...] = ()
    deny: EkDenyList = NOTHING_DENIED


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmKeys:
    """The keys of one claim, read and checked for their roles."""

    endorsement: TpmPublic
    storage_root: TpmPublic
    attestation: TpmPublic | None


def read_keys(evidence: TpmEvidence, trace: Trace) -> TpmKeys:
    """Read the keys that a TPM device presents.

    Raises:
        TpmStructureError: one is no public area.
        AttestationError: one does not fit its role.
    """
    keys = TpmKeys(
        endorsement=parse_endorsement_key(evidence.endorsement_key),
        storage_root=parse_storage_root_key(evidence.storage_root_key),
        attestation=None if evidence.attestation_key is None else parse_attestation_key(evidence.attestation_key),
    )
    trace.passed("tpm-keys", "each follows a template of its role", "TCG EK Credential Profile 2.0 annex B")
    return keys


def keys_digest(evidence: TpmEvidence) -> bytes:
    """SHA-256 of the keys that a TPM presents: who proves one set of them has proved no other."""
    return sha256(frame(evidence.endorsement_key, evidence.storage_root_key, evidence.attestation_key or b"")).digest()


def check_individual(enrollment: Enrollment, evidence: TpmEvidence, trace: Trace, *, policy: TpmPolicy) -> None:
    """Check that the endorsement key is the enrolled one, octet for octet, and so the storage root key if given.

    Raises:
        AttestationError: findings `endorsement-key-mismatch`, `storage-root-key-changed`, `ek-denied`.
    """
    material = _material(enrollment)
    enrolled = material.endorsement_key or b""
    if not compare_digest(enrolled, evidence.endorsement_key):
        raise AttestationError(
            f"the presented endorsement key is not the one of enrollment {enrollment.id}",
            finding="endorsement-key-mismatch",
        )
    if material.storage_root_key is not None and not compare_digest(
        material.storage_root_key, evidence.storage_root_key
    ):
        raise _storage_root_key_changed("update the enrollment")
    if endorsement_key_hash(evidence.endorsement_key) in policy.deny.endorsement_key_hashes:
        raise AttestationError(
            "the endorsement key is on the deny list", finding="ek-denied", clause="operator's deny list"
        )
    trace.passed("endorsement-key", f"the one of individual enrollment {enrollment.id}")


def find_group(
    groups: Sequence[Enrollment],
    claimed_id: RegistrationId,
    evidence: TpmEvidence,
    keys: TpmKeys,
    *,
    policy: TpmPolicy,
    now: datetime,
    trace: Trace,
) -> Enrollment:
    """Find the TPM group that lets a certified endorsement key have the claimed id; enabled ones first.

    Raises:
        AttestationError: the certificate does not verify (findings of `ek_certificate`), or no group gives this TPM
            this id (finding `registration-id-not-derived`).
    """
    verify_ek_certificate(
        endorsement_key=keys.endorsement,
        unverified_chain=evidence.unverified_ek_chain,
        anchors=policy.anchors,
        now=now,
        trace=trace,
        deny=policy.deny,
    )
    derived = derive_registration_id(evidence.endorsement_key)
    for group in sorted(groups, key=lambda group: not group.enabled):
        allowed = _material(group).allowed_ids
        if claimed_id.key in allowed or (not allowed and claimed_id.key == derived):
            trace.passed("enrollment-group", f"group {group.id} ({group.provisioning_status}) gives it this id")
            return group
    raise AttestationError(
        f"no group gives this TPM the id {claimed_id}; the one derived from its endorsement key is {derived}",
        finding="registration-id-not-derived",
    )


def check_history(claimed_id: RegistrationId, evidence: TpmEvidence, facts: Facts, trace: Trace) -> None:
    """Check a claim against what was registered before: one TPM an id, one id a TPM, and the same storage root key.

    An operator who wants it otherwise deletes the registration.

    Raises:
        AttestationError: findings `endorsement-key-in-use`, `endorsement-key-changed`, `storage-root-key-changed`.
    """
    if facts.endorsement_key_owner not in (None, claimed_id.key):
        raise AttestationError(
            f"this endorsement key is registered as {facts.endorsement_key_owner}", finding="endorsement-key-in-use"
        )
    known = facts.registration
    if known is None or known.endorsement_key_hash is None:
        return
    if not compare_digest(known.endorsement_key_hash, endorsement_key_hash(evidence.endorsement_key)):
        raise AttestationError(f"{claimed_id} is registered with another TPM", finding="endorsement-key-changed")
    if known.storage_root_key is not None and not compare_digest(known.storage_root_key, evidence.storage_root_key):
        raise _storage_root_key_changed("delete the registration")
    trace.passed("tpm-history", "the TPM that was registered before, with the same storage root key")


def identity_conflict(decision: Decision) -> str:
    """The finding when a refusal is such a conflict, else empty: hardware was exchanged, or somebody is trying."""
    trace = decision.audit.trace if decision.audit is not None else ()
    name = trace[-1].name if trace and not trace[-1].passed else ""
    return name if name in IDENTITY_CONFLICTS else ""


def pcr_policy_of(enrollment: Enrollment) -> PcrPolicy | None:
    """What an enrollment wants to know of the platform's state, or None."""
    document = _material(enrollment).pcr_policy
    return None if document is None else parse_pcr_policy(document)


def _material(enrollment: Enrollment) -> TpmMaterial:
    if not isinstance(enrollment.attestation, TpmMaterial):
        raise AttestationError(f"enrollment {enrollment.id} is not for TPMs", finding="attestation-type")
    return enrollment.attestation


def _storage_root_key_changed(way_out: str) -> AttestationError:
    return AttestationError(
        f"the storage root key is not the recorded one: the TPM was cleared or replaced; {way_out} to let it in anew",
        finding="storage-root-key-changed",
    )
