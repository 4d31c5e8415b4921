"""Challenges, and their answers."""

from dataclasses import dataclass, field
from datetime import datetime

from provisiond.model.connection import Role
from provisiond.model.evidence import QuoteEvidence
from provisiond.model.trust import AttestationType


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A device's answer to a challenge; which field counts depends on the challenge.

    Args:
        challenge_id: of the challenge; None means the one outstanding on this connection.
        sas_token: signed with the key that only its TPM could take out of an `authenticationKey`.
        algorithm, signature: by the key of the device's certificate, over the transcript.
        mac: HMAC-SHA256 under the device's symmetric key, over the transcript.
        proof: HMAC-SHA256 under the secret that the TPM has released, over the transcript.
        quote: when the challenge asked for one.
    """

    challenge_id: str | None = None
    sas_token: str | None = field(default=None, repr=False)
    algorithm: str | None = None
    signature: bytes | None = None
    mac: bytes | None = None
    proof: bytes | None = None
    quote: QuoteEvidence | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """What a device has to answer before it is believed, as it is told.

    Args:
        challenge_id, session_id: 1 to 128 printable ASCII characters; the answer covers both.
        attestation_type: how it has to be answered.
        nonce: 32 fresh octets.
        expires_at: an answer that comes later is refused.
        id_object, encrypted_secret: TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET, for a TPM; else empty.
        pcr_selection: registers that a quote must cover, bank and index; empty when none is asked for.
        authentication_key: the blob with the key to sign a SAS token with, on `$dps` topics; else empty.
    """

    challenge_id: str
    session_id: str
    attestation_type: AttestationType
    nonce: bytes
    expires_at: datetime
    id_object: bytes = b""
    encrypted_secret: bytes = b""
    pcr_selection: tuple[tuple[str, int], ...] = ()
    authentication_key: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedChallenge:
    """A challenge as the service keeps it until it is answered: once, by whom it was given to.

    Args:
        challenge: as the device was told.
        registration_key: lower-case id it was issued to.
        connection_id: of the connection that asked; empty where connections are not ours to know.
        protocol: whose topics it was asked on.
        secret: what only the right TPM can release: the SAS key or the activated secret; else empty.
        request: the register message's payload, as it was published.
        keys_sha256: of the TPM's keys that were challenged (`tpm_claim.keys_digest`); empty for other mechanisms.
    """

    challenge: Challenge
    registration_key: str
    connection_id: str
    protocol: Role
    secret: bytes = field(default=b"", repr=False)
    request: bytes = b""
    keys_sha256: bytes = b""
