"""Walks the install page on a machine that systemd has booted, and tries the unit; run by `scripts/boot-test`.

Only the standard library: it runs before anything is installed. Each step is a function; what it raises ends the walk.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

SOURCE = Path(__file__).parents[2]
CONFIG = Path("/etc/provisiond/provisiond.toml")
STATE = Path("/var/lib/provisiond")
DROP_IN = Path("/etc/systemd/system/provisiond.service.d/test.conf")
KEY = Path("/etc/provisiond/tls/server.key")
FROM_WHEELS = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/srv/wheels"}
STOP_WITHIN_S = 10
WAIT_S = 60


def sh(command, *, expect=0, timeout_s=300, **environment):
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=SOURCE,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == expect, f"{command}\nexit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def provisiond(*arguments, expect=0):
    return sh(shlex.join(["provisiond", *map(str, arguments)]), expect=expect)


def show(name):
    return sh(f"systemctl show provisiond -P {name}").strip()


def journal(since=""):
    """Records of the unit, oldest first: what the manager and what the daemon says."""
    after = f"--after-cursor={shlex.quote(since)}" if since else ""
    lines = sh(f"journalctl --sync; journalctl -u provisiond -o json --no-pager {after}").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def cursor():
    return journal()[-1]["__CURSOR"]


def said(records, text):
    return [record for record in records if text in str(record["MESSAGE"])]


def wait_until(condition, what, within_s=WAIT_S):
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {within_s} s"
        time.sleep(0.1)


def drop_in(*lines):
    DROP_IN.parent.mkdir(exist_ok=True)
    DROP_IN.write_text("\n".join(("[Service]", *lines, "")))
    sh("systemctl daemon-reload")


def register(device="pump-1"):
    """A device over TLS, as one elsewhere would; the hub that it is sent to."""
    scope = json.loads(provisiond("config", "show", "-o", "json"))["service"]["id_scope"]
    ended = provisiond(
        *("simulate", "device", device, "--attestation", "symmetricKey", "--key-file", f"/srv/{device}.key"),
        *("--host", "localhost", "--ca-file", "/etc/provisiond/ca/root.crt", "--id-scope", scope),
    )
    return re.search(r"assigned \((.*)\)", ended)[1]


def has_restarted(before):
    return show("ActiveState") == "active" and show("MainPID") not in ("0", before)


# --- the steps -------------------------------------------------------------------------------------------------------


def the_install_page_works_word_for_word():
    section = (SOURCE / "docs/operating.md").read_text().partition("## Installing\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"(?:^    .*\n)+", section, re.MULTILINE)
    commands = [block for block in blocks if "uv tool" not in block]
    assert any("pipx install" in block for block in commands)
    sh("".join(re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in commands), **FROM_WHEELS)
    assert show("ActiveState") == "active"
    assert "PROVISIOND(1)" in sh("man provisiond")


def ready_is_said_after_the_listeners_are_up():
    records = journal()
    ready, started = said(records, "event=ready")[0], said(records, "Started provisiond")[0]
    assert int(ready["__MONOTONIC_TIMESTAMP"]) <= int(started["__MONOTONIC_TIMESTAMP"])
    sh("systemctl restart provisiond")
    for port in (1883, 8883, 9109):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()


def the_sandbox_is_closed():
    status = Path(f"/proc/{show('MainPID')}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert "0" not in fields["Uid"].split()
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert STATE.stat().st_mode & 0o777 == 0o700
    assert {path.owner() for path in (STATE, *STATE.rglob("*"))} == {"provisiond"}
    sh("systemd-analyze security --threshold=15 --no-pager provisiond")


def doctor_and_status_find_nothing_wrong():
    findings = json.loads(provisiond("doctor", "-o", "json"))
    wrong = [one for one in findings if one["level"] != "ok" and one["subject"] != "clock"]
    assert wrong == []
    assert "service user" in {one["subject"] for one in findings}
    assert json.loads(provisiond("status", "-o", "json"))["running"]


def a_device_registers_and_is_one_record_of_the_journal():
    created = json.loads(provisiond("enrollment", "create", "pump-1", "--attestation-type", "symmetricKey"))
    Path("/srv/pump-1.key").write_text(created["attestation"]["symmetricKey"]["primaryKey"])
    before = cursor()
    assert register() == "gateway.local, pump-1"
    (record,) = said(journal(before), "registration_id=pump-1")
    assert record["PRIORITY"] == "6" and record["SYSLOG_IDENTIFIER"] == "provisiond"


def the_daemon_signs_the_revocation_list():
    signed = STATE / "ca/root.crl"
    wait_until(signed.exists, "signed")
    assert signed.owner() == "provisiond"
    served = urllib.request.urlopen("http://127.0.0.1:9109/crl/root.pem", timeout=10).read()
    assert served == signed.read_bytes()
    provisiond("ca", "crl")
    assert signed.owner() == "provisiond"


def a_reload_takes_over_and_a_broken_one_says_which_line():
    text = CONFIG.read_text()
    CONFIG.write_text(text.replace('level = "info"', 'level = "debug"'))
    before, pid = cursor(), show("MainPID")
    sh("systemctl reload provisiond")
    wait_until(lambda: said(journal(before), "event=reloaded"), "reloaded")
    before = cursor()
    CONFIG.write_text(text.replace('level = "info"', 'level = "loud"'))
    line = text.splitlines().index('level = "info"') + 1
    sh("systemctl reload provisiond")
    wait_until(lambda: said(journal(before), "reload failed"), "the mistake is told")
    (failed,) = said(journal(before), "reload failed")
    assert f"{CONFIG}:{line}" in failed["MESSAGE"] and failed["PRIORITY"] == "3"
    CONFIG.write_text(text)
    assert (register(), show("MainPID")) == ("gateway.local, pump-1", pid)
    sh("systemctl reload provisiond")


def a_key_that_only_root_may_read_is_handed_over_as_a_credential():
    kept = Path("/etc/ssl/private/provisiond.key")
    kept.parent.mkdir(exist_ok=True)
    kept.touch(mode=0o600)
    kept.write_bytes(KEY.read_bytes())
    KEY.rename("/srv/server.key")
    text = CONFIG.read_text()
    named = "/run/credentials/provisiond.service/tls.key"
    CONFIG.write_text(text.replace('key_file = "tls/server.key"', f'key_file = "{named}"'))
    drop_in(f"LoadCredential=tls.key:{kept}")
    sh("systemctl restart provisiond")
    assert register() == "gateway.local, pump-1"
    CONFIG.write_text(text)
    Path("/srv/server.key").rename(KEY)
    drop_in()
    sh("systemctl restart provisiond")


def a_stop_with_operations_outstanding_is_clean_and_soon():
    held = socket.create_server(("127.0.0.1", 8099))  # a hub that takes the call and never answers
    Path("/etc/provisiond/hook.secret").write_text("x" * 32)
    sh("chgrp provisiond /etc/provisiond/hook.secret; chmod 0640 /etc/provisiond/hook.secret")
    text = CONFIG.read_text()
    options = ("--option", "url=http://127.0.0.1:8099/", "--option", "secret_file=hook.secret")
    provisiond("hub", "add", "slow", "--type", "webhook", "--host", "slow.local", *options)
    sh("systemctl reload provisiond")
    key = Path("/srv/group.key")
    group = ("--attestation-type", "symmetricKey", "--allocation-policy", "static", "--iot-hubs", "slow.local")
    created = json.loads(provisiond("enrollment-group", "create", "line", *group))
    key.write_text(created["attestation"]["symmetricKey"]["primaryKey"])
    scope = json.loads(provisiond("config", "show", "-o", "json"))["service"]["id_scope"]
    fleet = subprocess.Popen(
        shlex.split(
            f"provisiond simulate fleet --count 20 --group-key-file {key} --ca-file /etc/provisiond/ca/root.crt "
            f"--id-scope {scope} --timeout 60"
        ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    idle = [socket.create_connection(("127.0.0.1", port)) for port in (1883, 8883)]

    def under_way():
        return json.loads(provisiond("status", "-o", "json"))["registrations"].get("assigning", 0)

    wait_until(under_way, "registrations wait for their hub")
    before, began = cursor(), time.monotonic()
    sh("systemctl stop provisiond")
    took_s = time.monotonic() - began
    assert took_s < STOP_WITHIN_S, took_s
    assert (show("Result"), show("ExecMainStatus")) == ("success", "0")
    assert said(journal(before), "event=stopped") and not said(journal(before), "Traceback")
    for connection in (*idle, held):
        connection.close()
    fleet.kill()
    fleet.wait()
    CONFIG.write_text(text)
    sh("systemctl start provisiond")
    print(f"      it took {took_s:.1f} s")


def root_restores_a_backup_and_the_service_starts_from_it():
    provisiond("db", "backup", "/srv/provisiond.backup.db")
    sh("systemctl stop provisiond")
    provisiond("db", "restore", "/srv/provisiond.backup.db", "--yes")
    provisiond("db", "check")
    sh("systemctl start provisiond")
    assert register() == "gateway.local, pump-1"


def one_that_is_killed_is_started_again_and_knows_its_devices():
    pid = show("MainPID")
    os.kill(int(pid), signal.SIGKILL)
    wait_until(lambda: has_restarted(pid), "started again")
    assert json.loads(provisiond("registration", "show", "pump-1"))["status"] == "assigned"
    assert register() == "gateway.local, pump-1"


def one_that_stands_still_is_started_again_by_the_watchdog():
    drop_in("WatchdogSec=3s", "TimeoutAbortSec=2s")
    sh("systemctl restart provisiond")
    pid, began = show("MainPID"), time.monotonic()
    before = cursor()
    os.kill(int(pid), signal.SIGSTOP)
    wait_until(lambda: has_restarted(pid), "started again")
    assert said(journal(before), "Watchdog timeout")
    print(f"      it took {time.monotonic() - began:.1f} s")
    drop_in()
    sh("systemctl restart provisiond")


def one_that_works_is_left_alone_by_the_watchdog():
    drop_in("WatchdogSec=1500ms")
    sh("systemctl restart provisiond")
    pid = show("MainPID")
    time.sleep(6)  # four periods
    assert (show("MainPID"), show("NRestarts")) == (pid, "0")
    drop_in()
    sh("systemctl restart provisiond")


def without_room_to_write_it_is_not_ready():
    sh("systemctl stop provisiond; cp -a /var/lib/provisiond /srv/state")
    sh(
        "mount -t tmpfs -o size=600k,mode=0700,uid=$(id -u provisiond),gid=$(id -g provisiond) tmpfs /var/lib/provisiond"
    )
    try:
        sh("cp -a /srv/state/. /var/lib/provisiond/")
        with contextlib.suppress(OSError), Path("/var/lib/provisiond/filler").open("wb", buffering=0) as filler:
            while filler.write(bytes(1024)):
                pass
        before = cursor()
        sh("systemctl start provisiond", expect=1)
        assert not said(journal(before), "Started provisiond") and not said(journal(before), "event=ready")
        sh("systemctl stop provisiond; systemctl reset-failed provisiond")
    finally:
        sh("umount /var/lib/provisiond")
    sh("systemctl start provisiond")


def a_configuration_that_cannot_be_used_is_not_tried_again():
    text = CONFIG.read_text()
    CONFIG.write_text(text.replace("[service]", "[servis]"))
    sh("systemctl restart provisiond", expect=1)
    assert (show("ActiveState"), show("ExecMainStatus"), show("NRestarts")) == ("failed", "78", "0")
    CONFIG.write_text(text)
    sh("systemctl start provisiond")
    assert register() == "gateway.local, pump-1"


STEPS = (
    the_install_page_works_word_for_word,
    ready_is_said_after_the_listeners_are_up,
    the_sandbox_is_closed,
    doctor_and_status_find_nothing_wrong,
    a_device_registers_and_is_one_record_of_the_journal,
    the_daemon_signs_the_revocation_list,
    a_reload_takes_over_and_a_broken_one_says_which_line,
    a_key_that_only_root_may_read_is_handed_over_as_a_credential,
    a_stop_with_operations_outstanding_is_clean_and_soon,
    root_restores_a_backup_and_the_service_starts_from_it,
    one_that_is_killed_is_started_again_and_knows_its_devices,
    one_that_stands_still_is_started_again_by_the_watchdog,
    one_that_works_is_left_alone_by_the_watchdog,
    without_room_to_write_it_is_not_ready,
    a_configuration_that_cannot_be_used_is_not_tried_again,
)


def main():
    sh("ip link set lo up || true")  # a container without a network may have it down
    for step in STEPS:
        began = time.monotonic()
        step()
        print(f"ok    {step.__name__.replace('_', ' ')} ({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
