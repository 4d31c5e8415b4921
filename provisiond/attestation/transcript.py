"""What a device puts its name to: one challenge, for one registration, on one session, for one request.

===========  ======================================================================================================
challenge    FIELD each of: id scope, registration id, challenge id, session id, SHA-256(register payload)
message      FIELD("provisiond-native-v1") FIELD(mechanism) challenge FIELD(nonce)
FIELD(x)     2-octet big-endian length of x, then x; texts are UTF-8
mechanism    `x509` or `symmetricKey`
===========  ======================================================================================================

Every field carries its length, so that no two challenges share a transcript. The first octets, `00 14`, begin neither a
TLS signature (64 spaces, or a digest) nor the text of a SAS token, so what a key signs here is worth nothing there.

The challenge part is also what the answer of a TPM covers; see `tpm_transcript`.
"""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

PROTOCOL_LABEL: Final = b"provisiond-native-v1"

_FIELD_MAX_SIZE_BYTES: Final = 0xFFFF


class Mechanism(StrEnum):
    """Who may check an answer: the holder of a certificate, or of the same key."""

    X509 = "x509"
    SYMMETRIC_KEY = "symmetricKey"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """What device and service have said to each other when an answer is due.

    Args:
        id_scope: of the service, as it is configured on both ends.
        registration_id: as the device spelt it in its topic.
        challenge_id, session_id: as the challenge gave them.
        nonce: of the challenge, decoded.
        request_sha256: SHA-256 of the register message's payload, the octets that were published.
    """

    id_scope: str
    registration_id: str
    challenge_id: str
    session_id: str
    nonce: bytes
    request_sha256: bytes

    @property
    def challenge_octets(self) -> bytes:
        """The part that every mechanism covers, TPM included.

        Raises:
            ValueError: a field is longer than 65535 octets.
        """
        texts = (self.id_scope, self.registration_id, self.challenge_id, self.session_id)
        return frame(*(text.encode() for text in texts), self.request_sha256)

    def message_octets(self, mechanism: Mechanism) -> bytes:
        """What an answer of this mechanism signs, or takes the HMAC of.

        Raises:
            ValueError: a field is longer than 65535 octets.
        """
        return frame(PROTOCOL_LABEL, mechanism.encode()) + self.challenge_octets + frame(self.nonce)


def request_digest(payload: bytes) -> bytes:
    """SHA-256 of a register message's payload as it was published, 32 octets."""
    return hashlib.sha256(payload).digest()


def frame(*fields: bytes) -> bytes:
    """Each field after its length, 2 octets big-endian: no two lists of fields give the same octets.

    Raises:
        ValueError: a field is longer than 65535 octets.
    """
    if any(len(field) > _FIELD_MAX_SIZE_BYTES for field in fields):
        raise ValueError(f"a field of a transcript has at most {_FIELD_MAX_SIZE_BYTES} octets")
    return b"".join(len(field).to_bytes(2, "big") + field for field in fields)
