"""Endorsement key certificates and those of their issuers, read from the octets as they stand.

Two encodings surround an EK certificate in a TPM's NV memory: padding of 00 or FF behind it, and a header of 5 octets
(`10 01 00`, size u16) in front. Inside, DER is DER, but names may be unsorted: they are compared and never rewritten.

Source: RFC 5280 4.1; TCG PC Client Platform TPM Profile (stored certificates); X.690.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

from provisiond.attestation.der import (
    DerTag,
    DerValue,
    malformed,
    read_bit_string,
    read_boolean,
    read_exactly,
    read_object_identifier,
    read_serial_number,
    read_time,
    read_unsigned,
    read_value,
)

CERTIFICATE_MAX_SIZE_BYTES: Final = 8192
"""NV indices of TPMs are below 2048 octets or a little above; issuers' certificates are below 3000."""

_STORED_HEADER: Final = b"\x10\x01\x00"
_STORED_HEADER_SIZE_BYTES: Final = 5
_PADDING: Final = b"\x00\xff"
_SERIAL_MAX_SIZE_BYTES: Final = 21  # 20 octets by RFC 5280 4.1.2.2, and a sign octet that some issuers add
_EXTENSIONS_MAX: Final = 32

_VERSION: Final = 0xA0
_ISSUER_UNIQUE_ID: Final = 0x81
_SUBJECT_UNIQUE_ID: Final = 0x82
_EXTENSIONS: Final = 0xA3
_EMPTY_NAME: Final = b"\x30\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateExtension:
    """An extension's value, still in DER."""

    critical: bool
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RawCertificate:
    """A certificate in pieces; every `bytes` is DER as it was received.

    Args:
        octets: the certificate without what surrounded it.
        tbs: TBSCertificate, what the signature is over.
        signature_algorithm: AlgorithmIdentifier.
        signature: without its bit string.
        version: 1 to 3.
        spki: SubjectPublicKeyInfo.
        extensions: by dotted object identifier.
    """

    octets: bytes
    tbs: bytes
    signature_algorithm: bytes
    signature: bytes
    version: int
    serial_number: int
    issuer: bytes
    subject: bytes
    not_before: datetime
    not_after: datetime
    spki: bytes
    extensions: Mapping[str, CertificateExtension]

    @property
    def subject_is_empty(self) -> bool:
        """Whether the subject says nothing, so that the alternative name has to."""
        return self.subject == _EMPTY_NAME

    @property
    def is_self_issued(self) -> bool:
        """Whether subject and issuer are the same (RFC 5280 6.1)."""
        return self.subject == self.issuer


def read_stored_certificate(octets: bytes) -> RawCertificate:
    """Read a certificate as TPMs store it: with or without the header, with or without padding.

    Raises:
        AttestationError: anything else; finding `certificate-encoding`.
    """
    _limit(octets)
    if octets.startswith(_STORED_HEADER):
        size_bytes = int.from_bytes(octets[len(_STORED_HEADER) : _STORED_HEADER_SIZE_BYTES], "big")
        octets = octets[_STORED_HEADER_SIZE_BYTES:]
        if read_value(octets).octets != octets[:size_bytes]:
            raise malformed("the stored header's size is not the certificate's")
    certificate = read_value(octets)
    if octets[len(certificate.octets) :].strip(_PADDING):
        raise malformed("trailing octets after the certificate")
    return _read(certificate)


def read_certificate(octets: bytes) -> RawCertificate:
    """Read a certificate that is all of `octets`.

    Raises:
        AttestationError: anything else; finding `certificate-encoding`.
    """
    _limit(octets)
    return _read(read_exactly(octets))


def _limit(octets: bytes) -> None:
    if len(octets) > CERTIFICATE_MAX_SIZE_BYTES:
        raise malformed(f"{len(octets)} octets, at most {CERTIFICATE_MAX_SIZE_BYTES}")


