"""A database of every released schema opens, with a copy of it kept beside it, and has lost nothing."""

import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from hashlib import sha256

import pytest

from provisiond.model import EnrollmentKind
from provisiond.store import SqliteStore, schema
from provisiond.store.connection import connect_here
from provisiond.store.pending_devices import PendingDevices
from tests.store import released
from tests.store.records import AT, make_enrollment, make_write

NEWEST = len(schema.migrations())
VERSIONS = [version for version in range(1, NEWEST + 1) if released.schema_file(version).exists()]

FROZEN = (
    "bc4cdc15c87876e8f2e96fc6d54312870053608f6b77648f38dc3a66a6340f09",
    "4b2eb8baea3dedea7f314a6646e1d29f227152545ac122595c338fb8e62a978d",
    "71af76de1e32c417d028358606f434ed3f9d4aa27f359572059f4493390f5a6f",
    "64612ca1f879bc0dd287285efa95da27208bfd476d1bc9f6216b170febe317a6",
    "66efc4581e6f3b65335e15455e76b780081238220776e381eeb466a0bb301ca4",
    "f873205066fd03c79366f4b99297fa89978b64b9e354421ae4b115e721362889",
    "796dfc374026fb77c5ed4c88af587219e84f67523415c7f6cdf5070b5ed2fde8",
)
"""SHA-256 of each migration as it was released: a line and a database (released.py) for each."""


def test_no_released_migration_was_edited():
    """Databases out there have run it; what has to change goes into a new one."""
    scripts = [step.script.encode() for step in schema.migrations()]
    assert tuple(sha256(script).hexdigest() for script in scripts[: len(FROZEN)]) == FROZEN


def test_every_schema_has_its_database_but_the_one_that_is_not_released_yet():
    assert list(range(1, len(FROZEN) + 1)) == VERSIONS
    assert NEWEST - len(FROZEN) <= 1


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_database_of_every_schema_opens_with_what_was_in_it(path, version):
    released.restore(version, path)
    async with await SqliteStore.open(path) as store:
        for kind in EnrollmentKind:
            wanted = [one for one in released.ENROLLMENTS if one.kind is kind]
            assert list(await store.list_enrollments(kind, limit=10)) == wanted
        assert tuple(await store.list_registrations(limit=10)) == released.REGISTRATIONS
        assert tuple(record for _, record in await store.list_audit(limit=10)) == released.AUDIT
        assert (await store.verify_audit()).problem is None
        assert await store.get_twin("device-1") == released.TWIN
        message = await store.take_turn("device-1", now=AT, deliveries_max=10)
        assert (message.message_id, message.payload) == (released.MESSAGE.message_id, released.MESSAGE.payload)
        assert await store.draining_hubs() == {"old"}
        assert await store.revoked_certificates("ab" * 32) == {0x1234: AT.replace(microsecond=0)}
        assert await store.departures_of("device-1") == ([released.RETIREMENT] if version >= 5 else [])
        assert await store.get_subscriptions("device-1") == (released.SUBSCRIPTIONS if version >= 7 else {})
        waiting = [released.PENDING] if version >= 3 else []
        assert list(await PendingDevices(store).list()) == waiting
        assert await store.check() == ()


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_database_of_every_schema_is_written_on(path, version):
    released.restore(version, path)
    async with await SqliteStore.open(path) as store:
        await store.commit(make_write("Sensor-2", version=4))
        await store.commit(make_write("new"))
        assert await store.count_registrations() == {"assigned": 3}
        assert (await store.verify_audit()).count == len(released.AUDIT) + 2
        assert await store.check() == ()


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_copy_is_kept_before_each_migration_and_it_opens_too(path, version):
    released.restore(version, path)
    async with await SqliteStore.open(path):
        pass
    copies = {copy.name for copy in path.parent.glob(f"{path.name}.before-*")}
    assert copies == {f"{path.name}.before-{number}" for number in range(version + 1, NEWEST + 1)}
    for number in range(version + 1, NEWEST + 1):
        copy = path.with_name(f"{path.name}.before-{number}")
        with closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone()[0] == number - 1
        again = path.parent / "again" / path.name  # what somebody does who goes back
        again.parent.mkdir(exist_ok=True)
        shutil.copy(copy, again)
        async with await SqliteStore.open(again) as store:
            assert await store.get_enrollment(EnrollmentKind.INDIVIDUAL, make_enrollment().key) == make_enrollment()
        shutil.rmtree(again.parent)


def test_of_several_processes_that_come_at_once_one_migrates_and_all_are_served(path):
    """As when two daemons on one store are upgraded and started together."""
    released.restore(VERSIONS[-1], path)
    more = [*schema.migrations(), schema.Migration(version=NEWEST + 1, name="next.sql", script="CREATE TABLE x (y);")]

    def migrate():
        with closing(connect_here(path, read_only=False)) as connection:
            return schema.migrate(connection, path, more)

    with ThreadPoolExecutor(8) as pool:
        found = [result.result() for result in [pool.submit(migrate) for _ in range(8)]]
    assert set(found) <= set(range(VERSIONS[-1], NEWEST + 2))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == NEWEST + 1
    for number in range(VERSIONS[-1] + 1, NEWEST + 2):
        with closing(sqlite3.connect(path.with_name(f"{path.name}.before-{number}"))) as connection:
            assert connection.execute("PRAGMA user_version").fetchone()[0] == number - 1
    assert not list(path.parent.glob("*.part*"))
