"""Verifying that an attestation key signed an attestation, whatever it attests.

Source: TPM 2.0 Part 1 36 (attestation), B.6, B.7 and C.4 (signatures). The attestation key has been through
`tpm.parse_attestation_key`, and a credential has tied it to its endorsement key.
"""

import hmac
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from provisiond.attestation.tpm_algorithms import TpmAlgorithm
from provisiond.attestation.tpm_attest import TpmAttest, TpmSignature, parse_attest, parse_signature
from provisiond.attestation.tpm_examination import require
from provisiond.attestation.tpm_public import TpmPublic, qualified_name
from provisiond.errors import AttestationError
from provisiond.model import Trace

ENDORSEMENT_HIERARCHY: Final = bytes.fromhex("4000000b")
"""TPM_RH_ENDORSEMENT: Qualified Name of the hierarchy that sees the true counters."""


def verify_attest(
    attestation_key: TpmPublic, attest: bytes, signature: bytes, extra_data: bytes, trace: Trace
) -> TpmAttest:
    """Verify that an attestation key has signed an attestation with this nonce; its kind is not looked at.

    Args:
        attestation_key: who signed it.
        attest: TPMS_ATTEST.
        signature: TPMT_SIGNATURE.
        extra_data: what the attestation must carry.
        trace: where every check is recorded.

    Raises:
        TpmStructureError: `attest` or `signature` is malformed.
        AttestationError: finding `attest-signature-scheme`, `attest-signature` or `attest-extra-data`.
    """
    parsed_signature = parse_signature(signature)
    parsed = parse_attest(attest)
    scheme = attestation_key.template.scheme
    require(
        parsed_signature.algorithm is scheme.algorithm and parsed_signature.hash is scheme.hash,
        trace=trace,
        check="attest-signature-scheme",
        found=f"{parsed_signature.algorithm.name} with {parsed_signature.hash.name}",
        finding="attest-signature-scheme",
        clause="TPM 2.0 Part 1 27.2.6",
    )
    require(
        _is_signed(attestation_key, parsed_signature, attest),
        trace=trace,
        check="attest-signature",
        found="signature by the attestation key over the attestation",
        finding="attest-signature",
        clause="TPM 2.0 Part 2 11.3.4",
    )
    require(
        hmac.compare_digest(parsed.extra_data, extra_data),
        trace=trace,
        check="attest-extra-data",
        found="nonce of this challenge",
        finding="attest-extra-data",
        clause="TPM 2.0 Part 1 36.2",
    )
    return parsed


def _is_signed(public: TpmPublic, signature: TpmSignature, message: bytes) -> bool:
    try:
        _verify_signature(public, signature, message)
    except InvalidSignature:
        return False
    return True


def _verify_signature(public: TpmPublic, signature: TpmSignature, message: bytes) -> None:
    primitive = signature.hash.primitive
    match public.key, signature.algorithm:
        case rsa.RSAPublicKey() as key, TpmAlgorithm.RSASSA:
            key.verify(signature.values[0], message, padding.PKCS1v15(), primitive)
        case rsa.RSAPublicKey() as key, TpmAlgorithm.RSAPSS:
            # The salt is as long as fits or as the digest: it depends on the TPM (Part 1 B.7).
            pss = padding.PSS(padding.MGF1(primitive), padding.PSS.AUTO)
            key.verify(signature.values[0], message, pss, primitive)
        case ec.EllipticCurvePublicKey() as key, TpmAlgorithm.ECDSA:
            r, s = (int.from_bytes(value, "big") for value in signature.values)
            key.verify(encode_dss_signature(r, s), message, ec.ECDSA(primitive))
        case _:
            raise InvalidSignature


def wrong_type(parsed: TpmAttest, expected: str, trace: Trace) -> AttestationError:
    """The error to raise for an attestation of another kind than `expected`; finding `attest-type`."""
    clause = "TPM 2.0 Part 2 10.12.12"
    found = f"{parsed.type.name} where a {expected} belongs"
    trace.failed("attest-type", found, clause)
    return AttestationError(f"attest-type: {found}", finding="attest-type", clause=clause)


def check_hierarchy(attestation_key: TpmPublic, parsed: TpmAttest, required: bool, trace: Trace) -> bool:
    """Whether the key is a primary key of the endorsement hierarchy: elsewhere the TPM obfuscates its counters.

    Raises:
        AttestationError: it is `required` and is not; finding `attest-hierarchy`.
    """
    expected = qualified_name(ENDORSEMENT_HIERARCHY, attestation_key)
    inside = hmac.compare_digest(parsed.qualified_signer, expected)
    if required or inside:
        require(
            inside,
            trace=trace,
            check="attest-hierarchy",
            found=f"signed as {parsed.qualified_signer.hex()}; in the endorsement hierarchy: {inside}",
            finding="attest-hierarchy",
            clause="TPM 2.0 Part 1 36.7",
        )
    return inside
