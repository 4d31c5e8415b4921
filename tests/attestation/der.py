"""Certificates that no library would write: edited octets, signed again where that is asked for."""

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec


def encode(tag, content):
    """One DER element with a definite length."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def split(content):
    """The elements of a constructed element's content, each with its header."""
    elements = []
    while content:
        size, header = content[1], 2
        if size & 0x80:
            header = 2 + (size & 0x7F)
            size = int.from_bytes(content[2:header], "big")
        elements.append(content[: header + size])
        content = content[header + size :]
    return elements


def inner(element):
    """An element's content."""
    return element[2 + (element[1] & 0x7F if element[1] & 0x80 else 0) :]


def resign(tbs, algorithm, key):
    """A certificate of these to-be-signed octets, signed with a P-256 key and SHA-256."""
    signature = key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    return encode(0x30, tbs + algorithm + encode(0x03, b"\0" + signature))


def as_version_1(certificate_der, key):
    """The certificate without version and extensions, signed again."""
    tbs, algorithm, _ = split(inner(certificate_der))
    fields = [field for field in split(inner(tbs)) if field[0] not in (0xA0, 0xA3)]
    return resign(encode(0x30, b"".join(fields)), algorithm, key)


def with_subject(certificate_der, subject_der, key):
    """The certificate with another DER Name as its subject, signed again."""
    tbs, algorithm, _ = split(inner(certificate_der))
    fields = split(inner(tbs))
    fields[5] = subject_der
    return resign(encode(0x30, b"".join(fields)), algorithm, key)


def with_serial_number(certificate_der, content, key):
    """The certificate with these octets as its serial number's, signed again."""
    tbs, algorithm, _ = split(inner(certificate_der))
    fields = split(inner(tbs))
    fields[1] = encode(0x02, content)
    return resign(encode(0x30, b"".join(fields)), algorithm, key)


def padding_twin(certificate_der):
    """The same certificate with other octets: the unused-bits octet of the outer signature's BIT STRING is altered.

    Needs a signature whose last octet ends in zero bits, or it is no valid encoding.
    """
    tbs, algorithm, signature = split(inner(certificate_der))
    bits = inner(signature)
    assert bits[-1] & 1 == 0
    twin = encode(0x30, tbs + algorithm + encode(0x03, b"\1" + bits[1:]))
    assert (
        x509.load_der_x509_certificate(twin).tbs_certificate_bytes
        == x509.load_der_x509_certificate(certificate_der).tbs_certificate_bytes
    )
    return twin
