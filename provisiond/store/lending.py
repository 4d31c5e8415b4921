"""The interpreter's lock, left to another thread for as long as it needs it.

Python has one lock for all threads. SQLite gives it up at every step of a statement and OpenSSL at every call, and to
have it back costs a change of threads when somebody else took it meanwhile: with the event loop busy, about five a
registration, which is a tenth of its CPU time. So the event loop stands still while a group of statements runs, and is
woken once. It would have got nothing done: what a statement needs is the lock, hardly ever the disk.
"""

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Final, TypeVar

T = TypeVar("T")

LOAN_S: Final = 0.002
"""How long the event loop stands still at the most, such as for a disk or for another process's transaction. A group
that the load makes takes a fraction of that."""


class Loan:
    """One thread waits for another one, until that says so or `LOAN_S` have passed."""

    __slots__ = ("_end",)

    def __init__(self) -> None:
        self._end = Lock()
        self._end.acquire()

    def end(self) -> None:
        """Let the lender go on; from the other thread, as often as it likes."""
        with suppress(RuntimeError):  # it has been ended already
            self._end.release()

    def wait(self) -> None:
        """Stand still; the lender."""
        self._end.acquire(timeout=LOAN_S)

    def spend(self, function: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
        """Call the function; the loan ends with it, whatever comes of it."""
        try:
            return function(connection)
        finally:
            self.end()
