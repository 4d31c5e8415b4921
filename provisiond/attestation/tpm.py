"""Which TPM keys provisiond takes, in which role, and what an endorsement key is called.

What each rule keeps out was tried on a TPM: a key of software activates credentials like one of a TPM (only the
attributes under its Name tell them apart), and a resident key that is not restricted signs any attestation.
"""

import base64
import hashlib
from collections.abc import Mapping
from typing import Final

from provisiond.attestation.roca import refuse_roca
from provisiond.attestation.tpm_algorithms import ObjectAttributes, TpmAlgorithm
from provisiond.attestation.tpm_public import RSA_DEFAULT_EXPONENT, TpmPublic
from provisiond.attestation.tpm_structures import parse_public
from provisiond.attestation.tpm_templates import (
    ENDORSEMENT_TEMPLATES,
    STORAGE_TEMPLATES,
    KnownTemplate,
    match_template,
)
from provisiond.errors import AttestationError

RSA_MIN_KEY_BITS: Final = 2048

_PROFILE: Final = "TCG EK Credential Profile 2.0 annex B"
_STORAGE_GUIDANCE: Final = "TCG TPM 2.0 Provisioning Guidance 7.5.1"
_ATTRIBUTES: Final = "TPM 2.0 Part 1 27.2"
_SIGNING_SCHEMES: Final = frozenset({TpmAlgorithm.RSASSA, TpmAlgorithm.RSAPSS, TpmAlgorithm.ECDSA})


def endorsement_key_hash(tpm2b: bytes) -> bytes:
    """SHA-256 of an endorsement key's TPM2B_PUBLIC: what it is looked up and denied by."""
    return hashlib.sha256(tpm2b).digest()


def derive_registration_id(tpm2b: bytes) -> str:
    """The registration id that the Azure device SDKs derive from an endorsement key.

    Returns:
        SHA-256 of the TPM2B_PUBLIC in base32, lower case, without padding: 52 characters.
    """
    return base64.b32encode(endorsement_key_hash(tpm2b)).decode("ascii").rstrip("=").lower()


def parse_endorsement_key(tpm2b: bytes) -> TpmPublic:
    """Read an endorsement key (TPM2B_PUBLIC) and check that it follows one of the profile's templates.

    That it belongs to a TPM at all, only an enrollment or its certificate can say.

    Raises:
        TpmStructureError: the octets are no public area.
        AttestationError: it follows no template (finding `endorsement-key-template`), or can be factored (`roca`).
    """
    return _parse_templated(tpm2b, ENDORSEMENT_TEMPLATES, "endorsement key", _PROFILE)


def parse_storage_root_key(tpm2b: bytes) -> TpmPublic:
    """Read a storage root key (TPM2B_PUBLIC) and check that it follows a storage template.

    Raises:
        TpmStructureError: the octets are no public area.
        AttestationError: it follows no template (finding `storage-root-key-template`), or can be factored (`roca`).
    """
    return _parse_templated(tpm2b, STORAGE_TEMPLATES, "storage root key", _STORAGE_GUIDANCE)


def parse_attestation_key(tpm2b: bytes) -> TpmPublic:
    """Read an attestation key (TPM2B_PUBLIC) and check that it can only sign what its TPM made, and cannot leave it.

    It belongs to the TPM of an endorsement key only when it has answered a credential made for both.

    Raises:
        TpmStructureError: the octets are no public area.
        AttestationError: finding `attestation-key-name-algorithm`, `attestation-key-not-resident`,
            `attestation-key-not-restricted`, `attestation-key-usage`, `attestation-key-scheme`,
            `attestation-key-scheme-hash`, `attestation-key-strength` or `roca`.
    """
    public = parse_public(tpm2b)
    _require_approved_name(public, "attestation key")
    _require_resident(public, "attestation key")
    if not public.attributes & ObjectAttributes.RESTRICTED:
        raise AttestationError(
            "the attestation key is not restricted: it would sign a forged attestation",
            finding="attestation-key-not-restricted",
            clause="TPM 2.0 Part 1 27.2.6",
        )
    _require_signing_only(public, "attestation key")
    scheme = public.template.scheme
    if scheme.hash is None or scheme.algorithm not in _SIGNING_SCHEMES:
        raise AttestationError(
            f"the attestation key has no signing scheme but {scheme.algorithm.name}",
            finding="attestation-key-scheme",
            clause="TPM 2.0 Part 1 27.2.6",
        )
    if not scheme.hash.approved:
        raise AttestationError(
            f"the attestation key signs {scheme.hash.name}", finding="attestation-key-scheme-hash", clause="SP 800-131A"
        )
    _require_strong(public, "attestation key")
    return public


