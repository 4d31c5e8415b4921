"""Where settings come from: the file, credential files, the environment, flags. Each becomes a `Layer`."""

import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from provisiond.errors import ConfigurationError
from provisiond.settings.location import KeyPath, find_line, lines_of
from provisiond.settings.problems import did_you_mean

ENVIRONMENT_PREFIX: Final = "PROVISIOND_"
FILE_VARIABLE: Final = "PROVISIOND_CONFIG"
CREDENTIALS_VARIABLE: Final = "CREDENTIALS_DIRECTORY"
SEARCHED_FILES: Final = (Path("provisiond.toml"), Path("/etc/provisiond/provisiond.toml"))

# A configuration is a few KiB; a thousand hubs are 100.
_FILE_LIMIT_BYTES: Final = 1024 * 1024
# A credential is a key or a URL.
_CREDENTIAL_LIMIT_BYTES: Final = 64 * 1024

FIRST_LINE: Final = (
    '# Configuration of provisiond. A file with this line is complete only with its "end of configuration".'
)
LAST_LINE: Final = "# end of configuration"
# `[::1]:9109` begins like a list of JSON.
_IPV6_ADDRESS: Final = re.compile(r"\[[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:%[\w.-]+)?\]", re.ASCII)
_LINE_OF_ERROR: Final = re.compile(r"\(at line (\d+), column \d+\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """The settings of one source, and how to tell a person where each of them stands.

    Args:
        values: nested as in the file.
        place: describes the place of one key.
    """

    values: Mapping[str, Any]
    place: Callable[[KeyPath], str]


def find_file(explicit: Path | None, environment: Mapping[str, str]) -> Path | None:
    """The configuration file: `explicit`, else `$PROVISIOND_CONFIG`, else the first of `SEARCHED_FILES` that exists.

    Raises:
        ConfigurationError: a file that was asked for does not exist, or is a directory; or this user may not look.
    """
    try:
        return _find_file(explicit, environment)
    except OSError as error:
        raise ConfigurationError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _find_file(explicit: Path | None, environment: Mapping[str, str]) -> Path | None:
    named = explicit or (Path(environment[FILE_VARIABLE]) if environment.get(FILE_VARIABLE) else None)
    if named is None:
        return next((file.absolute() for file in SEARCHED_FILES if file.is_file()), None)
    source = "--config" if explicit else f"${FILE_VARIABLE}"
    if named.is_dir():
        raise ConfigurationError(
            f"{named}: a directory ({source}); give the file itself, such as {named / SEARCHED_FILES[0]}"
        )
    if not named.is_file():
        raise ConfigurationError(
            f"{named}: no such file ({source}); make one with `provisiond init --dir {named.parent or '.'}`"
        )
    return named.absolute()


def read_file(file: Path) -> Layer:
    """Read a TOML file, whole or not at all.

    Raises:
        ConfigurationError: unreadable, too large, not TOML, empty, cut short, or of another version.
    """
    text = _read_text(file)
    _refuse_cut_short(file, text)
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{file}{_describe_syntax_error(error, text)}") from error
    if not values:  # empty, or nothing but comments: what was cut short must not become the defaults
        raise ConfigurationError(
            f"{file}: the configuration is empty; "
            "write at least config_version = 1, or start from `provisiond config example`"
        )
    _check_version(file, values)

    def place(path: KeyPath) -> str:
        line = find_line(text, path)
        return f"{file}:{line}" if line else str(file)

    return Layer(values=values, place=place)


def read_environment(environment: Mapping[str, str], sections: set[str]) -> Layer:
    """Read `PROVISIOND_SECTION__KEY` (and `PROVISIOND_HUBS`) variables; lists and tables are JSON.

    Raises:
        ConfigurationError: a variable that looks like a setting and names no section, or bad JSON.
    """
    values: dict[str, Any] = {}
    for name in sorted(environment):
        path = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
        is_setting = len(path) > 1 or path[0] in sections
        if not name.startswith(ENVIRONMENT_PREFIX) or not is_setting:
            continue
        if path[0] not in sections:
            raise ConfigurationError(f"environment {name}: there is no [{path[0]}]{did_you_mean(path[0], sections)}")
        _put(values, path, _read_value(environment[name], f"environment {name}"))
    return Layer(values=values, place=lambda path: f"environment {_variable(path)}")


def read_credentials(environment: Mapping[str, str], sections: set[str]) -> Layer:
    """Read `$CREDENTIALS_DIRECTORY/section.key` files (systemd `LoadCredential=section.key:FILE`).

    Files whose name does not begin with a section are somebody else's.

    Raises:
        ConfigurationError: unreadable, too large, not UTF-8, or bad JSON.
    """
    directory = environment.get(CREDENTIALS_VARIABLE, "")
    values: dict[str, Any] = {}
    for file in sorted(Path(directory).iterdir()) if directory and Path(directory).is_dir() else ():
        path = tuple(file.name.split("."))
        if len(path) > 1 and path[0] in sections and file.is_file():
            text = _read_text(file, limit_bytes=_CREDENTIAL_LIMIT_BYTES).removesuffix("\n")
            _put(values, path, _read_value(text, f"credential {file.name}"))
    return Layer(values=values, place=lambda path: f"credential {'.'.join(map(str, path))}")


def _variable(path: KeyPath) -> str:
    """A variable ends where a list begins: the list is its value."""
    keys = takewhile(lambda part: isinstance(part, str), path)
    return ENVIRONMENT_PREFIX + "__".join(str(key).upper() for key in keys)


def _read_text(file: Path, limit_bytes: int = _FILE_LIMIT_BYTES) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(limit_bytes + 1)
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {os.strerror(error.errno or 0)}") from error
    if len(data) > limit_bytes:
        raise ConfigurationError(f"{file}: larger than {limit_bytes} bytes; this is not a configuration")
    try:
        return data.decode("utf-8-sig")  # Windows editors begin a text with a byte order mark
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{file}:{line}: not UTF-8 text") from error


def _refuse_cut_short(file: Path, text: str) -> None:
    lines = lines_of(text)
    if FIRST_LINE in lines and LAST_LINE not in lines:
        raise ConfigurationError(
            f'{file}:{len(lines)}: the file was cut short: its last line should be "{LAST_LINE}"; '
            "restore it from a copy, or if it is whole add that line"
        )


def _describe_syntax_error(error: Exception, text: str) -> str:
    """What stands behind the name of the file; its line first, as with every other mistake."""
    if isinstance(error, RecursionError):
        return ": nested too deeply"
    last_line = len(lines_of(text))
    found = _LINE_OF_ERROR.search(str(error))
    what = str(error).replace("at end of document", f"at line {last_line}, the end of the file; was it cut short?")
    return f":{found[1] if found else last_line}: not TOML: {what}"


def _check_version(file: Path, values: Mapping[str, Any]) -> None:
    version = values.get("config_version")
    if isinstance(version, int) and version > 1:
        raise ConfigurationError(f"{file}: config_version = {version} is newer than this provisiond; upgrade it")


def _read_value(text: str, place: str) -> Any:
    if text[:1] not in ("[", "{") or _IPV6_ADDRESS.match(text):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{place}: a list or table must be JSON: {error}") from error


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    table = values
    for key in path[:-1]:
        inner = table.setdefault(key, {})
        if not isinstance(inner, dict):
            return
        table = inner
    table[path[-1]] = value
