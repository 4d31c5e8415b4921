"""Many rows in a few statements.

`executemany` gives up the interpreter's lock twice for every row, and to have it back may cost a change of threads
(`lending`), which takes longer than the row.
"""

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

_ROWS_MAX: Final = 32
"""Rows of one statement; at most six statements are prepared of each kind, one for each power of two."""


def insert_rows(
    connection: sqlite3.Connection, insert: str, values: Sequence[tuple[Any, ...]], *, otherwise: str = ""
) -> None:
    """Insert rows in their order.

    Args:
        connection: in a transaction of the caller's, which is to be rolled back when this raises.
        insert: such as `INSERT INTO audit (seq, record)`.
        values: the rows; all of one length.
        otherwise: what follows, such as an ON CONFLICT clause.

    Raises:
        sqlite3.Error: a row was refused.
    """
    position = 0
    while position < len(values):
        rest = min(len(values) - position, _ROWS_MAX)
        count = 1 << (rest.bit_length() - 1)
        some = values[position : position + count]
        connection.execute(_statement(insert, count, len(some[0]), otherwise), [value for row in some for value in row])
        position += count


@lru_cache(maxsize=64)
def _statement(insert: str, count: int, columns: int, otherwise: str) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"{insert} VALUES {', '.join([row] * count)} {otherwise}"
