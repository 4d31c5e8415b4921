"""Making a gateway."""

import os
import stat
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from provisiond.cli import init as init_module
from provisiond.errors import AlreadyExists
from provisiond.settings import load_settings
from provisiond.settings.files import check_files
from tests.certificates import NOW
from tests.cli.conftest import invoke


def test_it_makes_what_the_daemon_needs_and_says_where(tmp_path):
    ended = invoke("init", "--dir", tmp_path / "gw", "--host", "gateway.local", "--host", "10.0.0.7", "--yes")
    assert ended.exit_code == 0
    body = ended.json
    assert body["rootCertificate"] == str(tmp_path / "gw/ca/root.crt")
    assert body["serverCertificate"] == str(tmp_path / "gw/tls/server.crt")
    assert body["idScope"].startswith("0ne")
    root = x509.load_pem_x509_certificate((tmp_path / "gw/ca/root.crt").read_bytes())
    fingerprint = invoke("-c", tmp_path / "gw/provisiond.toml", "ca", "fingerprint").stdout.strip()
    assert body["rootFingerprint"] == fingerprint
    assert root.fingerprint(hashes.SHA256()).hex(":").upper() == fingerprint
    assert f"next: provisiond -c {tmp_path}/gw/provisiond.toml run" in ended.stderr


def test_its_configuration_can_be_used_as_it_is(gateway):
    settings = load_settings(gateway.config, environment={}).settings
    assert check_files(settings, now=NOW) == ()
    assert settings.service.id_scope == "0ne0TEST001"
    assert settings.database_file == gateway.directory / "state/provisiond.db"
    assert settings.ca_dir == gateway.directory / "ca"
    assert [(one.name, one.bind, one.tls) for one in settings.broker.listeners] == [
        ("local", "127.0.0.1:1883", False),
        ("devices", "0.0.0.0:8883", True),
    ]
    assert [hub.host for hub in settings.hubs] == ["localhost"]


def test_the_hub_is_called_as_the_first_host_that_is_a_name(tmp_path):
    invoke("init", "--dir", tmp_path / "gw", "--host", "*.local", "--host", "gateway.local", "--yes")
    settings = load_settings(tmp_path / "gw/provisiond.toml", environment={}).settings
    assert [hub.host for hub in settings.hubs] == ["gateway.local"]


def test_only_its_owner_may_write_there_whatever_the_umask(tmp_path):
    previous = os.umask(0)
    try:
        invoke("init", "--dir", tmp_path / "gw", "--yes")
    finally:
        os.umask(previous)
    assert not [path for path in [tmp_path / "gw", *(tmp_path / "gw").rglob("*")] if path.stat().st_mode & 0o022]


def test_private_keys_are_private(gateway):
    for name, mode in {"ca/root.key": 0o600, "tls/server.key": 0o600, "state": 0o700, "ca/root.crt": 0o644}.items():
        assert stat.S_IMODE((gateway.directory / name).stat().st_mode) == mode


def test_openssl_agrees_with_the_certificates(tmp_path):
    invoke("init", "--dir", tmp_path / "gw", "--host", "*.plant.local", "--host", "fd00::7", "--yes")
    root, server = tmp_path / "gw/ca/root.crt", tmp_path / "gw/tls/server.crt"
    for check in (
        ("-verify_hostname", "a.plant.local"),
        ("-verify_ip", "fd00::7"),
        ("-verify_ip", "127.0.0.1"),
        ("-verify_hostname", "localhost"),
        ("-verify_ip", "::1"),
    ):
        command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", *check, "-CAfile", root, server]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0, check


@pytest.mark.parametrize("name", ["provisiond.toml", "ca/root.crt", "tls/server.key"])
def test_it_never_overwrites(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    ended = invoke("init", "--dir", tmp_path, "--yes")
    assert ended.exit_code == 4
    assert f"{tmp_path / name} exists and was left as it is" in ended.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]
    assert (tmp_path / name).read_text() == "mine"


def test_it_works_beside_other_files(tmp_path):
    (tmp_path / "README").write_text("mine")
    (tmp_path / "ca").mkdir()
    assert invoke("init", "--dir", tmp_path, "--yes").exit_code == 0


def test_when_it_fails_it_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(file, data, *, mode=0o644):
        if file.name == "provisiond.toml":
            raise AlreadyExists(f"{file} exists and was left as it is")
        create_file(file, data, mode=mode)

    create_file = init_module.create_file
    monkeypatch.setattr(init_module, "create_file", fail)
    assert invoke("init", "--dir", tmp_path / "gw", "--yes").exit_code == 4
    assert list((tmp_path / "gw").iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--host", "a b"],
        ["--host", "https://x"],
        ["--host", "x/y"],
        ["--host", ""],
        ["--host", "*.local"],
        ["--id-scope", "a/b"],
        ["--id-scope", "a" * 65],
        ["--id-scope", 'x"\nstate_dir = "/'],
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_made(tmp_path, arguments):
    assert invoke("init", "--dir", tmp_path / "gw", *arguments, "--yes").exit_code == 2
    assert not (tmp_path / "gw").exists()


def test_it_needs_a_directory():
    assert invoke("init").exit_code == 2
