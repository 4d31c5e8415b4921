"""A daemon that runs as a user of its own, and root's commands beside it."""

import json
import os
import shlex
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

from provisiond.cli import session
from tests.cli.conftest import Gateway, invoke

SOMEBODY, SOMEBODYS_GROUP = "nobody", "nogroup"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files for others")


@pytest.fixture
def tmp_path():
    """One that somebody else may enter: pytest's own are closed."""
    with tempfile.TemporaryDirectory(prefix="provisiond-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def served(tmp_path):
    """A gateway whose daemon would run as somebody else."""
    made = invoke(
        *("init", "--dir", tmp_path / "gateway", "--state-dir", tmp_path / "var/state"),
        *("--service-user", SOMEBODY, "--yes"),
    )
    assert made.exit_code == 0, made
    return Gateway(tmp_path / "gateway")


def findings(gateway, subject="service user"):
    return [one for one in invoke("-c", gateway.config, "doctor").json if one["subject"] == subject]


def owners(directory):
    return {path.owner() for path in (directory, *directory.rglob("*"))}


def mend(gateway):
    (finding,) = findings(gateway)
    assert finding["level"] == "FAIL"
    subprocess.run(finding["mend"], shell=True, check=True)
    assert [one["level"] for one in findings(gateway)] == ["ok"]
    return finding["text"]


def test_the_state_is_the_service_users_and_the_key_is_for_its_group(served, tmp_path):
    key = served.directory / "tls/server.key"
    assert (key.owner(), key.group(), stat.S_IMODE(key.stat().st_mode)) == ("root", SOMEBODYS_GROUP, 0o640)
    assert (tmp_path / "var/state").owner() == SOMEBODY
    assert stat.S_IMODE((tmp_path / "var/state").stat().st_mode) == 0o700
    assert (tmp_path / "var/state/ca/root.key").owner() == SOMEBODY
    assert not (served.directory / "state").exists()
    assert [path.name for path in (served.directory / "ca").iterdir()] == ["root.crt"]
    assert invoke("-c", served.config, "ca", "fingerprint").exit_code == 0
    assert [one["level"] for one in findings(served)] == ["ok"]


def test_what_root_does_leaves_the_state_to_the_service_user(served, tmp_path):
    served("enrollment", "create", "pump-1", "--attestation-type", "symmetricKey")
    served("audit", "checkpoint")
    served("ca", "crl")
    served("db", "backup", tmp_path / "backup.db")
    served("db", "restore", tmp_path / "backup.db", "--yes")
    served("db", "check")
    assert owners(tmp_path / "var/state") == {SOMEBODY}
    assert (tmp_path / "backup.db").owner() == "root"
    assert [one["level"] for one in findings(served)] == ["ok"]


def test_a_key_that_the_service_user_may_not_read_is_told_and_mended(served):
    (served.directory / "tls/server.key").chmod(0o600)
    assert f"{SOMEBODY}, whose the state directory is, may not read" in mend(served)


def test_a_directory_that_it_may_not_enter_is_told_and_mended(served):
    (served.directory / "tls").chmod(0o700)
    assert mend(served).endswith("/tls")


def test_a_secret_of_a_hub_is_looked_at_too(served):
    secret = served.directory / "hook.secret"
    secret.write_text("x" * 32)
    secret.chmod(0o600)
    options = ("--option", "url=http://127.0.0.1:1/", "--option", "secret_file=hook.secret")
    served("hub", "add", "line-2", "--type", "webhook", "--host", "line-2.local", *options)
    assert mend(served).endswith("hook.secret")


def test_a_file_of_root_in_the_state_is_told_and_mended(served, tmp_path):
    (tmp_path / "var/state/provisiond.db-wal").touch()
    assert "is not nobody's" in mend(served)


def test_a_state_in_the_directory_may_be_a_service_users_too(tmp_path):
    made = invoke("init", "--dir", tmp_path / "gateway", "--service-user", SOMEBODY, "--yes")
    assert made.json["rootKey"] == str(tmp_path / "gateway/state/ca/root.key")
    assert owners(tmp_path / "gateway/state") == {SOMEBODY}
    assert invoke("-c", tmp_path / "gateway/provisiond.toml", "ca", "show").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--service-user", "nobody-by-that-name"), "there is no user"),
        (("--state-dir", "full"), "exists and is not empty; give another --state-dir"),
    ],
)
def test_a_place_or_user_that_cannot_be_used_is_told_and_nothing_is_made(tmp_path, arguments, said):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/provisiond.db").touch()
    ended = invoke("init", "--dir", tmp_path / "gateway", *arguments, "--yes")
    assert ended.exit_code in (2, 4) and said in ended.stderr
    assert not (tmp_path / "gateway").exists()


def test_where_the_unit_is_installed_the_daemon_is_started_by_it(gateway, tmp_path, monkeypatch):
    assert session.start_command(gateway.config) == f"provisiond -c {shlex.quote(str(gateway.config))} run"
    monkeypatch.setattr(session, "SERVICE_CONFIG", gateway.config)
    monkeypatch.setattr(session, "_UNIT_DIRECTORIES", (tmp_path,))
    assert session.start_command(gateway.config).endswith(" run")
    (tmp_path / session.SERVICE_UNIT).touch()
    assert session.start_command(gateway.config) == "systemctl start provisiond"
    levels = {one["mend"] for one in json.loads(invoke("-c", gateway.config, "doctor").stdout)}
    assert "systemctl start provisiond" in levels
