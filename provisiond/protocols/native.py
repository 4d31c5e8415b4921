"""The native protocol, the service's half: requests to read, replies to write.

`native_topics` has the topics, `native_models` the JSON, `native_client` the device's half.

| request    | first answer                                                                          |
|------------|---------------------------------------------------------------------------------------|
| `register` | 401 with `challenge`; at once as `answer` when the connection itself proves the claim |
| `answer`   | 200 or 202 with `operationId` and `registrationState`                                 |
| `status`   | the same, as it is now                                                                |
| any        | 4xx or 5xx with `error`                                                               |
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from provisiond.errors import AttestationError, ConnectRefused, MalformedRequest
from provisiond.model import (
    Answer,
    Challenge,
    ConnectAttempt,
    Connection,
    Evidence,
    IssuedChallenge,
    JSONValue,
    Message,
    PollRequest,
    Possession,
    QuoteEvidence,
    RegisterRequest,
    RegistrationId,
    Reply,
    Request,
    Role,
    TpmEvidence,
)
from provisiond.protocols.base64_octets import encode_octets
from provisiond.protocols.dps import registration_state
from provisiond.protocols.json_body import encode_json, parse_json
from provisiond.protocols.native_models import (
    AnswerMessage,
    Attestation,
    QuoteProof,
    RegisterMessage,
    StatusMessage,
    SymmetricKeyAttestation,
    TpmAttestation,
    X509Attestation,
)
from provisiond.protocols.native_topics import Operation, parse_claimed_id, parse_request_topic
from provisiond.protocols.timestamps import format_timestamp

PAYLOAD_MAX_SIZE_BYTES: Final = 64 * 1024
"""A chain, three TPM keys and a device's own payload take half of it."""

_PUBLIC_REASON_MAX_LENGTH: Final = 200

_Body = TypeVar("_Body", bound=BaseModel)


def is_native_user_name(user_name: str | None, client_id: str) -> bool:
    """Whether a CONNECT is a native device's: without a user name, or with its registration id as one."""
    return not user_name or user_name == client_id


def admit(attempt: ConnectAttempt) -> Connection:
    """Judge the CONNECT of a native device: its client id is its registration id; the messages prove it.

    Raises:
        ConnectRefused: the client id is no registration id, or a reserved one.
    """
    try:
        claimed_id = parse_claimed_id(attempt.client_id)
    except MalformedRequest as error:
        raise ConnectRefused(f"client id: {error}") from error
    return Connection(
        connection_id=attempt.connection_id,
        role=Role.NATIVE,
        claimed_id=claimed_id,
        listener=attempt.listener,
        remote_address=attempt.remote_address,
        unverified_chain=attempt.unverified_chain,
    )


def parse(message: Message, *, connection: Connection | None) -> Request:
    """Read a PUBLISH as a request.

    A chain that a message carries is `Possession.UNPROVED`, unless its leaf is the one that this connection's own
    handshake proved. An answer has no evidence of its own: `recall` adds what was challenged. A poll has no more than
    the connection has: its operation id is unguessable.

    Args:
        message: topic `provisiond/v1/{registrationId}/req/{op}/{rid}`, payload a JSON object of at most 64 KiB.
        connection: whose message it is; None behind a foreign broker.

    Raises:
        MalformedRequest: bad topic, JSON or members; its public message says which.
        UnknownOperation: the topic names an operation that there is not.
        AttestationError: the topic names another id than the connection (finding `registration-id-mismatch`), be it
            another spelling of the same: the transcript and the topics of the replies hold this one.
    """
    topic = parse_request_topic(message.topic)
    if connection is not None and topic.claimed_id != connection.claimed_id:
        raise AttestationError(
            f"the topic names {topic.claimed_id}, the connection is {connection.claimed_id}",
            finding="registration-id-mismatch",
        )
    proved_chain = connection.unverified_chain if connection is not None else ()
    match topic.operation:
        case Operation.REGISTER:
            return parse_register(topic.claimed_id, message.payload, proved_chain=proved_chain)
        case Operation.ANSWER:
            return RegisterRequest(
                claimed_id=topic.claimed_id,
                evidence=Evidence(),
                protocol=Role.NATIVE,
                octets=message.payload,
                answer=_answer(_parse_body(AnswerMessage, message.payload)),
            )
        case Operation.STATUS:
            return PollRequest(
                claimed_id=topic.claimed_id,
                evidence=Evidence(unverified_chain=proved_chain, possession=_possession(proved_chain, proved_chain)),
                operation_id=_parse_body(StatusMessage, message.payload).operation_id,
                protocol=Role.NATIVE,
            )


def parse_register(
    claimed_id: RegistrationId, octets: bytes, *, proved_chain: tuple[bytes, ...] = ()
) -> RegisterRequest:
    """Read the payload of a register message.

    Args:
        claimed_id: from the topic.
        octets: the payload as it was published.
        proved_chain: of the connection's own handshake, DER, leaf first; empty when there was none.

    Raises:
        MalformedRequest: bad JSON or members; its public message says which.
    """
    message = _parse_body(RegisterMessage, octets)
    return RegisterRequest(
        claimed_id=claimed_id,
        evidence=_evidence(message.attestation, proved_chain),
        payload=message.payload,
        protocol=Role.NATIVE,
        octets=octets,
    )


