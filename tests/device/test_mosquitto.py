"""The client against a broker that is not ours: real MQTT, real TLS, and a service behind it that answers everybody."""

import asyncio
import json
import shutil
from contextlib import asynccontextmanager

import aiomqtt
import pytest

from provisiond.device.client import Patience, ProvisioningClient
from provisiond.device.credentials import SymmetricKeyCredential, X509Credential
from provisiond.device.errors import CannotConnect
from provisiond.device.mqtt import Endpoint
from provisiond.device.simulator import FleetOutcome, Service, SimulatedDevice, run_fleet
from tests.certificates import SERVER_AUTH, make_ca, make_leaf
from tests.mosquitto import until_listening
from tests.ports import free_port

pytestmark = pytest.mark.mosquitto

KEY = SymmetricKeyCredential(key=b"k" * 32)
QUICK = Patience(connect_s=60, request_s=60, total_s=120, poll_s=0, jitter=0)


@asynccontextmanager
async def run_mosquitto(directory, ca_pem, server, *lines):
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if program is None:
        pytest.skip("mosquitto is not installed")
    tls_port, plain_port = free_port(), free_port()
    certificate_path, key_path = server.write(directory, "server")
    (directory / "ca.crt").write_bytes(ca_pem)
    configuration = directory / "mosquitto.conf"
    configuration.write_text(
        f"allow_anonymous true\nper_listener_settings false\nuser root\nlistener {plain_port} 127.0.0.1\n"
        f"listener {tls_port} 127.0.0.1\ncafile {directory}/ca.crt\ncertfile {certificate_path}\nkeyfile {key_path}\n"
        + "\n".join(lines)
    )
    process = await asyncio.create_subprocess_exec(
        program, "-c", str(configuration), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await until_listening(process, tls_port)
        yield tls_port, plain_port
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def run_echo_service(port):
    """Answers a registration with 202 and a poll with 200; the operation id carries the registration id."""

    async def answer(client):
        async for message in client.messages:
            topic = str(message.topic)
            rid = topic.partition("$rid=")[2].partition("&")[0]
            if "/PUT/" in topic:
                operation = json.loads(message.payload)["registrationId"]
                status, body = 202, {"operationId": operation, "status": "assigning"}
            else:
                operation = topic.partition("operationId=")[2]
                state = {"assignedHub": "hub.local", "deviceId": operation}
                status, body = 200, {"operationId": operation, "status": "assigned", "registrationState": state}
            reply = f"$dps/registrations/res/{status}/?$rid={rid}&retry-after=0"
            await client.publish(reply, json.dumps(body), qos=0)

    async with aiomqtt.Client("127.0.0.1", port) as client, asyncio.TaskGroup() as tasks:
        client.pending_calls_threshold = 1000
        await client.subscribe("$dps/registrations/PUT/#", qos=1)
        await client.subscribe("$dps/registrations/GET/#", qos=1)
        answering = tasks.create_task(answer(client))
        yield
        answering.cancel()


@pytest.fixture(scope="module")
def root():
    return make_ca("Root")


@pytest.fixture(scope="module")
def server(root):
    return make_leaf("localhost", root, dns_names=("localhost",), usages=(SERVER_AUTH,))


async def test_a_device_with_a_certificate_is_assigned_over_tls(tmp_path, root, server):
    leaf = make_leaf("dev-1", root)
    credential = X509Credential.from_pem(leaf.chain_pem, leaf.key_pem)
    async with (
        run_mosquitto(tmp_path, root.pem, server, "require_certificate true") as (tls_port, plain_port),
        run_echo_service(plain_port),
    ):
        endpoint = Endpoint(host="localhost", port=tls_port, ca_file=tmp_path / "ca.crt")
        async with ProvisioningClient(
            endpoint, id_scope="0ne", registration_id="dev-1", credential=credential, patience=QUICK
        ) as client:
            result = await client.register({"any": "payload"})
    assert (result.assigned_hub, result.device_id, result.polls) == ("hub.local", "dev-1", 1)


async def test_a_device_without_the_certificate_the_broker_demands_cannot_connect(tmp_path, root, server):
    async with run_mosquitto(tmp_path, root.pem, server, "require_certificate true") as (tls_port, _):
        endpoint = Endpoint(host="localhost", port=tls_port, ca_file=tmp_path / "ca.crt")
        with pytest.raises(CannotConnect):
            async with ProvisioningClient(
                endpoint, id_scope="0ne", registration_id="dev-1", credential=KEY, patience=QUICK
            ):
                pass


async def test_each_device_of_a_fleet_finds_its_own_reply_among_everybodys(tmp_path, root, server):
    devices = [SimulatedDevice(registration_id=f"sim-{number}", credential=KEY) for number in range(40)]
    async with (
        run_mosquitto(tmp_path, root.pem, server, "max_queued_messages 0") as (tls_port, plain_port),
        run_echo_service(plain_port),
    ):
        endpoint = Endpoint(host="localhost", port=tls_port, ca_file=tmp_path / "ca.crt")
        service = Service(endpoint=endpoint, id_scope="0ne", patience=QUICK)
        report = await run_fleet(devices, service, concurrency=20)
    assert report.outcomes == {FleetOutcome.ASSIGNED: 40}, report.reasons
