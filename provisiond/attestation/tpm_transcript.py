"""What ties the answer to a TPM challenge to one registration, one challenge, one connection and one request.

==========  ===========================================================================================
transcript  TPM2B each of: id scope, registration id, challenge id, connection id, SHA-256(register request)
proof       HMAC-SHA256(activated secret, "provisiond-tpm-v1" ‖ transcript)
extraData   SHA-256("provisiond-quote-v1" ‖ transcript ‖ nonce), of TPM2_Quote and TPM2_Certify
==========  ===========================================================================================

Every field carries its length, so that no two challenges share a transcript. Device and service compute the same.
"""

import hashlib
import hmac
from typing import Final

from provisiond.attestation.tpm_examination import require
from provisiond.attestation.tpm_octets import sized
from provisiond.model import Trace

_PROOF_CONTEXT: Final = b"provisiond-tpm-v1"
_QUOTE_CONTEXT: Final = b"provisiond-quote-v1"


def transcript(*, id_scope: str, registration_id: str, challenge_id: str, connection_id: str, request: bytes) -> bytes:
    """The transcript of one challenge.

    Args:
        id_scope: of the service.
        registration_id: as the device spelt it.
        challenge_id: as the service gave it out.
        connection_id: what the challenge says that the connection is called.
        request: payload of the register request that was challenged, as it was sent.

    Raises:
        ValueError: a text is longer than 65535 octets.
    """
    texts = (id_scope, registration_id, challenge_id, connection_id)
    fields = (*(text.encode() for text in texts), hashlib.sha256(request).digest())
    if any(len(field) > 0xFFFF for field in fields):
        raise ValueError("a transcript's fields are at most 65535 octets")
    return b"".join(map(sized, fields))


def proof(secret: bytes, transcript_octets: bytes) -> bytes:
    """What a device answers with when its TPM has released `secret`: 32 octets."""
    return hmac.digest(secret, _PROOF_CONTEXT + transcript_octets, "sha256")


def quote_extra_data(transcript_octets: bytes, nonce: bytes) -> bytes:
    """The qualifyingData of TPM2_Quote and TPM2_Certify in an answer: 32 octets."""
    return hashlib.sha256(_QUOTE_CONTEXT + transcript_octets + nonce).digest()


def verify_proof(unverified_proof: bytes, *, secret: bytes, transcript_octets: bytes, trace: Trace) -> None:
    """Check an answer in constant time.

    Raises:
        AttestationError: finding `credential-proof`; the TPM did not release the secret, or not for this challenge.
    """
    require(
        hmac.compare_digest(unverified_proof, proof(secret, transcript_octets)),
        trace=trace,
        check="credential-proof",
        found="HMAC under the activated secret, over this challenge's transcript",
        finding="credential-proof",
        clause="TPM 2.0 Part 1 24",
    )
