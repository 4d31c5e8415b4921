"""`provisiond run`: the daemon in the foreground."""

from pathlib import Path
from typing import Annotated, Final, Literal

import structlog
import typer

from provisiond import daemon
from provisiond.cli.session import Config, load
from provisiond.logs import configure_logs
from provisiond.settings import Settings
from provisiond.settings.files import check_files
from provisiond.system import SystemClock

EXAMPLE: Final = "Example: provisiond -c gateway/provisiond.toml run"

Level = Literal["debug", "info", "warning", "error"]


def run(
    config: Config = None,
    log_level: Annotated[
        Level | None, typer.Option("--log-level", help="Instead of what the configuration says.", show_default=False)
    ] = None,
) -> None:
    """Run the daemon in the foreground until SIGTERM or Ctrl-C; SIGHUP reads the configuration again."""
    settings = _read(config, log_level)
    configure_logs(level=settings.log.level, output_format=settings.log.format)
    _check(settings)
    daemon.run(settings, reload=lambda: _check(_read(config, log_level)))


def _read(config: Path | None, log_level: Level | None) -> Settings:
    return load(config, {"log": {"level": log_level}} if log_level else None).settings


def _check(settings: Settings) -> Settings:
    """Check the files that the configuration names; what will be wrong soon is logged.

    Raises:
        ConfigurationError: one of them cannot be used.
    """
    for warning in check_files(settings, now=SystemClock().now()):
        structlog.get_logger("provisiond.config").warning(warning)
    return settings
