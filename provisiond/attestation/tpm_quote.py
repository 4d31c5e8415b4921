"""Verifying TPM2_Quote: in which state a platform is, as its TPM saw it start.

Source: TPM 2.0 Part 3 TPM2_Quote; Part 1 17 (registers), 36 (attestation).
"""

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from provisiond.attestation.tpm_algorithms import HASHES_BY_NAME, TpmHash
from provisiond.attestation.tpm_attest import PcrSlot, QuoteBody, TpmAttest
from provisiond.attestation.tpm_attestation import check_hierarchy, verify_attest, wrong_type
from provisiond.attestation.tpm_examination import require
from provisiond.attestation.tpm_pcr_policy import PcrPolicy
from provisiond.attestation.tpm_public import TpmPublic
from provisiond.errors import AttestationError
from provisiond.model import Trace

_NO_POLICY: Final = PcrPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A verified quote.

    Args:
        pcr_values: the registers it covers and what they held.
        reset_count, firmware_version: true only when `in_endorsement_hierarchy`.
    """

    pcr_values: Mapping[PcrSlot, bytes]
    clock_ms: int
    clock_safe: bool
    reset_count: int
    restart_count: int
    firmware_version: int
    in_endorsement_hierarchy: bool


def verify_quote(
    attestation_key: TpmPublic,
    *,
    attest: bytes,
    signature: bytes,
    extra_data: bytes,
    pcr_values: Mapping[PcrSlot, bytes],
    trace: Trace,
    policy: PcrPolicy | None = None,
    previous_reset_count: int | None = None,
) -> Quote:
    """Verify a quote and judge the platform by the enrollment's policy.

    Args:
        attestation_key: who signed it.
        attest: TPMS_ATTEST.
        signature: TPMT_SIGNATURE.
        extra_data: what the quote must carry (`tpm_transcript.quote_extra_data`).
        pcr_values: what the device says its registers hold; the quote must cover exactly these.
        trace: where every check is recorded.
        policy: None asks nothing of the platform.
        previous_reset_count: of the last accepted quote; a lower one is a TPM set back.

    Raises:
        TpmStructureError: `attest` or `signature` is malformed.
        AttestationError: finding `attest-signature`, `attest-signature-scheme`, `attest-type`, `attest-extra-data`,
            `attest-hierarchy`, `quote-selection`, `quote-pcr-digest`, `quote-pcr-missing`, `quote-pcr-value`,
            `quote-clock`, `quote-firmware` or `quote-reset-count`.
    """
    parsed = verify_attest(attestation_key, attest, signature, extra_data, trace)
    if not isinstance(parsed.body, QuoteBody):
        raise wrong_type(parsed, "quote", trace)
    policy = policy or _NO_POLICY
    needs_counters = policy.firmware_version_min is not None or previous_reset_count is not None
    in_hierarchy = check_hierarchy(attestation_key, parsed, needs_counters, trace)
    _check_pcr_digest(attestation_key, parsed.body, pcr_values, trace)
    _check_pcr_values(policy, pcr_values, trace)
    _check_clock(policy, parsed, trace)
    _check_firmware(policy, parsed, trace)
    _check_reset_count(previous_reset_count, parsed, trace)
    return Quote(
        pcr_values=pcr_values,
        clock_ms=parsed.clock_ms,
        clock_safe=parsed.clock_safe,
        reset_count=parsed.reset_count,
        restart_count=parsed.restart_count,
        firmware_version=parsed.firmware_version,
        in_endorsement_hierarchy=in_hierarchy,
    )


def _check_pcr_digest(
    attestation_key: TpmPublic, body: QuoteBody, pcr_values: Mapping[PcrSlot, bytes], trace: Trace
) -> None:
    sizes_fit = all(
        len(value) == HASHES_BY_NAME[slot.bank].digest_size_bytes if slot.bank in HASHES_BY_NAME else False
        for slot, value in pcr_values.items()
    )
    require(
        sizes_fit and set(body.selection) == set(pcr_values),
        trace=trace,
        check="quote-selection",
        found=f"quoted {_listed(body.selection)}; presented {_listed(pcr_values)}",
        finding="quote-selection",
        clause="TPM 2.0 Part 2 10.12.1",
    )
    digest = _scheme_hash(attestation_key).digest(b"".join(pcr_values[slot] for slot in body.selection))
    require(
        hmac.compare_digest(digest, body.pcr_digest),
        trace=trace,
        check="quote-pcr-digest",
        found=f"quoted {body.pcr_digest.hex()}; the presented values give {digest.hex()}",
        finding="quote-pcr-digest",
        clause="TPM 2.0 Part 2 10.12.1",
    )


def _scheme_hash(attestation_key: TpmPublic) -> TpmHash:
    """PCR digests are made with the hash of the signing scheme, not with that of the bank."""
    scheme_hash = attestation_key.template.scheme.hash
    if scheme_hash is None:
        raise AttestationError("the attestation key has no scheme", finding="attest-signature-scheme")
    return scheme_hash


def _check_pcr_values(policy: PcrPolicy, pcr_values: Mapping[PcrSlot, bytes], trace: Trace) -> None:
    for slot in sorted(policy.allowed):
        value = pcr_values.get(slot)
        require(
            value in policy.allowed[slot],
            trace=trace,
            check=f"pcr-{slot}",
            found="not quoted" if value is None else value.hex(),
            finding="quote-pcr-missing" if value is None else "quote-pcr-value",
            clause="enrollment's PCR policy",
        )


def _check_clock(policy: PcrPolicy, parsed: TpmAttest, trace: Trace) -> None:
    if policy.require_safe_clock:
        require(
            parsed.clock_safe,
            trace=trace,
            check="quote-clock",
            found=f"clock {parsed.clock_ms} ms, safe: {parsed.clock_safe}",
            finding="quote-clock",
            clause="TPM 2.0 Part 1 36.3.2",
        )


def _check_firmware(policy: PcrPolicy, parsed: TpmAttest, trace: Trace) -> None:
    if policy.firmware_version_min is not None:
        require(
            parsed.firmware_version >= policy.firmware_version_min,
            trace=trace,
            check="quote-firmware",
            found=f"firmware {parsed.firmware_version:#018x}, at least {policy.firmware_version_min:#018x}",
            finding="quote-firmware",
            clause="enrollment's PCR policy",
        )


def _check_reset_count(previous: int | None, parsed: TpmAttest, trace: Trace) -> None:
    if previous is not None:
        require(
            parsed.reset_count >= previous,
            trace=trace,
            check="quote-reset-count",
            found=f"{parsed.reset_count} resets, {previous} before",
            finding="quote-reset-count",
            clause="TPM 2.0 Part 1 36.3.3",
        )


def _listed(slots: Iterable[PcrSlot]) -> str:
    return ", ".join(str(slot) for slot in sorted(slots)) or "nothing"
