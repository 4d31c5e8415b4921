"""The local certification authority: a root for a gateway that has no PKI, its server certificate, and device
certificates for trying things out.

    ca/root.crt  ca/root.key     P-256, ten years; the daemon does not need the key, which may be kept elsewhere
"""

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from provisiond.errors import AlreadyExists, InvalidArgument, MalformedRequest, RecordNotFound
from provisiond.model import RegistrationId

ROOT_LIFETIME: Final = timedelta(days=3652)
"""Ten years: devices in the field hold the root and are hard to give another one."""
SERVER_LIFETIME: Final = timedelta(days=1826)
"""Five years: nobody renews a gateway's certificate by hand every three months, and nothing here does it for them."""
DEVICE_LIFETIME: Final = timedelta(days=365)
CRL_LIFETIME: Final = timedelta(days=30)
"""The daemon signs one every day: so long it, or whoever fetches the list, may be away before hubs refuse devices."""

# Devices without a battery-backed clock start a little in the past.
_BACKDATED: Final = timedelta(days=1)
_COMMON_NAME_MAX_LENGTH: Final = 64  # ub-common-name, RFC 5280 appendix A.1
_KEY_FILE_LIMIT_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate, PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def certificate_der(self) -> bytes:
        """The certificate, DER."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def key_pem(self) -> bytes:
        """The private key, PKCS #8 PEM, not encrypted: its file's mode protects it."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def name_hash(self) -> str:
        """SHA-256 of the DER subject, hexadecimal: what its revocation list is kept under."""
        return hashlib.sha256(self.certificate.subject.public_bytes()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, hexadecimal pairs with colons."""
        return format_fingerprint(self.certificate.public_bytes(Encoding.DER))


def format_fingerprint(certificate_der: bytes) -> str:
    """SHA-256 of a certificate as people compare it: `AB:CD:…`, 32 pairs."""
    return hashlib.sha256(certificate_der).digest().hex(":").upper()


def make_root(name: str, *, now: datetime) -> Credentials:
    """Make a root that may sign certificates and revocation lists.

    Args:
        name: common name, 1 to 64 characters.
        now: aware UTC.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    builder = (
        _builder(subject, subject, key, now, ROOT_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Credentials(certificate=builder.sign(key, hashes.SHA256()), key=key)


def issue_server(
    root: Credentials, hosts: Sequence[str], *, now: datetime, key: ec.EllipticCurvePrivateKey | None = None
) -> Credentials:
    """Issue a certificate for the listeners.

    Args:
        root: who signs.
        hosts: DNS names (the first label may be `*`) and IP addresses that devices connect to; at least one.
        now: aware UTC.
        key: the listener's; a new one when it has none.

    Raises:
        InvalidArgument: a host is neither, or there are none.
    """
    if not hosts:
        raise InvalidArgument("a server certificate needs a host name or an IP address")
    names = x509.SubjectAlternativeName([_general_name(host) for host in dict.fromkeys(hosts)])
    # A name that is too long for a common name is no loss: clients look at the subject alternative names.
    subject = _name(hosts[0] if len(hosts[0]) <= _COMMON_NAME_MAX_LENGTH else "provisiond")
    return _issue(root, subject, ExtendedKeyUsageOID.SERVER_AUTH, now, SERVER_LIFETIME, names, key)


def issue_device(
    root: Credentials, registration_id: str, *, now: datetime, lifetime: timedelta = DEVICE_LIFETIME
) -> Credentials:
    """Issue a certificate for a device, with its registration id as common name.

    Raises:
        InvalidArgument: the id is none, or longer than a common name may be (64); the lifetime is none; the root has
            expired.
    """
    try:
        identity = RegistrationId.parse(registration_id)
    except MalformedRequest as error:
        raise InvalidArgument(str(error)) from error
    if len(identity.text) > _COMMON_NAME_MAX_LENGTH:
        raise InvalidArgument(
            f"registration id of {len(identity.text)} characters: a certificate's common name has at most "
            f"{_COMMON_NAME_MAX_LENGTH}"
        )
    if lifetime <= timedelta():
        raise InvalidArgument("a certificate needs a lifetime of a day at least")
    return _issue(root, _name(identity.text), ExtendedKeyUsageOID.CLIENT_AUTH, now, lifetime)


def revocable_by(root: Credentials, certificate_der: bytes) -> tuple[str, int] | None:
    """The issuer's name hash and the serial number of a certificate that this root has signed; None for another's."""
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
        certificate.verify_directly_issued_by(root.certificate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return None
    return root.name_hash, certificate.serial_number


def make_revocation_list(
    root: Credentials, revoked: Mapping[int, datetime], *, now: datetime, lifetime: timedelta = CRL_LIFETIME
) -> bytes:
    """Make the root's revocation list (RFC 5280 5), PEM.

    What is revoked later is on the next one. A hub that holds one that has expired refuses every device.

    Args:
        root: who signs.
        revoked: serial numbers, and since when.
        now: aware UTC; also the list's number, so that a later one is seen to be later.
        lifetime: how long it is good, if the root is.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(root.certificate.subject)
        .last_update(now - _BACKDATED)
        .next_update(min(now + lifetime, root.certificate.not_valid_after_utc))
        .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root.key.public_key()),
            critical=False,
        )
    )
    for serial, since in sorted(revoked.items()):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(root.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def load_root(directory: Path) -> Credentials:
    """Read the root that `provisiond init` made.

    Args:
        directory: of `root.crt` and `root.key`.

    Raises:
        RecordNotFound: there is none.
        InvalidArgument: the files are something else.
    """
    try:
        key = load_pem_private_key(_read(directory / "root.key"), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidArgument(f"{directory / 'root.key'} holds no unencrypted private key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidArgument(f"{directory / 'root.key'} is not an elliptic-curve key; `provisiond init` makes one")
    return Credentials(certificate=load_root_certificate(directory), key=key)


def load_root_certificate(directory: Path) -> x509.Certificate:
    """Read the root's certificate, for which its key need not be there.

    Raises:
        RecordNotFound: there is none.
        InvalidArgument: the file is something else.
    """
    file = directory / "root.crt"
    try:
        return x509.load_pem_x509_certificate(_read(file))
    except (ValueError, x509.InvalidVersion) as error:
        raise InvalidArgument(f"{file} holds no certificate in PEM") from error


def create_file(file: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a new file: it is there whole, on disk and with its mode, or not at all; nothing is ever overwritten.

    Raises:
        AlreadyExists: there is a file of that name.
        OSError: it cannot be written.
    """
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)  # whatever the umask
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        file.hardlink_to(part)
    except FileExistsError as error:
        raise AlreadyExists(f"{file} exists and was left as it is") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _issue(
    root: Credentials,
    subject: x509.Name,
    usage: x509.ObjectIdentifier,
    now: datetime,
    lifetime: timedelta,
    names: x509.SubjectAlternativeName | None = None,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> Credentials:
    key = key or ec.generate_private_key(ec.SECP256R1())
    # No certificate outlives who vouches for it.
    lifetime = min(lifetime, root.certificate.not_valid_after_utc - now)
    if lifetime <= timedelta():
        raise InvalidArgument(
            "the root certificate has expired; `provisiond init` in another directory makes a new one"
        )
    builder = (
        _builder(subject, root.certificate.subject, key, now, lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.key.public_key()), critical=False)
    )
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return Credentials(certificate=builder.sign(root.key, hashes.SHA256()), key=key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + lifetime)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise InvalidArgument(f"{host[:80]!r} is neither a host name nor an IP address") from error


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(_KEY_FILE_LIMIT_BYTES)
    except FileNotFoundError as error:
        raise RecordNotFound(f"{file} is not there; `provisiond init` makes a CA") from error
    except OSError as error:
        raise InvalidArgument(f"{file} cannot be read: {os.strerror(error.errno or 0)}") from error
