"""`simulate --protocol native`, as an operator types it: at provisiond's own broker and at a site's mosquitto."""

import asyncio
import base64
import json
import shutil
from contextlib import asynccontextmanager

import pytest
import structlog

from provisiond.admin.use_cases import Admin
from provisiond.daemon import Daemon
from provisiond.model import TpmMaterial
from provisiond.settings.mosquitto_acl import render_mosquitto_acl
from provisiond.system import SystemClock, SystemEntropy
from tests.certificates import make_ca, make_leaf
from tests.cli.test_simulate import simulate
from tests.enrollment_factory import PRIMARY_KEY, certificates, group, individual
from tests.mosquitto import make_passwords, run_mosquitto
from tests.running_service import ID_SCOPE, site_settings


@pytest.fixture(autouse=True)
def _keep_the_log_out_of_the_commands_output():
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


class Site:
    """A daemon, its operator, and the flags that name where its devices connect."""

    def __init__(self, daemon, flags):
        self.flags = (*flags, "--id-scope", ID_SCOPE, "--protocol", "native")
        store = daemon._store
        self.admin = Admin(store=store, clock=SystemClock(), entropy=SystemEntropy(), hubs=(), actor="the tests")


@asynccontextmanager
async def run_embedded(directory, *, tls):
    devices = site_settings(directory).broker.listeners[0].model_dump(mode="json")
    settings = site_settings(directory, broker={"listeners": [{"name": "local", "bind": "127.0.0.1:0"}, devices]})
    async with Daemon(settings) as daemon:
        _, port = daemon.addresses["devices" if tls else "local"]
        where = ("--host", "localhost", "--ca-file", directory / "root.crt") if tls else ("--plaintext",)
        yield Site(daemon, (*where, "--port", port))


@asynccontextmanager
async def run_external(directory, protocol="5"):
    await make_passwords(directory / "passwords", provisiond="secret", dev_1="secret")
    for name, text in (("acl", render_mosquitto_acl("provisiond")), ("password", "secret\n")):
        (directory / name).touch(mode=0o600)
        (directory / name).write_text(text)
    rules = (f"acl_file {directory}/acl", f"password_file {directory}/passwords", "allow_anonymous false")
    external = {"protocol": protocol, "username": "provisiond", "password_file": str(directory / "password")}
    async with run_mosquitto(directory, *rules) as broker:
        settings = site_settings(directory, broker={"mode": "external", "external": external | {"url": broker.url}})
        async with Daemon(settings) as daemon:
            login = ("--password-file", directory / "password")
            yield Site(daemon, ("--plaintext", "--port", broker.port, *login))


EDGES = {
    "tls": lambda directory: run_embedded(directory, tls=True),
    "plaintext": lambda directory: run_embedded(directory, tls=False),
    "mosquitto": run_external,
}


@pytest.fixture(params=EDGES)
async def site(request, tmp_path):
    async with EDGES[request.param](tmp_path) as running:
        yield running


async def device(site, *arguments):
    return await simulate("device", "dev-1", *arguments, *site.flags)


async def test_a_symmetric_key_tells_its_story(site, tmp_path):
    await site.admin.create_enrollment(individual("dev-1"))
    (tmp_path / "device.key").write_bytes(base64.b64encode(PRIMARY_KEY))
    result = await device(site, "--attestation", "symmetricKey", "--key-file", tmp_path / "device.key")
    assert result.exit_code == 0, result.output
    assert [line.split(" (")[0] for line in result.stdout.splitlines()] == [
        "connected",
        "challenge",
        "assigning",
        "assigned",
    ]


async def test_a_certificate_is_assigned(site, tmp_path):
    leaf = make_leaf("dev-1")
    await site.admin.create_enrollment(individual("dev-1", certificates(leaf)))
    certificate_path, key_path = leaf.write(tmp_path, "device")
    result = await device(
        site, "--attestation", "x509", "--certificate-path", certificate_path, "--key-path", key_path, "-o", "json"
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["assignedHub"] == "gateway.local"


@pytest.mark.swtpm
async def test_a_tpm_is_assigned(site, tmp_path):
    if shutil.which("swtpm") is None:
        pytest.skip("swtpm is not installed")
    kept = ("--attestation", "tpm", "--tpm-algorithm", "ecc", "--dir", tmp_path / "tpm")
    printed = await device(site, *kept, "--print-endorsement-key")
    material = TpmMaterial(endorsement_key=base64.b64decode(printed.stdout))
    await site.admin.create_enrollment(individual("dev-1", material))
    result = await device(site, *kept)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "assigned (gateway.local, dev-1)"


async def test_a_wrong_key_prints_the_error_json_and_exits_5(site, tmp_path):
    await site.admin.create_enrollment(individual("dev-1"))
    (tmp_path / "device.key").write_bytes(base64.b64encode(b"w" * 32))
    result = await device(site, "--attestation", "symmetricKey", "--key-file", tmp_path / "device.key")
    assert result.exit_code == 5
    assert json.loads(result.stdout.splitlines()[-1])["errorCode"] == 401002


async def test_a_fleet_is_assigned(tmp_path):
    root = make_ca("Fleet")
    certificate_path, key_path = root.write(tmp_path, "ca")
    (tmp_path / "group.key").write_bytes(base64.b64encode(PRIMARY_KEY))
    issued = ("--attestation", "x509", "--ca-certificate-path", certificate_path, "--ca-key-path", key_path)
    derived = ("--attestation", "symmetricKey", "--group-key-file", tmp_path / "group.key", "--id-prefix", "key-")
    async with run_embedded(tmp_path, tls=False) as site:
        await site.admin.create_enrollment(group("line", certificates(root)))
        await site.admin.create_enrollment(group("keys"))
        for kind in (issued, derived):
            result = await simulate("fleet", "--count", 20, "--concurrency", 10, *kind, *site.flags, "-o", "json")
            assert result.exit_code == 0, result.output
            assert json.loads(result.stdout)["assigned"] == 20


async def test_a_login_of_the_sites_broker_does_not_go_with_dps(tmp_path):
    arguments = ("--attestation", "symmetricKey", "--key-file", tmp_path / "k", "--user-name", "a", "--id-scope", "0ne")
    result = await asyncio.create_task(simulate("device", "dev-1", *arguments))
    assert result.exit_code == 2
    assert "go with --protocol native" in result.output
