"""What is written down for firmware engineers is what the code does."""

import base64
import hashlib
import hmac
import json
import re

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from provisiond.attestation import tpm_transcript
from provisiond.attestation.message_proof import SignatureAlgorithm, sign_transcript, verify_mac, verify_signature
from provisiond.attestation.transcript import Mechanism
from provisiond.model import RegistrationId
from provisiond.protocols.native import parse_register
from provisiond.protocols.native_models import AnswerMessage, RegisterMessage, ReplyMessage, StatusMessage
from tests.protocols.native_vectors import (
    DOCUMENT,
    NONCE,
    SCHEMA,
    load_vectors,
    make_vectors,
    render_blocks,
    replace_blocks,
    schema_text,
    transcript_of,
)

VECTORS = load_vectors()
SIGNED = {vector["algorithm"]: vector for vector in VECTORS["x509"]}
ALGORITHMS = list(SignatureAlgorithm)


def octets(text):
    return base64.b64decode(text)


def test_the_vectors_are_what_the_code_makes():
    assert make_vectors(VECTORS) == VECTORS


def test_the_schema_is_current():
    assert SCHEMA.read_text() == schema_text(), "run python -m tests.protocols.native_vectors"


def test_the_schema_leaves_out_what_is_absent():
    assert "null" not in SCHEMA.read_text()
    definitions = json.loads(SCHEMA.read_text())["$defs"]
    assert definitions["RegisterMessage"]["properties"]["payload"] == {}
    assert definitions["TpmClaim"]["required"] == ["endorsementKey", "storageRootKey", "attestationKey"]


def test_the_examples_are_the_vectors():
    document = DOCUMENT.read_text()
    assert replace_blocks(document, render_blocks(VECTORS)) == document, "run python -m tests.protocols.native_vectors"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_vector_signature_verifies(algorithm):
    vector = SIGNED[algorithm]
    transcript = transcript_of(vector["registerPayload"].encode())
    assert transcript.message_octets(Mechanism.X509).hex() == vector["transcript"]
    verify_signature(
        octets(vector["certificate"]),
        algorithm=algorithm,
        signature=octets(vector["signature"]),
        transcript=transcript,
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_vector_key_signs_what_verifies(algorithm):
    vector = SIGNED[algorithm]
    transcript = transcript_of(vector["registerPayload"].encode())
    key = load_pem_private_key(vector["privateKey"].encode(), None)
    chosen, signature = sign_transcript(key, transcript, algorithm=algorithm)
    verify_signature(octets(vector["certificate"]), algorithm=chosen, signature=signature, transcript=transcript)


def test_the_transcript_is_what_the_table_says():
    vector = SIGNED["ES256"]
    fields = [
        b"provisiond-native-v1",
        b"x509",
        b"0ne00A1B2C3",
        b"press-7",
        b"c-5f1d7c2e",
        b"s-01",
        hashlib.sha256(vector["registerPayload"].encode()).digest(),
        octets(VECTORS["nonce"]),
    ]
    assert vector["transcript"] == b"".join(len(field).to_bytes(2, "big") + field for field in fields).hex()


def test_the_mac_is_a_plain_hmac_of_the_transcript():
    vector = VECTORS["symmetricKey"]
    mac = hmac.digest(octets(vector["key"]), bytes.fromhex(vector["transcript"]), "sha256")
    assert octets(vector["mac"]) == mac
    assert (
        verify_mac([octets(vector["key"])], mac=mac, transcript=transcript_of(vector["registerPayload"].encode())) == 0
    )


def test_the_tpm_covers_the_fields_that_every_mechanism_covers():
    vector = VECTORS["tpm"]
    challenge = bytes.fromhex(vector["transcript"])
    assert challenge == tpm_transcript.transcript(
        id_scope=VECTORS["idScope"],
        registration_id=VECTORS["registrationId"],
        challenge_id=VECTORS["challengeId"],
        connection_id=VECTORS["sessionId"],
        request=vector["registerPayload"].encode(),
    )
    proof = hmac.digest(octets(vector["secret"]), b"provisiond-tpm-v1" + challenge, "sha256")
    assert octets(vector["proof"]) == proof
    assert octets(vector["quoteExtraData"]) == hashlib.sha256(b"provisiond-quote-v1" + challenge + NONCE).digest()


@pytest.mark.parametrize("vector", [*VECTORS["x509"], VECTORS["symmetricKey"], VECTORS["tpm"]])
def test_every_register_message_is_one(vector):
    request = parse_register(RegistrationId.parse("press-7"), vector["registerPayload"].encode())
    assert request.payload == {"firmware": "1.4.2"}


def test_every_json_example_is_a_message_of_the_protocol():
    models = (RegisterMessage, AnswerMessage, StatusMessage, ReplyMessage)
    examples = re.findall(r"```json\n(.*?)\n```", DOCUMENT.read_text(), flags=re.DOTALL)
    assert len(examples) == 10
    for example in examples:
        body = json.loads(example.replace("<leaf>", "MA==").replace("<intermediate>", "MA=="))
        assert any(set(body) <= {field.alias for field in model.model_fields.values()} for model in models)
        model = next(m for m in models if set(body) <= {field.alias for field in m.model_fields.values()})
        model.model_validate(body)
