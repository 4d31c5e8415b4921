"""Backups that can be relied upon, and restoring them."""

import os
import stat

import pytest

from provisiond.errors import InvalidArgument, SchemaTooNew, StoreUnavailable
from provisiond.store import SqliteStore, restore_backup
from tests.store.damage import execute, overwrite
from tests.store.records import make_audit, make_enrollment, make_group, make_write


@pytest.fixture
async def backup(path, store):
    """A backup with one registration, of a store that goes on."""
    await store.create_enrollment(make_enrollment(), make_audit("before-1"))
    await store.commit(make_write("Device-1"))
    target = path.with_name("backup.db")
    await store.backup(target)
    await store.commit(make_write("Device-2"))
    return target


async def test_a_backup_is_one_sound_file_of_its_owner_alone(backup):
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert not list(backup.parent.glob("*backup.db?*"))
    async with await SqliteStore.open(backup, read_only=True) as copy:
        assert await copy.check() == ()
        assert await copy.count_registrations() == {"assigned": 1}


async def test_a_backup_replaces_an_older_one(store, backup):
    await store.backup(backup)
    async with await SqliteStore.open(backup, read_only=True) as copy:
        assert await copy.count_registrations() == {"assigned": 2}


async def test_the_database_is_not_its_own_backup(store, path):
    with pytest.raises(InvalidArgument, match="is the database itself"):
        await store.backup(path)


async def test_a_backup_that_cannot_be_written_leaves_nothing_behind(store, tmp_path):
    with pytest.raises(StoreUnavailable):
        await store.backup(tmp_path / "missing" / "backup.db")
    (tmp_path / "directory").mkdir()
    with pytest.raises(StoreUnavailable):
        await store.backup(tmp_path / "directory")
    assert not list(tmp_path.rglob("*.part*"))
    assert not store.fatal.is_set()


async def test_a_restored_backup_is_the_database_and_the_former_one_is_kept(path, store, backup):
    await store.close()
    restore_backup(backup, path)
    async with await SqliteStore.open(path) as restored:
        assert await restored.count_registrations() == {"assigned": 1}
        assert await restored.check() == ()
        await restored.commit(make_write("Device-3"))
    async with await SqliteStore.open(path.with_name(f"{path.name}.before-restore")) as former:
        assert await former.count_registrations() == {"assigned": 2}


async def test_a_database_in_use_is_not_restored_over(path, store, backup):
    with pytest.raises(StoreUnavailable, match="stop the daemon first"):
        restore_backup(backup, path)
    assert await store.count_registrations() == {"assigned": 2}
    await store.commit(make_write("Device-3"))


async def test_a_backup_is_restored_where_there_is_no_database(tmp_path, backup):
    restore_backup(backup, tmp_path / "new.db")
    async with await SqliteStore.open(tmp_path / "new.db") as restored:
        assert await restored.count_registrations() == {"assigned": 1}


async def test_a_backup_is_restored_over_a_ruined_database(path, store, backup):
    await store.close()
    path.write_bytes(b"\xff" * 8192)
    path.with_name(f"{path.name}-wal").write_bytes(b"left over")
    restore_backup(backup, path)
    async with await SqliteStore.open(path) as restored:
        assert await restored.check() == ()


async def test_a_damaged_backup_is_not_restored(path, store, backup):
    await store.close()
    overwrite(backup, b"gateway.local", b"gateway.lokal")
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable, match="damaged and was not restored: the record 'device-1' in table registr"):
        restore_backup(backup, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("size", [0, 100, 5000])
async def test_a_truncated_backup_is_not_restored(path, store, backup, size):
    await store.close()
    backup.write_bytes(backup.read_bytes()[:size])
    with pytest.raises(StoreUnavailable):
        restore_backup(backup, path)
    assert not list(path.parent.glob("*.part*"))


async def test_a_backup_of_a_newer_provisiond_is_not_restored(path, store, backup):
    await store.close()
    execute(backup, "PRAGMA user_version=99")
    with pytest.raises(SchemaTooNew, match="99"):
        restore_backup(backup, path)


async def test_a_file_that_is_no_backup_is_not_restored(path, store, tmp_path):
    await store.close()
    (tmp_path / "text").write_text("not a database, but long enough to be taken for one" * 20)
    with pytest.raises(StoreUnavailable, match="text is damaged, or no backup, and was not restored"):
        restore_backup(tmp_path / "text", path)
    with pytest.raises(StoreUnavailable):
        restore_backup(tmp_path / "missing", path)


async def test_what_a_killed_process_left_is_removed_and_what_a_running_one_writes_is_not(path, store, backup):
    await store.close()
    gone, running = 2**22 + 1, os.getppid()  # the first is more than a process can have
    parts = [path.with_name(f".{path.name}.{number}.part") for number in (gone, running)]
    for part in (*parts, parts[0].with_name(f"{parts[0].name}-journal")):
        part.write_bytes(b"half")
    restore_backup(backup, path)
    assert list(path.parent.glob("*.part*")) == [parts[1]]


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE registration SET hub = 'elsewhere'", "do not agree"),
        ("UPDATE registration SET version = 7", "'device-1' in table registration"),
        ("UPDATE enrollment SET record = replace(record, 'local', 'LOCAL') WHERE kind = 'individual'", "'device-1' in"),
        ("UPDATE enrollment SET attestation_type = 'tpm' WHERE kind = 'group'", "enrollment 'g' do not agree"),
        ("UPDATE enrollment SET etag = 'other' WHERE kind = 'group'", "enrollment 'g' do not agree"),
        ("UPDATE registration SET endorsement_key_hash = '00'", "registration 'device-1' do not agree"),
        ("INSERT INTO enrollment_certificate VALUES ('00', 99)", "refers to a missing row"),
        ("UPDATE registration_count SET total = 9", "counters"),
        ("UPDATE audit_chain SET head_seq = 9", "audit: "),
        ("DELETE FROM meta WHERE name = 'digest_key'", "digest_key"),
    ],
)
async def test_a_check_finds_what_does_not_agree(path, statement, problem):
    async with await SqliteStore.open(path) as store:
        await store.create_enrollment(make_enrollment(), make_audit())
        await store.create_enrollment(make_group("g"), make_audit())
        await store.commit(make_write())
        assert await store.check() == ()
        execute(path, statement)
        if "digest_key" in problem:
            with pytest.raises(Exception, match=problem):
                await store.check()
        else:
            assert any(problem in line for line in await store.check())


@pytest.mark.parametrize("table", ["enrollment", "registration"])
async def test_a_sample_finds_a_damaged_row_of_those_it_looks_at(path, monkeypatch, table):
    monkeypatch.setattr("provisiond.store.backup.SAMPLE_ROWS", 3)
    async with await SqliteStore.open(path) as store:
        for number in range(1, 10):
            await store.create_enrollment(make_enrollment(f"device-{number}"), make_audit())
            await store.commit(make_write(f"device-{number}"))
        assert await store.check(sample=True) == ()
        execute(path, f"UPDATE {table} SET record = replace(record, 'device-2', 'device-x')")
        assert await store.check(sample=True) == (), "the second row is not one of three in nine"
        execute(path, f"UPDATE {table} SET record = replace(record, 'device-6', 'device-x')")
        (problem,) = await store.check(sample=True)
        assert "device-6" in problem
