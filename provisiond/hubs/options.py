"""What the options of hub connectors have in common: paths, and secrets in files."""

from pathlib import Path
from typing import Final

from provisiond.errors import ConfigurationError

_SECRET_MAX_SIZE_BYTES: Final = 4096


def resolve(path: Path | None, base_dir: Path) -> Path | None:
    """A path of the configuration; a relative one is relative to the file's directory."""
    return None if path is None else base_dir / path


def read_secret(path: Path | None, base_dir: Path) -> str | None:
    """The first line of a file that only its owner, and perhaps its group, may read; None when there is none.

    Raises:
        ConfigurationError: it cannot be read, everybody may read it, or there is no text in it.
    """
    if path is None:
        return None
    file = base_dir / path
    try:
        with file.open("rb") as opened:
            content = opened.read(_SECRET_MAX_SIZE_BYTES)
        shared = file.stat().st_mode & 0o007
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from error
    if shared:
        raise ConfigurationError(f"{file} can be read by everybody; `chmod o= {file}`")
    try:
        secret = content.decode().split("\n", 1)[0].rstrip("\r")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file} holds no text") from error
    if not secret:
        raise ConfigurationError(f"{file} is empty")
    return secret
