"""The manual page, made of the same commands that answer `--help`: `provisiond man > provisiond.1`."""

import re
from collections.abc import Iterator
from datetime import datetime
from textwrap import wrap
from typing import Any, Final

import typer

from provisiond import __version__
from provisiond.cli.exit_codes import ExitCode
from provisiond.system import SystemClock

EXAMPLE: Final = "Example: provisiond man > provisiond.1"

_HEAD: Final = """\
.\\" Made by `provisiond man`; do not edit.
.TH PROVISIOND 1 "{date:%Y-%m-%d}" "provisiond {version}" "User Commands"
.SH NAME
provisiond \\- a device provisioning service for your own gateway
.SH SYNOPSIS
.B provisiond
[\\fB\\-c\\fR \\fIFILE\\fR] \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]
.SH DESCRIPTION
Azure device SDKs provision against provisiond, offline: it proves who a device
is by a certificate, a symmetric key or a TPM, assigns it to a hub, and keeps a
record that can be verified.
Data goes to stdout, everything else to stderr.
Secrets are given in files, never on the command line.
"""
_TAIL: Final = """\
.SH EXIT STATUS
{codes}
.SH ENVIRONMENT
.TP
.B PROVISIOND_CONFIG
The configuration file, when \\fB\\-\\-config\\fR is not given.
.TP
.B PROVISIOND_SECTION__KEY
A setting, such as PROVISIOND_LOG__LEVEL=debug; it goes before the file.
.TP
.B CREDENTIALS_DIRECTORY
Where systemd has put credentials; a file section.key is a setting.
.SH FILES
.TP
.I provisiond.toml
In the working directory, else \\fI/etc/provisiond/provisiond.toml\\fR.
.TP
.I /var/lib/provisiond
Database, audit key, local CA, backups; mode 0700.
.SH SEE ALSO
.BR systemctl (1),
.BR mosquitto (8),
.BR swtpm (8)
"""
_CODES: Final = {
    ExitCode.OK: "It was done.",
    ExitCode.FAILED: "It failed, or something is wrong; see the message.",
    ExitCode.USAGE: "The arguments cannot be used.",
    ExitCode.NOT_FOUND: "There is no such record.",
    ExitCode.CONFLICT: "It exists already, or has changed meanwhile.",
    ExitCode.REFUSED: "The device was refused, or would be.",
    ExitCode.UNAVAILABLE: "The daemon, the broker or the database cannot be reached.",
    ExitCode.TRY_LATER: "Try again later.",
    ExitCode.CONFIGURATION: "The configuration is not valid.",
    ExitCode.INTERRUPTED: "Interrupted.",
}
_LINE_LENGTH: Final = 72
"""Leaves room for what is escaped."""
_INHERITED: Final = ("--help", "--config", "--output")


def man(context: typer.Context) -> None:
    """Print the manual page as roff, made of what `--help` says."""
    print(render_manual(context.find_root().command, SystemClock().now()), end="")


def render_manual(root: Any, date: datetime) -> str:
    """The text of provisiond(1).

    Args:
        root: the top of the command tree.
        date: of the page.
    """
    parts = [_HEAD.format(version=__version__, date=date), ".SH COMMANDS\n"]
    parts += [text for path, command in walk(root) for text in _command(path, command)]
    parts += [".SH OPTIONS OF EVERY COMMAND\n", *_shared_options()]
    codes = "\n".join(f".TP\n.B {code.value}\n{_escape(_CODES[code])}" for code in ExitCode)
    parts.append(_TAIL.format(codes=codes))
    return "".join(parts)


def walk(root: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, in order, with the words that it is called by."""
    for name in sorted(root.commands):
        # Nouns are loaded when they are used; asking to resolve one is using it.
        with root.make_context("provisiond", [name], resilient_parsing=True) as made:
            _, command, _ = root.resolve_command(made, [name])
        if command is None or command.hidden:
            continue
        yield from _descend((name,), command)


def _descend(path: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if hasattr(command, "commands"):
        for name in sorted(command.commands):
            yield from _descend((*path, name), command.commands[name])
    elif not command.hidden:
        yield path, command


def _command(path: tuple[str, ...], command: Any) -> Iterator[str]:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    shown = [f"[\\fI{_escape(parameter.metavar or parameter.name.upper())}\\fR]" for parameter in arguments]
    yield f".SS {' '.join(['provisiond', *map(_escape, path), *shown])}\n"
    yield _paragraphs(command.help or "")
    for parameter in command.params:
        if parameter.param_type_name == "option" and not set(parameter.opts) & set(_INHERITED) and not parameter.hidden:
            yield _option(parameter, command)
    if command.epilog:
        example = command.epilog.partition(":")[2].strip()
        yield f".PP\nExample:\n.PP\n.nf\n.RS\n{_escape(example)}\n.RE\n.fi\n"


def _option(parameter: Any, command: Any) -> str:
    record = parameter.get_help_record(typer.Context(command))
    names, text = record or (parameter.opts[0], "")
    return f".TP\n.B {_escape(names)}\n{_filled(text)}\n"


def _shared_options() -> Iterator[str]:
    shared = {
        "-c, --config FILE": "Configuration file.",
        "-o, --output table|json|ndjson|tsv": "Form of the data; a table on a terminal, JSON otherwise.",
        "-h, --help": "Help with an example.",
        "--version": "Versions of this program and of what it rests on.",
    }
    for name, text in shared.items():
        yield f".TP\n.B {_escape(name)}\n{_escape(text)}\n"


def _paragraphs(text: str) -> str:
    return "\n.PP\n".join(_filled(part) for part in text.split("\n\n")) + "\n"


def _filled(text: str) -> str:
    """A paragraph in lines that a person could edit; roff fills them again."""
    lines = wrap(re.sub(r"\s+", " ", text).strip(), _LINE_LENGTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(_escape(line) for line in lines)


def _escape(text: str) -> str:
    """Text for roff: no backslash, hyphen or leading dot that means anything."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return re.sub(r"^([.'])", r"\\&\1", escaped)
