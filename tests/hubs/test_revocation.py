"""A revoked certificate is refused by a real mosquitto that fetches the list as the documentation says."""

import asyncio
import re
import shutil
from pathlib import Path

import aiomqtt
import pytest
import tomlkit
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from provisiond.device.client import ProvisioningClient
from provisiond.device.credentials import X509Credential
from provisiond.device.dialect import NativeDialect
from provisiond.device.errors import Refused
from provisiond.device.mqtt import Endpoint
from provisiond.protocols.hub_credential import parse_hub_key
from tests.certificates import SERVER_AUTH, Ca, Leaf, make_leaf
from tests.hubs.conftest import key_identity, run_mosquitto
from tests.hubs.devices import certificate_device, is_cut, password_device
from tests.hubs.gateways import PATIENCE, Gateway
from tests.hubs.test_gateway import mosquitto_hub
from tests.hubs.test_mosquitto import refused_by_tls
from tests.ports import free_port
from tests.system.daemon import ID_SCOPE

pytestmark = pytest.mark.mosquitto

DOCUMENT = Path(__file__).parents[2] / "docs/hub-connectors.md"


def fetch_script(gateway, broker, port):
    """The script of the documentation, for this place."""
    (block,) = re.findall(r"```sh\n(  #!/bin/sh.*?)```", DOCUMENT.read_text(), re.DOTALL)
    script = "\n".join(line.removeprefix("  ") for line in block.splitlines()) + "\n"
    for documented, here in {
        "http://gateway.local:9111/crl/root.pem": f"http://127.0.0.1:{port}/crl/root.pem",
        "/etc/mosquitto/devices-ca.crt": f"{gateway.service.ca_file}",
        "/var/lib/mosquitto/provisiond.crl": f"{broker.directory}/devices.crl",
        "systemctl reload mosquitto": f"kill -HUP {broker.process.pid}; echo reloaded",
    }.items():
        assert script.count(documented) == 1, documented
        script = script.replace(documented, here)
    file = gateway.directory / "fetch-crl"
    file.write_text(script)
    return file


def serve_list(gateway):
    """Have the list served on a free port."""
    document, port = tomlkit.parse(gateway.service.config_file.read_text()), free_port()
    document["crl"] = {"bind": f"127.0.0.1:{port}"}
    gateway.service.config_file.write_text(tomlkit.dumps(document))
    return port


async def taken_again(broker, leaf):
    async with asyncio.timeout(120):
        while True:  # as `refused_by_tls`
            try:
                async with certificate_device(broker, leaf, timeout_s=5):
                    return
            except aiomqtt.MqttError:
                await asyncio.sleep(0.05)


