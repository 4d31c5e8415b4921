"""What commands share: the configuration they run with, the database they open, and who runs them."""

import os
import pwd
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Final

import typer

from provisiond.admin import Admin
from provisiond.cli.output import note
from provisiond.settings import LoadedSettings, Settings, load_settings
from provisiond.settings.sources import find_file
from provisiond.store import SqliteStore
from provisiond.store.opening import not_for_this_user
from provisiond.system import SystemClock, SystemEntropy

SERVICE_CONFIG: Final = Path("/etc/provisiond/provisiond.toml")
SERVICE_UNIT: Final = "provisiond.service"
"""The unit in `systemd/`, and the configuration that it runs with."""

_UNIT_DIRECTORIES: Final = (
    Path("/etc/systemd/system"),
    Path("/usr/local/lib/systemd/system"),
    Path("/usr/lib/systemd/system"),
)


def _prefer_nearest(context: typer.Context, value: Path | None) -> Path | None:
    """`--config` after the verb, else the one before it."""
    return value or (context.find_root().obj or {}).get("config")


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        readable=False,  # `load_settings` says why it cannot be read, with the exit code for it
        help="Configuration file; else $PROVISIOND_CONFIG, ./provisiond.toml, /etc/provisiond/provisiond.toml.",
        callback=_prefer_nearest,
        show_default=False,
    ),
]


def load(config: Path | None, flags: Mapping[str, Any] | None = None) -> LoadedSettings:
    """Load the configuration; says so when there is no file.

    Raises:
        ConfigurationError: it cannot be used.
    """
    loaded = load_settings(config, environment=os.environ, flags=flags)
    if loaded.file is None:
        note("no configuration file: using the defaults (`provisiond init --dir DIR` makes one)")
    return loaded


def command(config: Path | None) -> str:
    """How a suggested command begins, so that it can be copied: with the configuration that this one was given."""
    return f"provisiond -c {quote(str(config))}" if config else "provisiond"


def start_command(config: Path | None) -> str:
    """How the daemon is started: by systemd where its unit is installed for this configuration.

    `provisiond run` would have root do what a user of its own should.
    """
    served = (config.absolute() if config else find_file(None, os.environ)) == SERVICE_CONFIG
    if served and any((directory / SERVICE_UNIT).exists() for directory in _UNIT_DIRECTORIES):
        return f"systemctl start {SERVICE_UNIT.removesuffix('.service')}"
    return f"{command(config)} run"


@asynccontextmanager
async def open_admin(config: Path | None) -> AsyncIterator[Admin]:
    """The operator's use cases on the configured database, which may be in use by a running daemon.

    Raises:
        ConfigurationError: the configuration cannot be used.
        StoreError: the database cannot be opened.
    """
    settings = load(config).settings
    async with await open_store(settings) as store:
        yield make_admin(settings, store)


def make_admin(settings: Settings, store: SqliteStore) -> Admin:
    """The operator's use cases on an open store."""
    return Admin(store=store, clock=SystemClock(), entropy=SystemEntropy(), hubs=settings.linked_hubs(), actor=actor())


async def open_store(settings: Settings) -> SqliteStore:
    """Open the configured database, made new when it is not there; an older one is for `db migrate`, or `run`.

    Raises:
        StoreError: it cannot be opened.
    """
    file = settings.database_file
    return await SqliteStore.open(file, migrate=not has_database(settings))


def has_database(settings: Settings) -> bool:
    """Whether the database is there, or will be made by the first who writes.

    Raises:
        StoreUnavailable: this user may not even look.
    """
    try:
        return settings.database_file.exists()
    except PermissionError as error:
        raise not_for_this_user(settings.database_file, error) from error


def actor() -> str:
    """Who runs this command, for the audit log; behind sudo, who called it."""
    try:
        name = os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = f"uid {os.getuid()}"
    return f"cli:{name[:64]}"
