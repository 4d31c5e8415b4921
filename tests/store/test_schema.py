"""Migrations, and databases that are not ours to open."""

import sqlite3
import stat
from contextlib import closing

import pytest

from provisiond.errors import SchemaTooNew, StoreUnavailable
from provisiond.store import SqliteStore, enrollments, schema
from provisiond.store.connection import connect_here
from provisiond.store.schema import Migration
from tests.store.damage import execute
from tests.store.records import make_write

NEXT = Migration(
    version=len(schema.migrations()) + 1,
    name="next",
    script="-- a comment; with a semicolon\nCREATE TABLE later (a TEXT) STRICT;\n"
    "CREATE TRIGGER t AFTER INSERT ON later\nBEGIN\n    SELECT 1;\n    SELECT 2;\nEND;\n-- the end\n",
)


@pytest.fixture
async def closed(path):
    async with await SqliteStore.open(path) as store:
        await store.commit(make_write())
    return path


def migrate(path, *more):
    with closing(connect_here(path, read_only=False)) as connection:
        return schema.migrate(connection, path, [*schema.migrations(), *more])


def value(path, statement):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchone()[0]


def test_the_schema_is_strict_and_numbered(closed):
    assert value(closed, "PRAGMA user_version") == len(schema.migrations())
    assert value(closed, "PRAGMA application_id") == schema.APPLICATION_ID
    assert value(closed, "PRAGMA journal_mode") == "wal"
    loose = "SELECT count(*) FROM pragma_table_list WHERE schema = 'main' AND NOT strict AND name NOT LIKE 'sqlite_%'"
    assert value(closed, loose) == 0


async def test_every_opening_is_counted_in_the_file(closed):
    async with await SqliteStore.open(closed):
        pass
    assert value(closed, "SELECT value FROM meta WHERE name = 'opened'") == 2


def test_a_migration_keeps_a_copy_of_what_was_there(closed):
    assert migrate(closed, NEXT) == NEXT.version - 1
    copy = closed.with_name(f"{closed.name}.before-{NEXT.version}")
    assert value(closed, "PRAGMA user_version") == NEXT.version
    assert value(copy, "PRAGMA user_version") == NEXT.version - 1
    assert value(copy, "SELECT count(*) FROM registration") == 1
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600


def test_a_new_database_needs_no_copy(path):
    path.touch(mode=0o600)
    assert migrate(path, NEXT) == 0
    assert not list(path.parent.glob("*.before-*"))


def test_a_migration_that_fails_leaves_the_schema_as_it_was(closed):
    broken = Migration(version=NEXT.version, name="broken", script="CREATE TABLE a (b);\nCREATE TABLE a (b);\n")
    with pytest.raises(sqlite3.Error, match="already exists"):
        migrate(closed, broken)
    assert value(closed, "PRAGMA user_version") == NEXT.version - 1
    assert value(closed, "SELECT count(*) FROM sqlite_schema WHERE name = 'a'") == 0
    assert migrate(closed, NEXT) == NEXT.version - 1


def test_a_migration_that_is_cut_off_is_refused(closed):
    with pytest.raises(StoreUnavailable, match="middle of a statement"):
        migrate(closed, Migration(version=NEXT.version, name="cut", script="CREATE TABLE a (b);\nCREATE TABLE"))
    assert value(closed, "PRAGMA user_version") == NEXT.version - 1


def test_a_migration_that_another_process_has_made_is_not_made_twice(closed):
    migrate(closed, NEXT)
    with closing(connect_here(closed, read_only=False)) as connection:
        schema._apply(connection, [NEXT])


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_newer_schema_is_refused_with_both_versions_and_the_way_out(closed, read_only):
    execute(closed, "PRAGMA user_version=99")
    known = len(schema.migrations())
    with pytest.raises(SchemaTooNew, match=rf"version 99, .* up to {known}: upgrade provisiond, or restore a backup"):
        await SqliteStore.open(closed, read_only=read_only)
    assert value(closed, "PRAGMA user_version") == 99


async def test_an_older_schema_is_refused_when_it_may_not_be_migrated(path):
    path.touch(mode=0o600)
    with closing(connect_here(path, read_only=False)) as connection:
        schema.migrate(connection, path, schema.migrations()[:-1])
    with pytest.raises(StoreUnavailable, match="db migrate"):
        await SqliteStore.open(path, migrate=False)


async def test_a_file_that_a_killed_process_has_left_empty_is_made_whole(path):
    path.touch(mode=0o600)
    async with await SqliteStore.open(path, migrate=False) as store:
        await store.commit(make_write())
    assert value(path, "PRAGMA user_version") == len(schema.migrations())


def test_a_new_schema_is_whole_or_not_there(path):
    path.touch(mode=0o600)
    broken = Migration(version=NEXT.version, name="broken", script="CREATE TABLE a (b);\nCREATE TABLE a (b);\n")
    with pytest.raises(sqlite3.Error, match="already exists"):
        migrate(path, broken)
    assert value(path, "PRAGMA user_version") == value(path, "SELECT count(*) FROM sqlite_schema") == 0


@pytest.mark.parametrize("statement", ["CREATE TABLE theirs (a)", "PRAGMA user_version=1", "PRAGMA application_id=7"])
async def test_the_database_of_another_program_is_left_alone(path, statement):
    execute(path, statement)
    path.chmod(0o600)
    with pytest.raises(StoreUnavailable, match="another program"):
        await SqliteStore.open(path)


def test_what_the_configuration_declares_is_found_by_an_index(closed):
    with closing(connect_here(closed, read_only=True)) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {enrollments._DECLARED}").fetchall()
    assert b"USING INDEX enrollment_declared" in plan[0][-1]
