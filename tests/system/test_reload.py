"""A daemon of its own, told by SIGHUP to read a configuration that has a mistake, and then one that has none."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.system.daemon import Daemon, Service, run_daemon

IN_TIME_S = 60

SENSOR = '\n[[enrollments]]\nregistration_id = "sensor-7"\nattestation_type = "symmetricKey"\n'


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A service on any free ports."""
    made = Service(tmp_path / "provisiond")
    made.configure()
    return made


def reload(daemon: Daemon) -> dict[str, Any]:
    """Have it read its configuration; what it says of that."""
    known = len(daemon.log)
    daemon.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + IN_TIME_S
    while time.monotonic() < deadline:
        for line in list(daemon.log[known:]):
            record: dict[str, Any] = json.loads(line)
            if record["event"].startswith("reload"):
                return record
        os.sched_yield()
    raise AssertionError(daemon.text_log)


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("[broker\n", "not TOML"),
        ('\n[[hubs]]\nname = "x"\nhots = "x.local"\n', 'did you mean "host"'),
        (SENSOR.replace("symmetricKey", "x509"), "certificate_file"),
        (SENSOR + SENSOR.replace("sensor-7", "SENSOR-7"), "declared twice"),
    ],
)
def test_a_mistake_keeps_the_old_set_and_the_log_says_which_line(service: Service, mistake: str, said: str) -> None:
    good = service.config_file.read_text()
    with run_daemon(service) as daemon:
        service.config_file.write_text(good + mistake)
        refused = reload(daemon)
        assert refused["level"] == "error" and "old configuration stays in force" in refused["event"]
        place = refused["reason"].split(f"{service.config_file}:")[1]
        assert int(place.split(":")[0]) > len(good.splitlines())
        assert said in refused["reason"]
        service.config_file.write_text(good)
        assert service.command("enrollment", "list") == []
        service.config_file.write_text(good + SENSOR)
        assert reload(daemon)["event"] == "reloaded"
    assert [one["registrationId"] for one in service.command("enrollment", "list")] == ["sensor-7"]
