"""The daemon with synchronous=NORMAL: the control run, which must lose what it has promised."""

import runpy

from provisiond.store import connection


def relax() -> None:
    """Have every connection of this process to a database promise before the disk has it."""
    connection._PRAGMAS = tuple(
        pragma.replace("synchronous=FULL", "synchronous=NORMAL") for pragma in connection._PRAGMAS
    )


if __name__ == "__main__":
    relax()
    runpy.run_module("provisiond", run_name="__main__")
