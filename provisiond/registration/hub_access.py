"""May this connection be that device at the embedded hub? Judged by the enrollment that let the device in. Pure.

The registration is the device's identity at the hub; there is no second record that could disagree with it. So whatever
ends an enrollment ends the device's access with the next judgement.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from hmac import compare_digest
from typing import Final

from provisiond.attestation import x509
from provisiond.attestation.certificate import parse_certificate
from provisiond.attestation.sas_token import EXPIRY_MAX_S, check_sas, names_device, parse_sas_token
from provisiond.attestation.symmetric_key import derive_device_key
from provisiond.errors import AttestationError
from provisiond.model import (
    AttestationType,
    Connection,
    Enrollment,
    EnrollmentKind,
    Hub,
    Registration,
    RegistrationId,
    RegistrationStatus,
    Retirement,
    SymmetricKeyMaterial,
    TpmMaterial,
    Trace,
)
from provisiond.registration.attest import AttestationPolicy

EMBEDDED: Final = "embedded"
"""The type of the hubs that this service is itself."""

_MOVED: Final = (RegistrationStatus.ASSIGNED, RegistrationStatus.ASSIGNING, RegistrationStatus.FAILED)
"""Of a device that has moved: made at its new hub, waiting to be, or refused there."""

_DECOY_KEYS: Final = (bytes(32), bytes([1]) * 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFacts:
    """Everything stored that a judgement may look at.

    Args:
        registration: that the device id belongs to, if any.
        individual: the individual enrollment of the registration's id, if any; it goes before every group.
        group: the group that the registration names, if it names one that is still there.
        issuers: the groups whose CA could vouch for the presented certificates.
        hubs: every linked hub.
        departures: what the registration still has at hubs that it is to go from; only looked at where it has moved.
    """

    registration: Registration | None = None
    individual: Enrollment | None = None
    group: Enrollment | None = None
    issuers: tuple[Enrollment, ...] = ()
    hubs: tuple[Hub, ...] = ()
    departures: tuple[Retirement, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HubAccess:
    """A device that may be connected.

    Args:
        registration: its identity.
        enrollment: whose trust material proved it.
        expires_at: when its token or certificate ends, aware UTC.
        departing_from: the hub here that it has moved from, where it may stay until it was seen at its new one.
    """

    registration: Registration
    enrollment: Enrollment
    expires_at: datetime
    departing_from: str | None = None


def judge_access(
    connection: Connection, facts: HubFacts, *, policy: AttestationPolicy, now: datetime, trace: Trace
) -> HubAccess:
    """Judge a connection that claims to be a device.

    Args:
        connection: `claimed_id` is the device id.
        facts: what is stored about it.
        policy: what counts as proof.
        now: aware UTC.
        trace: hears of every check.

    Raises:
        AttestationError: findings `device-unknown`, `device-not-assigned`, `hub-not-embedded`, `enrollment-unknown`,
            `enrollment-disabled`, `enrollment-changed`, `mechanism-not-allowed`, `no-evidence`, `hub-key-missing`,
            `endorsement-key-mismatch`, `ek-denied`, and those of `check_sas` and `attestation.x509`.
    """
    try:
        registration, departure = _assigned(facts, connection, now, trace)
        enrollment = _enrollment_of(registration, facts, policy, trace)
    except AttestationError:
        _equalise(connection, policy, now)
        raise
    if enrollment.attestation_type is AttestationType.X509:
        expires_at = _check_certificate(connection, registration, enrollment, facts, policy, now, trace)
    else:
        keys = device_keys(registration, enrollment, spelt=connection.claimed_id.text)
        expires_at = _check_token(connection, keys, policy, now, trace)
    return HubAccess(
        registration=registration,
        enrollment=enrollment,
        expires_at=expires_at,
        departing_from=None if departure is None else departure.hub,
    )


def is_here(registration: Registration, hubs: Iterable[Hub]) -> bool:
    """Whether a registration has its identity at an embedded hub."""
    hub = next((hub for hub in hubs if hub.name == registration.hub), None)
    return registration.status is RegistrationStatus.ASSIGNED and hub is not None and hub.type == EMBEDDED


def device_keys(registration: Registration, enrollment: Enrollment, *, spelt: str = "") -> tuple[bytes, ...]:
    """The keys that a device may sign its tokens with; none for certificates.

    Args:
        registration: the device's.
        enrollment: that lets it in.
        spelt: its device id as it spells it now; a group's derivation minds the case.
    """
    match enrollment.attestation:
        case SymmetricKeyMaterial(primary_key=primary, secondary_key=secondary):
            if enrollment.kind is EnrollmentKind.INDIVIDUAL:
                return (primary, secondary)
            spellings = _spellings(registration, spelt)
            return tuple(derive_device_key(key, spelling) for key in (primary, secondary) for spelling in spellings)
        case TpmMaterial():
            return () if registration.hub_key is None else (registration.hub_key,)
        case _:
            return ()


def _spellings(registration: Registration, spelt: str) -> Iterable[str]:
    candidates = (registration.registration_id, registration.device_id, spelt)
    return dict.fromkeys(one for one in candidates if one.lower() == registration.key)


def _assigned(
    facts: HubFacts, connection: Connection, now: datetime, trace: Trace
) -> tuple[Registration, Retirement | None]:
    """The registration, and what it has left here if it has moved away."""
    registration = facts.registration
    if registration is None:
        raise _refused(trace, "device-unknown", f"no registration has the device id {connection.claimed_id}")
    named = registration.registration_id
    if is_here(registration, facts.hubs):
        trace.passed("registration", f"{named} is assigned to {registration.hub}")
        return registration, None
    departure = _departure(registration, facts, now)
    if departure is not None:
        finding = f"{named} has moved to {registration.hub}, and leaves {departure.hub} once it was seen there"
        trace.passed("registration", finding)
        return registration, departure
    if registration.status is not RegistrationStatus.ASSIGNED:
        raise _refused(trace, "device-not-assigned", f"{named} is {registration.status}")
    raise _refused(trace, "hub-not-embedded", f"{named} is at {registration.hub}, not here")


def _departure(registration: Registration, facts: HubFacts, now: datetime) -> Retirement | None:
    """What a device that has moved may still use here: it must not be locked out before it has reached its new hub."""
    if registration.status not in _MOVED:
        return None
    embedded = {hub.name for hub in facts.hubs if hub.type == EMBEDDED}
    is_made = registration.status is RegistrationStatus.ASSIGNED
    for departure in facts.departures:
        if departure.hub in embedded and departure.grace_s and (now < departure.due_at or not is_made):
            return departure
    return None


def _enrollment_of(registration: Registration, facts: HubFacts, policy: AttestationPolicy, trace: Trace) -> Enrollment:
    """The individual enrollment, also one that was made since; else the group that let the device in."""
    enrollment = facts.individual
    if enrollment is None and registration.enrollment_kind is EnrollmentKind.GROUP:
        enrollment = facts.group
    if enrollment is None:
        raise _refused(trace, "enrollment-unknown", f"enrollment {registration.enrollment_id} is gone")
    if not enrollment.enabled:
        raise _refused(trace, "enrollment-disabled", f"enrollment {enrollment.id} is disabled")
    if enrollment.attestation_type not in policy.allowed:
        raise _refused(trace, "mechanism-not-allowed", f"{enrollment.attestation_type} is not allowed on this service")
    trace.passed("enrollment", f"{enrollment.kind} enrollment {enrollment.id} is enabled")
    _check_tpm(registration, enrollment, policy, trace)
    return enrollment


def _check_tpm(registration: Registration, enrollment: Enrollment, policy: AttestationPolicy, trace: Trace) -> None:
    """The hub key belongs to the TPM that registered; another one that is enrolled since has to register first."""
    material = enrollment.attestation
    if not isinstance(material, TpmMaterial):
        return
    if registration.hub_key is None:
        raise _refused(trace, "hub-key-missing", f"{registration.registration_id} has not registered with its TPM")
    enrolled, registered = material.endorsement_key, registration.endorsement_key or b""
    if enrolled is not None and not compare_digest(enrolled, registered):
        raise _refused(trace, "endorsement-key-mismatch", "the enrolled TPM is not the one that registered")
    if registration.endorsement_key_hash in policy.tpm.deny.endorsement_key_hashes:
        raise _refused(trace, "ek-denied", "the endorsement key is on the deny list")


def _check_certificate(
    connection: Connection,
    registration: Registration,
    enrollment: Enrollment,
    facts: HubFacts,
    policy: AttestationPolicy,
    now: datetime,
    trace: Trace,
) -> datetime:
    claimed_id, chain = RegistrationId(registration.registration_id), connection.unverified_chain
    if enrollment.kind is EnrollmentKind.INDIVIDUAL:
        x509.verify_individual(
            enrollment=enrollment,
            claimed_id=claimed_id,
            unverified_chain=chain,
            now=now,
            trace=trace,
            limits=policy.x509_limits,
            crls=policy.crls,
        )
    else:
        verified = x509.verify_group(
            groups=facts.issuers,
            claimed_id=claimed_id,
            unverified_chain=chain,
            now=now,
            trace=trace,
            limits=policy.x509_limits,
            crls=policy.crls,
        )
        _check_decisive(verified.enrollment, enrollment, trace)
    return parse_certificate(chain[0]).not_valid_after_utc


def _check_decisive(decisive: Enrollment, enrollment: Enrollment, trace: Trace) -> None:
    if decisive.key != enrollment.key:
        raise _refused(
            trace,
            "enrollment-changed",
            f"the certificate is vouched for by group {decisive.id}, the device registered through {enrollment.id}",
        )
    if not decisive.enabled:
        raise _refused(trace, "enrollment-disabled", f"enrollment group {decisive.id} is disabled")


def _check_token(
    connection: Connection, keys: tuple[bytes, ...], policy: AttestationPolicy, now: datetime, trace: Trace
) -> datetime:
    if connection.sas_token is None:
        raise _refused(trace, "no-evidence", "the device sent no token")
    token = parse_sas_token(connection.sas_token)
    check_sas(
        token,
        keys=keys,
        names_resource=lambda resource: names_device(resource, connection.claimed_id.text),
        key_names=(),
        now=now,
        clock_skew_s=policy.clock_skew_s,
        trace=trace,
    )
    # As long as it would still be taken if the device connected again.
    return datetime.fromtimestamp(min(token.expiry_s + policy.clock_skew_s, EXPIRY_MAX_S), UTC)


def _equalise(connection: Connection, policy: AttestationPolicy, now: datetime) -> None:
    """Spend what a wrong key costs, so that the time does not tell which devices there are."""
    if connection.sas_token is None:
        return
    try:
        _check_token(connection, _DECOY_KEYS, policy, now, Trace())
    except AttestationError:
        return


def _refused(trace: Trace, finding: str, reason: str) -> AttestationError:
    trace.failed(finding, reason)
    return AttestationError(reason, finding=finding)