def _read(certificate: DerValue) -> RawCertificate:
    outer = certificate.reader()
    tbs, algorithm = outer.next(DerTag.SEQUENCE), outer.next(DerTag.SEQUENCE)
    signature, unused = read_bit_string(outer.next())
    outer.end()
    reader = tbs.reader()
    version = _read_version(reader.optional(_VERSION))
    serial = reader.next(DerTag.INTEGER)
    inner_algorithm = reader.next(DerTag.SEQUENCE)
    issuer = reader.next(DerTag.SEQUENCE)
    validity = reader.next().reader()
    not_before, not_after = read_time(validity.next()), read_time(validity.next())
    validity.end()
    subject, spki = reader.next(DerTag.SEQUENCE), reader.next(DerTag.SEQUENCE)
    reader.optional(_ISSUER_UNIQUE_ID)
    reader.optional(_SUBJECT_UNIQUE_ID)
    extensions = _read_extensions(reader.optional(_EXTENSIONS))
    reader.end()
    if unused or len(serial.content) > _SERIAL_MAX_SIZE_BYTES:
        raise malformed("signature of odd bits, or a serial number of more than 20 octets")
    if inner_algorithm.octets != algorithm.octets:
        raise malformed("the signature algorithm is not the one that was signed")  # RFC 5280 4.1.1.2
    return RawCertificate(
        octets=certificate.octets,
        tbs=tbs.octets,
        signature_algorithm=algorithm.octets,
        signature=signature,
        version=version,
        serial_number=read_serial_number(serial),
        issuer=issuer.octets,
        subject=subject.octets,
        not_before=not_before,
        not_after=not_after,
        spki=spki.octets,
        extensions=extensions,
    )


def _read_version(value: DerValue | None) -> int:
    if value is None:
        return 1
    version = read_unsigned(read_exactly(value.content, DerTag.INTEGER)) + 1
    if version not in {2, 3}:
        raise malformed(f"version {version}")
    return version


def _read_extensions(value: DerValue | None) -> Mapping[str, CertificateExtension]:
    extensions: dict[str, CertificateExtension] = {}
    if value is None:
        return MappingProxyType(extensions)
    for item in read_exactly(value.content).reader().rest():
        reader = item.reader()
        identifier = read_object_identifier(reader.next())
        flag = reader.optional(DerTag.BOOLEAN)
        content = reader.next(DerTag.OCTET_STRING).content
        reader.end()
        if identifier in extensions or len(extensions) >= _EXTENSIONS_MAX:
            raise malformed(f"extension {identifier} twice, or more than {_EXTENSIONS_MAX}")  # RFC 5280 4.2
        extensions[identifier] = CertificateExtension(critical=flag is not None and read_boolean(flag), value=content)
    return MappingProxyType(extensions)


def read_attributes(name: bytes) -> Mapping[str, str]:
    """The attributes of a Name that are text, by dotted object identifier; the first of a kind counts.

    Raises:
        AttestationError: it is no Name; finding `certificate-encoding`.
    """
    attributes: dict[str, str] = {}
    for relative in read_exactly(name).reader().rest():
        for item in relative.reader(DerTag.SET).rest():
            reader = item.reader()
            identifier, value = read_object_identifier(reader.next()), reader.next()
            reader.end()
            if (text := _read_text(value)) is not None:
                attributes.setdefault(identifier, text)
    return MappingProxyType(attributes)


def _read_text(value: DerValue) -> str | None:
    """Printable text, or None: what cannot be shown to an operator counts as absent."""
    if value.tag not in {DerTag.UTF8_STRING, DerTag.PRINTABLE_STRING, DerTag.IA5_STRING}:
        return None
    try:
        text = value.content.decode("utf-8" if value.tag == DerTag.UTF8_STRING else "ascii")
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None


def read_key_usage(extension: CertificateExtension) -> frozenset[int]:
    """The bits that are set in a keyUsage (RFC 5280 4.2.1.3); raises AttestationError when it is none."""
    octets, _ = read_bit_string(read_exactly(extension.value, DerTag.BIT_STRING))
    if len(octets) > 2:
        raise malformed("keyUsage of more than 16 bits")
    return frozenset(bit for bit in range(8 * len(octets)) if octets[bit // 8] & 0x80 >> bit % 8)


def read_extended_key_usage(extension: CertificateExtension) -> frozenset[str]:
    """The purposes of an extKeyUsage (RFC 5280 4.2.1.12); raises AttestationError when it is none."""
    return frozenset(read_object_identifier(value) for value in read_exactly(extension.value).reader().rest())


def read_basic_constraints(extension: CertificateExtension) -> tuple[bool, int | None]:
    """Whether it is a CA, and its path length (RFC 5280 4.2.1.9); raises AttestationError when it is none."""
    reader = read_exactly(extension.value).reader()
    flag, length = reader.optional(DerTag.BOOLEAN), reader.optional(DerTag.INTEGER)
    reader.end()
    return flag is not None and read_boolean(flag), None if length is None else read_unsigned(length)