async def run_script(file):
    process = await asyncio.create_subprocess_exec("/bin/sh", str(file), stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return process.returncode, output.decode().split()


@pytest.fixture
async def gateway(tmp_path):
    return await asyncio.to_thread(Gateway, tmp_path, [])


@pytest.fixture
def local_ca(gateway):
    """The authority that `provisiond init` has made."""
    return load(Ca, gateway.service.ca_file, gateway.service.ca_file.with_suffix(".key"))


async def enroll_certificate(gateway, registration_id):
    issued = await gateway.command("ca", "issue", registration_id, "--out", gateway.directory)
    await asyncio.to_thread(
        gateway.service.enroll,
        registration_id,
        attestation_type="x509",
        certificate_path=issued["certificateFile"],
    )
    return load(Leaf, issued["certificateFile"], issued["keyFile"])


def load(kind, certificate_file, key_file):
    certificate = x509.load_pem_x509_certificate(Path(certificate_file).read_bytes())
    return kind(certificate=certificate, key=load_pem_private_key(Path(key_file).read_bytes(), None))


async def register(gateway, daemon, leaf, registration_id, *, dialect=None):
    endpoint = Endpoint(host="localhost", port=daemon.port(tls=True), ca_file=gateway.service.ca_file)
    async with ProvisioningClient(
        endpoint,
        id_scope=ID_SCOPE,
        registration_id=registration_id,
        credential=X509Credential.from_files(*leaf.write(gateway.directory, registration_id)),
        patience=PATIENCE,
        dialect=dialect,
    ) as client:
        return await client.register()


async def test_a_revoked_certificate_is_refused_in_the_handshake_once_mosquitto_has_fetched_the_list(
    gateway, local_ca, tmp_path
):
    server = make_leaf("localhost", local_ca, dns_names=("localhost",), usages=(SERVER_AUTH,))
    async with run_mosquitto(tmp_path, (local_ca, server)) as broker:
        shutil.copy(tmp_path / "admin.password", gateway.directory / "admin.password")
        gateway.service.configure(hubs=[mosquitto_hub(broker)])
        pump, other = await enroll_certificate(gateway, "pump"), await enroll_certificate(gateway, "other")
        script = fetch_script(gateway, broker, serve_list(gateway))
        async with gateway.running() as daemon:
            assert await run_script(script) == (0, ["reloaded"])
            assert await run_script(script) == (0, [])  # nothing has changed
            for leaf, name in ((pump, "pump"), (other, "other")):
                assert (await register(gateway, daemon, leaf, name)).device_id == name
            async with certificate_device(broker, other) as kept:
                async with certificate_device(broker, pump) as device:
                    receipt = await gateway.command("device", "disable", "pump")
                    assert await is_cut(device)
                assert receipt["outcome"] == "judged"
                assert any(check["check"] == "revocation-list" for check in receipt["trace"])
                assert await run_script(script) == (0, ["reloaded"])
                await refused_by_tls(broker, pump)
                await kept.publish("devices/other/messages/events/", b"still here", qos=1)
            await gateway.command("device", "enable", "pump")
            assert await run_script(script) == (0, ["reloaded"])
            await taken_again(broker, pump)


async def test_a_device_with_a_certificate_gets_a_password_sealed_where_mosquitto_takes_nothing_else(
    gateway, tmp_path, pki
):
    async with run_mosquitto(tmp_path, pki) as broker:
        shutil.copy(tmp_path / "admin.password", gateway.directory / "admin.password")
        hub = mosquitto_hub(broker)
        hub["options"]["x509"] = "password"
        gateway.service.configure(hubs=[hub])
        pump = await enroll_certificate(gateway, "pump")
        async with gateway.running() as daemon:
            with pytest.raises(Refused) as refusal:  # these topics could not tell it the password
                await register(gateway, daemon, pump, "pump")
            assert refusal.value.body["registrationState"]["errorCode"] == 400208
            result = await register(gateway, daemon, pump, "pump", dialect=NativeDialect())
            identity = key_identity("pump", parse_hub_key(result.hub_credential))
            async with password_device(broker, identity) as device:
                await device.publish("devices/pump/messages/events/", b"hello", qos=1)
                assert (await gateway.command("device", "disable", "pump"))["outcome"] == "proved"
                assert await is_cut(device)


async def test_a_list_that_another_authority_has_signed_is_not_taken(gateway, local_ca, tmp_path):
    server = make_leaf("localhost", local_ca, dns_names=("localhost",), usages=(SERVER_AUTH,))
    async with run_mosquitto(tmp_path, (local_ca, server)) as broker:
        before = (broker.directory / "devices.crl").read_bytes()
        script = fetch_script(gateway, broker, 1)
        forged = tmp_path / "forged.pem"
        stranger = await asyncio.to_thread(Gateway, tmp_path / "stranger", [])
        await stranger.command("ca", "crl")
        shutil.copy(stranger.directory / "ca/root.crl", forged)
        script.write_text(script.read_text().replace("http://127.0.0.1:1/crl/root.pem", f"file://{forged}"))
        code, output = await run_script(script)
        assert (code != 0, output) == (True, [])
        assert (broker.directory / "devices.crl").read_bytes() == before
