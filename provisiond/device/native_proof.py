"""How each credential claims and proves itself on native topics."""

from collections.abc import Mapping
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from provisiond.attestation.message_proof import PrivateKey
from provisiond.attestation.tpm_transcript import proof, quote_extra_data
from provisiond.attestation.transcript import Transcript
from provisiond.device.credentials import Credential, SymmetricKeyCredential, TpmCredential, X509Credential
from provisiond.device.errors import CredentialError, TpmError
from provisiond.device.tpm_device import TpmDevice
from provisiond.errors import SealBroken
from provisiond.model import JSONValue
from provisiond.protocols import native_client
from provisiond.protocols.native_models import ChallengePart
from provisiond.protocols.sealing import SealingContext, open_with_private_key, open_with_symmetric_key

_PCR_READ_MAX: Final = 8  # registers that TPM2_PCR_Read gives at once
_PCR_BANKS: Final = {"sha256": 0x000B, "sha384": 0x000C, "sha512": 0x000D}  # TPM_ALG_ID (TPM 2.0 Part 2 6.3)


async def claim(credential: Credential) -> Mapping[str, JSONValue]:
    """`attestation` of the register message.

    Raises:
        CredentialError: nothing on native topics takes this credential.
        TpmError: the TPM failed.
    """
    match credential:
        case X509Credential():
            return native_client.x509_claim(_chain(credential))
        case SymmetricKeyCredential():
            return native_client.symmetric_key_claim()
        case TpmCredential():
            return await _tpm_claim(credential)
    raise CredentialError("this kind of credential cannot be used with the native protocol")


async def answer(credential: Credential, challenge: ChallengePart, transcript: Transcript) -> bytes:
    """Payload of the answer to a challenge.

    Raises:
        CredentialError: the challenge is for another kind of credential, or for another TPM.
        TpmError: the TPM failed.
    """
    match credential:
        case X509Credential() if challenge.type == "x509":
            return native_client.signature_answer(transcript, private_key(credential))
        case SymmetricKeyCredential() if challenge.type == "symmetricKey":
            return native_client.mac_answer(transcript, credential.key)
        case TpmCredential() if challenge.type == "tpm" and challenge.credential is not None:
            return await _tpm_answer(credential.device, challenge, transcript)
    raise CredentialError(f"the service asks for a proof ({challenge.type}) that this device was started without")


def open_sealed(credential: Credential, sealed: Mapping[str, JSONValue], context: SealingContext) -> bytes:
    """Open the secret that came with an assignment.

    Raises:
        CredentialError: it is not for this device or this operation.
    """
    try:
        match credential:
            case X509Credential():
                return open_with_private_key(sealed, private_key=private_key(credential), context=context)
            case SymmetricKeyCredential():
                return open_with_symmetric_key(sealed, key=credential.key, context=context)
    except SealBroken as error:
        raise CredentialError(f"the credential for the hub cannot be opened: {error}") from error
    raise CredentialError("the service sealed a credential to a device that has no key to open it")


def private_key(credential: X509Credential) -> PrivateKey:
    """The key of the leaf.

    Raises:
        CredentialError: it is of no kind that the protocol takes.
    """
    key = load_pem_private_key(credential.key_pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        raise CredentialError("the private key is none of P-256, P-384, P-521, RSA and Ed25519")
    return key


def _chain(credential: X509Credential) -> list[bytes]:
    certificates = x509.load_pem_x509_certificates(credential.chain_pem)
    return [certificate.public_bytes(Encoding.DER) for certificate in certificates]


async def _tpm_claim(credential: TpmCredential) -> Mapping[str, JSONValue]:
    device = credential.device
    attestation_key = await device.create_attestation_key()
    async with device.tpm.loaded(attestation_key):
        pass  # a primary key: it is made again, the same, when the answer is due
    certificate = await device.endorsement_certificate()
    return native_client.tpm_claim(
        endorsement_key=await device.endorsement_key(),
        storage_root_key=await device.storage_root_key(),
        attestation_key=attestation_key.public,
        ek_chain=() if certificate is None else (certificate, *credential.ek_chain),
    )


async def _tpm_answer(device: TpmDevice, challenge: ChallengePart, transcript: Transcript) -> bytes:
    sealed = challenge.credential
    if sealed is None:
        raise CredentialError("the challenge has nothing for the TPM to activate")
    octets = transcript.challenge_octets
    attestation_key = await device.create_attestation_key()
    async with device.tpm.loaded(attestation_key):
        try:
            secret = await device.activate_credential(attestation_key.handle, sealed.id_object, sealed.encrypted_secret)
        except TpmError as error:
            raise CredentialError(f"the TPM does not accept the service's challenge: {error}") from error
        if not challenge.pcr_selection:
            return native_client.tpm_answer(transcript, proof(secret, octets))
        banks = {_PCR_BANKS[bank]: tuple(indices) for bank, indices in challenge.pcr_selection.items()}
        attest, signature = await device.quote(
            attestation_key, qualifying_data=quote_extra_data(octets, challenge.nonce), banks=banks
        )
        values = await _pcr_values(device, challenge)
    return native_client.tpm_answer(
        transcript, proof(secret, octets), attest=attest, signature=signature, pcr_values=values
    )


async def _pcr_values(device: TpmDevice, challenge: ChallengePart) -> dict[tuple[str, int], bytes]:
    """What the quoted registers hold, by bank and index."""
    values: dict[tuple[str, int], bytes] = {}
    for bank, selected in (challenge.pcr_selection or {}).items():
        indices = sorted(set(selected))
        for start in range(0, len(indices), _PCR_READ_MAX):
            some = indices[start : start + _PCR_READ_MAX]
            digests = await device.tpm.pcr_read(_PCR_BANKS[bank], some)
            values |= {(bank, index): digest for index, digest in zip(some, digests, strict=True)}
    return values
