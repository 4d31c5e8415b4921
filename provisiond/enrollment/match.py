"""Which enrollments claim a request. Claiming is not trusting: `attestation` decides."""

from dataclasses import dataclass

from provisiond.model import AttestationType, Enrollment, Evidence, Facts, Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The enrollments to attest against: the individual one, or else the groups of the mechanisms presented."""

    individual: Enrollment | None
    groups: tuple[Enrollment, ...]

    def groups_of(self, attestation_type: AttestationType) -> tuple[Enrollment, ...]:
        """The claiming groups of one mechanism."""
        return tuple(group for group in self.groups if group.attestation_type is attestation_type)


def match(facts: Facts, evidence: Evidence, *, allowed: frozenset[AttestationType], trace: Trace) -> Claim:
    """Select the enrollments that claim a request: an individual enrollment wins over every group.

    Args:
        facts: what is stored.
        evidence: what was presented; a group claims only a request that brings its mechanism's evidence.
        allowed: the mechanisms this service accepts.
        trace: gets the enrollments that were looked at.
    """
    presented = presented_types(evidence) & allowed
    groups = tuple(group for group in facts.groups if group.attestation_type in presented)
    if facts.individual is not None:
        individual = facts.individual
        trace.passed(
            "enrollment",
            f"individual enrollment {individual.id} ({individual.attestation_type}, {_status(individual)})",
        )
    elif groups:
        trace.passed("enrollment", "groups that claim it: " + ", ".join(f"{g.id} ({_status(g)})" for g in groups[:16]))
    else:
        trace.failed("enrollment", "no individual enrollment, and no group claims what was presented")
    return Claim(individual=facts.individual, groups=groups)


def presented_types(evidence: Evidence) -> frozenset[AttestationType]:
    """The mechanisms that a request brings evidence for."""
    presented = {
        AttestationType.X509: bool(evidence.unverified_chain),
        AttestationType.SYMMETRIC_KEY: evidence.sas_token is not None or evidence.claims_symmetric_key,
        AttestationType.TPM: evidence.tpm is not None,
    }
    return frozenset(mechanism for mechanism, present in presented.items() if present)


def _status(enrollment: Enrollment) -> str:
    return enrollment.provisioning_status.value
