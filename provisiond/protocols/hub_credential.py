"""What a device needs at its hub and cannot know: sealed to it, or not sent at all.

| the device has  | its hub key                                           | how it gets it                         |
|-----------------|-------------------------------------------------------|----------------------------------------|
| a symmetric key | that key; a password follows from it (`hub_password`) | it has it                              |
| a TPM           | made for it                                           | `authenticationKey`, for its TPM alone |
| a certificate   | made for it, where the hub knows no certificates      | here: JWE, for the certificate's key   |

The plaintext is JSON: `{"hubKey": base64}`.
"""

from base64 import b64decode
from binascii import Error
from typing import Final

from provisiond.errors import MalformedRequest, SealBroken
from provisiond.model import AttestationType, JSONValue, Registration, RegistrationId
from provisiond.protocols.base64_octets import encode_octets
from provisiond.protocols.json_body import encode_json, parse_json
from provisiond.protocols.sealing import SealingContext, seal_to_certificate, seal_to_symmetric_key

_HUB_KEY: Final = "hubKey"


def seal_hub_key(
    registration: Registration, *, id_scope: str, claimed_id: RegistrationId
) -> dict[str, JSONValue] | None:
    """Seal the hub key of a device with a certificate.

    Args:
        registration: as it is stored.
        id_scope: of the service.
        claimed_id: as the device spelt it.

    Returns:
        `sealedCredential`; None when there is nothing to tell.

    Raises:
        UnsealableKey: the certificate's key only signs.
        AttestationError: the certificate cannot be read any more.
    """
    if registration.attestation_type is not AttestationType.X509:
        return None
    if registration.hub_key is None or registration.certificate_der is None:
        return None
    return seal_secret(
        encode_json({_HUB_KEY: encode_octets(registration.hub_key)}),
        certificate_der=registration.certificate_der,
        context=SealingContext(
            id_scope=id_scope, registration_id=claimed_id.text, operation_id=registration.operation_id
        ),
    )


def seal_secret(
    secret: bytes, *, context: SealingContext, certificate_der: bytes | None = None, device_key: bytes | None = None
) -> dict[str, JSONValue]:
    """Seal any secret to a device, by what it has proved itself with.

    Args:
        secret: 1 to 4096 octets.
        context: for whom, and for which operation.
        certificate_der: of a device with a certificate.
        device_key: of a device with a symmetric key.

    Raises:
        UnsealableKey: the certificate's key only signs.
        AttestationError: the certificate cannot be read.
        ValueError: neither or both of the two are given, or the secret is empty or too long.
    """
    if certificate_der is not None and device_key is None:
        return seal_to_certificate(secret, certificate_der=certificate_der, context=context)
    if device_key is not None and certificate_der is None:
        return seal_to_symmetric_key(secret, key=device_key, context=context)
    raise ValueError("a secret is sealed to a certificate or to a symmetric key")


def parse_hub_key(opened: bytes) -> bytes:
    """The key in an opened credential, on the device.

    Raises:
        SealBroken: there is none in it.
    """
    try:
        document = parse_json(opened)
        if isinstance(document, dict) and isinstance(document.get(_HUB_KEY), str):
            return b64decode(document[_HUB_KEY], validate=True)
    except (MalformedRequest, Error, ValueError) as error:
        raise SealBroken("the credential holds no hub key") from error
    raise SealBroken("the credential holds no hub key")
