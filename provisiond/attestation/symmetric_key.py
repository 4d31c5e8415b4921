"""Symmetric-key attestation: a SAS token signed with the enrollment's key, or with one derived from the group's."""

import hmac
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from provisiond.attestation.examination import recording_failure
from provisiond.attestation.sas_token import SasToken, check_sas, generate_sas_token, parse_sas_token
from provisiond.errors import AttestationError
from provisiond.model import (
    AttestationType,
    Enrollment,
    RegistrationId,
    SymmetricKeyMaterial,
    Trace,
    Verified,
)

__all__ = [
    "PROVISIONING_KEY_NAME",
    "SasToken",
    "check_sas",
    "derive_device_key",
    "equalise",
    "generate_sas_token",
    "parse_sas_token",
    "verify_group",
    "verify_individual",
]

PROVISIONING_KEY_NAME: Final = "registration"
"""`skn` of tokens for provisioning; some SDKs leave it empty or out."""

_CREDENTIALS: Final = ("primary key", "secondary key")
_DECOY_KEYS: Final = (bytes(32), bytes([1]) * 32)


def derive_device_key(group_key: bytes, registration_id: str) -> bytes:
    """Derive a device's key from its group's (Azure DPS symmetric key attestation, group enrollments).

    Args:
        group_key: primary or secondary key of the group, 16 to 64 bytes.
        registration_id: as the device spells it; the derivation minds the case.

    Returns:
        HMAC-SHA256(group_key, registration_id), 32 bytes.
    """
    return hmac.digest(group_key, registration_id.encode(), "sha256")


def verify_individual(
    *,
    enrollment: Enrollment,
    claimed_id: RegistrationId,
    sas_token: str,
    id_scope: str,
    now: datetime,
    clock_skew_s: float,
    trace: Trace,
) -> Verified:
    """Verify a device by a token signed with either key of its individual enrollment.

    Args:
        enrollment: individual, symmetric key; a disabled one is verified as well, and is for the caller to turn down.
        claimed_id: who the device says it is; the token must be for it.
        sas_token: as the device sent it.
        id_scope: of this service; the token must be for it, without regard to case.
        now: aware UTC.
        clock_skew_s: how long after its expiry a token is still taken, seconds.
        trace: hears of every check.

    Raises:
        AttestationError: findings `attestation-type`, `sas-malformed`, `sas-signature`, `sas-resource`,
            `sas-key-name`, `sas-expired`.
    """
    if not isinstance(enrollment.attestation, SymmetricKeyMaterial):
        reason = f"the device presents a SAS token, its enrollment wants {enrollment.attestation_type}"
        trace.failed("attestation-type", reason)
        raise AttestationError(reason, finding="attestation-type")
    keys = (enrollment.attestation.primary_key, enrollment.attestation.secondary_key)
    index = _check(sas_token, keys, claimed_id, id_scope, now, clock_skew_s, trace)
    return _prove(claimed_id, enrollment, _CREDENTIALS[index], keys[index])


def verify_group(
    *,
    groups: Sequence[Enrollment],
    claimed_id: RegistrationId,
    sas_token: str,
    id_scope: str,
    now: datetime,
    clock_skew_s: float,
    trace: Trace,
) -> Verified:
    """Verify a device by a token signed with the key derived from its id and either key of any group.

    Every group is tried, whichever matches: six HMACs a group. An enabled group that matches goes
    before a disabled one.

    Args:
        groups: candidates, enabled and disabled; those with other attestation are passed over.
        claimed_id: who the device says it is, in the spelling its key was derived from.
        sas_token: as the device sent it.
        id_scope: of this service.
        now: aware UTC.
        clock_skew_s: how long after its expiry a token is still taken, seconds.
        trace: hears of every check.

    Returns:
        The proof; its enrollment may be disabled, which is for the caller to turn down.

    Raises:
        AttestationError: findings `no-key-group`, `sas-malformed`, `sas-signature`, `sas-resource`, `sas-key-name`,
            `sas-expired`.
    """
    candidates: list[tuple[Enrollment, str, bytes]] = []
    for group in sorted(groups, key=lambda group: (not group.enabled, group.key)):
        if isinstance(group.attestation, SymmetricKeyMaterial):
            group_keys = (group.attestation.primary_key, group.attestation.secondary_key)
            for credential, key in zip(_CREDENTIALS, group_keys, strict=True):
                candidates.append((group, credential, derive_device_key(key, claimed_id.text)))
    if not candidates:
        reason = "there is no enrollment group with a symmetric key"
        trace.failed("enrollment-group", reason)
        raise AttestationError(reason, finding="no-key-group")
    keys = [key for _, _, key in candidates]
    index = _check(sas_token, keys, claimed_id, id_scope, now, clock_skew_s, trace)
    group, credential, key = candidates[index]
    trace.passed("enrollment-group", f"group {group.id} ({group.provisioning_status}): derived from its {credential}")
    return _prove(claimed_id, group, f"key derived from the {credential}", key)


def equalise(
    *,
    claimed_id: RegistrationId,
    sas_token: str,
    id_scope: str,
    now: datetime,
    clock_skew_s: float,
    trace: Trace,
) -> None:
    """Spend what it takes to refuse a wrong key, for a device that has no enrollment.

    A stranger then cannot tell by the time of the answer which registration ids exist. Proves nothing: the caller
    refuses the device in any case, also one whose token the decoy keys happen to have signed.

    Args:
        claimed_id: who the device says it is.
        sas_token: as the device sent it.
        id_scope: of this service.
        now: aware UTC.
        clock_skew_s: as for a verification.
        trace: hears only of a token that cannot be read; what the decoy keys say would mislead.
    """
    try:
        _check(sas_token, _DECOY_KEYS, claimed_id, id_scope, now, clock_skew_s, Trace())
    except AttestationError as error:
        if error.finding == "sas-malformed":
            trace.failed("sas-readable", str(error), error.clause)


def _check(
    sas_token: str,
    keys: Sequence[bytes],
    claimed_id: RegistrationId,
    id_scope: str,
    now: datetime,
    clock_skew_s: float,
    trace: Trace,
) -> int:
    with recording_failure(trace, "sas-readable"):
        token = parse_sas_token(sas_token)
    trace.passed("sas-readable", f"a SAS token with {len(sas_token)} characters")
    wanted = f"{id_scope}/registrations/{claimed_id.key}".lower()
    return check_sas(
        token,
        keys=keys,
        names_resource=lambda resource: resource.lower() == wanted,
        key_names=(PROVISIONING_KEY_NAME,),
        now=now,
        clock_skew_s=clock_skew_s,
        trace=trace,
    )


def _prove(claimed_id: RegistrationId, enrollment: Enrollment, credential: str, device_key: bytes) -> Verified:
    return Verified(
        registration_id=claimed_id,
        enrollment=enrollment,
        attestation_type=AttestationType.SYMMETRIC_KEY,
        credential=credential,
        device_key=device_key,
    )
