"""provisiond behind a broker that the site runs already: Debian's mosquitto, MQTT 3.1.1 and 5."""

import asyncio
import json
import shutil
import socket
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from provisiond.admin.use_cases import Admin
from provisiond.broker.external_requests import Ignored
from provisiond.daemon import Daemon
from provisiond.device import (
    Endpoint,
    KeyAlgorithm,
    ProvisioningClient,
    SymmetricKeyCredential,
    X509Credential,
    open_tpm,
    run_emulator,
)
from provisiond.device.dialect import NativeDialect
from provisiond.settings.mosquitto_acl import render_mosquitto_acl
from provisiond.system import SystemClock, SystemEntropy
from tests.certificates import SERVER_AUTH, make_ca, make_leaf
from tests.device.service import run_service
from tests.enrollment_factory import PRIMARY_KEY, certificates, individual
from tests.mosquitto import make_passwords, run_mosquitto
from tests.native_fleet import QUICK, Fleet, enroll_fleet
from tests.running_service import ID_SCOPE, site_settings

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


# --- access rules ----------------------------------------------------------------------------------------------------

USERS = ("provisiond", "operator", "pinned_1", "member_1", "keyed_1", "tpm_1", "thief")


@asynccontextmanager
async def run_guarded(directory, **external):
    """A mosquitto that keeps to the generated rules, and provisiond behind it with its own user; all have `secret`."""
    passwords, acl, password_file = directory / "passwords", directory / "acl", directory / "password"
    await make_passwords(passwords, **dict.fromkeys(USERS, "secret"))
    acl.write_text(render_mosquitto_acl("provisiond"))
    acl.chmod(0o600)
    password_file.write_text("secret\n")
    password_file.chmod(0o600)
    rules = (f"acl_file {acl}", f"password_file {passwords}", "allow_anonymous false")
    async with (
        run_mosquitto(directory, *rules) as broker,
        run_behind(directory, broker, username="provisiond", password_file=str(password_file), **external) as site,
    ):
        yield site


def client(site, user=None, *, protocol=aiomqtt.ProtocolVersion.V5):
    login = {"username": user, "password": "secret"} if user else {}
    return aiomqtt.Client("127.0.0.1", site.broker.port, identifier=user, protocol=protocol, **login)


@pytest.mark.swtpm
async def test_the_fleet_is_assigned_where_every_device_has_a_login_of_its_own(tmp_path, tpm):
    async with run_guarded(tmp_path) as site:
        fleet = await enroll_fleet(site.admin, tpm)
        results = await fleet.register_all(site.endpoint, user_name="{id}", password="secret")
    assert {result.assigned_hub for result in results.values()} == {"gateway.local"}


async def test_a_device_cannot_read_anothers_replies_nor_ask_in_its_name(tmp_path):
    async with run_guarded(tmp_path) as site, client(site, "thief") as thief, client(site, "keyed-1") as device:
        # mosquitto grants a subscription that it delivers nothing on.
        await thief.subscribe("provisiond/v1/keyed-1/res/#", qos=1)
        await thief.subscribe("provisiond/v1/_events/#", qos=1)
        await thief.subscribe("provisiond/v1/thief/res/#", qos=1)
        await device.subscribe("provisiond/v1/keyed-1/res/#", qos=1)
        await thief.publish("provisiond/v1/keyed-1/req/register/stolen", b"{}", qos=1)
        await device.publish("provisiond/v1/keyed-1/req/register/own", b"{}", qos=1)
        await thief.publish("provisiond/v1/thief/req/register/own", b"{}", qos=1)
        assert str((await anext(device.messages)).topic) == "provisiond/v1/keyed-1/res/register/own"
        assert str((await anext(thief.messages)).topic) == "provisiond/v1/thief/res/register/own"
        assert len(device.messages) == len(thief.messages) == 0


@pytest.mark.parametrize("external", [{"group": "provisiond-8f3a61"}, {"shared_subscriptions": "off"}], ids=str)
async def test_a_stranger_swallows_no_requests_where_the_group_cannot_be_guessed(tmp_path, external):
    async with (
        run_guarded(tmp_path, **external) as site,
        client(site, "thief") as thief,
        client(site, "keyed-1") as device,
    ):
        await thief.subscribe("$share/provisiond/provisiond/v1/+/req/#", qos=1)  # granted, whatever the rules are
        await device.subscribe("provisiond/v1/keyed-1/res/#", qos=1)
        for number in range(4):
            await device.publish(f"provisiond/v1/keyed-1/req/register/{number}", b"{}", qos=1)
            assert str((await anext(device.messages)).topic) == f"provisiond/v1/keyed-1/res/register/{number}"
        assert len(thief.messages) == 0


