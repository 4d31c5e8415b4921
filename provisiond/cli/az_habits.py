"""What people who come from `az iot dps` type, in the words of this command line."""

from collections.abc import Sequence
from typing import Final

import typer

_EDGE: Final = ("--edge-enabled", "--ee")
_SECRETS: Final = {
    "--primary-key": "--primary-key-file",
    "--pk": "--primary-key-file",
    "--secondary-key": "--secondary-key-file",
    "--sk": "--secondary-key-file",
}


def translate(arguments: Sequence[str]) -> list[str]:
    """Arguments as this command line has them: `--edge-enabled true` is a flag without a value here.

    Args:
        arguments: of the whole command; what comes after `--` is left alone.

    Raises:
        typer.BadParameter: a key stands on the command line, where others can read it.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    translated: list[str] = []
    position = 0
    while position < end:
        name, is_joined, value = arguments[position].partition("=")
        position += 1
        if name in _SECRETS:
            raise typer.BadParameter(
                f"{name}: whoever lists processes reads keys on a command line; "
                f"write it to a file and give {_SECRETS[name]} FILE, or - for stdin"
            )
        if name not in _EDGE:
            translated.append(arguments[position - 1])
            continue
        if not is_joined and position < end and arguments[position].lower() in ("true", "false"):
            value = arguments[position]
            position += 1
        translated.append("--no-edge-enabled" if value.lower() == "false" else "--edge-enabled")
    return [*translated, *arguments[end:]]
