"""`provisiond config`: check and show the configuration."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from provisiond.cli.output import Output, OutputFormat, note, print_record, print_records, resolve_format, suggest
from provisiond.cli.session import Config, load, start_command
from provisiond.declaring import check_declared
from provisiond.errors import ConfigurationError
from provisiond.settings import Settings
from provisiond.settings.example import render_example, to_toml
from provisiond.settings.files import check_files
from provisiond.settings.mosquitto_acl import render_mosquitto_acl
from provisiond.system import SystemClock

app = typer.Typer(no_args_is_help=True, epilog="Example: provisiond config check")

_COLUMNS: Final = {"key": "key", "value": "value", "from": "origin"}


@app.command("check", epilog="Example: provisiond -c /etc/provisiond/provisiond.toml config check")
def check(config: Config = None) -> None:
    """Check the configuration and the files that it names; exits 78 when it cannot be used."""
    loaded = load(config)
    for warning in check_files(loaded.settings, now=SystemClock().now()):
        note(f"warning: {warning}")
    check_declared(loaded.settings)
    for hub in loaded.settings.hubs:
        if not hub.is_embedded:
            asyncio.run(hub.to_connector().aclose())
    note(f"{loaded.file or 'the default configuration'}: ok")
    suggest(start_command(config))


@app.command("show", epilog="Example: provisiond config show -o json")
def show(
    changed: Annotated[bool, typer.Option("--changed", help="Only what is not a default.")] = False,
    output: Output = None,
    config: Config = None,
) -> None:
    """Show every setting that is in force, and where it comes from."""
    loaded = load(config)
    values = loaded.settings.model_dump(mode="json")
    rows = [
        {"key": key, "value": to_toml(value), "origin": loaded.origins.get(key, "default")}
        for key, value in _flatten(values, "")
        if not changed or key in loaded.origins
    ]
    if resolve_format(output) in (OutputFormat.JSON, OutputFormat.NDJSON) and not changed:
        print_record(values, output)
    else:
        print_records(rows, _COLUMNS, output)


@app.command("schema", epilog="Example: provisiond config schema > provisiond.schema.json")
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    print(json.dumps(Settings.model_json_schema(), indent=2))


@app.command("example", epilog="Example: provisiond config example > provisiond.toml")
def example(
    mosquitto_acl: Annotated[
        bool, typer.Option("--mosquitto-acl", help="Print access rules for a site's mosquitto instead.")
    ] = False,
    config: Config = None,
) -> None:
    """Print a configuration with every setting at its default, its unit and its reason."""
    if mosquitto_acl:
        print(render_mosquitto_acl(_external_user(config)), end="")
    else:
        print(render_example(), end="")


def _external_user(config: Path | None) -> str | None:
    """Whom the configuration makes provisiond at the broker; without a configuration nobody yet."""
    try:
        return load(config).settings.broker.external.username
    except ConfigurationError:
        if config is not None:
            raise
        return None


def _flatten(values: dict[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        path = f"{name}.{key}" if name else key
        if isinstance(value, dict):
            yield from _flatten(value, path)
        else:
            yield path, value
