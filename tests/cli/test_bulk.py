"""Importing and exporting enrollments on the command line."""

import asyncio
import base64
import json
import os
import pty
import re
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing, contextmanager, suppress
from subprocess import PIPE

import pytest

from provisiond.admin.bulk import Importer, ImportOptions
from provisiond.cli.session import load, make_admin
from provisiond.errors import AlreadyExists, StoreUnavailable
from provisiond.protocols.bulk import BulkFormat, read_bulk
from provisiond.store import SqliteStore
from provisiond.store.staging import BulkTables, ImportStaging
from tests.certificates import make_ca
from tests.store.damage import execute

HEADER = "registrationId,attestation.type,deviceId\n"


def rows(*ids, device="d"):
    return HEADER + "".join(f"{id_},symmetricKey,{device}-{id_}\n" for id_ in ids)


def enrolled(gateway):
    return [body["registrationId"] for body in gateway("enrollment", "list", "--top", "10000").json]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "devices.csv"
    path.write_text(rows("pump-1", "pump-2", "pump-3"))
    return path


def report_of(path):
    return [json.loads(line) for line in path.with_name(f"{path.name}.report.ndjson").read_text().splitlines()]


def test_all_rows_are_enrolled_each_with_its_audit_record(gateway, file):
    ended = gateway("enrollment", "import", file)
    assert {name: ended.json[name] for name in ("rows", "create", "refuse", "stored")} == {
        "rows": 3,
        "create": 3,
        "refuse": 0,
        "stored": True,
    }
    assert enrolled(gateway) == ["pump-1", "pump-2", "pump-3"]
    assert [record.event for record in gateway.audit()] == ["enrollment.create"] * 3
    assert not file.with_name("devices.csv.report.ndjson").exists()
    assert gateway("db", "check").json["ok"] and gateway("audit", "verify").json["ok"]


def test_one_bad_row_and_nothing_is_stored(gateway, file):
    file.write_text(rows("pump-1", "pump 2", "pump-3"))
    ended = gateway("enrollment", "import", file, expect=1)
    assert "row 2, line 3 (pump 2): registration id 'pump 2' is not" in ended.stderr
    assert "nothing was stored" in ended.stderr and not ended.json["stored"]
    assert enrolled(gateway) == []
    assert [line["verdict"] for line in report_of(file)] == ["create", "refuse", "create"]


def test_keep_going_stores_the_others(gateway, file):
    file.write_text(rows("pump-1", "pump 2", "pump-3"))
    assert gateway("enrollment", "import", file, "--keep-going", expect=1).json["create"] == 2
    assert enrolled(gateway) == ["pump-1", "pump-3"]


def test_a_dry_run_stores_nothing(gateway, file):
    ended = gateway("enrollment", "import", file, "--dry-run")
    assert ended.json["create"] == 3 and ended.json["dryRun"] and not ended.json["stored"]
    assert enrolled(gateway) == []


def test_importing_again_changes_nothing(gateway, file):
    gateway("enrollment", "import", file)
    assert gateway("enrollment", "import", file).json["unchanged"] == 3
    assert len(gateway.audit()) == 3


@pytest.mark.parametrize(
    ("choice", "expect", "action", "device"),
    [("fail", 4, "refuse", "d-pump-1"), ("skip", 0, "skip", "d-pump-1"), ("update", 0, "update", "e-pump-1")],
)
def test_what_is_enrolled_differently_fails_is_skipped_or_updated(gateway, file, choice, expect, action, device):
    gateway("enrollment", "import", file)
    keys = gateway("enrollment", "show", "pump-1", "--show-keys").json["attestation"]
    file.write_text(rows("PUMP-1", device="e").replace("e-PUMP-1", "e-pump-1"))
    ended = gateway("enrollment", "import", file, "--on-conflict", choice, expect=expect)
    assert ended.json[action] == 1
    shown = gateway("enrollment", "show", "pump-1", "--show-keys").json
    assert (shown["registrationId"], shown["deviceId"]) == ("pump-1", device)
    assert shown["attestation"] == keys


