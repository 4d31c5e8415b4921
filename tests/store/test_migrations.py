"""A database of every schema opens, is brought up to date with a copy kept beside it, and has lost nothing."""

import sqlite3
from contextlib import closing

import pytest

from provisiond.model import EnrollmentKind
from provisiond.store import SqliteStore, rows, schema
from provisiond.store.connection import connect_here
from tests.store.records import make_enrollment

VERSIONS = range(1, len(schema.migrations()) + 1)


def made_by(path, version):
    """A database as the release with that schema left it, with an enrollment."""
    with closing(sqlite3.connect(path)):
        pass
    path.chmod(0o600)
    with closing(connect_here(path, read_only=False)) as connection:
        schema.migrate(connection, path, schema.migrations()[:version])
        row = rows.enrollment_row(make_enrollment(), rows.RowDigest(rows.read_digest_key(connection)))
        connection.execute(
            "INSERT INTO enrollment (key, kind, attestation_type, etag, record, digest) VALUES (?, ?, ?, ?, ?, ?)",
            (row.key, row.kind, row.attestation_type, row.etag, row.record, row.digest),
        )


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_database_of_every_schema_opens_with_what_was_in_it(path, version):
    made_by(path, version)
    async with await SqliteStore.open(path) as store:
        found = await store.get_enrollment(EnrollmentKind.INDIVIDUAL, make_enrollment().key)
        assert found == make_enrollment()
        assert await store.check() == ()
    copies = sorted(copy.name for copy in path.parent.glob(f"{path.name}.before-*"))
    assert copies == [f"{path.name}.before-{number}" for number in VERSIONS if number > version]
