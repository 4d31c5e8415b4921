"""Doing harm to a database file that is closed."""

import sqlite3
from contextlib import closing


def overwrite(path, old, new):
    """Replace octets in the file, of the same number."""
    assert len(old) == len(new)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def execute(path, *statements):
    """Edit the database by hand."""
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
