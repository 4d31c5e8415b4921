"""How a command ends: the one place where errors become exit codes and messages."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Final

import typer

from provisiond import errors


class ExitCode(IntEnum):
    """Exit codes of every command; 64 and above are those of sysexits.h."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    REFUSED = 5
    UNAVAILABLE = 69
    TRY_LATER = 75
    CONFIGURATION = 78
    INTERRUPTED = 130


# The first that fits decides: special before general.
_CODES: Final[tuple[tuple[type[Exception], ExitCode], ...]] = (
    (errors.InvalidArgument, ExitCode.USAGE),
    (errors.RecordNotFound, ExitCode.NOT_FOUND),
    (errors.AlreadyExists, ExitCode.CONFLICT),
    (errors.EtagMismatch, ExitCode.CONFLICT),
    (errors.AddressUnavailable, ExitCode.TRY_LATER),
    (errors.ConfigurationError, ExitCode.CONFIGURATION),
    (errors.VersionConflict, ExitCode.TRY_LATER),
    (errors.Throttled, ExitCode.TRY_LATER),
    (errors.StoreError, ExitCode.UNAVAILABLE),
    (errors.DeviceFault, ExitCode.REFUSED),
    (errors.ConnectRefused, ExitCode.REFUSED),
    (ConnectionError, ExitCode.UNAVAILABLE),
)


def exit_code_of(error: Exception) -> ExitCode:
    """The exit code of an error that a command may end with."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILED)


@contextmanager
def ending() -> Iterator[None]:
    """Run a command in it: what was foreseen ends with a message on stderr and its exit code, without a traceback.

    Raises:
        typer.Exit: with the exit code.
    """
    try:
        yield
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort) as error:
        print(file=sys.stderr)
        raise typer.Exit(ExitCode.INTERRUPTED) from error
    except BrokenPipeError as error:
        # Whoever read our output has seen enough; the interpreter must not find the broken pipe when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(ExitCode.OK) from error
    except errors.ProvisiondError as error:
        print_error(str(error))
        raise typer.Exit(exit_code_of(error)) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print_error(f"{where}{error.strerror or error}")
        raise typer.Exit(exit_code_of(error)) from error


def print_error(message: str) -> None:
    """Say what went wrong; further lines are indented."""
    label = "\x1b[1;31merror:\x1b[0m" if sys.stderr.isatty() else "error:"
    lines = message.splitlines() or [""]
    if len(lines) > 1:
        lines.insert(0, "")
    print(label, "\n  ".join(lines), file=sys.stderr)
