"""Challenges: made for one claim, kept by the store, answered once.

A challenge is bound to the registration, the protocol and the request that it was made for, and a TPM's to the
connection as well. It is taken out of the store before its answer is looked at, so that an answer serves one try, right
or wrong.
"""

import json
from base64 import b64decode, b64encode
from datetime import datetime, timedelta
from typing import Any, Final

from provisiond.attestation.message_proof import SignatureAlgorithm, verify_signature
from provisiond.attestation.sas_token import check_sas, parse_sas_token
from provisiond.attestation.tpm_activation import activation_blob
from provisiond.attestation.tpm_attest import PcrSlot
from provisiond.attestation.tpm_credential import make_credential
from provisiond.attestation.tpm_pcr_policy import PcrPolicy
from provisiond.attestation.tpm_quote import verify_quote
from provisiond.attestation.tpm_transcript import quote_extra_data, verify_proof
from provisiond.attestation.transcript import Transcript, request_digest
from provisiond.errors import AttestationError
from provisiond.model import (
    Answer,
    AttestationType,
    Challenge,
    IssuedChallenge,
    RegisterRequest,
    Role,
    Trace,
)
from provisiond.ports import Entropy
from provisiond.registration.tpm_claim import TpmKeys, keys_digest

_SECRET_SIZE_BYTES: Final = 32


def issue(
    request: RegisterRequest,
    *,
    attestation_type: AttestationType,
    keys: TpmKeys | None,
    pcr_policy: PcrPolicy | None,
    connection_id: str,
    challenge_id: str,
    expires_at: datetime,
    entropy: Entropy,
) -> IssuedChallenge:
    """Make the challenge for a claim that is enrolled but not proved.

    Args:
        request: what is asked; the answer will cover it.
        attestation_type: how it has to be answered.
        keys: of the TPM, for TPM attestation.
        pcr_policy: what the enrollment wants quoted, or None.
        connection_id: who alone may answer.
        challenge_id: fresh and unguessable.
        expires_at: when an answer is too late.
        entropy: makes the secret, the nonce and the seeds.

    Raises:
        AttestationError: a TPM claims on native topics without an attestation key.
    """
    secret = b""
    told: dict[str, Any] = {}
    if keys is not None and request.protocol is Role.DPS:
        secret, told = _sas_key(keys, entropy)
    elif keys is not None:
        secret, told = _credential(keys, pcr_policy, entropy)
    return IssuedChallenge(
        challenge=Challenge(
            challenge_id=challenge_id,
            session_id=connection_id or challenge_id,
            attestation_type=attestation_type,
            nonce=entropy.token_bytes(_SECRET_SIZE_BYTES),
            expires_at=expires_at,
            **told,
        ),
        registration_key=request.claimed_id.key,
        connection_id=connection_id,
        protocol=request.protocol,
        secret=secret,
        request=request.octets,
        keys_sha256=b"" if request.evidence.tpm is None else keys_digest(request.evidence.tpm),
    )


def _sas_key(keys: TpmKeys, entropy: Entropy) -> tuple[bytes, dict[str, Any]]:
    """What a device on `$dps` topics signs its token with, and what it is told so that its TPM has it."""
    secret = entropy.token_bytes(_SECRET_SIZE_BYTES)
    blob = activation_blob(
        endorsement_key=keys.endorsement, storage_root_key=keys.storage_root, key=secret, entropy=entropy
    )
    return secret, {"authentication_key": blob}


def _credential(keys: TpmKeys, pcr_policy: PcrPolicy | None, entropy: Entropy) -> tuple[bytes, dict[str, Any]]:
    """What only the TPM with both keys can release, and what the device is told so that it does."""
    if keys.attestation is None:
        raise AttestationError("the request has no attestation key", finding="attestation-key-missing")
    secret = entropy.token_bytes(_SECRET_SIZE_BYTES)
    credential = make_credential(keys.endorsement, keys.attestation.name, secret, entropy=entropy)
    told: dict[str, Any] = {"id_object": credential.id_object, "encrypted_secret": credential.encrypted_secret}
    if pcr_policy is not None:
        told["pcr_selection"] = tuple((slot.bank, slot.index) for slot in pcr_policy.selection)
    return secret, told


def missing() -> AttestationError:
    """The error for an answer to nothing: answered already, replaced by a newer one, or never made."""
    return AttestationError("no such challenge is outstanding", finding="challenge-missing")


def check_bound(
    request: RegisterRequest, *, attestation_type: AttestationType, connection_id: str, now: datetime, trace: Trace
) -> tuple[Answer, IssuedChallenge]:
    """Check that an answer is to a challenge that was made for this claim, and is in time.

    Raises:
        AttestationError: findings `challenge-missing`, `challenge-expired`, `challenge-other-registration`,
            `challenge-other-connection`, `challenge-other-mechanism`.
    """
    issued, answer = request.issued, request.answer
    if issued is None or answer is None:
        raise missing()
    told = issued.challenge
    for holds, finding, reason in (
        (issued.registration_key == request.claimed_id.key, "challenge-other-registration", "was made for another id"),
        (
            issued.connection_id == connection_id or not _is_bound_to_connection(issued),
            "challenge-other-connection",
            "was given to another connection",
        ),
        (issued.protocol is request.protocol, "challenge-other-protocol", "was made on other topics"),
        (told.attestation_type is attestation_type, "challenge-other-mechanism", f"is for {told.attestation_type}"),
        (now <= told.expires_at, "challenge-expired", f"expired at {told.expires_at:%H:%M:%S}Z"),
    ):
        if not holds:
            raise AttestationError(f"the challenge {reason}", finding=finding)
    trace.passed("challenge", f"{told.challenge_id}: this registration's, this connection's, not expired")
    return answer, issued