def check_certified_key(public: TpmPublic) -> None:
    """Check that a key that an attestation key has certified is one for TLS: resident, signing, not restricted.

    Raises:
        AttestationError: finding `certified-key-name-algorithm`, `certified-key-not-resident`,
            `certified-key-restricted`, `certified-key-usage`, `certified-key-strength` or `roca`.
    """
    _require_approved_name(public, "certified key")
    _require_resident(public, "certified key")
    if public.attributes & ObjectAttributes.RESTRICTED:
        raise AttestationError(
            "the certified key is restricted: it cannot sign a handshake",
            finding="certified-key-restricted",
            clause="TPM 2.0 Part 1 27.2.6",
        )
    _require_signing_only(public, "certified key")
    _require_strong(public, "certified key")


def _parse_templated(tpm2b: bytes, known: Mapping[int, tuple[KnownTemplate, ...]], role: str, clause: str) -> TpmPublic:
    public = match_template(tpm2b, known)
    if public is None:
        template = parse_public(tpm2b).template  # says so when it is malformed
        raise AttestationError(
            f"the {role} follows no known template: {template.object_type.name}, {template.name_hash.name},"
            f" attributes {int(template.attributes):08x}",
            finding=f"{_slug(role)}-template",
            clause=clause,
        )
    if public.template.curve is None:
        refuse_roca(int.from_bytes(public.unique[0], "big"), key=role)
    return public


def _require_approved_name(public: TpmPublic, role: str) -> None:
    if not public.name_hash.approved:
        raise AttestationError(
            f"the {role} is named under {public.name_hash.name}",
            finding=f"{_slug(role)}-name-algorithm",
            clause="SP 800-131A",
        )


def _require_resident(public: TpmPublic, role: str) -> None:
    missing = ObjectAttributes.RESIDENT & ~public.attributes
    if missing:
        raise AttestationError(
            f"the {role} may have come from outside the TPM: without {missing!r}",
            finding=f"{_slug(role)}-not-resident",
            clause=_ATTRIBUTES,
        )


def _require_signing_only(public: TpmPublic, role: str) -> None:
    usage = public.attributes & (ObjectAttributes.SIGN | ObjectAttributes.DECRYPT)
    if usage != ObjectAttributes.SIGN:
        raise AttestationError(
            f"the {role} is not for signing alone: {usage!r}",
            finding=f"{_slug(role)}-usage",
            clause="TPM 2.0 Part 1 27.2.5",
        )


def _require_strong(public: TpmPublic, role: str) -> None:
    template = public.template
    if template.object_type is TpmAlgorithm.RSA:
        if template.key_bits < RSA_MIN_KEY_BITS or template.exponent not in {0, RSA_DEFAULT_EXPONENT}:
            raise AttestationError(
                f"the {role} is RSA of {template.key_bits} bits with exponent {template.exponent}",
                finding=f"{_slug(role)}-strength",
                clause="SP 800-131A",
            )
        refuse_roca(int.from_bytes(public.unique[0], "big"), key=role)
    elif template.curve is None:
        raise AttestationError(f"the {role} is not asymmetric", finding=f"{_slug(role)}-strength", clause="SP 800-131A")


def _slug(role: str) -> str:
    return role.replace(" ", "-")
