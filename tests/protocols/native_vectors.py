"""The worked examples of the native protocol: made once, checked into `tests/vectors` and shown in `docs`.

    python -m tests.protocols.native_vectors      # writes both; keys and nonces are fixed, so nothing else changes

Everything is deterministic but RSA itself: its key and its PSS signature are kept from the file that is there.
"""

import base64
import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from provisiond.attestation import tpm_transcript
from provisiond.attestation.message_proof import SignatureAlgorithm, mac_transcript, sign_transcript
from provisiond.attestation.transcript import Mechanism, Transcript, request_digest
from provisiond.protocols.native_client import register_payload, symmetric_key_claim, tpm_claim, x509_claim
from provisiond.protocols.native_schema import generate_schema

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors" / "native_transcripts.json"
DOCUMENT = ROOT / "docs" / "native-protocol.md"
SCHEMA = ROOT / "docs" / "native-protocol.schema.json"

ID_SCOPE = "0ne00A1B2C3"
REGISTRATION_ID = "press-7"
CHALLENGE_ID = "c-5f1d7c2e"
SESSION_ID = "s-01"
EXPIRES_AT = "2030-01-02T03:06:05.0000000Z"
FIRMWARE = {"firmware": "1.4.2"}

_ECDSA = {
    SignatureAlgorithm.ES256: (ec.SECP256R1(), hashes.SHA256()),
    SignatureAlgorithm.ES384: (ec.SECP384R1(), hashes.SHA384()),
    SignatureAlgorithm.ES512: (ec.SECP521R1(), hashes.SHA512()),
}


def fixed(purpose, size_bytes=32):
    """Octets that anybody can make again."""
    return hashlib.shake_256(f"provisiond native example: {purpose}".encode()).digest(size_bytes)


NONCE = fixed("nonce")
SYMMETRIC_KEY = fixed("symmetric key")
TPM_SECRET = fixed("activated secret")


def transcript_of(payload):
    return Transcript(
        id_scope=ID_SCOPE,
        registration_id=REGISTRATION_ID,
        challenge_id=CHALLENGE_ID,
        session_id=SESSION_ID,
        nonce=NONCE,
        request_sha256=request_digest(payload),
    )


def load_vectors():
    return json.loads(VECTORS.read_text())


# --- making ---


def make_vectors(kept):
    return {
        "comment": "Worked examples of docs/native-protocol.md; regenerate with python -m tests.protocols.native_vectors",
        "idScope": ID_SCOPE,
        "registrationId": REGISTRATION_ID,
        "challengeId": CHALLENGE_ID,
        "sessionId": SESSION_ID,
        "nonce": _b64(NONCE),
        "x509": [_signed(algorithm, kept) for algorithm in SignatureAlgorithm],
        "symmetricKey": _keyed(),
        "tpm": _activated(),
    }


def _signed(algorithm, kept):
    before = next((vector for vector in kept.get("x509", []) if vector["algorithm"] == algorithm), None)
    key = _private_key(algorithm, before)
    certificate = _certificate(key)
    payload = register_payload(x509_claim([certificate]), payload=FIRMWARE)
    transcript = transcript_of(payload)
    if algorithm is SignatureAlgorithm.PS256 and before and before["registerPayload"] == payload.decode():
        signature = base64.b64decode(before["signature"])
    elif algorithm in _ECDSA:
        ecdsa = ec.ECDSA(_ECDSA[algorithm][1], deterministic_signing=True)
        signature = key.sign(transcript.message_octets(Mechanism.X509), ecdsa)
    else:
        _, signature = sign_transcript(key, transcript, algorithm=algorithm)
    return {
        "algorithm": algorithm.value,
        "privateKey": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "certificate": _b64(certificate),
        **_covered(payload, transcript.message_octets(Mechanism.X509)),
        "signature": _b64(signature),
    }


def _keyed():
    payload = register_payload(symmetric_key_claim(), payload=FIRMWARE)
    transcript = transcript_of(payload)
    return {
        "key": _b64(SYMMETRIC_KEY),
        **_covered(payload, transcript.message_octets(Mechanism.SYMMETRIC_KEY)),
        "mac": _b64(mac_transcript(SYMMETRIC_KEY, transcript)),
    }


def _activated():
    claim = tpm_claim(
        endorsement_key=b"endorsement key", storage_root_key=b"storage root key", attestation_key=b"attestation key"
    )
    payload = register_payload(claim, payload=FIRMWARE)
    octets = transcript_of(payload).challenge_octets
    return {
        "secret": _b64(TPM_SECRET),
        **_covered(payload, octets),
        "proof": _b64(tpm_transcript.proof(TPM_SECRET, octets)),
        "quoteExtraData": _b64(tpm_transcript.quote_extra_data(octets, NONCE)),
    }


def _covered(payload, octets):
    return {
        "registerPayload": payload.decode(),
        "registerSha256": hashlib.sha256(payload).hexdigest(),
        "transcript": octets.hex(),
        "transcriptSha256": hashlib.sha256(octets).hexdigest(),
    }


