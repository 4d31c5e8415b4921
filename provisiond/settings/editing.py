"""Changing a configuration file as its owner would: comments stay, and it is never left half-written or wrong."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from provisiond.errors import AlreadyExists, ConfigurationError, RecordNotFound
from provisiond.settings.loading import load_settings
from provisiond.settings.location import lines_of
from provisiond.settings.schema import Settings
from provisiond.settings.sources import LAST_LINE


def add_hub(file: Path, hub: Mapping[str, Any], check: Callable[[Settings], None]) -> Settings:
    """Add a `[[hubs]]` entry.

    Args:
        file: the configuration; it keeps its owner, group and mode.
        hub: keys and values; `options` is a table, left out when it is empty.
        check: looks at what would be, and raises ConfigurationError where that cannot be used.

    Returns:
        The settings as they are now.

    Raises:
        AlreadyExists: there is a hub of that name.
        ConfigurationError: the result would be wrong, or the file cannot be written; it is as it was.
    """

    def change(hubs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if any(str(one.get("name", "")).lower() == str(hub["name"]).lower() for one in hubs):
            raise AlreadyExists(f"{file}: there is a hub {hub['name']}")
        return [*hubs, {key: value for key, value in hub.items() if value not in ({}, None)}]

    return _edit(file, change, check)


def remove_hub(file: Path, name: str) -> Settings:
    """Remove the `[[hubs]]` entry of a name.

    Returns:
        The settings as they are now.

    Raises:
        RecordNotFound: there is none in this file.
        ConfigurationError: the result would be wrong, or the file cannot be written; it is as it was.
    """

    def change(hubs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        kept = [one for one in hubs if str(one.get("name", "")).lower() != name.lower()]
        if len(kept) == len(hubs):
            raise RecordNotFound(f"{file}: there is no hub {name}")
        return kept

    return _edit(file, change)


def _edit(
    file: Path,
    change: Callable[[list[dict[str, Any]]], Sequence[dict[str, Any]]],
    check: Callable[[Settings], None] | None = None,
) -> Settings:
    try:
        text = file.read_text(encoding="utf-8-sig")
        document: Any = tomlkit.parse(text)
    except (OSError, ValueError, TOMLKitError) as error:
        raise ConfigurationError(f"{file}: {error}") from error
    # Where the file does not say, there is the default: it must not vanish because another one is added.
    current = document.get("hubs", tomlkit.aot())
    before = [dict(one) for one in current] or Settings().model_dump(mode="json", exclude_defaults=False)["hubs"]
    after = change([{key: value for key, value in one.items() if value != {}} for one in before])
    if not after:
        raise ConfigurationError(f"{file}: there must be at least one hub; add another one before this one is removed")
    _apply(document, current, after)
    return _replace(file, tomlkit.dumps(document), check)


def _apply(document: Any, current: Any, after: Sequence[Mapping[str, Any]]) -> None:
    """Change as little as can be: entries that stay are not touched, nor are their comments."""
    names = [str(one["name"]) for one in after]
    for index in reversed(range(len(current))):
        if str(current[index].get("name")) not in names:
            del current[index]
    known = [str(one.get("name")) for one in current]
    for one in after:
        if str(one["name"]) not in known:
            entry = tomlkit.item(dict(one))
            entry.add(tomlkit.nl())
            current.append(entry)
    if "hubs" not in document:
        document.append("hubs", current)


def _replace(file: Path, text: str, check: Callable[[Settings], None] | None) -> Settings:
    """Put a new text in the place of the old one, if it can be loaded and stands the check."""
    if LAST_LINE in lines_of(text):
        lines = [line for line in lines_of(text) if line != LAST_LINE]
        text = "\n".join([*lines, "", LAST_LINE, ""]) if lines and lines[-1] else "\n".join([*lines, LAST_LINE, ""])
    target = file.resolve()  # a link stays one
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            _make_like(descriptor, target.stat())
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        settings = load_settings(part, environment={}, base_dir=file.parent).settings
        if check is not None:
            check(settings)
        part.replace(target)
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from error
    except ConfigurationError as error:
        raise ConfigurationError(str(error).replace(str(part), str(file))) from error
    finally:
        part.unlink(missing_ok=True)
    return settings


def _make_like(descriptor: int, former: os.stat_result) -> None:
    """Whoever could read the former file can read this one: the daemon's user has it by its group.

    Raises:
        OSError: this user may not give it to whom it belonged to.
    """
    made = os.fstat(descriptor)
    if (made.st_uid, made.st_gid) != (former.st_uid, former.st_gid):
        os.fchown(descriptor, former.st_uid, former.st_gid)
    os.fchmod(descriptor, former.st_mode & 0o777)  # whatever the umask