def test_ids_that_are_there_twice_are_refused_case_twins_too(gateway, file):
    file.write_text(rows("pump-1", "pump-2", "pump-1", "Pump-2"))
    ended = gateway("enrollment", "import", file, expect=1)
    assert "row 3, line 4 (pump-1): row 1 has this id already" in ended.stderr
    assert "row 4, line 5 (Pump-2): row 2 has this id already" in ended.stderr


def test_of_a_thousand_bad_rows_twenty_are_shown_and_all_are_in_the_report(gateway, file, tmp_path):
    file.write_text(rows(*(f"bad id {number}" for number in range(1000))))
    report = tmp_path / "report.ndjson"
    ended = gateway("enrollment", "import", file, "--report", report, expect=1)
    assert len([line for line in ended.stderr.splitlines() if line.startswith("row ")]) == 20
    assert f"and more: {report} has them all" in ended.stderr
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert len(lines) == 1000 and all(line["verdict"] == "refuse" and line["reason"] for line in lines)
    assert stat.S_IMODE(report.stat().st_mode) == 0o600


def test_stdin_and_other_forms_are_imported(gateway):
    body = {"registrationId": "pump-1", "attestation": {"type": "symmetricKey"}}
    assert gateway("enrollment", "import", "-", stdin=json.dumps([body])).json["create"] == 1
    things = '{"thingName": "pump-2", "attributes": {"site": "north"}}\n'
    assert gateway("enrollment", "import", "-", "--format", "aws", stdin=things).json["create"] == 1
    assert gateway("enrollment", "show", "pump-2").json["initialTwin"]["tags"] == {"site": "north"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("hello\n", "form of the file cannot be told"),
        ("registrationId,attestation.typ\n", "'attestation.typ' is not known"),
    ],
)
def test_a_file_of_another_kind_is_a_usage_error(gateway, file, text, said):
    file.write_text(text)
    assert said in gateway("enrollment", "import", file, expect=2).stderr


def test_nothing_is_left_of_an_import_that_did_not_begin(gateway, file):
    file.write_text("hello\n")
    gateway("enrollment", "import", file, expect=2)
    assert not file.with_name("devices.csv.report.ndjson").exists()


def test_what_a_file_of_another_service_says_besides_is_told(gateway, file):
    things = [{"thingName": f"pump-{number}", "thingArn": "arn"} for number in range(3)]
    file.write_text("\n".join(map(json.dumps, things)))
    for arguments in (["--dry-run"], []):
        ended = gateway("enrollment", "import", file, *arguments)
        assert "3 rows: thingArn is not imported" in ended.stderr and "3 rows: a key was generated" in ended.stderr
        assert ended.json["report"] and report_of(file)[2]["notes"][0] == "thingArn is not imported"


def test_a_dry_run_names_the_command_that_imports(gateway, tmp_path):
    path = tmp_path / "new devices.csv"
    path.write_text(rows("pump-1"))
    ended = gateway("enrollment", "import", path, "--dry-run", "--on-conflict", "update", "--format", "csv")
    assert f"enrollment import '{path}' --format csv --on-conflict update" in ended.stderr


def test_hubs_of_azure_are_left_out_unless_they_are_linked(gateway, file):
    body = {
        "registrationId": "pump-1",
        "attestation": {"type": "symmetricKey"},
        "iotHubHostName": "a.azure-devices.net",
    }
    file.write_text(json.dumps({"mode": "create", "enrollments": [body]}))
    assert "a.azure-devices.net" in gateway("enrollment", "import", file).stderr
    assert "iotHubs" not in gateway("enrollment", "show", "pump-1").json


def test_resuming_needs_keep_going(gateway, file):
    assert "--keep-going" in gateway("enrollment", "import", file, "--resume", expect=2).stderr


