"""The audit trail on the command line: listed, followed, exported, verified."""

import asyncio
import base64
import json
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from provisiond.cli import follow
from provisiond.cli.times import parse_time
from provisiond.errors import InvalidArgument
from provisiond.model import AuditRecord
from provisiond.ports import Write
from provisiond.store import SqliteStore
from tests.fakes_decision import NOW
from tests.store.damage import execute


def record(number, **changes):
    values = {
        "tracking_id": f"t-{number}",
        "at": NOW - timedelta(hours=24 - number),
        "event": "register",
        "registration_id": f"pump-{number % 3}",
        "outcome": "refused",
        "code": 401002,
        "reason": "no",
        "actor": "10.0.0.7",
    }
    return AuditRecord(**(values | changes))


def commit(gateway, *records):
    async def write():
        async with await SqliteStore.open(gateway.directory / "state/provisiond.db") as store:
            for one in records:
                await store.commit(Write(audit=one))

    asyncio.run(write())


@pytest.fixture
def audited(gateway):
    commit(gateway, *(record(number) for number in range(1, 9)), record(9, code=None, outcome="assigned"))
    return gateway


def seqs(ended):
    return [body["seq"] for body in ended.json]


def test_the_newest_records_are_listed_oldest_first(audited):
    ended = audited("audit", "list", "--top", "3")
    assert seqs(ended) == [7, 8, 9]
    assert "audit list --before 7" in ended.stderr
    assert seqs(audited("audit", "list", "--top", "3", "--before", "7")) == [4, 5, 6]
    ended = audited("audit", "list", "--top", "2", "--after", "4")
    assert seqs(ended) == [5, 6] and "--after 6" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--registration-id", "PUMP-1"], [1, 4, 7]),
        (["--code", "401002", "--registration-id", "pump-0"], [3, 6]),
        (["--since", "16.5h"], [8, 9]),
        (["--until", "22.5h"], [1]),
        (["--since", "2999-01-01"], []),
    ],
)
def test_records_are_filtered_by_device_code_and_time(audited, arguments, expected):
    assert seqs(audited("audit", "list", *arguments)) == expected


def test_a_table_shows_who_did_what(audited):
    lines = audited("audit", "list", "--top", "1", "-o", "table").stdout.splitlines()
    assert lines[0].split()[:4] == ["SEQ", "AT", "EVENT", "ID"]
    assert "assigned" in lines[1] and "10.0.0.7" in lines[1] and "t-9" in lines[1]


@pytest.mark.parametrize("text", ["yesterday", "", "25:00"])
def test_a_time_that_is_none_is_a_usage_error(audited, text):
    if text:
        assert "--since" in audited("audit", "list", "--since", text, expect=2).stderr
    with pytest.raises(InvalidArgument):
        parse_time(text, "--since", now=NOW)


def test_following_shows_what_comes(audited, monkeypatch):
    """The third look ends it, as Ctrl-C would."""
    looks = []

    async def look(_seconds):
        looks.append(1)
        if len(looks) == 1:
            thread = threading.Thread(target=commit, args=(audited, record(10), record(11)))
            thread.start()
            thread.join()
        else:
            raise KeyboardInterrupt

    monkeypatch.setattr(follow.asyncio, "sleep", look)
    ended = audited("audit", "list", "--follow", "--registration-id", "pump-1", "-o", "ndjson", expect=130)
    assert [json.loads(line)["seq"] for line in ended.stdout.splitlines()] == [1, 4, 7, 10]


def test_a_whole_trail_verifies(audited):
    assert audited("audit", "verify").json["records"] == 9
    shown = audited("audit", "checkpoint")
    assert shown.json["seq"] == 9
    body = audited("audit", "verify").json
    assert body["ok"] and body["lastCheckpoint"]["seq"] == 9 and body["keyFrom"] == "the state directory"


def test_tampering_is_told_and_exits_1(audited, tmp_path):
    (tmp_path / "kept.json").write_text(audited("audit", "checkpoint").stdout)
    with closing(sqlite3.connect(audited.directory / "state/provisiond.db")) as connection:
        connection.execute("DROP TRIGGER audit_is_append_only")
        connection.execute("UPDATE audit SET record = replace(record, '10.0.0.7', '10.0.0.8') WHERE seq = 5")
        connection.commit()
    body = audited("audit", "verify", "--checkpoint", tmp_path / "kept.json", expect=1).json
    assert not body["ok"] and body["problem"] == "row 5 is not what was written"


