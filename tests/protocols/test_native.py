import base64
import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.attestation import tpm_transcript
from provisiond.attestation.message_proof import SignatureAlgorithm, verify_mac, verify_signature
from provisiond.attestation.transcript import Transcript, request_digest
from provisiond.errors import AttestationError, DeviceFault, MalformedRequest, UnknownOperation
from provisiond.model import (
    AttestationType,
    Challenge,
    Connection,
    EnrollmentKind,
    ErrorBody,
    Evidence,
    IssuedChallenge,
    Message,
    PollRequest,
    Possession,
    RegisterRequest,
    Registration,
    RegistrationId,
    RegistrationStatus,
    Reply,
    Role,
    Substatus,
    TpmEvidence,
)
from provisiond.protocols import native, native_client
from provisiond.protocols.dps_client import MalformedReply
from provisiond.protocols.native_topics import Operation, reply_topic
from tests.certificates import make_ca, make_leaf

NOW = datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=UTC)
ID = RegistrationId.parse("Press-7")
LEAF = make_leaf("Press-7", make_ca("Line 4", make_ca("Root")))
OTHER_LEAF = make_leaf("Press-7")
X509 = native_client.x509_claim(LEAF.chain)
SYMMETRIC_KEY = native_client.symmetric_key_claim()
TPM = native_client.tpm_claim(
    endorsement_key=b"ek", storage_root_key=b"srk", attestation_key=b"ak", ek_chain=[b"ek certificate"]
)
CHALLENGE = Challenge(
    challenge_id="c-1",
    session_id="s-1",
    attestation_type=AttestationType.X509,
    nonce=bytes(range(32)),
    expires_at=NOW,
)


def connected(chain=(), claimed_id=ID):
    return Connection(
        connection_id="c1",
        role=Role.NATIVE,
        claimed_id=claimed_id,
        listener="devices",
        remote_address="127.0.0.1",
        unverified_chain=chain,
    )


def parse(operation, payload, *, connection=None):
    topic = native_client.request_topic(ID, Operation(operation), "r1")
    octets = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return native.parse(Message(topic=topic, payload=octets), connection=connection)


def refused(operation, payload):
    with pytest.raises(MalformedRequest) as caught:
        parse(operation, payload)
    assert caught.value.status == 400
    assert len(caught.value.public_message) <= 200
    return caught.value.public_message


def encoded(reply):
    message = native.encode(reply, topic="provisiond/v1/Press-7/res/register/r1", registration_id=ID)
    assert (message.topic, message.qos) == ("provisiond/v1/Press-7/res/register/r1", 1)
    return json.loads(message.payload)


# --- register ---


def test_a_chain_in_a_message_proves_nothing_yet():
    payload = native_client.register_payload(X509, payload={"firmware": "1"})
    assert parse("register", payload, connection=connected()) == RegisterRequest(
        claimed_id=ID,
        evidence=Evidence(unverified_chain=LEAF.chain, possession=Possession.UNPROVED),
        payload={"firmware": "1"},
        protocol=Role.NATIVE,
        octets=payload,
    )


def test_the_leaf_that_the_handshake_proved_is_proved():
    payload = native_client.register_payload(X509)
    request = parse("register", payload, connection=connected(LEAF.chain))
    assert request.evidence == Evidence(unverified_chain=LEAF.chain, possession=Possession.TLS)


def test_the_handshake_of_another_leaf_proves_nothing():
    payload = native_client.register_payload(X509)
    for chain in (OTHER_LEAF.chain, LEAF.chain[1:], LEAF.chain[::-1]):
        assert parse("register", payload, connection=connected(chain)).evidence.possession is Possession.UNPROVED


def test_a_handshake_is_no_proof_for_a_claim_without_a_chain():
    for claim in (SYMMETRIC_KEY, TPM):
        evidence = parse("register", {"attestation": claim}, connection=connected(LEAF.chain)).evidence
        assert (evidence.unverified_chain, evidence.possession) == ((), Possession.UNPROVED)


