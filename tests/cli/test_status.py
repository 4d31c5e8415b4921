"""`provisiond status`, `provisiond doctor` and `provisiond run`."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.ports import free_port
from tests.store.records import make_registration


@pytest.fixture
def quiet_ports(gateway):
    """The gateway with ports that nobody else on this machine has."""
    ports = free_port(), free_port()
    text = gateway.config.read_text()
    text = text.replace("127.0.0.1:1883", f"127.0.0.1:{ports[0]}").replace("0.0.0.0:8883", f"0.0.0.0:{ports[1]}")
    gateway.config.write_text(text.replace("[log]", "[metrics]\nenabled = false\n\n[log]"))
    return gateway


def test_status_without_a_daemon_ends_with_69_and_says_how_to_start_it(quiet_ports):
    ended = quiet_ports("status", expect=69)
    assert not ended.json["running"]
    assert f"next: provisiond -c {quiet_ports.config} run" in ended.stderr


def test_status_counts_registrations(quiet_ports):
    quiet_ports.store(make_registration("a"), make_registration("b"))
    body = quiet_ports("status", expect=69).json
    assert body["registrations"] == {"assigned": 2}
    assert body["assignedByHub"] == {"local": 2}


def test_status_sees_a_running_daemon_and_sigterm_ends_it(quiet_ports):
    process = subprocess.Popen(
        [sys.executable, "-m", "provisiond", "-c", quiet_ports.config, "run"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PROVISIOND_LOG__FORMAT": "json"},
    )
    with process:
        try:
            assert json.loads(process.stderr.readline())["event"] == "ready"
            body = quiet_ports("status").json
            assert body["running"]
            assert body["listeners"]["devices"]["listening"]
            findings = {one["subject"]: one["level"] for one in quiet_ports("doctor").json}
            assert findings["listener devices"] == "ok"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=120) == 0
        finally:
            process.kill()


def findings(gateway, expect=0):
    return {one["subject"]: one for one in gateway("doctor", expect=expect).json}


def test_doctor_finds_nothing_wrong_with_a_new_gateway_but_that_it_does_not_run(quiet_ports):
    levels = {subject: one["level"] for subject, one in findings(quiet_ports).items()}
    assert {subject for subject, level in levels.items() if level == "FAIL"} == set()
    assert levels["files"] == levels["state"] == levels["ca"] == "ok"
    assert levels["clock"] in ("ok", "warn")  # whether this machine's is kept right
    assert levels["database"] == levels["listener local"] == "warn"


def test_doctor_looks_at_a_sample_of_a_large_database_and_says_so(quiet_ports, monkeypatch):
    monkeypatch.setattr("provisiond.cli.doctor_store._WHOLE_MAX_BYTES", 1)
    quiet_ports("enrollment", "create", "device-1", "--attestation-type", "symmetricKey")
    found = findings(quiet_ports)
    assert "a sample of its records is sound" in found["database"]["text"]
    assert found["database"]["text"].endswith("db check looks at all of them")
    assert "the last 1 records, none was altered" in found["audit"]["text"]


def test_doctor_names_the_command_that_mends(quiet_ports):
    directory = quiet_ports.directory
    (directory / "tls/server.key").chmod(0o644)
    (directory / "ca/root.key").chmod(0o644)
    (directory / "state").chmod(0o755)
    (directory / "state/provisiond.db").write_bytes(b"junk" * 1000)
    (directory / "state/provisiond.db").chmod(0o600)
    found = findings(quiet_ports, expect=1)
    assert "chmod 0600" in found["files"]["text"]
    assert found["ca"]["mend"].startswith("chmod 0600")
    assert found["state"]["mend"] == f"chmod 0700 {directory}/state"
    assert found["database"]["level"] == "FAIL"
    table = quiet_ports("doctor", "-o", "table", expect=1).stdout
    assert f"mend: chmod 0700 {directory}/state" in table


def test_doctor_notices_a_hub_that_the_certificate_does_not_name(quiet_ports):
    text = quiet_ports.config.read_text()
    quiet_ports.config.write_text(text.replace('host = "localhost"', 'host = "gateway.local"'))
    assert "devices are sent to gateway.local" in quiet_ports("doctor", "-o", "table").stdout


def test_doctor_does_not_look_in_our_certificate_for_the_hubs_of_others(quiet_ports):
    quiet_ports("hub", "add", "line-2", "--type", "mosquitto", "--host", "mqtt.local")
    assert "devices are sent to" not in quiet_ports("doctor", "-o", "table").stdout


def test_doctor_begins_with_the_configuration(gateway):
    gateway.config.write_text("")
    found = findings(gateway, expect=1)
    assert list(found) == ["configuration"]
    assert found["configuration"]["mend"] == f"provisiond -c {gateway.config} config check"


@pytest.mark.parametrize("is_there", [True, False])
def test_a_broker_of_the_sites_is_looked_for(gateway, is_there):
    with socket.socket() as broker:
        broker.bind(("127.0.0.1", 0))
        if is_there:
            broker.listen()
        gateway.config.write_text(
            'config_version = 1\n[broker]\nmode = "external"\n[broker.external]\n'
            f'url = "mqtt://127.0.0.1:{broker.getsockname()[1]}"\n[metrics]\nenabled = false\n'
            f'[service]\nstate_dir = "{gateway.config.parent}/state"\n'
        )
        body = gateway("status", expect=69).json
        findings = {one["subject"]: one["level"] for one in gateway("doctor", expect=0 if is_there else 1).json}
    assert body["broker"]["reachable"] is is_there
    assert body["listeners"] == {}
    assert findings["broker"] == ("ok" if is_there else "FAIL")
