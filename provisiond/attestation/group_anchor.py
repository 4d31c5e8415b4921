"""Enrollment groups as trust anchors: which of them decides about a device."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509

from provisiond.attestation.certificate import authority_of, describe_subject
from provisiond.attestation.certificate_extensions import check_name_constraints, extension_of
from provisiond.attestation.certification_path import (
    Path,
    build_path,
    build_shortest_path,
    explain_failure,
    parse_anchor,
)
from provisiond.attestation.examination import recording_failure
from provisiond.errors import AttestationError
from provisiond.model import Enrollment, Trace, X509Material

CREDENTIALS: Final = ("primary certificate", "secondary certificate")
"""What the certificates of an X509Material are called, in its order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAnchor:
    """A CA certificate of an enrollment group; `credential` says which of its certificates."""

    group: Enrollment
    certificate_der: bytes
    credential: str

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate, parsed; `read_anchors` has made sure that it can be."""
        return parse_anchor(self.certificate_der)


def read_anchors(groups: Sequence[Enrollment], trace: Trace) -> tuple[GroupAnchor, ...]:
    """The CA certificates of those groups that have any, in the order of group ids; one that cannot be read is
    recorded in the trace and left out.
    """
    anchors = []
    for group in sorted(groups, key=lambda group: group.key):
        if not isinstance(group.attestation, X509Material):
            continue
        for certificate_der, credential in zip(group.attestation.certificates, CREDENTIALS, strict=False):
            try:
                parse_anchor(certificate_der)
            except AttestationError as error:
                trace.failed("enrollment-group", f"group {group.id}: {error}", error.clause)
            else:
                anchors.append(GroupAnchor(group=group, certificate_der=certificate_der, credential=credential))
    return tuple(anchors)


def find_path(
    leaf: x509.Certificate,
    unverified_issuers: Sequence[x509.Certificate],
    anchors: Sequence[GroupAnchor],
    now: datetime,
    trace: Trace,
    *,
    max_authorities: int,
) -> Path:
    """Verify the path to the nearest anchor, recorded in the trace; arguments of `build_path`, one anchor or more.

    Raises:
        AttestationError: findings `issuer-missing`, `issuer-lookalike`, `issuer-unusable`, `path-invalid`,
            `name-constraints-unsupported`.
    """
    anchors_der = [anchor.certificate_der for anchor in anchors]
    with recording_failure(trace, "certification-path"):
        try:
            path = build_shortest_path(leaf, unverified_issuers, anchors_der, now, max_authorities=max_authorities)
        except AttestationError as error:
            raise explain_failure(leaf, unverified_issuers, anchors_der, now, error) from error
        for authority in path[1:]:
            check_name_constraints(extension_of(authority, x509.NameConstraints))
    names = " < ".join(describe_subject(certificate) for certificate in path)
    trace.passed("certification-path", names, "RFC 5280 6.1")
    return path


def find_decisive(
    leaf: x509.Certificate,
    unverified_issuers: Sequence[x509.Certificate],
    anchors: Sequence[GroupAnchor],
    path: Path,
    now: datetime,
) -> GroupAnchor:
    """The anchor that decides: the nearest, and a disabled one before an enabled one that is no nearer.

    A disabled group's authority counts as met when any certificate of the path has its subject and key: its
    certificate may have been issued anew since, and the device chooses which one it presents.

    Args:
        leaf: the device's certificate.
        unverified_issuers: what else it presented.
        anchors: all candidates.
        path: the verified path to the nearest of them.
        now: the time to judge at.
    """
    nearest = _owner_of(path, anchors)
    disabled = [anchor for anchor in anchors if not anchor.group.enabled]
    if not disabled:
        return nearest
    authorities = [authority_of(certificate) for certificate in path[1:]]
    met = [anchor for anchor in disabled if authority_of(anchor.certificate) in authorities]
    if met:
        return min(met, key=lambda anchor: authorities.index(authority_of(anchor.certificate)))
    disabled_der = [anchor.certificate_der for anchor in disabled]
    try:
        other = build_path(leaf, unverified_issuers, disabled_der, now, max_authorities=len(path) - 1)
    except AttestationError:
        return nearest
    return _owner_of(other, disabled)


def _owner_of(path: Path, anchors: Sequence[GroupAnchor]) -> GroupAnchor:
    return next(anchor for anchor in anchors if anchor.certificate == path[-1])