async def test_operators_hear_events_and_the_status_and_devices_do_not(tmp_path):
    async with run_guarded(tmp_path) as site, client(site, "operator") as operator:
        await operator.subscribe("provisiond/v1/_status", qos=1)
        status = await anext(operator.messages)
        assert status.retain
        assert json.loads(status.payload)["running"] is True
        await operator.subscribe("provisiond/v1/_events/#", qos=1)
        await site.admin.create_enrollment(individual("keyed-1"))
        fleet = Fleet(credentials={"keyed-1": SymmetricKeyCredential(key=PRIMARY_KEY)})
        await fleet.register_all(site.endpoint, password="secret", user_name="{id}")
        event = await anext(operator.messages)
        assert str(event.topic) == "provisiond/v1/_events/registration/keyed-1"
        assert json.loads(event.payload)["outcome"] == "assigned"
    assert PRIMARY_KEY not in event.payload


async def test_certificates_log_devices_in_where_the_broker_asks_for_them(tmp_path):
    root = make_ca("Site Root")
    (tmp_path / "site.crt").write_bytes(root.pem)
    server = make_leaf("localhost", root, dns_names=("localhost",), usages=(SERVER_AUTH,))
    server_cert, server_key = server.write(tmp_path, "broker")
    ours_cert, _ = make_leaf("provisiond", root).write(tmp_path, "ours")
    (tmp_path / "acl").write_text(render_mosquitto_acl("provisiond"))
    (tmp_path / "acl").chmod(0o600)
    device = make_leaf("pinned-1", root)
    lines = (f"cafile {tmp_path}/site.crt", f"certfile {server_cert}", f"keyfile {server_key}")
    rules = ("require_certificate true", "use_identity_as_username true", f"acl_file {tmp_path}/acl")
    files = {"ca_file": str(tmp_path / "site.crt"), "cert_file": str(ours_cert)}
    async with (
        run_mosquitto(tmp_path, *lines, *rules) as broker,
        run_behind(tmp_path, broker, **files, url=f"mqtts://localhost:{broker.port}") as site,
    ):
        await site.admin.create_enrollment(individual("pinned-1", certificates(device)))
        fleet = Fleet(credentials={"pinned-1": X509Credential.from_pem(device.chain_pem, device.key_pem)})
        endpoint = Endpoint(host="localhost", port=broker.port, ca_file=tmp_path / "site.crt")
        result = await fleet.register(endpoint, "pinned-1")
    assert (result.assigned_hub, result.challenged) == ("gateway.local", True)


async def test_a_wrong_password_is_told_and_tried_again(tmp_path, caplog):
    await make_passwords(tmp_path / "passwords", provisiond="secret")
    password_file = tmp_path / "password"
    password_file.touch(mode=0o600)
    password_file.write_text("not-it\n")
    rules = (f"password_file {tmp_path}/passwords", "allow_anonymous false")
    options = {"username": "provisiond", "password_file": str(password_file)}
    async with run_mosquitto(tmp_path, *rules) as broker, run_behind(tmp_path, broker, **options) as site:
        assert not site.edge.is_connected
        assert "refuses us" in caplog.text
        assert "secret" not in caplog.text
        assert "not-it" not in caplog.text
        password_file.write_text("secret\n")
        await until(lambda: site.edge.is_connected)


async def test_a_broker_that_refuses_the_subscription_is_told(tmp_path, caplog):
    async with run_service(suback=0x80) as scripted:
        broker = SimpleNamespace(url=f"mqtt://127.0.0.1:{scripted.port}", port=scripted.port)
        async with run_behind(tmp_path, broker, protocol="3.1.1") as site:
            assert not site.edge.is_connected
    assert scripted.filters[0] == "provisiond/v1/+/req/#"
    assert "refuses the subscription to provisiond/v1/+/req/#; look at its access rules" in caplog.text


# --- what requests ask for -------------------------------------------------------------------------------------------


def wishes(**values):
    properties = Properties(PacketTypes.PUBLISH)
    for name, value in values.items():
        setattr(properties, name, value)
    return properties


@pytest.fixture
async def open_site(tmp_path):
    async with run_mosquitto(tmp_path) as broker, run_behind(tmp_path, broker) as site:
        yield site


