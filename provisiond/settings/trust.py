"""The files that say whose word is taken: revocation lists, certificates of TPM makers, and the deny list of TPMs."""

import os
from pathlib import Path
from typing import Final

from provisiond.attestation.ek_anchor import read_anchor_file
from provisiond.attestation.ek_certificate import NOTHING_DENIED, EkDenyList
from provisiond.attestation.ek_deny_list import parse_deny_list
from provisiond.attestation.revocation import load_crl
from provisiond.errors import AttestationError, ConfigurationError, InvalidArgument
from provisiond.registration.tpm_claim import TpmPolicy
from provisiond.settings.attestation import X509, Tpm

_FILE_LIMIT_BYTES: Final = 1024 * 1024
"""Keys and chains are a few KiB; a deny list of this size has 15,000 lines."""

_ANCHORS_MAX: Final = 512
"""All TPM makers together have some 100; every one is kept parsed."""


def load_crls(x509: X509) -> tuple[bytes, ...]:
    """The certificate revocation lists, DER.

    Raises:
        ConfigurationError: a file cannot be read, or holds something else.
    """
    where = "attestation.x509.crl_files"
    crls = []
    for file in x509.crl_files:
        try:
            crls.append(load_crl(read_file(file, where)))
        except InvalidArgument as error:
            raise ConfigurationError(f"{where}: {file}: {error}") from error
    return tuple(crls)


def load_tpm_policy(tpm: Tpm) -> TpmPolicy:
    """Whose word about TPMs is taken: nobody's, when the directory is not there.

    Raises:
        ConfigurationError: a file cannot be read, or holds something else: less would be trusted, or denied, than the
            operator thinks.
    """
    return TpmPolicy(anchors=_load_anchors(tpm.ek_roots_dir), deny=_load_deny_list(tpm.deny_file))


def read_file(file: Path, where: str) -> bytes:
    """A file that the configuration names.

    Raises:
        ConfigurationError: it cannot be read, or is larger than 1 MiB; the message names the key.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(_FILE_LIMIT_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{where}: {file} cannot be read: {os.strerror(error.errno or 0)}") from error
    if len(data) > _FILE_LIMIT_BYTES:
        raise ConfigurationError(f"{where}: {file} is larger than {_FILE_LIMIT_BYTES} bytes")
    return data


def _load_anchors(directory: Path) -> tuple[bytes, ...]:
    where = "attestation.tpm.ek_roots_dir"
    try:
        files = sorted(path for path in directory.iterdir() if path.is_file() and not path.name.startswith("."))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ConfigurationError(f"{where}: {directory} cannot be read: {os.strerror(error.errno or 0)}") from error
    anchors: list[bytes] = []
    for file in files:
        try:
            anchors += read_anchor_file(read_file(file, where))
        except AttestationError as error:
            raise ConfigurationError(f"{where}: {file} is no CA certificate in PEM or DER: {error}") from error
    unique = tuple(dict.fromkeys(anchors))
    if len(unique) > _ANCHORS_MAX:
        raise ConfigurationError(f"{where}: {len(unique)} certificates; at most {_ANCHORS_MAX}")
    return unique


def _load_deny_list(file: Path | None) -> EkDenyList:
    if file is None:
        return NOTHING_DENIED
    where = "attestation.tpm.deny_file"
    try:
        return parse_deny_list(read_file(file, where).decode())
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{where}: {file} is not text in UTF-8") from error
    except InvalidArgument as error:
        raise ConfigurationError(f"{where}: {file}, {error}") from error
