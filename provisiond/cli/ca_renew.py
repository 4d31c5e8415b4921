"""`provisiond ca renew`: the listeners' certificates anew, before they end or for another name."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from provisiond.cli.output import Output, print_records, suggest
from provisiond.cli.session import Config, load
from provisiond.errors import InvalidArgument
from provisiond.local_ca import Credentials, create_file, issue_server, load_root
from provisiond.protocols.timestamps import format_timestamp
from provisiond.settings import Listener
from provisiond.settings.trust import read_file
from provisiond.system import SystemClock

EXAMPLE: Final = "Example: provisiond ca renew --host gateway.local"

_COLUMNS: Final = {"listener": "listener", "certificate": "certificateFile", "until": "validUntil", "names": "names"}


def renew(
    host: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="NAME", help="Name or address to add to those it has; may be given again."),
    ] = None,
    output: Output = None,
    config: Config = None,
) -> None:
    """Issue the listeners' certificates anew: same names, same key, another five years. Devices notice nothing.

    Only those that the local authority has issued; the daemon takes them over when it is told to read its files again.
    """
    settings = load(config).settings
    root = load_root(settings.ca_dir)
    listeners = [one for one in settings.broker.listeners if one.tls]
    if not listeners:
        raise InvalidArgument("no listener speaks TLS")
    issued = [(listener, _issue_anew(root, listener, host or ())) for listener in listeners]
    for listener, credentials in issued:
        _replace(listener, credentials)
    print_records([_to_json(listener, credentials) for listener, credentials in issued], _COLUMNS, output)
    suggest("systemctl reload provisiond, or SIGHUP")


def certificate_names(certificate: x509.Certificate) -> list[str]:
    """DNS names and addresses that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]


def is_local(root: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Whether the local authority has issued a certificate."""
    return certificate.issuer == root.subject


def _issue_anew(root: Credentials, listener: Listener, more: Sequence[str]) -> Credentials:
    present = _present(listener)
    if present is not None and not is_local(root.certificate, present):
        raise InvalidArgument(f"{listener.cert_file} is of another authority than the local one: renew it there")
    names = [*(certificate_names(present) if present is not None else ()), *more]
    return issue_server(root, names, now=SystemClock().now(), key=_key(listener))


def _present(listener: Listener) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificates(_file(listener).read_bytes())[0]
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{listener.cert_file} cannot be read as a certificate; move it away") from error


def _key(listener: Listener) -> ec.EllipticCurvePrivateKey:
    key_file = listener.key_file or _file(listener).with_suffix(".key")
    try:
        key = load_pem_private_key(read_file(key_file, "key_file"), password=None)
    except (ValueError, TypeError) as error:
        raise InvalidArgument(f"{key_file} holds no unencrypted private key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidArgument(f"{key_file} is no elliptic-curve key such as `provisiond init` makes")
    return key


def _file(listener: Listener) -> Path:
    if listener.cert_file is None:
        raise InvalidArgument(f"listener {listener.name} names no cert_file")
    return listener.cert_file


def _replace(listener: Listener, credentials: Credentials) -> None:
    """Whole or not at all: a daemon may read it at any moment."""
    file = _file(listener)
    part = file.with_name(f".{file.name}.{os.getpid()}.new")
    create_file(part, credentials.certificate_pem)
    part.replace(file)


def _to_json(listener: Listener, credentials: Credentials) -> dict[str, object]:
    return {
        "listener": listener.name,
        "certificateFile": str(listener.cert_file),
        "validUntil": format_timestamp(credentials.certificate.not_valid_after_utc),
        "names": certificate_names(credentials.certificate),
    }