def test_an_export_verifies_elsewhere_with_the_key_of_the_site(audited, tmp_path):
    audited("audit", "checkpoint")
    (tmp_path / "site.pub").write_text(audited("audit", "key").stdout)
    file = tmp_path / "audit.ndjson"
    assert "9 records" in audited("audit", "export", file).stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    body = audited("audit", "verify", "--file", file, "--public-key", tmp_path / "site.pub").json
    assert body["ok"] and (body["records"], body["checkpoints"]) == (9, 1)
    assert "the key that the export brings" in audited("audit", "verify", "--file", file).stderr
    assert audited("audit", "export").stdout == file.read_text()
    assert audited("audit", "verify", "--file", "-", stdin=file.read_text()).json["ok"]
    file.write_bytes(file.read_bytes()[:-100])
    assert "after row 9 is damaged" in audited("audit", "verify", "--file", file, expect=1).json["problem"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--file", "x", "--checkpoint", "x"], "brings its own"),
        (["--public-key", "x"], "not base64"),
        (["--checkpoint", "x"], "no checkpoint"),
        (["--file", "x"], "no audit export"),
    ],
)
def test_what_cannot_be_verified_is_a_usage_error(audited, tmp_path, arguments, said):
    (tmp_path / "x").write_text('{"a": "b"}')
    arguments = [tmp_path / "x" if argument == "x" else argument for argument in arguments]
    assert said in audited("audit", "verify", *arguments, expect=2).stderr


def test_an_export_without_a_checkpoint_is_nobodys(audited, tmp_path):
    export, key = tmp_path / "audit.ndjson", tmp_path / "site.pub"
    key.write_text(audited("audit", "key").stdout)
    audited("audit", "export", export)
    ended = audited("audit", "verify", "--file", export, "--public-key", key, expect=1)
    assert "no checkpoint is in it" in ended.json["problem"]
    assert "audit checkpoint" in ended.stderr and "db check" not in ended.stderr
    audited("audit", "checkpoint")
    audited("audit", "export", export)
    assert audited("audit", "verify", "--file", export, "--public-key", key).json["ok"]
    audited("audit", "checkpoint")
    commit(audited, record(10))
    audited("audit", "export", export)
    ended = audited("audit", "verify", "--file", export, "--public-key", key)
    assert ended.json["signedUpTo"] == 9 and "not signed yet are the newest 1;" in ended.stderr
    assert "not signed yet are the newest 1;" in audited("audit", "verify").stderr


def test_who_reads_an_export_may_have_seen_enough_and_a_full_disk_is_not_the_databases(gateway):
    commit(gateway, *(record(number, reason="x" * 2000) for number in range(1, 100)))
    command = [sys.executable, "-m", "provisiond", "-c", str(gateway.config), "audit", "export"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=120) == 0
        assert b"error" not in process.stderr.read()
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=120, check=False)
    assert ended.returncode == 1 and b"error: No space left on device" in ended.stderr


def test_a_table_names_the_group_that_was_changed(gateway):
    gateway("enrollment-group", "create", "line-4")
    assert "line-4" in gateway("audit", "list", "-o", "table").stdout


def test_before_the_first_run_there_is_no_trail(gateway):
    for command in (["list"], ["verify"], ["export"], ["checkpoint"]):
        assert "no database yet" in gateway("audit", *command, expect=3).stderr


# --- restoring -------------------------------------------------------------------------------------------------------


@pytest.fixture
def backed_up(gateway, tmp_path):
    """Three enrollments and a backup; then one was disabled, one deleted, and a new one was made to keep a device out."""
    for number in (1, 2, 3):
        gateway("enrollment", "create", f"pump-{number}", "--attestation-type", "symmetricKey")
    gateway("db", "backup", tmp_path / "backup.db")
    return gateway, tmp_path / "backup.db"


def enrolled(gateway):
    return {body["registrationId"]: body["provisioningStatus"] for body in gateway("enrollment", "list").json}


