"""The benchmark works; how fast anything is, no test says."""

from pathlib import Path

import pytest

from tests.bench import __main__ as bench
from tests.bench import load, servers
from tests.bench.devices import make_x509_device
from tests.certificates import make_ca


@pytest.mark.mosquitto
def test_devices_with_certificates_connect_to_mosquitto(tmp_path: Path) -> None:
    ca = make_ca("Devices")
    fleet = [make_x509_device(f"device-{n}", ca, "0ne0TEST001") for n in range(12)]
    with servers.run_mosquitto(tmp_path / "mosquitto", device_ca=ca) as (pid, port):
        work = load.Load(("127.0.0.1", port), load.make_context(), load.connect_only)
        seen = work.run(fleet, concurrency=4)
        assert servers.read_cpu_s(pid) > 0
    assert len(seen.latencies_s) == seen.devices == len(fleet)
    assert seen.negotiated.startswith("TLSv1.3")


@pytest.mark.mosquitto
def test_the_table_has_a_row_for_either_server_in_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(["registrations", "--rounds", "2", "--registrations", "10", "--concurrency", "4"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 4 * 2


@pytest.mark.parametrize("section", ["cores", "storm", "idle", "growth"])
def test_the_longer_sections_work(section: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--rounds", "2", "--registrations", "10", "--devices", "20", "--records", "50", "--concurrency", "4"]
    bench.main([section, *options])
    assert capsys.readouterr().out.strip()