def _private_key(algorithm, before):
    if before is not None:
        return load_pem_private_key(before["privateKey"].encode(), None)
    if algorithm in _ECDSA:
        return ec.derive_private_key(int.from_bytes(fixed(algorithm)), _ECDSA[algorithm][0])
    if algorithm is SignatureAlgorithm.EDDSA:
        return ed25519.Ed25519PrivateKey.from_private_bytes(fixed(algorithm))
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _certificate(key):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, REGISTRATION_ID)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(int.from_bytes(fixed("serial number", 8)) >> 1)
        .not_valid_before(datetime(2025, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2049, 12, 31, tzinfo=UTC))
    )
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return builder.sign(key, None).public_bytes(Encoding.DER)
    deterministic = True if isinstance(key, ec.EllipticCurvePrivateKey) else None
    return builder.sign(key, hashes.SHA256(), ecdsa_deterministic=deterministic).public_bytes(Encoding.DER)


# --- showing ---


def render_blocks(vectors):
    """The generated parts of the document, by name."""
    signed = vectors["x509"][0]
    keyed, activated = vectors["symmetricKey"], vectors["tpm"]
    signed_answer = {
        "challengeId": CHALLENGE_ID,
        "x509": {"algorithm": signed["algorithm"], "signature": signed["signature"]},
    }
    return {
        "challenge": _fenced("json", json.dumps(_challenge_reply("x509"), indent=2)),
        "x509": _worked(signed, "x509")
        + f"The private key that signed, P-256: `{_scalar(signed['privateKey'])}`.\n\n"
        + f"The answer (made with RFC 6979; any signature that verifies will do):\n\n{_fenced('json', _compact(signed_answer))}",
        "symmetricKey": _worked(keyed, "symmetricKey")
        + f"With the key `{keyed['key']}` (base64), the HMAC-SHA256 of it is `{_hex(keyed['mac'])}`.\n\nThe answer:\n\n"
        + _fenced("json", _compact({"challengeId": CHALLENGE_ID, "symmetricKey": {"mac": keyed["mac"]}})),
        "tpm": _worked(activated, None)
        + f"The TPM released the secret `{_hex(activated['secret'])}`. HMAC-SHA256 under it, over the 17 octets"
        + f' "provisiond-tpm-v1" and then the above, is `{_hex(activated["proof"])}`.\n\n'
        + 'SHA-256 over the 19 octets "provisiond-quote-v1", the above and the 32 octets of the nonce is'
        + f" `{_hex(activated['quoteExtraData'])}`: the `qualifyingData` of TPM2_Quote.\n\nThe answer:\n\n"
        + _fenced("json", _compact({"challengeId": CHALLENGE_ID, "tpm": {"proof": activated["proof"]}})),
    }


def _worked(vector, mechanism):
    payload = vector["registerPayload"]
    rows = "\n".join(
        f"| {offset} | {2 + len(value)} | {what} | `{len(value):04x}` `{value.hex()}` |"
        for offset, what, value in _fields(vector, mechanism)
    )
    octets = bytes.fromhex(vector["transcript"])
    return (
        f"The register message, {len(payload)} octets:\n\n{_fenced('json', payload)}\n\n"
        f"The transcript, {len(octets)} octets:\n\n"
        f"| offset | octets | field | length, then value |\n|---|---|---|---|\n{rows}\n\n"
        f"SHA-256 of these {len(octets)} octets: `{vector['transcriptSha256']}`.\n\n"
    )


def _fields(vector, mechanism):
    names = ["id scope", "registration id", "challenge id", "session id", "SHA-256 of the register message"]
    if mechanism is not None:
        names = ["protocol", "mechanism", *names, "nonce"]
    octets, offset = bytes.fromhex(vector["transcript"]), 0
    for name in names:
        size_bytes = int.from_bytes(octets[offset : offset + 2])
        value = octets[offset + 2 : offset + 2 + size_bytes]
        yield offset, name if "SHA" in name or name == "nonce" else f'{name}, "{value.decode()}"', value
        offset += 2 + size_bytes
    assert offset == len(octets)


def _challenge_reply(mechanism):
    return {
        "status": 401,
        "challenge": {
            "challengeId": CHALLENGE_ID,
            "type": mechanism,
            "nonce": _b64(NONCE),
            "expiresAt": EXPIRES_AT,
            "sessionId": SESSION_ID,
        },
    }


def replace_blocks(document, blocks):
    for name, block in blocks.items():
        pattern = rf"(<!-- example: {name} -->\n).*?(<!-- end -->)"
        document, found = re.subn(
            pattern, lambda match, text=block: f"{match[1]}\n{text}\n\n{match[2]}", document, flags=re.DOTALL
        )
        assert found == 1, f"{found} places for the example {name}"
    return document


def schema_text():
    return json.dumps(generate_schema(), indent=2, sort_keys=True) + "\n"


def _fenced(language, text):
    return f"```{language}\n{text}\n```"


def _compact(value):
    return json.dumps(value, separators=(",", ":"))


def _scalar(pem):
    return load_pem_private_key(pem.encode(), None).private_numbers().private_value.to_bytes(32).hex()


def _hex(text):
    return base64.b64decode(text).hex()


def _b64(octets):
    return base64.b64encode(octets).decode()


def main():
    kept = load_vectors() if VECTORS.exists() else {}
    vectors = make_vectors(kept)
    VECTORS.write_text(json.dumps(vectors, indent=2) + "\n")
    DOCUMENT.write_text(replace_blocks(DOCUMENT.read_text(), render_blocks(vectors)))
    SCHEMA.write_text(schema_text())


if __name__ == "__main__":
    main()
