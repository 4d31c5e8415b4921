"""The operator's list of TPMs and certificates that are refused however well they are certified, as a text file.

    # what                                    | why somebody wrote it down
    6b86b273…                                 SHA-256 of an endorsement key (TPM2B_PUBLIC) or of a certificate (DER)
    nodyaj6fzvuv2sb4…                         the registration id that is derived from an endorsement key
    d4735e3a…  1a2b3c                         a certificate by the SHA-256 of its issuer's Name (DER) and serial number
    id:49465800  id:00070002                  firmware: TPM manufacturer and version, as EK certificates have them

One a line; `#` begins a comment. Numbers are hexadecimal, with or without colons between the octets: what
`openssl x509 -noout -fingerprint -sha256` and `-serial` print after the `=`. The trace of a device that was let in or
refused has the issuer and the serial number of its certificate. A certificate may be the device's own or any above it.
"""

import base64
import binascii
import re
from typing import Final

from provisiond.attestation.ek_certificate import EkDenyList
from provisiond.errors import InvalidArgument

_DIGEST_SIZE_BYTES: Final = 32
_DERIVED_ID: Final = re.compile(r"[a-z2-7]{52}", re.ASCII | re.IGNORECASE)
_MANUFACTURER: Final = re.compile(r"id:[0-9a-f]{8}", re.ASCII | re.IGNORECASE)
_SERIAL_NUMBER: Final = re.compile(
    r"-?[0-9A-F]{1,42}", re.ASCII | re.IGNORECASE
)  # 20 octets (RFC 5280 4.1.2.2), or a little more


def parse_deny_list(text: str) -> EkDenyList:
    """Read a deny list.

    Raises:
        InvalidArgument: a line is none of the four forms; says which line.
    """
    hashes: set[bytes] = set()
    certificates: set[tuple[bytes, int]] = set()
    firmware: set[tuple[str, str]] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        match line.partition("#")[0].split():
            case []:
                continue
            case [what] if (digest := _digest(what)) is not None:
                hashes.add(digest)
            case [manufacturer, version] if _MANUFACTURER.fullmatch(manufacturer):
                firmware.add((manufacturer.lower(), version.lower()))
            case [name, serial] if (issuer := _octets(name)) is not None and _is_serial_number(serial):
                certificates.add((issuer, int(serial.replace(":", ""), 16)))
            case _:
                raise InvalidArgument(
                    f"line {number}: not a SHA-256, a derived registration id, the SHA-256 of an issuer's name and a"
                    " serial number, or a TPM manufacturer (id:…) and a version"
                )
    return EkDenyList(
        endorsement_key_hashes=frozenset(hashes),
        certificate_hashes=frozenset(hashes),
        certificates=frozenset(certificates),
        firmware=frozenset(firmware),
    )


def _digest(text: str) -> bytes | None:
    if _DERIVED_ID.fullmatch(text):
        return base64.b32decode(text.upper() + "====")
    return _octets(text)


def _octets(text: str) -> bytes | None:
    try:
        octets = binascii.unhexlify(text.replace(":", ""))
    except ValueError:
        return None
    return octets if len(octets) == _DIGEST_SIZE_BYTES else None


def _is_serial_number(text: str) -> bool:
    return _SERIAL_NUMBER.fullmatch(text.replace(":", "")) is not None
