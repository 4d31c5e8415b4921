"""The JSON of the native protocol: what a device sends, strictly, and what it hears.

Names on the wire are camelCase. A request with a name that is not here is refused; a device passes over what it does
not know in a reply.
"""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from provisiond.attestation.message_proof import MAC_SIZE_BYTES, SIGNATURE_MAX_SIZE_BYTES, SignatureAlgorithm
from provisiond.attestation.tpm_attest import ATTEST_MAX_SIZE_BYTES, PCR_COUNT
from provisiond.attestation.tpm_attest import SIGNATURE_MAX_SIZE_BYTES as TPM_SIGNATURE_MAX_SIZE_BYTES
from provisiond.protocols.base64_octets import Base64

CHAIN_MAX_SIZE_BYTES: Final = 16 * 1024
"""All certificates of a message together: five of RSA-4096 take 10 KiB."""

CHAIN_MAX_CERTIFICATES: Final = 10
"""No configuration takes longer paths; each is parsed before it is known to be worth it."""

TPM_PUBLIC_MAX_SIZE_BYTES: Final = 1024
"""TPM2B_PUBLIC of RSA-4096 takes 600."""

TEXT_MAX_LENGTH: Final = 128
"""Ids that the service makes and devices echo."""

NONCE_SIZE_BYTES: Final = 32

_MEMBERS_MAX: Final = 16  # no object has more than five
_PCR_INDEX: Final = r"^(0|1?[1-9]|10|2[0-3])$"


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel)

    @model_validator(mode="before")
    @classmethod
    def _check_member_count(cls, members: Any) -> Any:
        # Each unknown member costs an error report: thousands of them would cost more than all the rest.
        if isinstance(members, dict) and len(members) > _MEMBERS_MAX:
            raise PydanticCustomError("members", "more members than this object can have")
        return members


class _Response(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, alias_generator=to_camel)


def _check_chain_size(chain: tuple[bytes, ...]) -> tuple[bytes, ...]:
    size_bytes = sum(map(len, chain))
    if size_bytes > CHAIN_MAX_SIZE_BYTES:
        raise PydanticCustomError(
            "size",
            "{actual} octets of certificates, at most {largest}",
            {"actual": size_bytes, "largest": CHAIN_MAX_SIZE_BYTES},
        )
    return chain


# --- field types -----------------------------------------------------------------------------------------------------

Identifier = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,128}$")]
"""1 to 128 printable ASCII characters without space."""

CertificateChain = Annotated[
    tuple[Annotated[bytes, Base64(CHAIN_MAX_SIZE_BYTES)], ...],
    Field(min_length=1, max_length=CHAIN_MAX_CERTIFICATES, strict=False),
    AfterValidator(_check_chain_size),
]
"""DER certificates, base64, leaf first."""

TpmPublicOctets = Annotated[bytes, Base64(TPM_PUBLIC_MAX_SIZE_BYTES)]
PcrBank = Literal["sha256", "sha384", "sha512"]
PcrIndex = Annotated[str, StringConstraints(pattern=_PCR_INDEX)]
_PCR_VALUES: Final = Field(default=None, max_length=PCR_COUNT)


# --- register --------------------------------------------------------------------------------------------------------


class X509Claim(_Request):
    """The device's certificate and its intermediates."""

    certificate_chain: CertificateChain


class SymmetricKeyClaim(_Request):
    """Nothing: who holds the key says so in the answer."""


class TpmClaim(_Request):
    """The device's TPM: TPM2B_PUBLIC of three keys, and the certificates of the first (DER, leaf first)."""

    endorsement_key: TpmPublicOctets
    storage_root_key: TpmPublicOctets
    attestation_key: TpmPublicOctets
    ek_certificate_chain: CertificateChain | None = None


class X509Attestation(_Request):
    """To be proved by a signature."""

    type: Literal["x509"]
    x509: X509Claim


class SymmetricKeyAttestation(_Request):
    """To be proved by an HMAC."""

    type: Literal["symmetricKey"]
    symmetric_key: SymmetricKeyClaim = Field(default_factory=SymmetricKeyClaim)


class TpmAttestation(_Request):
    """To be proved by activating a credential."""

    type: Literal["tpm"]
    tpm: TpmClaim


Attestation = Annotated[
    X509Attestation | SymmetricKeyAttestation | TpmAttestation,
    Field(discriminator="type"),
]


class RegisterMessage(_Request):
    """`req/register`: a device asks to be assigned. `payload` is its own, any JSON."""

    attestation: Attestation
    payload: Any = None


# --- answer ----------------------------------------------------------------------------------------------------------


class SignatureProof(_Request):
    """Signature by the leaf's key over the transcript."""

    algorithm: Annotated[SignatureAlgorithm, Field(strict=False)]
    signature: Annotated[bytes, Base64(SIGNATURE_MAX_SIZE_BYTES)]


