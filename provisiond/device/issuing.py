"""Certificates for simulated devices: leaves of a given authority, made in memory, and self-signed ones."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from provisiond.device.credentials import X509Credential
from provisiond.device.errors import CredentialError

_BACKDATED: Final = timedelta(hours=1)  # clocks of devices and gateways differ
_LIFETIME: Final = timedelta(days=365)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuingAuthority:
    """A CA that issues device certificates. `chain_pem` is what goes along with each: its intermediates, no root."""

    certificate: x509.Certificate
    key: Any = field(repr=False)
    chain_pem: bytes = b""

    @classmethod
    def from_files(cls, certificate_path: Path, key_path: Path) -> Self:
        """Read a CA certificate (its own intermediates may follow it) and its unencrypted key, both PEM.

        Raises:
            CredentialError: a file cannot be used, or the key is not the certificate's.
        """
        credential = X509Credential.from_files(certificate_path, key_path)
        certificates = x509.load_pem_x509_certificates(credential.chain_pem)
        intermediates = [certificate for certificate in certificates if certificate.subject != certificate.issuer]
        return cls(
            certificate=certificates[0],
            key=load_pem_private_key(credential.key_pem, password=None),
            chain_pem=b"".join(certificate.public_bytes(Encoding.PEM) for certificate in intermediates),
        )

    def issue(self, registration_id: str) -> X509Credential:
        """A new P-256 key and its certificate, valid for a year from an hour ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _sign(registration_id, key, self.certificate.subject, self.key)
        return X509Credential(
            chain_pem=certificate.public_bytes(Encoding.PEM) + self.chain_pem, key_pem=_private_pem(key)
        )


def keep_self_signed(registration_id: str, directory: Path) -> tuple[X509Credential, Path]:
    """The self-signed certificate kept in a directory, made at the first call; and its path, for enrolling it.

    Raises:
        CredentialError: the directory or what is in it cannot be used.
    """
    certificate_path, key_path = directory / f"{registration_id}.crt", directory / f"{registration_id}.key"
    if not certificate_path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, registration_id)])
        certificate = _sign(registration_id, key, name, key)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            key_path.touch(mode=0o600)
            key_path.write_bytes(_private_pem(key))
            certificate_path.write_bytes(certificate.public_bytes(Encoding.PEM))
        except OSError as error:
            raise CredentialError(f"cannot keep a certificate in {directory}: {error.strerror}") from error
    return X509Credential.from_files(certificate_path, key_path), certificate_path


def _sign(
    registration_id: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Name, issuer_key: Any
) -> x509.Certificate:
    now = datetime.now(UTC)
    try:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, registration_id)])
    except ValueError as error:  # RFC 5280 A.1: ub-common-name is 64
        raise CredentialError(
            f"{registration_id[:80]!r} cannot be the common name of a certificate: {error}"
        ) from error
    builder = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_DIGITAL_SIGNATURE, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    hashless = isinstance(issuer_key, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey))
    return builder.sign(issuer_key, None if hashless else hashes.SHA256())


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


_DIGITAL_SIGNATURE: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