def recall(request: RegisterRequest, issued: IssuedChallenge | None) -> RegisterRequest:
    """Add to an answer what it answers: the challenge, and the evidence and payload of the request that it was for.

    Args:
        request: the answer.
        issued: the challenge that was taken out of the store for it, or None; that it fits is still to be checked.

    Returns:
        The register request that the answer completes. Without a native challenge it still has no evidence.

    Raises:
        MalformedRequest: the record is not of a native register message.
    """
    if issued is None or issued.protocol is not Role.NATIVE:
        return replace(request, issued=issued)
    challenged = parse_register(request.claimed_id, issued.request)
    return replace(challenged, answer=request.answer, issued=issued)


def encode(reply: Reply, *, topic: str, registration_id: RegistrationId) -> Message:
    """Make the reply message.

    Args:
        reply: what the device hears.
        topic: from `native_topics.reply_topic` or `own_response_topic`.
        registration_id: as the device spelt it; the state repeats it.
    """
    body: dict[str, JSONValue] = {
        "status": reply.status,
        "operationId": reply.operation_id or None,
        "retryAfter": reply.retry_after_s,
        "registrationState": _state(reply, registration_id),
        "challenge": _challenge(reply.challenge) if reply.challenge is not None else None,
        "error": _error(reply),
    }
    return Message(topic=topic, payload=encode_json(_present(body)))


def _parse_body(model: type[_Body], payload: bytes) -> _Body:
    if len(payload) > PAYLOAD_MAX_SIZE_BYTES:
        raise _malformed(f"payload of {len(payload)} octets, at most {PAYLOAD_MAX_SIZE_BYTES}")
    body = parse_json(payload)
    if not isinstance(body, dict):
        raise _malformed("body is not a JSON object")
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, _member(first["loc"]))) or "body"
        raise _malformed(f"{place}: {first['msg']}") from error


def _member(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Where in the message; the library names the kind of attestation between `attestation` and its members."""
    return location[:1] + location[2:] if location[:1] == ("attestation",) else location


def _malformed(reason: str) -> MalformedRequest:
    # What is wrong with its own syntax is nothing a device may not know.
    return MalformedRequest(reason, public=reason[:_PUBLIC_REASON_MAX_LENGTH])


def _evidence(attestation: Attestation, proved_chain: tuple[bytes, ...]) -> Evidence:
    match attestation:
        case X509Attestation(x509=claim):
            chain = claim.certificate_chain
            return Evidence(unverified_chain=chain, possession=_possession(chain, proved_chain))
        case SymmetricKeyAttestation():
            return Evidence(claims_symmetric_key=True)
        case TpmAttestation(tpm=keys):
            return Evidence(
                tpm=TpmEvidence(
                    endorsement_key=keys.endorsement_key,
                    storage_root_key=keys.storage_root_key,
                    attestation_key=keys.attestation_key,
                    unverified_ek_chain=keys.ek_certificate_chain or (),
                )
            )


def _possession(chain: tuple[bytes, ...], proved_chain: tuple[bytes, ...]) -> Possession:
    """The handshake proved the key of the very same leaf, or nothing that counts."""
    return Possession.TLS if chain and chain[:1] == proved_chain[:1] else Possession.UNPROVED


def _answer(message: AnswerMessage) -> Answer:
    return Answer(
        challenge_id=message.challenge_id,
        algorithm=message.x509.algorithm.value if message.x509 else None,
        signature=message.x509.signature if message.x509 else None,
        mac=message.symmetric_key.mac if message.symmetric_key else None,
        proof=message.tpm.proof if message.tpm else None,
        quote=_quote(message.tpm.quote) if message.tpm and message.tpm.quote else None,
    )


def _quote(quote: QuoteProof) -> QuoteEvidence:
    return QuoteEvidence(attest=quote.attest, signature=quote.signature, pcr_values=quote.pcr_values.by_slot())


def _state(reply: Reply, registration_id: RegistrationId) -> dict[str, JSONValue] | None:
    if reply.status_text is None:
        return None
    if reply.registration is None:
        state: dict[str, JSONValue] = {}
    else:
        state = registration_state(reply.registration)
    state |= {"registrationId": registration_id.text, "status": reply.status_text.value}
    if reply.authentication_key is not None:
        state["tpm"] = {**state.get("tpm", {}), "authenticationKey": encode_octets(reply.authentication_key)}
    return _present(state | {"sealedCredential": reply.sealed_credential})


def _challenge(challenge: Challenge) -> dict[str, JSONValue]:
    credential = {
        "idObject": encode_octets(challenge.id_object),
        "encryptedSecret": encode_octets(challenge.encrypted_secret),
    }
    selection: dict[str, list[int]] = {}
    for bank, index in challenge.pcr_selection:
        selection.setdefault(bank, []).append(index)
    return _present(
        {
            "challengeId": challenge.challenge_id,
            "type": challenge.attestation_type.value,
            "nonce": encode_octets(challenge.nonce),
            "expiresAt": format_timestamp(challenge.expires_at),
            "sessionId": challenge.session_id,
            "credential": credential if challenge.id_object else None,
            "pcrSelection": selection or None,
        }
    )


def _error(reply: Reply) -> dict[str, JSONValue] | None:
    if reply.error is None:
        return None
    return {
        "errorCode": reply.error.code,
        "message": reply.error.message,
        "trackingId": reply.error.tracking_id,
    }


def _present(members: Mapping[str, JSONValue]) -> dict[str, JSONValue]:
    """What is absent is left out, never null."""
    return {name: value for name, value in members.items() if value is not None}
