"""What a device presents and proves, and what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from provisiond.model.enrollment import Enrollment
from provisiond.model.registration_id import RegistrationId
from provisiond.model.trust import AttestationType


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmEvidence:
    """What a TPM device presents: TPM2B_PUBLIC endorsement and storage root key, and optionally EK certificates (DER,
    leaf first) and the TPM2B_PUBLIC of an attestation key (native protocol).
    """

    endorsement_key: bytes
    storage_root_key: bytes
    unverified_ek_chain: tuple[bytes, ...] = ()
    attestation_key: bytes | None = None


class Possession(StrEnum):
    """How the presenter of a certificate chain or a TPM's keys proved that it holds the private ones."""

    UNPROVED = "unproved"
    """Not at all yet: a challenge is due."""
    TLS = "tls"
    """In the handshake of its own connection."""
    ANSWERED = "answered"
    """By answering a challenge earlier on the same connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything a request brings to prove its claim; the enrollment decides which part counts.

    Args:
        unverified_chain: X.509 chain, DER, leaf first.
        sas_token: `SharedAccessSignature sr=…&sig=…&se=…`.
        claims_symmetric_key: a symmetric key will be proved by answering a challenge; nothing of it is presented.
        tpm: endorsement key and what goes with it.
        possession: how holding the private keys of the chain or of the TPM was proved.
    """

    unverified_chain: tuple[bytes, ...] = ()
    sas_token: str | None = field(default=None, repr=False)
    claims_symmetric_key: bool = False
    tpm: TpmEvidence | None = None
    possession: Possession = Possession.UNPROVED


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteEvidence:
    """A TPM2_Quote: TPMS_ATTEST, TPMT_SIGNATURE and the register values it covers, by bank and index."""

    attest: bytes
    signature: bytes
    pcr_values: Mapping[tuple[str, int], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """Proof that the claimed identity is true for one enrollment. Only `attestation/` makes these.

    Args:
        registration_id: proved.
        enrollment: whose trust material proved it.
        credential: what proved it, in a few words for the trace (`primary certificate`, `secondary key`).
        certificate_der: the device's own certificate, for X.509.
        endorsement_key_hash: SHA-256 of the EK, for TPM.
        tpm: the TPM's keys, for TPM.
        device_key: the key the device signs with at its hub, for symmetric keys.
    """

    registration_id: RegistrationId
    enrollment: Enrollment
    attestation_type: AttestationType
    credential: str
    certificate_der: bytes | None = None
    endorsement_key_hash: bytes | None = None
    tpm: TpmEvidence | None = None
    device_key: bytes | None = field(default=None, repr=False)
