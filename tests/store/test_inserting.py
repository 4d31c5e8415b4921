"""Many rows go in with a few statements, and come out as they were."""

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.store.inserting import insert_rows

INSERT = "INSERT INTO thing (name, number)"


@pytest.fixture
def connection():
    with closing(memory()) as made:
        yield made


def memory():
    made = sqlite3.connect(":memory:", isolation_level=None)
    made.execute("CREATE TABLE thing (id INTEGER PRIMARY KEY, name TEXT UNIQUE, number INTEGER NOT NULL)")
    return made


def stored(connection):
    return connection.execute("SELECT name, number FROM thing ORDER BY id").fetchall()


@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-9, 9)),
        unique_by=lambda row: row[0],
        max_size=150,
    )
)
def test_every_row_is_stored_in_its_order(rows):
    with closing(memory()) as connection:
        insert_rows(connection, INSERT, rows)
        assert stored(connection) == rows


@pytest.mark.parametrize(("rows", "statements"), [(0, 0), (1, 1), (8, 1), (9, 2), (31, 5), (32, 1), (64, 2), (500, 17)])
def test_a_power_of_two_of_them_shares_a_statement(connection, rows, statements):
    seen = []
    connection.set_trace_callback(seen.append)
    insert_rows(connection, INSERT, [(str(number), number) for number in range(rows)])
    assert len(seen) == statements


def test_what_is_there_already_is_told_by_the_clause(connection):
    insert_rows(connection, INSERT, [("a", 1), ("b", 2)])
    insert_rows(
        connection,
        INSERT,
        [("b", 3), ("c", 4)],
        otherwise="ON CONFLICT (name) DO UPDATE SET number = excluded.number",
    )
    assert stored(connection) == [("a", 1), ("b", 3), ("c", 4)]


def test_a_row_that_is_refused_raises(connection):
    with pytest.raises(sqlite3.IntegrityError):
        insert_rows(connection, INSERT, [("a", 1), ("b", None)])