@pytest.mark.parametrize("claim", [SYMMETRIC_KEY, {"type": "symmetricKey"}])
def test_a_symmetric_key_is_claimed_and_not_shown(claim):
    assert parse("register", {"attestation": claim}).evidence == Evidence(claims_symmetric_key=True)


def test_a_tpm_shows_its_keys():
    assert parse("register", {"attestation": TPM}).evidence == Evidence(
        tpm=TpmEvidence(
            endorsement_key=b"ek",
            storage_root_key=b"srk",
            attestation_key=b"ak",
            unverified_ek_chain=(b"ek certificate",),
        )
    )


@pytest.mark.parametrize("payload", [None, 0, "x", [], {"a": [1, None]}, False])
def test_the_payload_of_a_device_is_any_json(payload):
    assert parse("register", {"attestation": SYMMETRIC_KEY, "payload": payload}).payload == payload


def b64(octets):
    return base64.b64encode(octets).decode()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "attestation: Field required"),
        ({"attestation": None}, "attestation: "),
        ({"attestation": {}}, "attestation: Unable to extract tag using discriminator 'type'"),
        ({"attestation": {"type": "password"}}, "attestation: Input tag 'password'"),
        ({"attestation": {"type": "x509"}}, "attestation.x509: Field required"),
        ({"attestation": {"type": "x509", "tpm": {}}}, "attestation.x509: Field required"),
        (
            {"attestation": SYMMETRIC_KEY | {"x509": {}}},
            "attestation.x509: Extra inputs are not permitted",
        ),
        ({"attestation": {"type": "symmetricKey", "symmetricKey": {"key": "a2V5"}}}, "Extra inputs are not permitted"),
        ({"attestation": SYMMETRIC_KEY, "registrationId": "x"}, "registrationId: Extra inputs are not permitted"),
        (
            {"attestation": {"type": "x509", "x509": {"certificate_chain": ["MA=="]}}},
            "attestation.x509.certificateChain: Field required",
        ),
        ({"attestation": {"type": "x509", "x509": {"certificateChain": []}}}, "at least 1"),
        ({"attestation": {"type": "x509", "x509": {"certificateChain": "MA=="}}}, "valid tuple"),
        ({"attestation": {"type": "x509", "x509": {"certificateChain": [""]}}}, "0 octets where 1"),
        (
            {"attestation": {"type": "x509", "x509": {"certificateChain": ["MA=", "MA=="]}}},
            "certificateChain.0: not base64",
        ),
        ({"attestation": {"type": "x509", "x509": {"certificateChain": ["MA"]}}}, "not base64"),
        ({"attestation": {"type": "x509", "x509": {"certificateChain": ["-----BEGIN"]}}}, "not base64"),
        ({"attestation": {"type": "x509", "x509": {"certificateChain": [1]}}}, "valid string"),
        ({"attestation": {"type": "x509", "x509": {"certificateChain": ["MA=="] * 11}}}, "at most 10"),
        ({"attestation": {"type": "x509", "x509": {"certificateChain": [b64(bytes(9000))] * 2}}}, "18000 octets"),
        ({"attestation": {"type": "x509", "x509": {"certificateChain": [b64(bytes(17000))]}}}, "at most"),
        ({"attestation": {"type": "tpm", "tpm": {"endorsementKey": "MA=="}}}, "storageRootKey: Field required"),
        ({"attestation": {"type": "tpm", "tpm": TPM["tpm"] | {"endorsementKey": b64(bytes(1025))}}}, "1025 octets"),
        ({"attestation": {"type": "tpm", "tpm": TPM["tpm"] | {"authorization": "x"}}}, "Extra inputs"),
    ],
)
def test_a_register_message_says_what_is_wrong_with_it(body, says):
    assert says in refused("register", body)


@pytest.mark.parametrize("operation", list(Operation))
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff",
        b'{"a":1,"a":1}',
        b'{"a":NaN}',
        b"[" * 70 + b"]" * 70,
        b'{"a":"\\ud800"}',
    ],
)
def test_what_is_no_json_object_is_refused(operation, payload):
    assert refused(operation, payload)


