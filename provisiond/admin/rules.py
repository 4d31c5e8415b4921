"""What an enrollment must be before it is stored, judged when it is written rather than when a device fails.

Every refusal is an InvalidArgument that says the way out.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from provisiond.attestation.certificate import parse_certificate
from provisiond.attestation.tpm import parse_endorsement_key, parse_storage_root_key
from provisiond.attestation.tpm_pcr_policy import parse_pcr_policy
from provisiond.attestation.x509 import check_enrollable_ca_certificate, check_enrollable_client_certificate
from provisiond.errors import AttestationError, InvalidArgument, MalformedRequest
from provisiond.model import (
    AllocationPolicy,
    Enrollment,
    EnrollmentKind,
    Hub,
    InitialTwin,
    RegistrationId,
    SymmetricKeyMaterial,
    TpmMaterial,
    X509Material,
)
from provisiond.protocols.twin import check_initial
from provisiond.protocols.webhook_url import check_webhook_url

KEY_MIN_SIZE_BYTES: Final = 16
KEY_MAX_SIZE_BYTES: Final = 64
ALLOWED_IDS_MAX: Final = 10_000
"""Every registration by a TPM group looks through its list; 10,000 take 0.1 ms and 0.5 MB."""

TWIN_MAX_SIZE_BYTES: Final = 32 * 1024
"""Of the tags and of the desired properties, each as JSON: what Azure IoT Hub keeps of desired properties."""

# Azure's device ids without what means something in a topic, a user name or a URL.
_DEVICE_ID: Final = re.compile(r"[A-Za-z0-9\-._:=@,()!'*]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class CaIdentity:
    """A certification authority, whichever of its certificates names it: subject and public key, DER."""

    subject: bytes
    public_key: bytes


def check_enrollment(enrollment: Enrollment, *, hubs: Sequence[Hub], now: datetime) -> None:
    """Require an enrollment that devices can be provisioned by.

    Args:
        enrollment: with its keys, generated ones included.
        hubs: the linked hubs.
        now: aware UTC; certificates are judged at this time.

    Raises:
        InvalidArgument: says what is wrong and the way out.
    """
    enrolled_id = check_id(enrollment.kind, enrollment.id)
    if enrollment.device_id is not None:
        _check_device_id(enrollment.kind, enrollment.device_id)
    match enrollment.attestation:
        case X509Material() as material:
            _check_certificates(enrollment.kind, enrolled_id, material, now)
        case SymmetricKeyMaterial() as material:
            _check_keys(material)
        case TpmMaterial() as material:
            _check_tpm(enrollment.kind, material)
    _check_allocation(enrollment, hubs)
    if enrollment.initial_twin is not None:
        _check_twin(enrollment.initial_twin)


def check_id(kind: EnrollmentKind, text: str) -> RegistrationId:
    """Require the syntax of a registration id; a group's id has the same.

    Raises:
        InvalidArgument: it has another.
    """
    try:
        return RegistrationId.parse(text)
    except MalformedRequest as error:
        name = "registration id" if kind is EnrollmentKind.INDIVIDUAL else "enrollment group id"
        raise InvalidArgument(
            f"{name} {text[:140]!r} is not 1 to 128 of A-Z a-z 0-9 - . _ : ending in a letter, digit or -"
        ) from error


def ca_identities(enrollment: Enrollment) -> frozenset[CaIdentity]:
    """The authorities that vouch for a group's devices; of certificates that were checked."""
    if enrollment.kind is not EnrollmentKind.GROUP or not isinstance(enrollment.attestation, X509Material):
        return frozenset()
    certificates = [parse_certificate(certificate_der) for certificate_der in enrollment.attestation.certificates]
    return frozenset(
        CaIdentity(
            subject=certificate.subject.public_bytes(),
            public_key=certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        )
        for certificate in certificates
    )


def _check_device_id(kind: EnrollmentKind, device_id: str) -> None:
    if kind is EnrollmentKind.GROUP:
        raise InvalidArgument("an enrollment group has no device id: each of its devices has its own")
    if _DEVICE_ID.fullmatch(device_id) is None:
        raise InvalidArgument(f"device id {device_id[:140]!r} is not 1 to 128 of A-Z a-z 0-9 - . _ : = @ , ( ) ! ' *")


