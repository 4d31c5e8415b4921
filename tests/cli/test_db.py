"""`provisiond db`."""

import sqlite3
import stat
from contextlib import closing


def test_a_backup_brings_back_what_was_deleted(gateway, tmp_path):
    gateway("enrollment", "create", "a", "--attestation-type", "symmetricKey")
    gateway("db", "backup", tmp_path / "backup.db")
    assert stat.S_IMODE((tmp_path / "backup.db").stat().st_mode) == 0o600
    gateway("enrollment", "delete", "a")
    ended = gateway("db", "restore", tmp_path / "backup.db", "--yes", "--accept-unrevoke")
    assert "what was there is provisiond.db.before-restore" in ended.stderr
    gateway("enrollment", "show", "a")
    assert gateway("db", "check").json["ok"]


def test_damage_is_found(gateway):
    gateway("enrollment", "create", "a", "--attestation-type", "symmetricKey")
    file = gateway.directory / "state/provisiond.db"
    data = bytearray(file.read_bytes())
    place = data.index(b"symmetricKey", data.index(b'"a"'))
    data[place] ^= 1
    file.write_bytes(data)
    ended = gateway("db", "check", expect=1)
    assert not ended.json["ok"]
    assert "db restore FILE" in ended.stderr


def test_migrating_a_database_that_is_up_to_date_changes_nothing(gateway):
    assert "the schema is up to date" in gateway("db", "migrate").stderr


def test_a_database_or_backup_that_is_not_there_is_told(gateway, tmp_path):
    for words in (("check",), ("backup", tmp_path / "x"), ("restore", tmp_path / "x")):
        assert "there is no such database" in gateway("db", *words, expect=3).stderr


def test_a_file_of_something_else_is_not_restored(gateway, tmp_path):
    gateway("enrollment", "create", "a", "--attestation-type", "symmetricKey")
    (tmp_path / "junk").write_text("junk")
    gateway("db", "restore", tmp_path / "junk", expect=69)
    gateway("enrollment", "show", "a")


def test_a_database_that_cannot_be_opened_ends_with_69(gateway):
    (gateway.directory / "state/provisiond.db").write_bytes(b"not a database" * 1000)
    (gateway.directory / "state/provisiond.db").chmod(0o600)
    assert gateway("enrollment", "list", expect=69).stderr.startswith("error: ")


def test_a_database_that_is_to_be_migrated_is_backed_up_as_it_is(gateway, tmp_path):
    gateway("enrollment", "create", "sensor-7", "--attestation-type", "symmetricKey")
    set_version(gateway.directory / "state/provisiond.db", 1)
    gateway("enrollment", "list", expect=69)
    gateway("db", "backup", tmp_path / "backup.db")
    with closing(sqlite3.connect(tmp_path / "backup.db")) as copy:
        assert copy.execute("PRAGMA user_version").fetchone() == (1,)
        assert copy.execute("SELECT count(*) FROM enrollment").fetchone() == (1,)


def set_version(file, number):
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA user_version = {number}")


def test_a_backup_does_not_go_to_stdout(gateway, tmp_path, monkeypatch):
    gateway("enrollment", "create", "a", "--attestation-type", "symmetricKey")
    monkeypatch.chdir(tmp_path)
    assert "name a file" in gateway("db", "backup", "-", expect=2).stderr
    assert list(tmp_path.glob("-")) == []


def test_a_second_restore_keeps_what_the_first_one_has_put_aside(gateway, tmp_path):
    gateway("enrollment", "create", "a", "--attestation-type", "symmetricKey")
    gateway("db", "backup", tmp_path / "backup.db")
    gateway("enrollment", "create", "b", "--attestation-type", "symmetricKey")
    first = gateway("db", "restore", tmp_path / "backup.db", "--yes", "--accept-unrevoke")
    second = gateway("db", "restore", tmp_path / "backup.db", "--yes", "--accept-unrevoke")
    assert "what was there is provisiond.db.before-restore\n" in first.stderr
    assert "what was there is provisiond.db.before-restore-2\n" in second.stderr
    kept = gateway.directory / "state/provisiond.db.before-restore"
    gateway("db", "restore", kept, "--yes", "--accept-unrevoke")
    gateway("enrollment", "show", "b")


def test_where_no_database_was_none_is_said_to_be_kept(gateway, tmp_path):
    gateway("enrollment", "create", "a", "--attestation-type", "symmetricKey")
    gateway("db", "backup", tmp_path / "backup.db")
    (gateway.directory / "state/provisiond.db").unlink()
    ended = gateway("db", "restore", tmp_path / "backup.db", "--yes", "--accept-unrevoke")
    assert "what was there" not in ended.stderr
    gateway("enrollment", "show", "a")
