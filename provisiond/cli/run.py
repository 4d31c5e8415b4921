"""`provisiond run`: the daemon in the foreground."""

from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from provisiond import daemon
from provisiond.cli.output import note
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
    daemon.run(settings, reload=lambda: _read(config, log_level))


def _read(config: Path | None, log_level: Level | None) -> Settings:
    """Load the configuration and check what it names.

    Raises:
        ConfigurationError: it cannot be used.
    """
    settings = load(config, {"log": {"level": log_level}} if log_level else None).settings
    for warning in check_files(settings, now=SystemClock().now()):
        note(f"warning: {warning}")
    return settings