def test_a_backup_from_before_a_revocation_is_refused(backed_up):
    gateway, backup = backed_up
    gateway("enrollment", "disable", "pump-1")
    gateway("enrollment", "delete", "pump-2", "--yes")
    gateway("enrollment", "create", "lost", "--attestation-type", "symmetricKey", "--provisioning-status", "disabled")
    before = enrolled(gateway)
    ended = gateway("db", "restore", backup, "--yes", expect=1)
    assert "would come back: individual pump-1 was disabled after this backup" in ended.stderr
    assert "would come back: individual pump-2 was deleted after this backup" in ended.stderr
    assert "would come back: individual lost was disabled after this backup" in ended.stderr
    assert "--accept-unrevoke" in ended.stderr and "nothing was restored" in ended.stderr
    assert enrolled(gateway) == before


def test_a_backup_with_a_key_that_was_taken_away_is_refused(backed_up, tmp_path):
    gateway, backup = backed_up
    (tmp_path / "new.key").write_text(base64.b64encode(b"n" * 32).decode())
    gateway("enrollment", "update", "pump-1", "--primary-key-file", tmp_path / "new.key")
    gateway("enrollment", "delete", "pump-2", "--yes")
    gateway("enrollment", "create", "pump-2", "--attestation-type", "symmetricKey")
    ended = gateway("db", "restore", backup, "--yes", expect=1)
    for device in ("pump-1", "pump-2"):
        assert f"individual {device} had a key, certificate or id that was taken away" in ended.stderr
    assert "pump-3" not in ended.stderr


def test_a_backup_with_an_id_that_a_tpm_group_has_no_more_is_refused(gateway, tmp_path):
    ids = tmp_path / "ids"
    ids.write_text("pump-1\nPump-2\n")
    gateway("enrollment-group", "create", "tpms", "--attestation-type", "tpm", "--allowed-ids", ids)
    gateway("db", "backup", tmp_path / "backup.db")
    ids.write_text("pump-2\npump-3\n")
    gateway("enrollment-group", "update", "tpms", "--allowed-ids", ids)
    assert (
        "group tpms had a key, certificate or id"
        in gateway("db", "restore", tmp_path / "backup.db", "--yes", expect=1).stderr
    )


def test_what_a_damaged_record_says_may_be_a_revocation(backed_up):
    gateway, backup = backed_up
    execute(gateway.directory / "state/provisiond.db", "UPDATE enrollment SET record = '{' WHERE key = 'pump-3'")
    ended = gateway("db", "restore", backup, "--yes", expect=1)
    assert "damaged table enrollment" in ended.stderr
    gateway("db", "restore", backup, "--yes", "--accept-unrevoke")


def test_it_is_restored_when_the_operator_accepts_that_and_the_trail_says_so(backed_up):
    gateway, backup = backed_up
    gateway("enrollment", "disable", "pump-1")
    gateway("db", "restore", backup, "--yes", "--accept-unrevoke")
    assert enrolled(gateway) == dict.fromkeys(("pump-1", "pump-2", "pump-3"), "enabled")
    last = gateway("audit", "list", "--top", "1").json[0]
    assert last["event"] == "db.restore" and "pump-1 was disabled" in last["reason"]
    assert gateway("audit", "verify").json["ok"]


def test_a_backup_that_gives_nothing_back_is_restored_as_before(backed_up):
    gateway, backup = backed_up
    gateway("enrollment", "create", "pump-4", "--attestation-type", "symmetricKey")
    gateway("db", "restore", backup, "--yes")
    assert set(enrolled(gateway)) == {"pump-1", "pump-2", "pump-3"}


def test_a_lost_database_is_remembered_by_the_file_beside_it(backed_up):
    gateway, backup = backed_up
    gateway("enrollment", "disable", "pump-1")
    gateway("audit", "checkpoint")
    for file in (gateway.directory / "state").glob("provisiond.db*"):
        file.unlink()
    ended = gateway("db", "restore", backup, "--yes", expect=1)
    assert "1 enrollments or certificates were disabled" in ended.stderr
    gateway("db", "restore", backup, "--yes", "--accept-unrevoke")
    assert gateway("audit", "verify").json["ok"]


def test_a_damaged_database_can_be_replaced(backed_up):
    gateway, backup = backed_up
    (gateway.directory / "state/provisiond.db").write_bytes(b"\x00" * 8192)
    gateway("db", "restore", backup, "--yes")
    assert set(enrolled(gateway)) == {"pump-1", "pump-2", "pump-3"}