def _is_bound_to_connection(issued: IssuedChallenge) -> bool:
    """A TPM's challenge is: its key works for whoever relays to that TPM.

    A signature or an HMAC over the transcript is its device's own whatever connection brings it, and simple clients
    make a new one for every request; the challenge, which nobody can guess and which serves once, is binding enough.
    """
    return issued.protocol is Role.DPS or issued.challenge.attestation_type is AttestationType.TPM


def transcript_of(request: RegisterRequest, issued: IssuedChallenge, *, id_scope: str) -> Transcript:
    """What the answer must cover, from our own records."""
    return Transcript(
        id_scope=id_scope,
        registration_id=request.claimed_id.text,
        challenge_id=issued.challenge.challenge_id,
        session_id=issued.challenge.session_id,
        nonce=issued.challenge.nonce,
        request_sha256=request_digest(issued.request),
    )


def verify_certificate_answer(
    request: RegisterRequest, answer: Answer, issued: IssuedChallenge, *, id_scope: str, trace: Trace
) -> None:
    """Check that the holder of the leaf's key has answered.

    Raises:
        AttestationError: findings `answer-incomplete`, `signature-algorithm`, `signature-invalid`.
    """
    known = {algorithm.value: algorithm for algorithm in SignatureAlgorithm}
    algorithm = known.get(answer.algorithm or "")
    if algorithm is None or answer.signature is None:
        raise AttestationError("the answer has no signature of a known algorithm", finding="answer-incomplete")
    finding = verify_signature(
        request.evidence.unverified_chain[0],
        algorithm=algorithm,
        signature=answer.signature,
        transcript=transcript_of(request, issued, id_scope=id_scope),
    )
    trace.passed("possession", finding)


def verify_tpm_token(
    request: RegisterRequest,
    answer: Answer,
    issued: IssuedChallenge,
    *,
    id_scope: str,
    now: datetime,
    clock_skew_s: float,
    trace: Trace,
) -> None:
    """Check the SAS token that a TPM signed with the key that was sealed to it.

    Raises:
        AttestationError: as `sas_token.check_sas`; `answer-incomplete` without a token.
    """
    if answer.sas_token is None:
        raise AttestationError("the answer has no authorization", finding="answer-incomplete")
    resource = f"{id_scope}/registrations/{request.claimed_id.key}".lower()
    check_sas(
        parse_sas_token(answer.sas_token),
        keys=(issued.secret,),
        names_resource=lambda named: named.lower() == resource,
        key_names=("registration", ""),
        now=now,
        clock_skew_s=clock_skew_s,
        trace=trace,
    )


def verify_tpm_answer(
    request: RegisterRequest,
    answer: Answer,
    issued: IssuedChallenge,
    *,
    keys: TpmKeys,
    pcr_policy: PcrPolicy | None,
    id_scope: str,
    trace: Trace,
) -> None:
    """Check the proof of an activated credential, and the quote when the enrollment has a PCR policy.

    Raises:
        AttestationError: findings `answer-incomplete`, `credential-proof`, and those of `tpm_quote.verify_quote`.
    """
    if answer.proof is None:
        raise AttestationError("the answer has no proof", finding="answer-incomplete")
    covered = transcript_of(request, issued, id_scope=id_scope).challenge_octets
    verify_proof(answer.proof, secret=issued.secret, transcript_octets=covered, trace=trace)
    if pcr_policy is None:
        return
    if answer.quote is None or keys.attestation is None:
        raise AttestationError("the enrollment has a PCR policy and the answer no quote", finding="quote-missing")
    verify_quote(
        keys.attestation,
        attest=answer.quote.attest,
        signature=answer.quote.signature,
        extra_data=quote_extra_data(covered, issued.challenge.nonce),
        pcr_values={PcrSlot(*slot): value for slot, value in answer.quote.pcr_values.items()},
        trace=trace,
        policy=pcr_policy,
    )


def encode_issued(issued: IssuedChallenge) -> bytes:
    """A challenge as the store keeps it: JSON."""
    told = issued.challenge
    document = {
        "challengeId": told.challenge_id,
        "sessionId": told.session_id,
        "attestationType": told.attestation_type.value,
        "nonce": _text(told.nonce),
        "expiresAt": told.expires_at.isoformat(),
        "registration": issued.registration_key,
        "connection": issued.connection_id,
        "protocol": issued.protocol.value,
        "secret": _text(issued.secret),
        "request": _text(issued.request),
        "keys": _text(issued.keys_sha256),
    }
    return json.dumps(document).encode("ascii")


def decode_issued(octets: bytes) -> IssuedChallenge:
    """Read back what `encode_issued` wrote; the parts that only the device needs are gone."""
    document = json.loads(octets)
    return IssuedChallenge(
        challenge=Challenge(
            challenge_id=document["challengeId"],
            session_id=document["sessionId"],
            attestation_type=AttestationType(document["attestationType"]),
            nonce=b64decode(document["nonce"]),
            expires_at=datetime.fromisoformat(document["expiresAt"]),
        ),
        registration_key=document["registration"],
        connection_id=document["connection"],
        protocol=Role(document["protocol"]),
        secret=b64decode(document["secret"]),
        request=b64decode(document["request"]),
        keys_sha256=b64decode(document["keys"]),
    )


def expiry(now: datetime, ttl_s: float) -> datetime:
    """When a challenge made now expires."""
    return now + timedelta(seconds=ttl_s)


def _text(octets: bytes) -> str:
    return b64encode(octets).decode("ascii")
