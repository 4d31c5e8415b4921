"""A certificate factory for the whole test suite: authorities, intermediates, device and server certificates, CRLs.

    root = make_ca("Acme Root")
    line = make_ca("Line 4", root)
    leaf = make_leaf("sensor-7", line)       # leaf.chain: the leaf and line, DER, as a device presents them
    pinned = make_leaf("sensor-8")           # self-signed
    server = make_leaf("localhost", root, dns_names=("localhost",), ip_addresses=("127.0.0.1",), usages=(SERVER_AUTH,))

Everything is valid from a day before this module was imported, and P-256 unless `key` says otherwise.
"""

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH

_MAKERS = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
    "rsa1024": lambda: rsa.generate_private_key(public_exponent=65537, key_size=1024),
    "rsa2048": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "rsa3072": lambda: rsa.generate_private_key(public_exponent=65537, key_size=3072),
    "dsa2048": lambda: dsa.generate_private_key(key_size=2048),
}


@lru_cache(maxsize=64)
def _kept_key(kind: str, owner: str) -> Any:
    return _MAKERS[kind]()


def make_key(kind: str = "p256", owner: str | None = None) -> Any:
    """A private key: p256, p384, p521, secp256k1, ed25519, ed448, rsa1024, rsa2048, rsa3072 or dsa2048.

    The same `owner` gets the same key for the whole session (RSA and DSA are slow to make); without one it is fresh,
    except that RSA and DSA keys without an owner are shared.
    """
    if owner is not None or kind.startswith(("rsa", "dsa")):
        return _kept_key(kind, owner or "")
    return _MAKERS[kind]()


@dataclass(frozen=True, kw_only=True)
class Issued:
    """A certificate, its private key and the authority that signed it (None: self-signed)."""

    certificate: x509.Certificate
    key: Any = field(repr=False)
    issuer: "Ca | None" = field(default=None, repr=False)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def authorities(self) -> tuple["Ca", ...]:
        """Those above, the nearest first, the root last."""
        return () if self.issuer is None else (self.issuer, *self.issuer.authorities)

    @property
    def chain(self) -> tuple[bytes, ...]:
        """DER of this certificate and its intermediates, without the root."""
        return (self.der, *(ca.der for ca in self.authorities if ca.issuer is not None))

    @property
    def full_chain(self) -> tuple[bytes, ...]:
        """`chain` with the root."""
        return (self.der, *(ca.der for ca in self.authorities))

    @property
    def chain_pem(self) -> bytes:
        """`chain`, as a PEM file holds it."""
        return b"".join([self.pem, *(ca.pem for ca in self.authorities if ca.issuer is not None)])

    def write(self, directory: Path, stem: str) -> tuple[Path, Path]:
        """Write `{stem}.crt` (the PEM chain) and `{stem}.key` (mode 0600); their paths."""
        certificate_path, key_path = directory / f"{stem}.crt", directory / f"{stem}.key"
        certificate_path.write_bytes(self.chain_pem)
        key_path.touch(mode=0o600)
        key_path.write_bytes(self.key_pem)
        return certificate_path, key_path


@dataclass(frozen=True, kw_only=True)
class Ca(Issued):
    """A certificate authority."""


@dataclass(frozen=True, kw_only=True)
class Leaf(Issued):
    """An end-entity certificate: a device's or a server's."""


def make_name(*common_names: str, organization: str | None = None) -> x509.Name:
    """A distinguished name with any number of common names; unlike the library's default, of any length."""
    with warnings.catch_warnings(action="ignore"):
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, cn, _validate=False) for cn in common_names]
    if organization is not None:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def make_key_usage(*usages: str) -> x509.KeyUsage:
    """A keyUsage extension with only these bits, such as `digital_signature` or `key_cert_sign`."""
    bits = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    assert set(usages) <= set(bits), usages
    return x509.KeyUsage(**{bit: bit in usages for bit in bits})


