"""The walk of an operator: print a key, enroll it, start the device; clear it, and let it in again."""

import asyncio

import pytest

from provisiond.device.swtpm import run_emulator
from provisiond.device.tpm_device import open_tpm
from tests.system.daemon import ID_SCOPE, Service, run_command, run_daemon
from tests.system.tpm.manufacturing import TpmMaker

pytestmark = pytest.mark.swtpm


@pytest.fixture
def service(tmp_path):
    made = Service(tmp_path / "provisiond")
    made.configure(reply="immediate")
    return made


def simulate(daemon, *arguments, expect=0):
    return run_command(
        "simulate", "device", *arguments, "--attestation", "tpm", "--tpm-algorithm", "ecc",
        "--host", "localhost", "--port", daemon.port(tls=True), "--ca-file", daemon.service.ca_file,
        "--id-scope", ID_SCOPE, expect=expect,
    )  # fmt: skip


def clear(state_dir):
    async def run():
        async with run_emulator(state_dir) as path, open_tpm(f"socket:{path}") as device:
            await device.clear()

    asyncio.run(run())


def test_a_tpm_is_enrolled_by_its_printed_key_and_comes_back_after_a_clear(service, tmp_path):
    with run_daemon(service) as daemon:
        device = ("pump-1", "--dir", tmp_path / "pump-1")
        printed = simulate(daemon, *device, "--print-endorsement-key").stdout
        (tmp_path / "pump-1.ek").write_text(printed)
        service.enroll("pump-1", attestation_type="tpm", endorsement_key=tmp_path / "pump-1.ek")
        simulate(daemon, *device)
        simulate(daemon, *device, "--protocol", "native")
        assert service.command("registration", "show", "pump-1")["status"] == "assigned"
        clear(tmp_path / "pump-1" / "swtpm")
        refused = simulate(daemon, *device, expect=5)
        assert "trackingId" in refused.stdout + refused.stderr
        run_command("-c", service.config_file, "registration", "delete", "pump-1", "--yes")
        simulate(daemon, *device)


def test_a_certified_tpm_needs_no_enrollment_of_its_own(service, tmp_path):
    maker = TpmMaker(tmp_path / "maker")
    state = maker.make("swtpm")
    roots = tmp_path / "roots"
    roots.mkdir()
    (roots / "maker.der").write_bytes(maker.root_der)
    text = service.config_file.read_text().replace("# end of configuration", "")
    service.config_file.write_text(f'{text}\n[attestation.tpm]\nek_roots_dir = "{roots}"\n# end of configuration\n')
    service.enroll_group("pumps", attestation_type="tpm")
    with run_daemon(service) as daemon:
        chain = ("--certificate-path", tmp_path / "maker" / "ca" / "issuercert.pem")
        simulate(daemon, "--dir", state.parent, *chain)
        (registered,) = service.command("registration", "list", "--enrollment-id", "pumps", "-o", "json")
    assert len(registered["registrationId"]) == 52
