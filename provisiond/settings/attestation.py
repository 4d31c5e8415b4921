"""[attestation]: how devices may prove who they are."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from provisiond.model import AttestationType
from provisiond.settings.section import FilePath, Section
from provisiond.settings.units import Seconds, duration_within


class X509(Section):
    """Certificate chains of devices."""

    max_chain: Annotated[int, Field(ge=1, le=8)] = Field(
        default=5,
        description="Authorities above a device's certificate, the enrolled one included. Five is a root, three "
        "intermediates and one to spare.",
    )
    crl_files: tuple[FilePath, ...] = Field(
        default=(),
        description="Certificate revocation lists, PEM or DER, of the authorities in enrollment groups.",
    )


class Tpm(Section):
    """TPM endorsement keys."""

    ek_roots_dir: FilePath = Field(
        default=Path("/etc/provisiond/tpm-roots.d"),
        description="Directory of the certificates of the TPM makers that are trusted, PEM or DER; for enrollment "
        "groups. Every file in it counts, but those whose names begin with a dot.",
    )
    deny_file: FilePath | None = Field(
        default=None,
        description="TPMs and certificates that are refused all the same, one a line: the SHA-256 of an endorsement "
        "key (TPM2B_PUBLIC) or of a certificate (DER); a derived registration id; the SHA-256 of an issuer's name "
        "(DER) and a serial number in hexadecimal; or a TPM manufacturer and a version (id:49465800 id:00070002).",
    )


class Attestation(Section):
    """How devices may prove who they are."""

    allowed: tuple[AttestationType, ...] = Field(
        default=tuple(AttestationType),
        description="Mechanisms that are accepted, whatever is enrolled.",
    )
    challenge_ttl_s: Annotated[Seconds, duration_within("1s", "1h")] = Field(
        default=120.0,
        description="How long a challenge may be answered; a slow TPM takes 10 s.",
    )
    clock_skew_s: Annotated[Seconds, duration_within("0s", "1d")] = Field(
        default=120.0,
        description="How wrong a device's clock may be when SAS tokens expire.",
    )
    x509: X509 = X509()
    tpm: Tpm = Tpm()
