"""Certificate revocation lists (RFC 5280 5 and 6.3): complete lists, issued by the authority that they speak for.

Delta, indirect and partitioned lists are refused rather than half understood.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from provisiond.attestation.certificate import authority_of, describe_issuer, describe_subject, identity_of, reading
from provisiond.attestation.certificate_extensions import extension_of
from provisiond.errors import AttestationError, InvalidArgument
from provisiond.model import Trace

CRL_MAX_SIZE_BYTES: Final = 16 * 1024 * 1024  # about 400,000 revoked certificates
_CACHED_LISTS: Final = 32  # a list for each CA of a gateway and its hierarchy; the larger part of memory is the lists
_CACHED_SIGNATURES: Final = 256
_CHECK: Final = "revocation"
_CLAUSE: Final = "RFC 5280 6.3.3"


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationList:
    """A parsed list.

    Args:
        issuer: DER Name of its issuer.
        last_update, next_update: its period; aware UTC.
        revoked: serial numbers.
        unsupported: why the list must not be relied on, or empty.
    """

    crl_der: bytes = field(repr=False)
    issuer: bytes
    last_update: datetime
    next_update: datetime | None
    revoked: frozenset[int] = field(repr=False)
    unsupported: str = ""


def load_crl(pem_or_der: bytes) -> bytes:
    """Read one CRL from a file's content.

    Args:
        pem_or_der: one CRL, PEM or DER, at most 16 MiB.

    Returns:
        DER.

    Raises:
        InvalidArgument: anything else, or a kind of list that is not supported.
    """
    if len(pem_or_der) > CRL_MAX_SIZE_BYTES:
        raise InvalidArgument(f"the CRL has {len(pem_or_der)} bytes, more than {CRL_MAX_SIZE_BYTES}")
    try:
        with reading("the CRL"):
            is_pem = pem_or_der.lstrip().startswith(b"-----BEGIN")
            crl = (x509.load_pem_x509_crl if is_pem else x509.load_der_x509_crl)(pem_or_der)
            crl_der = crl.public_bytes(Encoding.DER)
        unsupported = parse_crl(crl_der).unsupported
    except AttestationError as error:
        raise InvalidArgument(str(error)) from error
    if unsupported:
        raise InvalidArgument(f"the CRL cannot be used: {unsupported}")
    return crl_der


@lru_cache(maxsize=_CACHED_LISTS)
def parse_crl(crl_der: bytes) -> RevocationList:
    """Read a DER list once, with its serial numbers in a set.

    Raises:
        AttestationError: finding `certificate-malformed`.
    """
    with reading("a configured CRL"):
        crl = x509.load_der_x509_crl(crl_der)
        return RevocationList(
            crl_der=crl_der,
            issuer=crl.issuer.public_bytes(),
            last_update=crl.last_update_utc,
            next_update=crl.next_update_utc,
            revoked=frozenset(entry.serial_number for entry in crl),
            unsupported=_why_unsupported(crl),
        )


def check_revocation(
    path: Sequence[x509.Certificate],
    *,
    crls: Sequence[bytes],
    revoked: frozenset[bytes],
    now: datetime,
    trace: Trace,
) -> None:
    """Require that no certificate of a verified path is revoked.

    A list counts for a certificate when it bears the name of the certificate's issuer and, where the path has that
    issuer, its signature. Where the path has not (above an intermediate anchor, or for a pinned certificate), the
    operator who configured the list is trusted for it.

    Args:
        path: leaf first, each one signed by the next.
        crls: configured lists, DER.
        revoked: `identity_of` certificates that are revoked without a list.
        now: the time to judge at.
        trace: hears of each certificate, also of those that no list speaks for.

    Raises:
        AttestationError: findings `certificate-revoked`; `crl-expired`, `crl-not-yet-valid`, `crl-signature`,
            `crl-unsupported` when lists of the issuer are there and none of them can be relied on.
    """
    lists = [parse_crl(crl_der) for crl_der in crls]
    for certificate, issuer in zip(path, [*path[1:], None], strict=True):
        is_root = issuer is None and certificate.subject == certificate.issuer and len(path) > 1
        if is_root:
            continue  # a root cannot testify against itself; it is removed from the enrollment instead
        try:
            finding = _check_one(certificate, issuer, lists, revoked, now)
        except AttestationError as error:
            trace.failed(_CHECK, str(error), error.clause)
            raise
        trace.passed(_CHECK, f"{describe_subject(certificate)}: {finding}", _CLAUSE)


def _check_one(
    certificate: x509.Certificate,
    issuer: x509.Certificate | None,
    lists: Sequence[RevocationList],
    revoked: frozenset[bytes],
    now: datetime,
) -> str:
    name = describe_subject(certificate)
    if revoked and identity_of(certificate) in revoked:
        raise AttestationError(f"the certificate {name} is revoked", finding="certificate-revoked", clause=_CLAUSE)
    named = [item for item in lists if item.issuer == certificate.issuer.public_bytes()]
    if not named:
        return "no CRL of its issuer is configured"
    signed = [item for item in named if issuer is None or _is_signed_by(item, issuer)]
    if not signed:
        raise AttestationError(
            f"no CRL in the name of {describe_issuer(certificate)} is signed with its key",
            finding="crl-signature",
            clause="RFC 5280 6.3.3 (g)",
        )
    # An outdated list still tells the truth about what it lists.
    if any(certificate.serial_number in item.revoked for item in signed):
        raise AttestationError(f"the certificate {name} is revoked", finding="certificate-revoked", clause=_CLAUSE)
    faults = [_fault_of(item, now) for item in signed]
    if None not in faults:
        finding, reason = next(filter(None, faults))
        raise AttestationError(f"the CRL of {describe_issuer(certificate)} {reason}", finding=finding, clause=_CLAUSE)
    return "not on its issuer's CRL"


def _fault_of(item: RevocationList, now: datetime) -> tuple[str, str] | None:
    if item.unsupported:
        return "crl-unsupported", f"cannot be used: {item.unsupported}"
    if item.next_update is None:
        return "crl-unsupported", "cannot be used: it does not say when the next one comes"
    if now < item.last_update:
        return "crl-not-yet-valid", f"is from the future: {item.last_update:%Y-%m-%d %H:%M:%S}Z"
    if now > item.next_update:
        return "crl-expired", f"expired at {item.next_update:%Y-%m-%d %H:%M:%S}Z: fetch a new one"
    return None


def _is_signed_by(item: RevocationList, issuer: x509.Certificate) -> bool:
    usage = extension_of(issuer, x509.KeyUsage)
    if usage is not None and not usage.crl_sign:
        return False  # RFC 5280 6.3.3 (f)
    subject, public_key_der = authority_of(issuer)
    return item.issuer == subject and _has_signature(item.crl_der, public_key_der)


@lru_cache(maxsize=_CACHED_SIGNATURES)
def _has_signature(crl_der: bytes, public_key_der: bytes) -> bool:
    crl = x509.load_der_x509_crl(crl_der)
    with reading("the signature of a configured CRL"):
        return crl.is_signature_valid(load_der_public_key(public_key_der))  # type: ignore[arg-type]  # raises TypeError for a key that cannot sign, which `reading` translates


def _why_unsupported(crl: x509.CertificateRevocationList) -> str:
    for extension in crl.extensions:
        match extension.value:
            case x509.DeltaCRLIndicator():
                return "it is a delta CRL"
            case x509.IssuingDistributionPoint():
                return "it covers only a part of the certificates, or other issuers' (issuingDistributionPoint)"
            case _ if extension.critical:
                return f"it has the unknown critical extension {extension.oid.dotted_string}"
    return ""