def make_ca(
    cn: str,
    issuer: Ca | None = None,
    *,
    key: Any = None,
    path_length: int | None = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    without: Collection[type[x509.ExtensionType]] = (),
    **options: Any,
) -> Ca:
    """A CA certificate: a root, or an intermediate when `issuer` is given.

    Args:
        cn: common name of the subject.
        issuer: who signs; None makes it self-signed.
        key: its private key; a fresh P-256 one by default.
        path_length: pathLenConstraint.
        extensions: `(extension, critical)` to add; one of a default's type replaces it.
        without: default extensions to leave out (basicConstraints, keyUsage, subject and authority key identifiers).
        options: `subject`, `not_before`, `not_after`, `serial`, `hash_algorithm`, `signer` as for `make_leaf`.
    """
    key = key or make_key()
    defaults: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=True, path_length=path_length), True),
        (make_key_usage("key_cert_sign", "crl_sign"), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
    ]
    options.setdefault("not_after", NOW + 3650 * DAY)
    certificate = _sign(cn, issuer, key, defaults, extensions, without, **options)
    return Ca(certificate=certificate, key=key, issuer=issuer)


def make_leaf(
    cn: str,
    issuer: Ca | None = None,
    *,
    key: Any = None,
    usages: Sequence[x509.ObjectIdentifier] = (CLIENT_AUTH,),
    dns_names: Sequence[str] = (),
    ip_addresses: Sequence[str] = (),
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    without: Collection[type[x509.ExtensionType]] = (),
    **options: Any,
) -> Leaf:
    """A device's certificate (or, with `dns_names` and `usages`, a server's).

    Args:
        cn: common name of the subject.
        issuer: who signs; None makes it self-signed.
        key: its private key; a fresh P-256 one by default.
        usages: extended key usages; none leaves the extension out.
        dns_names, ip_addresses: subject alternative names; none leaves the extension out.
        extensions: `(extension, critical)` to add; one of a default's type replaces it.
        without: default extensions to leave out.
        options: `subject` (a Name that replaces the common name), `not_before`, `not_after`, `serial`,
            `hash_algorithm` (SHA-256 by default), `signer` (a private key that signs instead of the issuer's).
    """
    key = key or make_key()
    defaults: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (make_key_usage("digital_signature"), True),
    ]
    if usages:
        defaults.append((x509.ExtendedKeyUsage(usages), False))
    names = [*map(x509.DNSName, dns_names), *(x509.IPAddress(ip_address(address)) for address in ip_addresses)]
    if names:
        defaults.append((x509.SubjectAlternativeName(names), False))
    options.setdefault("not_after", NOW + 365 * DAY)
    certificate = _sign(cn, issuer, key, defaults, extensions, without, **options)
    return Leaf(certificate=certificate, key=key, issuer=issuer)


def make_crl(
    issuer: Ca,
    revoked: Sequence[Issued] = (),
    *,
    last_update: datetime = NOW - DAY,
    next_update: datetime = NOW + 7 * DAY,
    signer: Any = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> bytes:
    """A DER certificate revocation list of `issuer` naming the serials of `revoked`."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(last_update)
        .next_update(next_update)
    )
    for item in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(item.certificate.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(last_update).build())
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(signer or issuer.key, hashes.SHA256()).public_bytes(Encoding.DER)


def _sign(
    cn: str,
    issuer: Ca | None,
    key: Any,
    defaults: list[tuple[x509.ExtensionType, bool]],
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
    without: Collection[type[x509.ExtensionType]],
    *,
    subject: x509.Name | None = None,
    not_before: datetime = NOW - DAY,
    not_after: datetime,
    serial: int | None = None,
    hash_algorithm: hashes.HashAlgorithm | None = None,
    signer: Any = None,
) -> x509.Certificate:
    subject = make_name(cn) if subject is None else subject
    signer = signer or (key if issuer is None else issuer.key)
    if issuer is not None:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        defaults.append((identifier, False))
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number() if serial is None else serial)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    replaced = {type(extension) for extension, _ in extensions} | set(without)
    kept = [(extension, critical) for extension, critical in defaults if type(extension) not in replaced]
    for extension, critical in [*kept, *extensions]:
        builder = builder.add_extension(extension, critical)
    plain = isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return builder.sign(signer, None if plain else hash_algorithm or hashes.SHA256())