def test_an_import_goes_on_where_its_report_ends(gateway, file, tmp_path):
    """As after a kill: two rows are settled, the third line of the report was cut off in the middle."""
    report = tmp_path / "report"
    first = file.with_name("first.csv")
    first.write_text(rows("pump-1", "pump-2"))
    gateway("enrollment", "import", first, "--keep-going", "--report", report)
    with report.open("a") as stream:
        stream.write('{"row": 3, "li')
    ended = gateway("enrollment", "import", file, "--keep-going", "--resume", "--report", report)
    assert (ended.json["rows"], ended.json["create"], ended.json["resumedAfter"]) == (1, 1, 2)
    assert [json.loads(line)["id"] for line in report.read_text().splitlines()] == ["pump-1", "pump-2", "pump-3"]
    file.write_text(rows("other", "pump-2", "pump-3", "pump-4"))
    ended = gateway("enrollment", "import", file, "--keep-going", "--resume", "--report", report, expect=2)
    assert "the file was changed" in ended.stderr


def test_a_report_that_is_none_is_not_resumed_from(gateway, file, tmp_path):
    report = tmp_path / "report"
    for text in ("nonsense\n", '{"row": 7, "id": ""}\n'):
        report.write_text(text)
        ended = gateway("enrollment", "import", file, "--keep-going", "--resume", "--report", report, expect=2)
        assert "no line of an import report" in ended.stderr or "this is no import report" in ended.stderr
        assert report.read_text() == text


def test_groups_are_imported_too_and_a_ca_has_one_group(gateway, tmp_path):
    root = base64.b64encode(make_ca("Acme Root").der).decode()

    def group(name):
        certificate = {"signingCertificates": {"primary": {"certificate": root}}}
        return json.dumps({"enrollmentGroupId": name, "attestation": {"type": "x509", "x509": certificate}}) + "\n"

    ended = gateway("enrollment", "import", "-", stdin=group("one") + group("two"), expect=4)
    assert "enrollment group one of this file has this CA already" in ended.stderr
    assert gateway("enrollment", "import", "-", stdin=group("one")).json["create"] == 1
    assert (
        "enrollment group one has this CA already"
        in gateway("enrollment", "import", "-", stdin=group("two"), expect=4).stderr
    )
    assert gateway("enrollment", "export", "--groups").stdout.count('"one"') == 1


# --- interruptions ---------------------------------------------------------------------------------------------------


@contextmanager
def running(gateway, *arguments):
    """A command in a process of its own; killed at the end if it still runs."""
    command = [sys.executable, "-m", "provisiond", "-c", str(gateway.config), *map(str, arguments)]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("keep_going", [False, True])
def test_ctrl_c_leaves_nothing_half_written(gateway, keep_going, tmp_path):
    """Rows are fed until the first batch is in the report; then the rest never comes."""
    report = tmp_path / "report"
    arguments = ["enrollment", "import", "-", "--report", report, *(["--keep-going"] if keep_going else [])]
    with running(gateway, *arguments) as process:
        process.stdin.write(rows(*(f"pump-{number}" for number in range(1600))).encode())
        process.stdin.flush()
        while report.exists() is False or report.stat().st_size == 0:
            assert process.poll() is None, process.stderr.read()
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130  # although the pipe is open, and silent
        _, stderr = process.communicate()
    assert b"Traceback" not in stderr
    assert (b"go on with --resume" if keep_going else b"nothing was stored") in stderr
    found = enrolled(gateway)
    assert len(found) % 500 == 0 and bool(found) == keep_going
    assert gateway("db", "check").json["ok"]
    assert not list((gateway.directory / "state").glob(".import*"))


@pytest.mark.parametrize("is_late", [True, False])
def test_an_interruption_ends_when_it_is_known_whether_anything_was_stored(tmp_path, is_late):
    class Busy:
        """A store that is in the midst of the one transaction."""

        path = tmp_path / "provisiond.db"
        started, released = asyncio.Event(), asyncio.Event()

        async def write(self, _apply):
            self.started.set()
            await self.released.wait()
            if not is_late:
                raise StoreUnavailable("given up")

    async def run():
        store = Busy()
        with ImportStaging(store) as staging:
            applying = asyncio.create_task(staging.apply())
            await store.started.wait()
            applying.cancel()
            asyncio.get_running_loop().call_soon(store.released.set)
            with pytest.raises(asyncio.CancelledError):
                await applying
            assert staging.is_applied is is_late

    asyncio.run(run())


