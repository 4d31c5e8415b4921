"""Debian's mosquitto clients and the recipes of the document, against the daemon: plaintext on loopback, and TLS."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from provisiond.admin.use_cases import Admin
from provisiond.daemon import Daemon
from provisiond.system import SystemClock, SystemEntropy
from tests.certificates import make_ca, make_leaf
from tests.enrollment_factory import PRIMARY_KEY, certificates, group, individual
from tests.mosquitto import SBIN, find_tool, run_mosquitto, run_tool
from tests.running_service import ID_SCOPE, site_settings

pytestmark = pytest.mark.mosquitto

DOCUMENT = Path(__file__).parents[2] / "docs" / "native-protocol.md"
REGISTER = "provisiond/v1/press-7/req/register/1"
RESPONSES = "provisiond/v1/press-7/res/#"


def recipe(name):
    (found,) = re.findall(rf"<!-- recipe: {name} -->\n```sh\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
    return found


class Gateway:
    """A daemon on loopback, plain and with TLS, and what its clients say on their command line."""

    def __init__(self, daemon, directory):
        store = daemon._store
        self.admin = Admin(store=store, clock=SystemClock(), entropy=SystemEntropy(), hubs=(), actor="the tests")
        self.directory = directory
        self.ports = {name: port for name, (_, port) in daemon.addresses.items()}

    def at(self, listener):
        options = {
            "local": ("-h", "127.0.0.1"),
            "devices": ("-h", "localhost", "--cafile", self.directory / "root.crt"),
        }
        return (*options[listener], "-p", self.ports[listener])

    async def run(self, name, listener, leaf, *, key=None, options=()):
        """Run a recipe as a device; exit status, its output as JSON, its errors."""
        for tool in ("mosquitto_rr", "openssl", "jq", "xxd" if "xxd" in recipe(name) else "sh"):
            find_tool(tool)
        chain_path, key_path = leaf.write(self.directory, "device")
        if key is not None:
            key_path.write_bytes(key.key_pem)
        tls = ("--cafile", self.directory / "root.crt") if listener == "devices" else ()
        environment = {
            "PATH": SBIN,
            "HOST": "localhost" if tls else "127.0.0.1",
            "PORT": self.ports[listener],
            "ID_SCOPE": ID_SCOPE,
            "ID": "press-7",
            "CHAIN": chain_path,
            "KEY": key_path,
            "MQTT_OPTIONS": " ".join(map(str, (*tls, *options))),
        }
        code, output, errors = await run_tool(
            "sh", "-c", recipe(name), env={name: str(value) for name, value in environment.items()}, deadline_s=240
        )
        return code, json.loads(output) if output else None, errors


@pytest.fixture
async def gateway(tmp_path):
    devices = site_settings(tmp_path).broker.listeners[0].model_dump(mode="json")
    settings = site_settings(tmp_path, broker={"listeners": [{"name": "local", "bind": "127.0.0.1:0"}, devices]})
    async with Daemon(settings) as daemon:
        yield Gateway(daemon, tmp_path)


@pytest.mark.parametrize("listener", ["local", "devices"])
async def test_the_recipe_registers_a_device_with_a_certificate(gateway, listener):
    leaf = make_leaf("press-7")
    await gateway.admin.create_enrollment(individual("press-7", certificates(leaf)))
    code, reply, errors = await gateway.run("x509", listener, leaf)
    assert code == 0, errors
    assert reply["registrationState"]["assignedHub"] == "gateway.local"


async def test_the_recipe_registers_a_device_of_a_group_by_its_handshake_alone(gateway):
    root = make_ca("Fleet")
    leaf = make_leaf("press-7", make_ca("Line 4", root))
    await gateway.admin.create_enrollment(group("line", certificates(root)))
    certificate_path, key_path = leaf.write(gateway.directory, "client")
    options = ("--cert", certificate_path, "--key", key_path)
    code, reply, errors = await gateway.run("x509", "devices", leaf, options=options)
    assert code == 0, errors
    assert reply["registrationState"]["status"] == "assigned"


async def test_the_recipe_fails_with_the_key_of_another_device(gateway):
    leaf = make_leaf("press-7")
    await gateway.admin.create_enrollment(individual("press-7", certificates(leaf)))
    code, reply, _ = await gateway.run("x509", "local", leaf, key=make_leaf("press-8"))
    assert (code, reply["error"]["errorCode"]) == (1, 401002)


async def subscribe(gateway, listener, client_id, topic_filter, count=1):
    """mosquitto_sub, once it has its SUBACK."""
    process = await asyncio.create_subprocess_exec(
        *(
            find_tool("stdbuf"),
            "-oL",
            find_tool("mosquitto_sub"),
            "-d",
            "-V",
            "mqttv311",
            "-i",
            client_id,
            "-q",
            "1",
            "-W",
            "120",
        ),
        *("-C", str(count), "-t", topic_filter, *map(str, gateway.at(listener))),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    while b"SUBACK" not in (line := await process.stdout.readline()):
        assert line, "mosquitto_sub ended"
    return process


async def publish(gateway, listener, topic, payload="{}", *options, client_id="press-7"):
    return await run_tool(
        *("mosquitto_pub", "-V", "mqttv311", "-i", client_id, "-q", "1", "-t", topic, "-m", payload),
        *gateway.at(listener),
        *options,
    )


@pytest.mark.parametrize("listener", ["local", "devices"])
async def test_mosquitto_sub_hears_what_mosquitto_pub_has_asked_for(gateway, listener):
    listening = await subscribe(gateway, listener, "press-7", RESPONSES)
    code, _, errors = await publish(gateway, listener, REGISTER, '{"attestation":{"type":"symmetricKey"}}')
    assert code == 0, errors
    output, _ = await listening.communicate()
    reply = next(json.loads(line) for line in output.decode().splitlines() if line.startswith("{"))
    assert (reply["status"], reply["challenge"]["type"]) == (401, "symmetricKey")


@pytest.mark.parametrize(
    "topic_filter",
    [
        "#",
        "+/v1/press-7/res/#",
        "provisiond/v1/+/res/#",
        "provisiond/v1/press-8/res/#",
        "$share/g/provisiond/v1/press-7/res/#",
        "provisiond/v1/_events/#",
        "provisiond/v1/_status",
        "$SYS/#",
    ],
)
async def test_mosquitto_sub_is_refused_what_is_not_its_own(gateway, topic_filter):
    _, output, errors = await run_tool(
        *("mosquitto_sub", "-V", "mqttv311", "-i", "press-7", "-W", "60", "-t", topic_filter), *gateway.at("local")
    )
    assert "denied" in output + errors


@pytest.mark.parametrize("topic", ["provisiond/v1/press-8/req/register/1", "provisiond/v1/press-7/res/register/1", "x"])
async def test_mosquitto_pub_cannot_publish_elsewhere(gateway, topic):
    code, _, errors = await publish(gateway, "local", topic)
    assert code != 0, errors


async def test_a_client_id_that_is_no_registration_id_is_refused(gateway):
    code, _, errors = await publish(gateway, "local", REGISTER, client_id="a/b")
    assert code == 5, errors


async def test_another_user_name_than_the_client_id_is_refused(gateway):
    code, _, errors = await publish(gateway, "local", REGISTER, "{}", "-u", "press-8")
    assert code == 5, errors


async def test_a_retained_request_is_answered_once_and_kept_for_nobody(gateway):
    listening = await subscribe(gateway, "local", "press-7", RESPONSES, count=2)
    for options in (("-r",), ()):
        code, _, errors = await publish(gateway, "local", REGISTER, "{}", *options)
        assert code == 0, errors
    output, _ = await listening.communicate()
    # With -d it says r1 of a retained message.
    told = [line for line in output.decode().splitlines() if "PUBLISH" in line]
    assert len(told) == 2
    assert all(", r0," in line for line in told)


async def test_nothing_secret_is_on_a_command_line_or_in_a_reply(gateway):
    leaf = make_leaf("press-7")
    await gateway.admin.create_enrollment(individual("press-7", certificates(leaf)))
    await gateway.admin.create_enrollment(individual("press-8"))
    _, reply, _ = await gateway.run("x509", "local", leaf)
    text = json.dumps(reply)
    assert PRIMARY_KEY.decode() not in text
    assert "PRIVATE KEY" not in text


async def test_at_another_broker_one_program_asks_and_another_listens(tmp_path):
    external = {"mode": "external", "external": {}}
    async with run_mosquitto(tmp_path) as broker:
        external["external"] = {"url": broker.url}
        async with Daemon(site_settings(tmp_path, broker=external)) as daemon:
            gateway = Gateway(daemon, tmp_path)
            gateway.ports["local"] = broker.port
            listening = await subscribe(gateway, "local", "listener", RESPONSES)
            code, _, errors = await publish(gateway, "local", REGISTER, "{}", client_id="asker")
            assert code == 0, errors
            output, _ = await listening.communicate()
    assert '"status":400' in output.decode()
