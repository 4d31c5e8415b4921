"""The files that the configuration names: there, readable, belonging together, and secret where they must be."""

import stat
from datetime import datetime, timedelta
from pathlib import Path
from shlex import quote
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from provisiond.errors import ConfigurationError
from provisiond.settings.broker import Listener
from provisiond.settings.declared import declared_enrollments
from provisiond.settings.schema import Settings
from provisiond.settings.trust import load_crls, load_tpm_policy, read_file

# A server certificate that ends sooner is worth a warning: time enough to make another one and carry it to a site.
_EXPIRY_NOTICE: Final = timedelta(days=30)


def check_files(settings: Settings, *, now: datetime) -> tuple[str, ...]:
    """Check every file that the daemon will open because the configuration says so.

    Args:
        settings: the configuration.
        now: aware UTC; certificates are judged at this time.

    Returns:
        Warnings: what will be wrong soon.

    Raises:
        ConfigurationError: a file is missing, unreadable, malformed, or readable by everybody; says the way out.
    """
    warnings: list[str] = []
    for index, listener in enumerate(settings.broker.listeners):
        if listener.tls:
            warnings += _check_listener(f"broker.listeners[{index}] ({listener.name})", listener, now)
    if settings.broker.mode == "external":
        warnings += _check_external(settings, now)
    load_crls(settings.attestation.x509)
    load_tpm_policy(settings.attestation.tpm)
    declared_enrollments(settings, now=now)
    return tuple(warnings)


def _check_listener(where: str, listener: Listener, now: datetime) -> list[str]:
    if listener.cert_file is None or listener.key_file is None:
        raise ConfigurationError(f"{where}: tls = true needs cert_file and key_file")
    return _check_pair(where, listener.cert_file, listener.key_file, now)


def _check_external(settings: Settings, now: datetime) -> list[str]:
    where, external = "broker.external", settings.broker.external
    warnings = [
        f"hubs ({hub.name}): provisiond is no hub where the broker is the site's; one must answer at {hub.host}"
        for hub in settings.hubs
        if hub.type == "embedded"
    ]
    if external.ca_file is not None:
        _load_leaf(where, external.ca_file, "ca_file")
    if external.password_file is not None and not load_password(external.password_file):
        raise ConfigurationError(f"{where}: {external.password_file} holds no password")
    if external.cert_file is not None and external.key_file is not None:
        warnings += _check_pair(where, external.cert_file, external.key_file, now)
    return warnings


def load_password(file: Path) -> str:
    """The password in a file, without the newline at its end.

    Raises:
        ConfigurationError: the file cannot be read, is no text, or everybody may read it.
    """
    where = "broker.external.password_file"
    data = read_file(file, where)
    _refuse_public(where, file, "the password")
    try:
        return data.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{where}: {file} is not UTF-8 text") from error


def _check_pair(where: str, cert_file: Path, key_file: Path, now: datetime) -> list[str]:
    leaf = _load_leaf(where, cert_file)
    key = _load_key(where, key_file)
    if key != leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
        raise ConfigurationError(f"{where}: {key_file} is not the key of the first certificate in {cert_file}")
    if leaf.not_valid_before_utc > now or leaf.not_valid_after_utc <= now:
        raise ConfigurationError(
            f"{where}: {cert_file} is valid from {leaf.not_valid_before_utc:%Y-%m-%d} to "
            f"{leaf.not_valid_after_utc:%Y-%m-%d}, not today; renew it, or mend the clock"
        )
    if leaf.not_valid_after_utc - now < _EXPIRY_NOTICE:
        return [f"{where}: {cert_file} ends on {leaf.not_valid_after_utc:%Y-%m-%d}; renew it"]
    return []


def _load_leaf(where: str, file: Path, key: str = "cert_file") -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(read_file(file, f"{where}.{key}"))[0]
    except (ValueError, x509.InvalidVersion) as error:
        raise ConfigurationError(f"{where}: {file} holds no certificate in PEM") from error


def _load_key(where: str, file: Path) -> bytes:
    """The public half, DER."""
    data = read_file(file, f"{where}.key_file")
    _refuse_public(where, file, "the private key")
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{where}: {file} holds no unencrypted private key in PEM") from error
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _refuse_public(where: str, file: Path, what: str) -> None:
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & stat.S_IRWXO:
        raise ConfigurationError(
            f"{where}: everybody on this machine may read or change {what} {file} (mode {mode:04o}); "
            f"run: chmod 0600 {quote(str(file))}"
        )
