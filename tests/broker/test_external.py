"""provisiond behind a broker that the site runs already: Debian's mosquitto, MQTT 3.1.1 and 5."""

import shutil
from contextlib import asynccontextmanager

import pytest

from provisiond.admin.use_cases import Admin
from provisiond.daemon import Daemon
from provisiond.device import Endpoint, KeyAlgorithm, open_tpm, run_emulator
from provisiond.system import SystemClock, SystemEntropy
from tests.mosquitto import run_mosquitto
from tests.native_fleet import enroll_fleet
from tests.running_service import site_settings

pytestmark = pytest.mark.mosquitto


class Behind:
    """A daemon behind a broker, and its operator."""

    def __init__(self, daemon, broker):
        self.daemon = daemon
        self.edge = daemon._broker
        self.broker = broker
        store = daemon._store
        self.admin = Admin(store=store, clock=SystemClock(), entropy=SystemEntropy(), hubs=(), actor="the tests")
        self.endpoint = Endpoint(host="127.0.0.1", port=broker.port, plaintext=True)


@asynccontextmanager
async def run_behind(directory, broker, *, protocol="5", reply="immediate", **external):
    settings = site_settings(
        directory,
        reply=reply,
        broker={"mode": "external", "external": {"url": broker.url, "protocol": protocol} | external},
    )
    async with Daemon(settings) as daemon:
        yield Behind(daemon, broker)


@pytest.fixture
async def tpm():
    if shutil.which("swtpm") is None:
        pytest.skip("swtpm is not installed")
    async with run_emulator() as path, open_tpm(f"socket:{path}", algorithm=KeyAlgorithm.ECC) as device:
        yield device


@pytest.mark.swtpm
@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
async def test_the_fleet_is_assigned_through_a_foreign_broker(tmp_path, tpm, protocol):
    async with run_mosquitto(tmp_path) as broker, run_behind(tmp_path, broker, protocol=protocol) as site:
        fleet = await enroll_fleet(site.admin, tpm)
        results = await fleet.register_all(site.endpoint)
    assert {name: result.assigned_hub for name, result in results.items()} == dict.fromkeys(
        fleet.credentials, "gateway.local"
    )
    assert all(result.challenged for result in results.values())