@pytest.mark.parametrize("operation", list(Operation))
def test_a_payload_has_a_limit(operation):
    assert "65537 octets" in refused(operation, b'{"payload":"' + b"x" * (64 * 1024 + 1 - 14) + b'"}')


def test_thousands_of_members_are_refused_at_once():
    many = {str(number): 1 for number in range(5000)}
    assert refused("register", many) == "body: more members than this object can have"
    assert "more members" in refused("register", {"attestation": SYMMETRIC_KEY | {"symmetricKey": many}})
    assert "more members" in refused("answer", {"challengeId": "c-1", "x509": SIGNED | many})


def test_a_long_name_is_not_repeated_at_length():
    assert len(refused("register", {"attestation": SYMMETRIC_KEY, "x" * 5000: 1})) == 200


# --- answer ---

SIGNED = {"algorithm": "ES256", "signature": "MA=="}
MACED = {"mac": b64(bytes(32))}
QUOTE = {"attest": "MA==", "signature": "MQ==", "pcrValues": {"sha256": {"0": b64(bytes(32)), "23": b64(bytes(32))}}}


def test_a_signature_answers():
    request = parse("answer", {"challengeId": "c-1", "x509": SIGNED}, connection=connected(LEAF.chain))
    assert (request.claimed_id, request.evidence, request.protocol) == (ID, Evidence(), Role.NATIVE)
    assert (request.answer.challenge_id, request.answer.algorithm, request.answer.signature) == ("c-1", "ES256", b"0")
    assert (request.answer.mac, request.answer.proof, request.answer.quote) == (None, None, None)


def test_an_hmac_answers():
    answer = parse("answer", {"challengeId": "c-1", "symmetricKey": MACED}).answer
    assert (answer.mac, answer.signature, answer.proof) == (bytes(32), None, None)


def test_a_tpm_answers_with_a_quote():
    answer = parse("answer", {"challengeId": "c-1", "tpm": {"proof": b64(bytes(32)), "quote": QUOTE}}).answer
    assert (answer.proof, answer.quote.attest, answer.quote.signature) == (bytes(32), b"0", b"1")
    assert answer.quote.pcr_values == {("sha256", 0): bytes(32), ("sha256", 23): bytes(32)}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"x509": SIGNED}, "challengeId: Field required"),
        ({"challengeId": "c-1"}, "body: exactly one of x509, symmetricKey and tpm"),
        ({"challengeId": "c-1", "x509": SIGNED, "symmetricKey": MACED}, "exactly one of"),
        ({"challengeId": "", "x509": SIGNED}, "challengeId: "),
        ({"challengeId": "a b", "x509": SIGNED}, "challengeId: "),
        ({"challengeId": "c\n", "x509": SIGNED}, "challengeId: "),
        ({"challengeId": "é", "x509": SIGNED}, "challengeId: "),
        ({"challengeId": "x" * 129, "x509": SIGNED}, "challengeId: "),
        ({"challengeId": 1, "x509": SIGNED}, "challengeId: "),
        ({"challengeId": "c-1", "x509": {"signature": "MA=="}}, "x509.algorithm: Field required"),
        ({"challengeId": "c-1", "x509": SIGNED | {"algorithm": "none"}}, "x509.algorithm: Input should be 'ES256'"),
        ({"challengeId": "c-1", "x509": SIGNED | {"algorithm": "HS256"}}, "x509.algorithm: "),
        ({"challengeId": "c-1", "x509": SIGNED | {"signature": b64(bytes(513))}}, "513 octets where 1 to 512 fit"),
        ({"challengeId": "c-1", "x509": SIGNED | {"signature": "MEUC"[:3]}}, "x509.signature: not base64"),
        ({"challengeId": "c-1", "x509": SIGNED | {"signature": ""}}, "0 octets"),
        ({"challengeId": "c-1", "x509": SIGNED | {"kid": "x"}}, "x509.kid: Extra inputs"),
        ({"challengeId": "c-1", "symmetricKey": {"mac": b64(bytes(31))}}, "31 octets where 32 to 32 fit"),
        ({"challengeId": "c-1", "symmetricKey": {"mac": b64(bytes(33))}}, "33 octets where 32 to 32 fit"),
        ({"challengeId": "c-1", "tpm": {"proof": b64(bytes(20))}}, "20 octets"),
        (
            {"challengeId": "c-1", "tpm": {"proof": b64(bytes(32)), "quote": QUOTE | {"attest": b64(bytes(1025))}}},
            "octets",
        ),
        ({"challengeId": "c-1", "tpm": {"proof": b64(bytes(32)), "quote": {"attest": "MA=="}}}, "Field required"),
    ],
)
def test_an_answer_says_what_is_wrong_with_it(body, says):
    assert says in refused("answer", body)


