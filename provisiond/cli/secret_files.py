"""Reading what operators give in files (`-` is stdin): keys, certificates, JSON. Secrets are never arguments."""

import base64
import binascii
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from provisiond.attestation.x509 import load_certificate, load_certificates
from provisiond.errors import InvalidArgument, MalformedRequest
from provisiond.protocols.json_body import parse_json

STDIN: Final = Path("-")

# Certificates, keys and twins are all far below this.
_LIMIT_BYTES: Final = 256 * 1024


def read_certificate(path: Path) -> bytes:
    """The one certificate in a PEM or DER file, as DER.

    Raises:
        InvalidArgument: it holds something else.
        OSError: it cannot be read.
    """
    content = read_bytes(path)
    try:
        return load_certificate(content)
    except InvalidArgument as error:
        raise InvalidArgument(f"{path}: {error}") from error


def read_certificates(path: Path) -> tuple[bytes, ...]:
    """The certificates in a PEM file, in its order, or the one in a DER file, as DER; raises as `read_certificate`."""
    content = read_bytes(path)
    try:
        return load_certificates(content)
    except InvalidArgument as error:
        raise InvalidArgument(f"{path}: {error}") from error


def read_key(path: Path) -> bytes:
    """The key that a file holds in base64.

    Raises:
        InvalidArgument: it holds something else.
        OSError: it cannot be read.
    """
    data = read_bytes(path)
    if not data.strip():  # an empty key means one to generate, and whoever names a file means that one
        raise InvalidArgument(f"{path}: empty; it must hold a key in base64")
    return _decode(data, str(path))


def read_tpm_public(value: str, option: str) -> bytes:
    """A TPM key (TPM2B_PUBLIC) from base64, or from a file of base64 or of the octets.

    Raises:
        InvalidArgument: it is neither; the message names the option.
        OSError: the file cannot be read.
    """
    path = Path(value)
    try:
        is_file = value == "-" or path.is_file()
    except OSError:  # base64 is too long for a file name
        is_file = False
    if not is_file:
        return _decode(value.encode(), f"{option} {value[:40]!r}, which is no file")
    data = read_bytes(path)
    size_bytes = int.from_bytes(data[:2])
    return data if len(data) > 2 and len(data) == 2 + size_bytes else _decode(data, value)


def read_object(value: str, option: str) -> Mapping[str, Any]:
    """A JSON object from the command line, or from a file as `@FILE` or `FILE`.

    Raises:
        InvalidArgument: it is something else.
        OSError: the file cannot be read.
    """
    if not value.strip():
        raise InvalidArgument(f"{option}: empty; {{}} is an object without members")
    data = value.encode()
    if not value.lstrip().startswith(("{", "[")):
        data = read_bytes(Path(value.removeprefix("@")))
    try:
        parsed = parse_json(data)
    except MalformedRequest as error:
        raise InvalidArgument(f"{option} {str(error).removeprefix('body ')}") from error
    if not isinstance(parsed, dict):
        raise InvalidArgument(f'{option}: not a JSON object, such as {{"site": "north"}}')
    return parsed


def read_lines(path: Path) -> tuple[str, ...]:
    """The lines of a text file without blank ones and comments (`#` to the end of the line).

    Raises:
        InvalidArgument: it is not text.
        OSError: it cannot be read.
    """
    try:
        text = read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{path}: not text in UTF-8") from error
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return tuple(line for line in lines if line)


def read_bytes(path: Path) -> bytes:
    """A whole file, or stdin for `-`; at most 256 KiB.

    Raises:
        InvalidArgument: it is longer.
        OSError: it cannot be read.
    """
    if path == STDIN:
        data = sys.stdin.buffer.read(_LIMIT_BYTES + 1)
    else:
        with path.open("rb") as stream:
            data = stream.read(_LIMIT_BYTES + 1)
    if len(data) > _LIMIT_BYTES:
        raise InvalidArgument(f"{path}: longer than {_LIMIT_BYTES} bytes")
    return data


def _decode(data: bytes, where: str) -> bytes:
    try:
        return base64.b64decode(data.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgument(f"{where}: not base64") from error
