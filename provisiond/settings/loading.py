"""Flags over environment over credential files over the file over the defaults; validated as one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from provisiond.errors import ConfigurationError
from provisiond.settings.location import KeyPath
from provisiond.settings.problems import describe, dotted
from provisiond.settings.schema import Settings
from provisiond.settings.sources import Layer, find_file, read_credentials, read_environment, read_file


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSettings:
    """Settings and where they came from.

    Args:
        settings: validated; every path is absolute.
        file: the configuration file, None when there is none and the defaults hold.
        origins: place of each key that is not a default, by dotted key.
    """

    settings: Settings
    file: Path | None
    origins: Mapping[str, str] = field(repr=False)


def load_settings(
    file: Path | None = None,
    *,
    environment: Mapping[str, str],
    flags: Mapping[str, Any] | None = None,
    base_dir: Path | None = None,
) -> LoadedSettings:
    """Find, read and validate the configuration.

    Args:
        file: what `--config` says.
        environment: `os.environ`, or what a test puts in its place.
        flags: values of command line flags, nested as in the file.
        base_dir: what relative paths begin at; the file's directory unless it says so.

    Raises:
        ConfigurationError: says file, line, key and the way out.
    """
    found = find_file(file, environment)
    sections = set(Settings.model_fields) - {"config_version"}
    layers = [
        *([read_file(found)] if found else []),
        read_credentials(environment, sections),
        read_environment(environment, sections),
        Layer(values=flags or {}, place=lambda path: f"flag --{path[-1]}"),
    ]
    merged: dict[str, Any] = {}
    origins: dict[KeyPath, Layer] = {}
    for layer in layers:
        _merge(merged, layer.values, layer, (), origins)
    settings = _validate(merged, origins, found, base_dir)
    return LoadedSettings(
        settings=settings, file=found, origins={dotted(path): layer.place(path) for path, layer in origins.items()}
    )


def _merge(
    into: dict[str, Any], values: Mapping[str, Any], layer: Layer, path: KeyPath, origins: dict[KeyPath, Layer]
) -> None:
    """Tables are merged key by key; anything else, lists as well, replaces what was there."""
    for key, value in values.items():
        here = (*path, key)
        if isinstance(value, Mapping) and isinstance(into.setdefault(key, {}), dict):
            _merge(into[key], value, layer, here, origins)
        else:
            into[key] = value
            origins[here] = layer


def _validate(
    merged: Mapping[str, Any], origins: Mapping[KeyPath, Layer], file: Path | None, base_dir: Path | None
) -> Settings:
    def place(path: KeyPath) -> str:
        for length in range(len(path), 0, -1):
            if path[:length] in origins:
                return origins[path[:length]].place(path)
        # A table that is wrong as a whole: any of its keys tells which source opened it.
        opened = next((layer for key, layer in origins.items() if key[: len(path)] == path), None)
        return opened.place(path) if opened and path else str(file or "configuration")

    try:
        base_dir = base_dir or (file.parent if file else Path.cwd())
        return Settings.model_validate(merged, context={"base_dir": base_dir, "place": place})
    except ValidationError as error:
        raise ConfigurationError(describe(error, Settings, place)) from error