@pytest.mark.parametrize(
    "pcr_values",
    [
        {"sha1": {}},
        {"sha256": {"24": b64(bytes(32))}},
        {"sha256": {"-1": b64(bytes(32))}},
        {"sha256": {"01": b64(bytes(32))}},
        {"sha256": {"0": b64(bytes(31))}},
        {"sha256": {"0": b64(bytes(48))}},
        {"sha384": {"0": b64(bytes(32))}},
        {"sha512": {"0": b64(bytes(48))}},
        {"sha256": {"0": "00" * 32}},
        {"sha256": [b64(bytes(32))]},
        [],
    ],
)
def test_register_values_are_of_registers_that_there_are(pcr_values):
    quote = QUOTE | {"pcrValues": pcr_values}
    assert "pcrValues" in refused("answer", {"challengeId": "c-1", "tpm": {"proof": b64(bytes(32)), "quote": quote}})


def test_every_register_can_be_quoted():
    values = {str(index): b64(bytes(32)) for index in range(24)}
    quote = QUOTE | {"pcrValues": {"sha256": values}}
    answer = parse("answer", {"challengeId": "c-1", "tpm": {"proof": b64(bytes(32)), "quote": quote}}).answer
    assert sorted(answer.quote.pcr_values) == [("sha256", index) for index in range(24)]


# --- recall ---


def issued_for(request, **changes):
    issued = IssuedChallenge(
        challenge=CHALLENGE,
        registration_key=request.claimed_id.key,
        connection_id="c1",
        protocol=Role.NATIVE,
        request=request.octets,
    )
    return replace(issued, **changes)


def test_an_answer_recalls_what_was_asked():
    asked = parse("register", native_client.register_payload(X509, payload=7))
    issued = issued_for(asked)
    answer = parse("answer", {"challengeId": "c-1", "x509": SIGNED})
    assert native.recall(answer, issued) == replace(asked, answer=answer.answer, issued=issued)


def test_an_answer_to_nothing_has_no_evidence():
    answer = parse("answer", {"challengeId": "c-1", "x509": SIGNED})
    assert native.recall(answer, None) == answer


def test_an_answer_to_a_challenge_of_other_topics_has_no_evidence():
    asked = parse("register", native_client.register_payload(X509))
    issued = issued_for(asked, protocol=Role.DPS)
    recalled = native.recall(parse("answer", {"challengeId": "c-1", "x509": SIGNED}), issued)
    assert (recalled.evidence, recalled.issued) == (Evidence(), issued)


# --- status ---


def test_a_status_request_names_its_operation():
    request = parse("status", {"operationId": "5.a.b"}, connection=connected(LEAF.chain))
    evidence = Evidence(unverified_chain=LEAF.chain, possession=Possession.TLS)
    assert request == PollRequest(claimed_id=ID, evidence=evidence, operation_id="5.a.b", protocol=Role.NATIVE)
    assert parse("status", {"operationId": "5.a.b"}).evidence == Evidence()


@pytest.mark.parametrize(
    "body", [{}, {"operationId": ""}, {"operationId": "x" * 129}, {"operationId": 1}, {"operationId": "a b"}]
)
def test_a_status_request_without_an_operation_is_refused(body):
    assert "operationId" in refused("status", body)


# --- who asks ---