def test_a_reader_that_has_seen_enough_ends_an_export_quietly(gateway, file):
    file.write_text(rows(*(f"pump-{number}" for number in range(3000))))
    gateway("enrollment", "import", file)
    with running(gateway, "enrollment", "export") as process:
        process.stdout.readline()
        process.stdout.close()
        process.stdin.close()
        assert process.wait(timeout=120) == 0
        assert b"Traceback" not in process.stderr.read()


def test_somebody_elses_change_meanwhile_and_nothing_is_stored(gateway, file):
    """When the last row has been judged, and before anything is stored, another command enrolls it."""

    async def run():
        settings = load(gateway.config).settings
        async with await SqliteStore.open(settings.database_file) as store:
            with ImportStaging(store) as staging:

                def report(verdict):
                    if verdict.id == "pump-3":
                        execute(
                            settings.database_file,
                            "INSERT INTO enrollment (key, kind, attestation_type, etag, record, digest)"
                            " VALUES ('pump-3', 'individual', 'x509', '', '{}', '')",
                        )

                importer = Importer(
                    admin=make_admin(settings, store),
                    store=BulkTables(store),
                    staging=staging,
                    options=ImportOptions(),
                    report=report,
                )
                with pytest.raises(AlreadyExists):
                    await importer.run(read_bulk(file.read_bytes().splitlines(keepends=True), BulkFormat.CSV))
            return len(await store.list_audit(limit=10))

    assert asyncio.run(run()) == 0
    with closing(sqlite3.connect(gateway.directory / "state/provisiond.db")) as connection:
        assert connection.execute("SELECT count(*) FROM enrollment").fetchone()[0] == 1


# --- export ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["devices.csv", "devices.json", "devices.ndjson"])
def test_an_export_with_keys_makes_the_same_gateway_again(gateway, file, tmp_path, name):
    gateway("enrollment", "import", file)
    target = tmp_path / f"out-{name}"
    assert "3 enrollments" in gateway("enrollment", "export", target, "--show-keys").stderr
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    before = gateway("enrollment", "list", "--show-keys").json
    for number in (1, 2, 3):
        gateway("enrollment", "delete", f"pump-{number}", "--yes")
    gateway("enrollment", "import", target)
    after = gateway("enrollment", "list", "--show-keys").json
    changing = ("etag", "createdDateTimeUtc", "lastUpdatedDateTimeUtc")
    assert [{k: v for k, v in one.items() if k not in changing} for one in before] == [
        {k: v for k, v in one.items() if k not in changing} for one in after
    ]


def test_keys_are_left_out_of_an_export_unless_asked_for(gateway, file):
    gateway("enrollment", "import", file)
    ended = gateway("enrollment", "export", "-", "--format", "azure")
    assert "primaryKey" not in ended.stdout
    assert "the keys of 3 of them were left out" in ended.stderr
    assert len(json.loads(ended.stdout)["enrollments"]) == 3


# --- progress --------------------------------------------------------------------------------------------------------


def test_a_terminal_gets_a_bar_with_rate_and_time_left_and_nobody_else_does(gateway, tmp_path):
    file = tmp_path / "many.csv"
    file.write_text(rows(*(f"pump-{number}" for number in range(2000))))
    command = [sys.executable, "-m", "provisiond", "-c", gateway.config, "enrollment", "import", file, "--dry-run"]
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # EIO: the other end is closed
            while piece := os.read(ours, 4096):
                shown += piece
        os.close(ours)
        assert process.wait(timeout=120) == 0
        assert json.loads(process.stdout.read())["rows"] == 2000  # data is only data
    assert re.search(rb"[1-9]\d* rows, [1-9]\d*/s.*\d:\d\d:\d\d", shown), shown
    quiet = subprocess.run(command, capture_output=True, check=True)
    assert b"rows," not in quiet.stderr and b"\x1b" not in quiet.stderr
