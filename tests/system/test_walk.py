"""The tutorial of the README, followed literally."""

import base64
import re
from pathlib import Path

import pytest

from tests.system import sdk
from tests.system.daemon import Service, run_command, run_daemon


@pytest.mark.sdk
def test_init_run_enroll_register_show(tmp_path: Path, sdk_port: int) -> None:
    service = Service(tmp_path / "provisiond")
    service.configure(tls_port=sdk_port)
    id_scope = re.search(r'id_scope\s*=\s*"([^"]+)"', service.config_file.read_text())[1]
    with run_daemon(service):
        created = service.command(
            "enrollment", "create", "sensor-7", "--attestation-type", "symmetricKey", "--show-keys", "-o", "json"
        )
        key = created["attestation"]["symmetricKey"]["primaryKey"]
        assert len(base64.b64decode(key)) >= 16
        key_file = tmp_path / "sensor-7.key"
        key_file.write_text(key)
        heard = sdk.register_with_python(
            client="sync",
            host="localhost",
            id_scope=id_scope,
            ca_file=service.ca_file,
            registration_id="sensor-7",
            key_file=key_file,
        )
        assert heard.get("status") == "assigned", heard
        record = service.command("registration", "show", "sensor-7", "-o", "json")
    assert (record["status"], record["assignedHub"]) == ("assigned", heard["assignedHub"])


def test_the_demo_assigns_a_device_of_every_kind() -> None:
    completed = run_command("demo")
    assert "assigned" in completed.stdout


def test_init_never_overwrites(tmp_path: Path) -> None:
    service = Service(tmp_path / "provisiond")
    before = {path: path.read_bytes() for path in service.directory.rglob("*") if path.is_file()}
    run_command("init", "--dir", service.directory, "--yes", expect=4)
    assert before == {path: path.read_bytes() for path in service.directory.rglob("*") if path.is_file()}