@pytest.mark.parametrize("claimed_id", ["press-7", "PRESS-7", "Press-70", "other"])
def test_only_the_connections_own_spelling_is_its_id(claimed_id):
    with pytest.raises(AttestationError) as caught:
        parse("status", {"operationId": "x"}, connection=connected(claimed_id=RegistrationId.parse(claimed_id)))
    assert caught.value.finding == "registration-id-mismatch"
    assert caught.value.public_message == "Unauthorized"


def test_an_unknown_operation_is_refused_whatever_it_carries():
    with pytest.raises(UnknownOperation):
        native.parse(Message(topic="provisiond/v1/Press-7/req/delete/1", payload=b"\xff"), connection=None)


@given(st.sampled_from(Operation), st.binary(max_size=200))
def test_any_octets_are_a_request_or_a_documented_error(operation, payload):
    with contextlib.suppress(DeviceFault):
        parse(operation, payload)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "x509", "tpm", "symmetricKey", "attestation", "challengeId", "quote", "proof"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.sampled_from(Operation), st.dictionaries(st.sampled_from(["attestation", "challengeId", "x509", "tpm"]), JSON)
)
def test_any_json_is_a_request_or_a_documented_error(operation, body):
    with contextlib.suppress(DeviceFault):
        parse(operation, json.dumps(body).encode())


# --- replies ---

REGISTRATION = Registration(
    registration_id="press-7",
    status=RegistrationStatus.ASSIGNED,
    substatus=Substatus.INITIAL_ASSIGNMENT,
    operation_id="5.a",
    version=1,
    hub="local",
    assigned_host="gateway.local",
    device_id="press-7",
    enrollment_kind=EnrollmentKind.GROUP,
    enrollment_id="line-4",
    attestation_type=AttestationType.X509,
    etag="e",
    created_at=NOW,
    updated_at=NOW,
)
ASSIGNED = Reply(status=200, operation_id="5.a", status_text=RegistrationStatus.ASSIGNED, registration=REGISTRATION)


def test_an_assignment_is_told_whole_and_in_the_devices_spelling():
    assert encoded(ASSIGNED) == {
        "status": 200,
        "operationId": "5.a",
        "registrationState": {
            "x509": {"enrollmentGroupId": "line-4"},
            "registrationId": "Press-7",
            "createdDateTimeUtc": "2026-01-02T03:04:05.6789000Z",
            "assignedHub": "gateway.local",
            "deviceId": "press-7",
            "status": "assigned",
            "substatus": "initialAssignment",
            "lastUpdatedDateTimeUtc": "2026-01-02T03:04:05.6789000Z",
            "etag": "e",
        },
    }


def test_a_tpm_hears_its_wrapped_key():
    registration = replace(REGISTRATION, attestation_type=AttestationType.TPM)
    state = encoded(replace(ASSIGNED, registration=registration, authentication_key=b"blob"))["registrationState"]
    assert state["tpm"] == {"enrollmentGroupId": "line-4", "authenticationKey": b64(b"blob")}


def test_a_sealed_credential_is_part_of_the_state():
    state = encoded(replace(ASSIGNED, sealed_credential={"protected": "x"}))["registrationState"]
    assert state["sealedCredential"] == {"protected": "x"}


def test_an_unfinished_registration_says_when_to_ask_again():
    reply = Reply(status=202, operation_id="5.a", status_text=RegistrationStatus.ASSIGNING, retry_after_s=3)
    assert encoded(reply) == {
        "status": 202,
        "operationId": "5.a",
        "retryAfter": 3,
        "registrationState": {"registrationId": "Press-7", "status": "assigning"},
    }


def test_a_refusal_is_a_code_a_message_and_a_tracking_id():
    body = ErrorBody(code=401002, message="Unauthorized", tracking_id="t-1", timestamp=NOW)
    error = {"errorCode": 401002, "message": "Unauthorized", "trackingId": "t-1"}
    assert encoded(Reply(status=401, error=body)) == {"status": 401, "error": error}


