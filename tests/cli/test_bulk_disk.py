"""Importing when the disk is full: nothing is half-written, and it goes on when there is room."""

import json
import os
import resource
import subprocess
import sys
from contextlib import closing, contextmanager
from functools import partial

import pytest

from provisiond.store.connection import connect_here
from tests.cli.conftest import Gateway, invoke
from tests.disks import no_room, small_disk

ROWS = 2500
"""More than any of the limits below has room for."""


def import_in_a_process(gateway, *arguments, preexec=None):
    command = [sys.executable, "-m", "provisiond", "-c", gateway.config, "enrollment", "import", *arguments]
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=240, check=False, preexec_fn=preexec
    )
    assert "Traceback" not in done.stderr
    return done


def enrolled(gateway):
    return {one["registrationId"] for one in gateway("enrollment", "list", "--top", 10_000).json}


def assert_sound(gateway, found):
    """Every enrollment with its audit record, and nothing left lying about."""
    assert gateway("db", "check").json["ok"]
    verdict = gateway("audit", "verify").json
    assert (verdict["ok"], verdict["records"]) == (True, len(found))
    assert not list((gateway.directory / "state").glob(".import*"))


@contextmanager
def held_open(gateway):
    """As a daemon has it: the index of the write-ahead log is there."""
    with closing(connect_here(gateway.directory / "state/provisiond.db", read_only=False)) as connection:
        connection.execute("SELECT count(*) FROM enrollment").fetchone()
        yield


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "devices.csv"
    lines = (f"pump-{number},symmetricKey" for number in range(ROWS))
    path.write_text("\n".join(["registrationId,attestation.type", *lines, ""]))
    return path


@pytest.fixture
def full(tmp_path):
    """A gateway on a disk of its own with room for some hundred devices."""
    with small_disk(tmp_path / "disk", "3m") as disk:
        made = invoke("init", "--dir", disk / "gateway", "--id-scope", "0ne0TEST001", "--yes")
        assert made.exit_code == 0, made
        gateway = Gateway(disk / "gateway")
        gateway("db", "migrate")
        yield gateway


@pytest.mark.parametrize("keep_going", [False, True])
def test_a_disk_that_gets_full_stops_an_import_with_nothing_half_written(full, file, keep_going, tmp_path):
    report = tmp_path / "report"
    options = ["--report", report, *(["--keep-going"] if keep_going else [])]
    done = import_in_a_process(full, file, *options)
    assert (done.returncode, "full" in done.stderr) == (69, True), done
    found = enrolled(full)
    assert len(found) < ROWS and len(found) % 500 == 0 and (keep_going or not found)
    assert_sound(full, found)


def test_an_import_that_met_a_full_disk_is_resumed_when_there_is_room(gateway, file, tmp_path):
    """The report, too, is on the disk that is full: what it lacks is found to be enrolled already."""
    with small_disk(tmp_path / "disk", "16k") as disk:
        report = disk / "report"
        done = import_in_a_process(gateway, file, "--keep-going", "--report", report)
        assert done.returncode == 1 and "No space left" in done.stderr, done
        some = enrolled(gateway)
        assert 0 < len(some) < ROWS
        kept = tmp_path / "report"
        kept.write_bytes(report.read_bytes())
    done = import_in_a_process(gateway, file, "--keep-going", "--resume", "--report", kept)
    assert done.returncode == 0, done
    assert len(enrolled(gateway)) == ROWS
    assert [json.loads(line)["row"] for line in kept.read_text().splitlines()] == list(range(1, ROWS + 1))
    assert_sound(gateway, enrolled(gateway))


@pytest.mark.parametrize("limit_bytes", [150_000, 400_000, 900_000])
def test_a_file_that_may_not_grow_stops_an_import_with_nothing_half_written(gateway, file, limit_bytes, tmp_path):
    gateway("db", "migrate")
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
    done = import_in_a_process(gateway, file, "--report", os.devnull, preexec=limit)
    assert (done.returncode, "disk" in done.stderr) == (69, True), done
    assert enrolled(gateway) == set()
    assert_sound(gateway, set())
    assert import_in_a_process(gateway, file, "--report", os.devnull).returncode == 0
    assert len(enrolled(gateway)) == ROWS


def test_on_a_full_disk_a_gateway_that_runs_is_still_explained_and_refuses_changes(full):
    full("enrollment", "create", "pump-1", "--attestation-type", "symmetricKey")
    with held_open(full), no_room(full.directory):
        assert full("audit", "list").json[0]["registrationId"] == "pump-1"
        assert full("explain", "--registration-id", "pump-1").json["wouldBeAssigned"]
        ended = full("enrollment", "create", "pump-2", "--attestation-type", "symmetricKey", expect=69)
        assert "the disk is full" in ended.stderr
    assert enrolled(full) == {"pump-1"}
    full("enrollment", "create", "pump-2", "--attestation-type", "symmetricKey")
    assert_sound(full, {"pump-1", "pump-2"})


def test_on_a_full_disk_a_gateway_that_is_stopped_says_what_is_the_matter(full):
    full("enrollment", "create", "pump-1", "--attestation-type", "symmetricKey")
    with no_room(full.directory):
        assert "the disk is full" in full("enrollment", "list", expect=69).stderr
    assert_sound(full, enrolled(full))
