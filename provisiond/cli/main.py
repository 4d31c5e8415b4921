"""The command line: `provisiond NOUN VERB`, and bare verbs for the daemon.

A noun's module is imported when the noun is used, so that `provisiond --help` is quick.
"""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from provisiond.cli.az_habits import translate
from provisiond.cli.exit_codes import ExitCode, ending, print_error

_NOUNS: Final = {
    "demo": "Everything at once in a temporary directory: devices are enrolled, started, assigned.",
    "init": "Make a configuration, a local CA and a server certificate.",
    "run": "Run the daemon in the foreground.",
    "plan": "Show what applying the enrollments of the configuration would change.",
    "apply": "Make the enrollments what the configuration declares.",
    "status": "Show whether the daemon runs, and what it has done.",
    "doctor": "Look for what is wrong, and say what mends it.",
    "config": "Check and show the configuration.",
    "enrollment": "Individual enrollments: one device each.",
    "enrollment-group": "Enrollment groups: every device that a CA or a key vouches for.",
    "registration": "What became of the devices.",
    "hub": "The hubs that devices are assigned to: health, share, draining.",
    "device": "The devices at their hubs: see, disable, send, twins, methods.",
    "explain": "Why a device was refused, or what would become of it now; nothing is written.",
    "audit": "What was decided and changed, and the proof that nobody altered it.",
    "db": "Care for the database.",
    "ca": "The local certification authority.",
    "simulate": "Simulated devices that speak the real protocol.",
    "man": "Print the manual page.",
}
"""Commands and their summaries; each is `app`, or a function of its own name, in the module of its name."""


class _Unloaded(TyperCommand):
    """Stands for a noun whose module has not been imported."""


class _Provisiond(TyperGroup):
    """The top of the command tree: loads nouns when they are used, and turns errors into exit codes."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for noun, summary in _NOUNS.items():
            self.add_command(_Unloaded(noun, help=summary))

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]  # as below
        return super().parse_args(ctx, translate(args))

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]  # typer vendors it
        if isinstance(self.commands.get(args[0]), _Unloaded):
            self.add_command(_load(args[0]))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # as above
        with ending():
            return super().invoke(ctx)


_Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", readable=False, help="Configuration file.", show_default=False),
]

app = typer.Typer(
    cls=_Provisiond,
    help="A device provisioning service for your own gateway: Azure device SDKs provision against it, offline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Try: provisiond init --dir gateway, then provisiond -c gateway/provisiond.toml run",
)


def _keep_config(context: typer.Context, config: _Config = None) -> None:
    """Keep a `--config` between noun and verb."""
    if config is not None:
        context.find_root().obj = {"config": config}


def _load(noun: str) -> Any:
    """The command of a noun: its module's `app`, or its function of the same name with `EXAMPLE` below its help."""
    name = noun.replace("-", "_")
    module = import_module(f"provisiond.cli.{name}")
    parent = typer.Typer(add_completion=False)
    if hasattr(module, "app"):
        parent.add_typer(module.app, name=noun, help=_NOUNS[noun], callback=_keep_config)
    else:
        parent.command(noun, epilog=getattr(module, "EXAMPLE", None))(getattr(module, name))
    return typer.main.get_group(parent).commands[noun]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(import_module("provisiond.cli.version").describe_version())
        raise typer.Exit


@app.callback()
def provisiond(
    context: typer.Context,
    config: _Config = None,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Keep `--config` for the verb."""
    context.obj = {"config": config}


def _open_missing_streams() -> None:
    """Give what the caller closed to the null device: the database must not become what is printed to."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123 - for as long as the process runs


def main() -> None:
    """Run the command line; ends with SystemExit."""
    _open_missing_streams()
    for number, argument in enumerate(sys.argv[1:], start=1):
        if any("\udc80" <= character <= "\udcff" for character in argument):  # how Python carries stray octets
            print_error(f"argument {number} is not text in UTF-8: {argument[:80]!a}")
            raise SystemExit(ExitCode.USAGE)
    app(prog_name="provisiond")