def test_a_challenge_is_told_without_what_it_has_not():
    assert encoded(Reply(status=401, challenge=CHALLENGE)) == {
        "status": 401,
        "challenge": {
            "challengeId": "c-1",
            "type": "x509",
            "nonce": b64(bytes(range(32))),
            "expiresAt": "2026-01-02T03:04:05.6789000Z",
            "sessionId": "s-1",
        },
    }


def test_a_tpm_is_told_its_credential_and_its_registers():
    challenge = replace(
        CHALLENGE,
        attestation_type=AttestationType.TPM,
        id_object=b"id",
        encrypted_secret=b"secret",
        pcr_selection=(("sha256", 0), ("sha256", 7), ("sha384", 1)),
    )
    told = encoded(Reply(status=401, challenge=challenge))["challenge"]
    assert told["credential"] == {"idObject": b64(b"id"), "encryptedSecret": b64(b"secret")}
    assert told["pcrSelection"] == {"sha256": [0, 7], "sha384": [1]}


# --- both ends together ---


def exchange(claim, answer):
    """Device and service over nothing but payloads; returns what the service has to verify."""
    registered = native_client.register_payload(claim)
    asked = parse("register", registered)
    told = native.encode(
        Reply(status=401, challenge=CHALLENGE),
        topic=reply_topic("provisiond/v1/Press-7/req/register/r1"),
        registration_id=ID,
    )
    reply = native_client.parse_reply(told.payload)
    covered = native_client.answer_transcript(
        reply.challenge, id_scope="0ne0", registration_id="Press-7", register_payload=registered
    )
    request = native.recall(parse("answer", answer(covered)), issued_for(asked))
    ours = Transcript(
        id_scope="0ne0",
        registration_id="Press-7",
        challenge_id="c-1",
        session_id="s-1",
        nonce=CHALLENGE.nonce,
        request_sha256=request_digest(request.issued.request),
    )
    return request, ours


def test_a_device_with_a_certificate_and_the_service_understand_each_other():
    request, transcript = exchange(X509, lambda covered: native_client.signature_answer(covered, LEAF.key))
    verify_signature(
        request.evidence.unverified_chain[0],
        algorithm=SignatureAlgorithm(request.answer.algorithm),
        signature=request.answer.signature,
        transcript=transcript,
    )


def test_a_device_with_a_key_and_the_service_understand_each_other():
    request, transcript = exchange(SYMMETRIC_KEY, lambda covered: native_client.mac_answer(covered, b"k" * 32))
    assert verify_mac([b"k" * 32], mac=request.answer.mac, transcript=transcript) == 0


def test_a_device_with_a_tpm_and_the_service_understand_each_other():
    def answer(covered):
        proof = tpm_transcript.proof(b"secret", covered.challenge_octets)
        return native_client.tpm_answer(
            covered, proof, attest=b"a", signature=b"s", pcr_values={("sha256", 7): bytes(32)}
        )

    request, transcript = exchange(TPM, answer)
    assert request.answer.proof == tpm_transcript.proof(b"secret", transcript.challenge_octets)
    assert request.answer.quote.pcr_values == {("sha256", 7): bytes(32)}
    assert request.evidence.tpm.attestation_key == b"ak"


def test_a_status_payload_reads_back():
    assert parse("status", native_client.status_payload("5.a")).operation_id == "5.a"


def test_every_reply_reads_back_on_the_device():
    for reply in (ASSIGNED, Reply(status=401, challenge=CHALLENGE), Reply(status=429, retry_after_s=9)):
        message = native.encode(reply, topic="t", registration_id=ID)
        assert native_client.parse_reply(message.payload).status == reply.status


def test_a_device_passes_over_what_it_does_not_know():
    body = {"status": 200, "new": 1, "registrationState": {"registrationId": "x", "status": "assigned", "new": {}}}
    assert native_client.parse_reply(json.dumps(body).encode()).registration_state.status == "assigned"


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_octets_are_a_reply_or_a_documented_error(payload):
    with contextlib.suppress(MalformedReply):
        native_client.parse_reply(payload)


def test_a_reply_has_a_limit():
    with pytest.raises(MalformedReply, match="bytes"):
        native_client.parse_reply(b" " * (96 * 1024 + 1))
