"""From an endorsement key certificate to a configured anchor, in a bounded search.

A device sends its issuers' certificates in any order, with strangers among them; anchors may share a name. So the
search goes depth first over names that fit, and both its depth and the signatures it verifies are limited.

Source: RFC 5280 6.1.3, 6.1.4.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from provisiond.attestation.ek_anchor import check_issuer, read_anchor
from provisiond.attestation.ek_certificate_reader import RawCertificate
from provisiond.attestation.ek_certificate_signature import verify_certificate_signature
from provisiond.errors import AttestationError
from provisiond.model import Trace

PATH_MAX_CERTIFICATES: Final = 5
"""Leaf and anchor included. TPM makers' paths are 3, those of firmware TPMs 4; anchor an intermediate for longer."""

SIGNATURES_MAX: Final = 8
"""One verification takes up to a millisecond (P-521); a path takes 4."""

FAULTS_MAX: Final = 8
"""Enough to see why; a request can name many wrong issuers."""

_PATH: Final = "RFC 5280 6.1"


class _PathSearch:
    """The state of one search."""

    __slots__ = ("_anchors", "_now", "_signatures_left", "faults")

    def __init__(self, anchors: Sequence[RawCertificate], now: datetime) -> None:
        self._anchors = anchors
        self._now = now
        self._signatures_left = SIGNATURES_MAX
        self.faults: list[str] = []

    def extend(
        self, path: tuple[RawCertificate, ...], strangers: Sequence[RawCertificate]
    ) -> tuple[RawCertificate, ...] | None:
        """The path from `path` to an anchor, or None."""
        if len(path) == PATH_MAX_CERTIFICATES:
            self._fault(f"longer than {PATH_MAX_CERTIFICATES} certificates")
            return None
        for anchor in self._anchors:
            if anchor.subject == path[-1].issuer and self._issues(anchor, path):
                return (*path, anchor)
        for stranger in strangers:
            if stranger.subject != path[-1].issuer or not self._issues(stranger, path, at=self._now):
                continue
            found = self.extend((*path, stranger), [other for other in strangers if other is not stranger])
            if found is not None:
                return found
        return None

    def _issues(self, issuer: RawCertificate, path: tuple[RawCertificate, ...], at: datetime | None = None) -> bool:
        if self._signatures_left == 0:
            self._fault("too many issuers to try")
            return False
        try:
            check_issuer(issuer, path)
            if at is not None:
                check_validity(issuer, at)
            self._signatures_left -= 1
            verify_certificate_signature(path[-1], issuer.spki)
        except AttestationError as error:
            self._fault(f"issuer at depth {len(path)}: {error}")
            return False
        return True

    def _fault(self, reason: str) -> None:
        if reason not in self.faults and len(self.faults) < FAULTS_MAX:
            self.faults.append(reason)


def find_path(
    leaf: RawCertificate,
    strangers: Sequence[RawCertificate],
    *,
    anchors: Sequence[bytes],
    now: datetime,
    trace: Trace,
) -> tuple[RawCertificate, ...]:
    """Find a valid path from a certificate to an anchor.

    Args:
        leaf: its own profile and validity have been checked.
        strangers: certificates that came with it, in any order, at most 4.
        anchors: trusted CA certificates, DER; one that cannot be read is passed over and noted in the trace.
        now: aware UTC.
        trace: where the result is recorded.

    Returns:
        Leaf first, anchor last.

    Raises:
        AttestationError: there is none, finding `ek-certificate-path`; or no anchor at all, `ek-anchors-missing`.
    """
    trusted = _read_anchors(anchors, trace)
    if not trusted:
        trace.failed("ek-certificate-path", "no TPM manufacturer CA is configured", _PATH)
        raise AttestationError("no TPM manufacturer CA is configured", finding="ek-anchors-missing", clause=_PATH)
    search = _PathSearch(trusted, now)
    path = search.extend((leaf,), strangers)
    if path is None:
        found = "; ".join(search.faults) or "no issuer of that name"
        trace.failed("ek-certificate-path", found, _PATH)
        raise AttestationError(
            f"no path to a configured TPM manufacturer CA: {found}", finding="ek-certificate-path", clause=_PATH
        )
    trace.passed("ek-certificate-path", f"{len(path)} certificates, anchor included", _PATH)
    return path


def check_validity(certificate: RawCertificate, now: datetime) -> None:
    """Check the validity period, ends included (RFC 5280 6.1.3 (a)(2)).

    Raises:
        AttestationError: finding `certificate-not-yet-valid` or `certificate-expired`.
    """
    clause = "RFC 5280 6.1.3 (a)(2)"
    if now < certificate.not_before:
        raise AttestationError(
            f"not valid before {certificate.not_before:%Y-%m-%d}", finding="certificate-not-yet-valid", clause=clause
        )
    if now > certificate.not_after:
        raise AttestationError(
            f"expired on {certificate.not_after:%Y-%m-%d}", finding="certificate-expired", clause=clause
        )


def _read_anchors(anchors: Sequence[bytes], trace: Trace) -> list[RawCertificate]:
    readable: list[RawCertificate] = []
    for number, octets in enumerate(anchors, start=1):
        try:
            readable.append(read_anchor(octets))
        except AttestationError as error:
            trace.failed("ek-anchor", f"anchor {number} is passed over: {error}", error.clause)
    return readable