async def ask(asking, topic="provisiond/v1/dev-1/req/register/r1", payload=b"{}", **options):
    async with asyncio.timeout(60):
        await asking.publish(topic, payload, qos=1, **options)
        return await anext(asking.messages)


async def test_correlation_data_comes_back_and_the_own_response_topic_is_honoured(open_site):
    own = wishes(ResponseTopic="provisiond/v1/dev-1/res/here", CorrelationData=b"\x00\xff42")
    async with client(open_site) as device:
        await device.subscribe("provisiond/v1/dev-1/res/#", qos=1)
        reply = await ask(device, properties=own)
    assert str(reply.topic) == "provisiond/v1/dev-1/res/here"
    assert reply.properties.CorrelationData == b"\x00\xff42"
    assert not reply.retain
    assert not open_site.edge.statistics.ignored


@pytest.mark.parametrize(
    "wanted", ["provisiond/v1/dev-2/res/here", "provisiond/v1/_status", "devices/dev-2/messages/devicebound/", "x"]
)
async def test_a_response_topic_elsewhere_is_ignored_and_counted(open_site, wanted):
    async with client(open_site) as device:
        await device.subscribe("#", qos=1)
        reply = await ask(device, properties=wishes(ResponseTopic=wanted, CorrelationData=b"42"))
        topics = {str(reply.topic)}
        while not any(topic.startswith("provisiond/v1/dev-1/res/") for topic in topics):
            reply = await anext(device.messages)
            topics.add(str(reply.topic))
    assert str(reply.topic) == "provisiond/v1/dev-1/res/register/r1"
    assert reply.properties.CorrelationData == b"42"
    assert wanted not in topics - {"provisiond/v1/_status"}
    assert open_site.edge.statistics.ignored == {Ignored.RESPONSE_TOPIC: 1}


async def test_a_retained_request_is_not_answered_when_it_comes_back(tmp_path):
    async with run_mosquitto(tmp_path) as broker, aiomqtt.Client("127.0.0.1", broker.port) as device:
        await device.publish("provisiond/v1/dev-1/req/register/old", b"{}", qos=1, retain=True)
        await device.subscribe("provisiond/v1/dev-1/res/#", qos=1)
        async with run_behind(tmp_path, broker, protocol="3.1.1") as site:
            reply = await ask(device, "provisiond/v1/dev-1/req/register/new")
    assert str(reply.topic) == "provisiond/v1/dev-1/res/register/new"
    assert site.edge.statistics.ignored[Ignored.RETAINED] == 1


@pytest.mark.parametrize(
    ("topic", "status"),
    [
        ("provisiond/v1/dev-1/req/register/r1", 400),
        ("provisiond/v1/dev-1/req/explode/r1", 404),
        ("provisiond/v1/dev-1/req/register", 400),
        ("provisiond/v1/dev-1/req/register/r1/more", 400),
        ("provisiond/v1/dev-1/req/register/a b", 400),
    ],
)
async def test_bad_requests_get_one_reply_each(open_site, topic, status):
    async with client(open_site) as device:
        await device.subscribe("provisiond/v1/dev-1/res/#", qos=1)
        reply = await ask(device, topic)
    body = json.loads(reply.payload)
    assert body["status"] == status
    assert body["error"]["trackingId"]


@pytest.mark.parametrize("name", ["../x", "a b", "a" * 129, "_operator", "_events", "ünï"])
async def test_who_cannot_be_a_device_is_passed_over_and_counted(open_site, name):
    async with client(open_site) as device:
        await device.subscribe("provisiond/v1/+/res/#", qos=1)
        await device.publish(f"provisiond/v1/{name}/req/register/r1", b"{}", qos=1)
        await device.subscribe("provisiond/v1/dev-1/res/#", qos=1)
        reply = await ask(device)
    assert str(reply.topic) == "provisiond/v1/dev-1/res/register/r1"
    # "../x" is another topic, which nobody is subscribed to.
    assert open_site.edge.statistics.ignored[Ignored.NO_REGISTRATION_ID] == (0 if "/" in name else 1)