def _check_certificates(
    kind: EnrollmentKind, enrolled_id: RegistrationId, material: X509Material, now: datetime
) -> None:
    names = ("primary certificate", "secondary certificate")
    for name, certificate_der in zip(names, material.certificates, strict=False):
        try:
            if kind is EnrollmentKind.INDIVIDUAL:
                check_enrollable_client_certificate(certificate_der, now, registration_id=enrolled_id)
            else:
                check_enrollable_ca_certificate(certificate_der, now)
        except InvalidArgument as error:
            raise InvalidArgument(f"{name}: {error}") from error


def _check_keys(material: SymmetricKeyMaterial) -> None:
    for name, key in (("primary key", material.primary_key), ("secondary key", material.secondary_key)):
        if not KEY_MIN_SIZE_BYTES <= len(key) <= KEY_MAX_SIZE_BYTES:
            raise InvalidArgument(
                f"{name}: {len(key)} bytes; a key has {KEY_MIN_SIZE_BYTES} to {KEY_MAX_SIZE_BYTES} before base64"
            )


def _check_tpm(kind: EnrollmentKind, material: TpmMaterial) -> None:
    if material.pcr_policy is not None:
        parse_pcr_policy(material.pcr_policy)
    if kind is EnrollmentKind.GROUP:
        _check_tpm_group(material)
        return
    if material.allowed_ids:
        raise InvalidArgument("allowed ids: only an enrollment group has them; an enrollment is for its own id")
    if material.endorsement_key is None:
        raise InvalidArgument("endorsement key: there is none; the device prints it")
    try:
        parse_endorsement_key(material.endorsement_key)
        if material.storage_root_key is not None:
            parse_storage_root_key(material.storage_root_key)
    except (AttestationError, MalformedRequest) as error:
        raise InvalidArgument(f"endorsement key or storage root key: {error}") from error


def _check_tpm_group(material: TpmMaterial) -> None:
    if material.endorsement_key is not None or material.storage_root_key is not None:
        raise InvalidArgument("an enrollment group has no endorsement key: its TPMs' makers certify theirs")
    if len(material.allowed_ids) > ALLOWED_IDS_MAX:
        raise InvalidArgument(f"allowed ids: {len(material.allowed_ids)}; a group may have {ALLOWED_IDS_MAX}")
    for allowed in material.allowed_ids:
        try:
            check_id(EnrollmentKind.INDIVIDUAL, allowed)
        except InvalidArgument as error:
            raise InvalidArgument(f"allowed ids: {error}") from error


def _check_allocation(enrollment: Enrollment, hubs: Sequence[Hub]) -> None:
    linked = {label.lower() for hub in hubs for label in (hub.name, hub.host)}
    unknown = [label for label in enrollment.iot_hubs if label.lower() not in linked]
    if unknown:
        names = ", ".join(hub.name for hub in hubs[:16])
        raise InvalidArgument(f"hub {unknown[0][:140]!r} is not in the configuration; there are: {names}")
    match enrollment.allocation_policy:
        case AllocationPolicy.STATIC if len(enrollment.iot_hubs) != 1:
            raise InvalidArgument("allocation policy static needs exactly one hub; name it with --iot-hubs")
        case AllocationPolicy.CUSTOM:
            _check_webhook(enrollment.custom_allocation or {})


def _check_webhook(definition: Mapping[str, Any]) -> None:
    url = str(definition.get("webhookUrl") or "")
    if not url:
        raise InvalidArgument("allocation policy custom needs a webhook; give its URL (--webhook-url)")
    check_webhook_url(url)


def _check_twin(twin: InitialTwin) -> None:
    for name, part in (("initial twin tags", twin.tags), ("initial twin properties", twin.desired)):
        _check_twin_part(name, part)
    try:
        check_initial(twin)
    except MalformedRequest as error:
        raise InvalidArgument(f"initial twin {error}") from error


def _check_twin_part(name: str, part: Mapping[str, Any]) -> None:
    try:
        size_bytes = len(json.dumps(part, allow_nan=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"{name}: not JSON: {error}") from error
    if size_bytes > TWIN_MAX_SIZE_BYTES:
        raise InvalidArgument(f"{name}: {size_bytes} bytes of JSON; there may be {TWIN_MAX_SIZE_BYTES}")
