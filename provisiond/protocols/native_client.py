"""The native protocol, the device's half: requests to publish, replies to read.

topic = request_topic(registration_id, Operation.REGISTER, rid)
payload = register_payload(x509_claim(chain))
…
reply = parse_reply(payload)
transcript = answer_transcript(reply.challenge, id_scope=…, registration_id=…, register_payload=payload)
payload = signature_answer(transcript, private_key)
"""

from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import ValidationError

from provisiond.attestation.message_proof import PrivateKey, SignatureAlgorithm, mac_transcript, sign_transcript
from provisiond.attestation.transcript import Transcript, request_digest
from provisiond.errors import MalformedRequest
from provisiond.model import JSONValue
from provisiond.protocols.base64_octets import encode_octets
from provisiond.protocols.dps_client import MalformedReply
from provisiond.protocols.json_body import encode_json, parse_json
from provisiond.protocols.native_models import ChallengePart, ReplyMessage
from provisiond.protocols.native_topics import Operation, request_topic, response_filter

__all__ = [
    "Operation",
    "answer_transcript",
    "mac_answer",
    "parse_reply",
    "register_payload",
    "request_topic",
    "response_filter",
    "signature_answer",
    "status_payload",
    "symmetric_key_claim",
    "tpm_answer",
    "tpm_claim",
    "x509_claim",
]

REPLY_MAX_SIZE_BYTES: Final = 96 * 1024
"""The largest message of the service."""


def x509_claim(chain: Sequence[bytes]) -> dict[str, JSONValue]:
    """`attestation` of a device with a certificate: DER, leaf first."""
    return {"type": "x509", "x509": {"certificateChain": [encode_octets(der) for der in chain]}}


def symmetric_key_claim() -> dict[str, JSONValue]:
    """`attestation` of a device with a symmetric key."""
    return {"type": "symmetricKey", "symmetricKey": {}}


def tpm_claim(
    *, endorsement_key: bytes, storage_root_key: bytes, attestation_key: bytes, ek_chain: Sequence[bytes] = ()
) -> dict[str, JSONValue]:
    """`attestation` of a device with a TPM: TPM2B_PUBLIC of three keys, DER certificates of the first, leaf first."""
    claim: dict[str, JSONValue] = {
        "endorsementKey": encode_octets(endorsement_key),
        "storageRootKey": encode_octets(storage_root_key),
        "attestationKey": encode_octets(attestation_key),
    }
    if ek_chain:
        claim["ekCertificateChain"] = [encode_octets(der) for der in ek_chain]
    return {"type": "tpm", "tpm": claim}


def register_payload(attestation: Mapping[str, JSONValue], *, payload: JSONValue = None) -> bytes:
    """Payload of `req/register`. Keep these octets: the transcript covers their digest.

    Raises:
        ValueError: the device's own payload is not JSON.
    """
    body: dict[str, JSONValue] = {"attestation": dict(attestation)}
    if payload is not None:
        body["payload"] = payload
    return encode_json(body)


def status_payload(operation_id: str) -> bytes:
    """Payload of `req/status`."""
    return encode_json({"operationId": operation_id})


def answer_transcript(
    challenge: ChallengePart, *, id_scope: str, registration_id: str, register_payload: bytes
) -> Transcript:
    """The transcript that answers a challenge.

    Args:
        challenge: of the reply.
        id_scope: as the service is configured.
        registration_id: as the topics spell it.
        register_payload: the octets that were published.
    """
    return Transcript(
        id_scope=id_scope,
        registration_id=registration_id,
        challenge_id=challenge.challenge_id,
        session_id=challenge.session_id,
        nonce=challenge.nonce,
        request_sha256=request_digest(register_payload),
    )


def signature_answer(
    transcript: Transcript, private_key: PrivateKey, *, algorithm: SignatureAlgorithm | None = None
) -> bytes:
    """Payload of `req/answer` for an X.509 challenge.

    Raises:
        ValueError: the key is of no kind that is taken, or the algorithm is not one for it.
    """
    chosen, signature = sign_transcript(private_key, transcript, algorithm=algorithm)
    return _answer(transcript, "x509", {"algorithm": chosen.value, "signature": encode_octets(signature)})


def mac_answer(transcript: Transcript, key: bytes) -> bytes:
    """Payload of `req/answer` for a symmetric key challenge."""
    return _answer(transcript, "symmetricKey", {"mac": encode_octets(mac_transcript(key, transcript))})


def tpm_answer(
    transcript: Transcript,
    proof: bytes,
    *,
    attest: bytes = b"",
    signature: bytes = b"",
    pcr_values: Mapping[tuple[str, int], bytes] | None = None,
) -> bytes:
    """Payload of `req/answer` for a TPM challenge.

    Args:
        transcript: of the challenge.
        proof: `tpm_transcript.proof` with the activated secret.
        attest: TPMS_ATTEST of a quote, when one was asked for.
        signature: TPMT_SIGNATURE of that quote.
        pcr_values: what the quoted registers hold, by bank and index.
    """
    answer: dict[str, JSONValue] = {"proof": encode_octets(proof)}
    if attest:
        banks: dict[str, dict[str, str]] = {}
        for (bank, index), value in (pcr_values or {}).items():
            banks.setdefault(bank, {})[str(index)] = encode_octets(value)
        answer["quote"] = {
            "attest": encode_octets(attest),
            "signature": encode_octets(signature),
            "pcrValues": banks,
        }
    return _answer(transcript, "tpm", answer)


def parse_reply(payload: bytes) -> ReplyMessage:
    """Read the payload of a message on `res/#`.

    Raises:
        MalformedReply: not a reply of this protocol.
    """
    if len(payload) > REPLY_MAX_SIZE_BYTES:
        raise MalformedReply(f"the reply has {len(payload)} bytes")
    try:
        return ReplyMessage.model_validate(parse_json(payload))
    except (MalformedRequest, ValidationError) as error:
        raise MalformedReply(f"not a reply: {str(error)[:500]}") from error


def _answer(transcript: Transcript, mechanism: str, proof: Mapping[str, JSONValue]) -> bytes:
    return encode_json({"challengeId": transcript.challenge_id, mechanism: dict(proof)})
