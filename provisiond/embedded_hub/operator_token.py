"""The operators' password: a random token in a file that only the service's own user may read."""

import os
from pathlib import Path
from typing import Final

from provisiond.errors import ConfigurationError
from provisiond.ports import Entropy
from provisiond.private_files import create_private

FILE_NAME: Final = "operator.token"
_SIZE_BYTES: Final = 32
_MAX_LENGTH: Final = 256
_ACCESSIBLE_TO_OTHERS: Final = 0o007


def read_operator_token(state_dir: Path) -> str:
    """The token.

    Raises:
        ConfigurationError: it is not there, cannot be read, is empty, or everybody can read it.
    """
    path = state_dir / FILE_NAME
    try:
        with path.open(encoding="ascii") as file:
            if os.fstat(file.fileno()).st_mode & _ACCESSIBLE_TO_OTHERS:
                raise ConfigurationError(f"{path} is a password and is accessible to everyone: chmod o= {path}")
            token = file.read(_MAX_LENGTH).strip()
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path} is not there: the daemon makes it when it starts") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    if not token:
        raise ConfigurationError(f"{path} is empty; remove it, and the daemon makes another when it starts")
    return token


def make_operator_token(state_dir: Path, entropy: Entropy) -> str:
    """The token, made with mode 0600 when it is not there; consumers that have it keep it over a restart.

    Raises:
        ConfigurationError: it cannot be made, read, or everybody can read it.
    """
    path = state_dir / FILE_NAME
    part = path.with_name(f".{FILE_NAME}.{os.getpid()}")
    try:
        if not path.exists():
            with os.fdopen(create_private(part), "w") as file:
                file.write(f"{entropy.token_bytes(_SIZE_BYTES).hex()}\n")
                file.flush()
                os.fsync(file.fileno())  # or a power cut leaves an empty file of that name
            part.replace(path)  # whole or not at all
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be made: {error.strerror}") from error
    return read_operator_token(state_dir)
