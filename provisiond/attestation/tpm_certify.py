"""Verifying TPM2_Certify: that a key for TLS lives in the TPM of an attestation key.

Source: TPM 2.0 Part 3 TPM2_Certify; Part 1 36.
"""

import hmac
from dataclasses import dataclass

from provisiond.attestation.tpm import check_certified_key
from provisiond.attestation.tpm_attest import CertifyBody
from provisiond.attestation.tpm_attestation import verify_attest, wrong_type
from provisiond.attestation.tpm_examination import require
from provisiond.attestation.tpm_public import TpmPublic
from provisiond.model import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedKey:
    """A key that is certified to live in the attestation key's TPM.

    Args:
        spki_der: what a certificate for it carries.
    """

    public: TpmPublic
    qualified_name: bytes
    spki_der: bytes


def verify_certify(
    attestation_key: TpmPublic,
    *,
    attest: bytes,
    signature: bytes,
    extra_data: bytes,
    certified_key: TpmPublic,
    trace: Trace,
) -> CertifiedKey:
    """Verify that a key for TLS lives in the attestation key's TPM.

    Args:
        attestation_key: who signed it.
        attest: TPMS_ATTEST.
        signature: TPMT_SIGNATURE.
        extra_data: what the attestation must carry (`tpm_transcript.quote_extra_data`).
        certified_key: the public area that the device presented.
        trace: where every check is recorded.

    Raises:
        TpmStructureError: `attest` or `signature` is malformed.
        AttestationError: finding `attest-…` as `verify_quote`, `certify-name`, or one of `tpm.check_certified_key`.
    """
    parsed = verify_attest(attestation_key, attest, signature, extra_data, trace)
    if not isinstance(parsed.body, CertifyBody):
        raise wrong_type(parsed, "certification", trace)
    require(
        hmac.compare_digest(parsed.body.name, certified_key.name),
        trace=trace,
        check="certify-name",
        found=f"certified {parsed.body.name.hex()}, presented {certified_key.name.hex()}",
        finding="certify-name",
        clause="TPM 2.0 Part 3 TPM2_Certify",
    )
    check_certified_key(certified_key)
    trace.passed("certified-key", "resident, for signing alone, not restricted", "TPM 2.0 Part 1 27.2")
    return CertifiedKey(
        public=certified_key, qualified_name=parsed.body.qualified_name, spki_der=certified_key.spki_der
    )
