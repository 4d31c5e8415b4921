"""Devices that nobody enrolled, and that an operator may let in: what there is to look at is kept."""

from dataclasses import replace
from typing import Final

from provisiond.attestation.enrollable_certificate import check_enrollable_client_certificate
from provisiond.errors import AttestationError, DeviceFault, InvalidArgument
from provisiond.model import (
    AttestationType,
    AuditRecord,
    Decision,
    Facts,
    Outcome,
    PendingDevice,
    Possession,
    RegisterRequest,
)
from provisiond.registration.context import Context

# Nobody vouches for these devices; anything else that is wrong with them, an enrollment would not mend.
_UNKNOWN: Final = {
    AttestationType.X509: frozenset({"enrollment-unknown", "ca-not-enrolled"}),
    AttestationType.TPM: frozenset(
        {
            "enrollment-unknown",
            "ek-anchors-missing",
            "ek-certificate-missing",
            "ek-certificate-path",
            "registration-id-not-derived",
        }
    ),
}


def await_operator(
    refused: Decision, fault: DeviceFault, request: RegisterRequest, facts: Facts, *, context: Context
) -> Decision:
    """Have a refused device wait for an operator, when it is one that nobody enrolled; else the refusal as it is.

    The device hears the same either way. That it holds its key need not be proved: what it is enrolled with is the key,
    and whoever does not hold it will be refused then.

    Args:
        refused: the refusal.
        fault: what it is for.
        request: what was presented.
        facts: what is stored; an individual enrollment, also one that is disabled, is an operator's word already.
        context: of the decision.
    """
    found = _evidence(request)
    if facts.individual is not None or found is None or not isinstance(fault, AttestationError):
        return refused
    attestation_type, evidence = found
    if fault.finding not in _UNKNOWN[attestation_type] and not _may_be_pinned(fault, request, evidence, context):
        return refused
    audit: AuditRecord | None = refused.audit
    return replace(
        refused,
        outcome=Outcome.PENDING,
        audit=None if audit is None else replace(audit, outcome=Outcome.PENDING),
        pending=PendingDevice(
            registration_id=request.claimed_id.text,
            attestation_type=attestation_type,
            evidence=evidence,
            proved=_is_proved(attestation_type, request.evidence.possession),
            first_seen_at=context.now,
            last_seen_at=context.now,
            remote_address=context.actor,
            tracking_id=context.tracking_id,
        ),
    )


def _may_be_pinned(fault: AttestationError, request: RegisterRequest, evidence: bytes, context: Context) -> bool:
    """Whether a certificate that calls itself a CA, as plain `openssl req -x509` has it, can be enrolled itself."""
    if fault.finding != "certificate-is-ca":
        return False
    try:
        check_enrollable_client_certificate(evidence, context.now, registration_id=request.claimed_id)
    except InvalidArgument:
        return False
    return True


def _is_proved(attestation_type: AttestationType, possession: Possession) -> bool:
    """A handshake proves a certificate's key; that of a TPM only an answered challenge does."""
    if attestation_type is AttestationType.TPM:
        return possession is Possession.ANSWERED
    return possession is not Possession.UNPROVED


def _evidence(request: RegisterRequest) -> tuple[AttestationType, bytes] | None:
    evidence = request.evidence
    if evidence.tpm is not None:
        return AttestationType.TPM, evidence.tpm.endorsement_key
    if evidence.unverified_chain and evidence.sas_token is None:
        return AttestationType.X509, evidence.unverified_chain[0]
    return None