class MacProof(_Request):
    """HMAC-SHA256 with the device's key over the transcript."""

    mac: Annotated[bytes, Base64(MAC_SIZE_BYTES, MAC_SIZE_BYTES)]


class PcrValues(_Request):
    """What registers hold, by bank and index; each value is as long as its bank's digests."""

    sha256: dict[PcrIndex, Annotated[bytes, Base64(32, 32)]] | None = _PCR_VALUES
    sha384: dict[PcrIndex, Annotated[bytes, Base64(48, 48)]] | None = _PCR_VALUES
    sha512: dict[PcrIndex, Annotated[bytes, Base64(64, 64)]] | None = _PCR_VALUES

    def by_slot(self) -> dict[tuple[str, int], bytes]:
        """The values by bank and index."""
        banks = (("sha256", self.sha256), ("sha384", self.sha384), ("sha512", self.sha512))
        return {(bank, int(index)): value for bank, values in banks for index, value in (values or {}).items()}


class QuoteProof(_Request):
    """TPM2_Quote: TPMS_ATTEST, TPMT_SIGNATURE, and what the registers hold."""

    attest: Annotated[bytes, Base64(ATTEST_MAX_SIZE_BYTES)]
    signature: Annotated[bytes, Base64(TPM_SIGNATURE_MAX_SIZE_BYTES)]
    pcr_values: PcrValues


class TpmProof(_Request):
    """HMAC-SHA256 with the activated secret over the TPM transcript, and a quote when one was asked for."""

    proof: Annotated[bytes, Base64(MAC_SIZE_BYTES, MAC_SIZE_BYTES)]
    quote: QuoteProof | None = None


_PROOFS: Final = ("x509", "symmetricKey", "tpm")


class AnswerMessage(_Request):
    """`req/answer`: the proof that a challenge asked for, in exactly one of three forms."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [proof]} for proof in _PROOFS]})

    challenge_id: Identifier
    x509: SignatureProof | None = None
    symmetric_key: MacProof | None = None
    tpm: TpmProof | None = None

    @model_validator(mode="after")
    def _check_one_proof(self) -> Self:
        if sum(proof is not None for proof in (self.x509, self.symmetric_key, self.tpm)) != 1:
            raise PydanticCustomError("proof", "exactly one of x509, symmetricKey and tpm belongs in an answer")
        return self


# --- status ----------------------------------------------------------------------------------------------------------


class StatusMessage(_Request):
    """`req/status`: how an operation is doing."""

    operation_id: Identifier


# --- reply -----------------------------------------------------------------------------------------------------------


class CredentialPart(_Response):
    """What TPM2_ActivateCredential takes: TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET."""

    id_object: Annotated[bytes, Base64(256)]
    encrypted_secret: Annotated[bytes, Base64(600)]


class ChallengePart(_Response):
    """What to answer: the nonce is of 32 octets, `expiresAt` is UTC, `pcrSelection` lists registers by bank.

    `sessionId` is empty where the service knows no connections, behind a broker of the site's.
    """

    challenge_id: Identifier
    type: Literal["x509", "symmetricKey", "tpm"]
    nonce: Annotated[bytes, Base64(NONCE_SIZE_BYTES, NONCE_SIZE_BYTES)]
    expires_at: str
    session_id: Annotated[str, StringConstraints(pattern=r"^[!-~]{0,128}$")]
    credential: CredentialPart | None = None
    pcr_selection: dict[PcrBank, list[Annotated[int, Field(ge=0, lt=PCR_COUNT)]]] | None = None


class ErrorPart(_Response):
    """Why it was refused: `errorCode` is HTTP class times 1000 plus detail; the operator looks up `trackingId`."""

    error_code: int
    message: str
    tracking_id: str


class RegistrationStatePart(_Response):
    """The registration, with the members of Azure DPS, and `sealedCredential` when the hub asks for a secret."""

    registration_id: str
    status: Literal["unassigned", "assigning", "assigned", "failed", "disabled"]
    substatus: str | None = None
    assigned_hub: str | None = None
    device_id: str | None = None
    created_date_time_utc: str | None = None
    last_updated_date_time_utc: str | None = None
    etag: str | None = None
    error_code: int | None = None
    error_message: str | None = None
    payload: Any = None
    x509: dict[str, Any] | None = None
    symmetric_key: dict[str, Any] | None = None
    tpm: dict[str, Any] | None = None
    sealed_credential: dict[str, Any] | None = None


class ReplyMessage(_Response):
    """`res/{op}`: the answer to every request. `status` is that of HTTP: 200, 202, 400, 401, 404, 409, 429 or 500."""

    status: Annotated[int, Field(ge=100, le=599)]
    operation_id: str | None = None
    retry_after: Annotated[int, Field(ge=0)] | None = None
    registration_state: RegistrationStatePart | None = None
    challenge: ChallengePart | None = None
    error: ErrorPart | None = None