async def test_a_flood_from_one_id_is_throttled_and_another_device_is_served_meanwhile(open_site):
    await open_site.admin.create_enrollment(individual("keyed-1"))
    fleet = Fleet(credentials={"keyed-1": SymmetricKeyCredential(key=PRIMARY_KEY)})
    began_s = time.monotonic()
    async with client(open_site) as flooder:
        flooder.pending_calls_threshold = 1000
        await flooder.subscribe("provisiond/v1/flood/res/#", qos=1)
        async with asyncio.TaskGroup() as tasks:
            for number in range(500):
                topic = f"provisiond/v1/flood/req/register/{number}"
                tasks.create_task(flooder.publish(topic, b"{", qos=1, timeout=60))
            served = tasks.create_task(fleet.register(open_site.endpoint, "keyed-1"))
        replies = [json.loads((await anext(flooder.messages)).payload) for _ in range(500)]
    assert served.result().assigned_hub == "gateway.local"
    throttled = [reply for reply in replies if reply["status"] == 429]
    let_in_max = 150 + 2 * (time.monotonic() - began_s)  # 120 at once, and as many a minute
    assert len(throttled) >= 500 - let_in_max
    assert all(reply["retryAfter"] >= 1 for reply in throttled)
    rows = await open_site.daemon._store.list_audit(limit=1000, registration_key="flood")
    assert len(rows) <= let_in_max


# --- a broker that goes away -----------------------------------------------------------------------------------------


async def until(condition, deadline_s=60):
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - what happens between two programs has no event to wait for
            await asyncio.sleep(0.02)


async def test_a_broker_that_was_away_is_found_again_and_a_device_that_keeps_asking_is_assigned(tmp_path):
    patience = replace(QUICK, request_s=1.0)
    fleet = Fleet(credentials={"keyed-1": SymmetricKeyCredential(key=PRIMARY_KEY)})
    async with run_mosquitto(tmp_path) as broker, run_behind(tmp_path, broker) as site:
        await site.admin.create_enrollment(individual("keyed-1"))
        before = await fleet.register(site.endpoint, "keyed-1")
        async with ProvisioningClient(
            site.endpoint,
            id_scope=ID_SCOPE,
            registration_id="keyed-1",
            credential=fleet.credentials["keyed-1"],
            dialect=NativeDialect(),
            patience=patience,
        ) as device:
            await broker.stop()
            await until(lambda: not site.edge.is_connected)
            asking = asyncio.create_task(device.register())
            await broker.start()
            after = await asking
        assert site.edge.statistics.connections_total == 2
    assert before.body["registrationState"]["etag"] == after.body["registrationState"]["etag"]


async def test_a_broker_that_is_away_at_the_start_is_waited_for(tmp_path):
    async with run_mosquitto(tmp_path) as broker:
        await broker.stop()
        async with run_behind(tmp_path, broker) as site:
            assert not site.edge.is_connected
            await broker.start()
            await until(lambda: site.edge.is_connected)


async def test_a_request_in_progress_when_the_broker_goes_is_finished_and_not_acknowledged_twice(tmp_path):
    async with run_mosquitto(tmp_path) as broker, run_behind(tmp_path, broker) as site:
        async with client(site) as device:
            await device.subscribe("provisiond/v1/dev-1/res/#", qos=1)
            await ask(device)
        held, gate = [], asyncio.Event()
        handle = site.edge._gatekeeper.handle

        async def slow(connection, message):
            held.append(message)
            await gate.wait()
            return await handle(connection, message)

        site.edge._gatekeeper.handle = slow
        async with client(site) as device:
            await device.publish("provisiond/v1/dev-1/req/register/r2", b"{}", qos=1)
        await until(lambda: held)
        await broker.stop()
        await until(lambda: not site.edge.is_connected)
        gate.set()
        await until(lambda: site.edge.statistics.ignored[Ignored.UNSENT_REPLY] == 1)


async def test_the_status_says_stopped_when_the_service_ends_in_either_way(tmp_path):
    async with run_mosquitto(tmp_path) as broker, aiomqtt.Client("127.0.0.1", broker.port) as listener:
        await listener.subscribe("provisiond/v1/_status", qos=1)

        async def next_running():
            async with asyncio.timeout(60):
                return json.loads((await anext(listener.messages)).payload)["running"]

        async with run_behind(tmp_path, broker):
            assert await next_running() is True
        heard = [await next_running()]
        while heard[-1]:
            heard.append(await next_running())
        async with run_behind(tmp_path, broker) as site:
            while not await next_running():
                pass
            site.edge._client._client.socket().shutdown(socket.SHUT_RDWR)  # the broker speaks the last will
            while await next_running():
                pass
            while not await next_running():
                pass
