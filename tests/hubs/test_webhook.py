"""The webhook connector against a service that does what it says, and against others."""

import asyncio
import hmac
import ssl
from dataclasses import dataclass, field
from hashlib import sha256

import pytest

from provisiond.admin.hub_revocation import take_from_hub
from provisiond.connectors import HubIdentity, HubOptions
from provisiond.errors import ConfigurationError, HubRefused, HubUnauthorized, HubUnavailable
from provisiond.hubs import contract
from provisiond.hubs.webhook import make_connector
from provisiond.model import Retirement, RetirementAction
from provisiond.protocols.hub_password import derive_hub_password
from provisiond.system import SystemClock, SystemEntropy
from tests.certificates import make_leaf
from tests.hubs.conftest import certificate_identity, key_identity
from tests.hubs.services import endless, hang, json_answer, run_service
from tests.store.records import AT, make_registration

SECRET = "what both sides know"


@dataclass
class Registry:
    """A hub behind a webhook: checks signatures, keeps devices."""

    devices: dict = field(default_factory=dict)
    disabled: set = field(default_factory=set)
    used: set = field(default_factory=set)

    def answer(self, request):
        covered = request.headers["x-provisiond-timestamp"].encode() + b"." + request.body
        expected = "sha256=" + hmac.new(SECRET.encode(), covered, sha256).hexdigest()
        if not hmac.compare_digest(expected, request.headers["x-provisiond-signature"]):
            return json_answer({"error": "signature"}, 401)
        body = request.json
        match body["event"]:
            case "created":
                self.devices[body["deviceId"]] = body["credential"]
                self.disabled.discard(body["deviceId"])
            case "disabled":
                self.disabled.add(body["deviceId"])
            case "deleted":
                if self.devices.pop(body["deviceId"], None) is None:
                    return json_answer({"error": "unknown"}, 404)
            case "read":
                found = {
                    name: {"enabled": name not in self.disabled, "usedSinceChange": name in self.used}
                    for name in body["deviceIds"]
                    if name in self.devices
                }
                return json_answer({"devices": found})
        return json_answer({})


@dataclass
class Harness:
    connector: object
    registry: Registry

    def identity(self, device_id: str, *, generation: int = 1) -> HubIdentity:
        return key_identity(device_id, bytes([generation]) * 32)

    async def connects(self, identity):
        password = derive_hub_password(identity.key, hub_host="hub.example", device_id=identity.device_id)
        known = self.registry.devices.get(identity.device_id) == {"password": password}
        return known and identity.device_id not in self.registry.disabled


@pytest.fixture
def options(tmp_path):
    file = tmp_path / "secret"
    file.touch(mode=0o600)
    file.write_text(SECRET)

    def make(url, **changes):
        given = {"url": url, "secret_file": "secret", "reads": True} | changes
        return HubOptions(name="custom", host="hub.example", options=given, base_dir=tmp_path)

    return make


@pytest.fixture
async def service():
    registry = Registry()
    async with run_service(registry.answer) as running:
        running.registry = registry
        yield running


@pytest.fixture
async def hub(service, options):
    connector = make_connector(options(service.url))
    yield connector
    await connector.aclose()


@pytest.mark.parametrize("rule", contract.RULES, ids=lambda rule: rule.__name__)
async def test_a_webhook_keeps_the_contract(rule, service, hub):
    await rule(Harness(hub, service.registry))


async def test_the_service_is_told_the_password_and_never_the_key(service, hub):
    await hub.ensure([key_identity("d", b"secret key of the device")])
    (request,) = service.requests
    assert request.headers["x-provisiond-event"] == "created"
    assert request.json["hub"] == "custom"
    assert len(request.json["credential"]["password"]) == 44
    assert b"secret key" not in request.body


async def test_the_service_is_told_the_certificate(service, hub, pki):
    leaf = make_leaf("d", pki[0])
    await hub.ensure([certificate_identity("d", leaf.der)])
    assert service.requests[0].json["credential"]["sha256Thumbprint"] == sha256(leaf.der).hexdigest().upper()


async def test_the_service_may_say_who_has_connected(service, hub):
    await hub.ensure([key_identity("d"), key_identity("e")])
    service.registry.used.add("d")
    assert {name: state.used_since_change for name, state in (await hub.read(["d", "e"])).items()} == {
        "d": True,
        "e": False,
    }


async def test_a_service_that_cannot_be_read_is_believed(service, options):
    hub = make_connector(options(service.url, reads=False))
    assert set(await hub.read(["d"])) == {"d"}
    assert service.requests == []
    await hub.aclose()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (500, HubUnavailable),
        (301, HubUnavailable),
        (404, HubUnavailable),
        (401, HubUnauthorized),
        (403, HubUnauthorized),
    ],
)
async def test_what_a_status_means(options, status, error):
    headers = {"Location": "http://127.0.0.1:1/elsewhere"}
    async with run_service(lambda _: (status, headers, b"no")) as service:
        hub = make_connector(options(service.url))
        with pytest.raises(error, match=str(status)):
            await hub.ensure([key_identity("d")])
        assert len(service.requests) == 1
        await hub.aclose()


async def test_a_device_that_the_service_refuses_is_refused_and_the_others_are_not(options):
    def answer(request):
        return json_answer({"error": "bad name"}, 422 if request.json["deviceId"] == "bad" else 200)

    async with run_service(answer) as service:
        hub = make_connector(options(service.url))
        refused, made = await hub.ensure([key_identity("bad"), key_identity("good")])
        assert isinstance(refused, HubRefused)
        assert made is None
        await hub.aclose()


async def test_a_service_that_hangs_can_be_given_up(options):
    async with run_service(hang) as service:
        hub = make_connector(options(service.url))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await hub.probe()
        await hub.aclose()


async def test_an_answer_without_end_is_not_read_to_the_end(options):
    async with run_service(lambda _: (200, {}, endless())) as service:
        hub = make_connector(options(service.url))
        with pytest.raises(HubUnavailable, match="longer"):
            await hub.probe()
        await hub.aclose()


@pytest.mark.parametrize("content", [b"", b"nothing", b"[]", b'{"devices": {"d": {"enabled": "yes"}}}'])
async def test_states_that_are_none_are_no_answer(options, content):
    async with run_service(lambda _: (200, {}, content)) as service:
        hub = make_connector(options(service.url))
        with pytest.raises(HubUnavailable, match="read"):
            await hub.read(["d"])
        await hub.aclose()


async def test_a_service_whose_certificate_is_not_trusted_is_not_told_anything(options, pki, tmp_path):
    root, server = pki
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*server.write(tmp_path, "server"))
    (tmp_path / "ca.crt").write_bytes(root.pem)
    registry = Registry()
    async with run_service(registry.answer, tls=context) as service:
        url = f"https://localhost:{service.port}/"
        untrusting = make_connector(options(url))
        with pytest.raises(HubUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await untrusting.probe()
        assert service.requests == []
        trusting = make_connector(options(url, ca_file="ca.crt"))
        await trusting.probe()
        await asyncio.gather(untrusting.aclose(), trusting.aclose())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "http://hub.example/"}, "not encrypted"),
        ({"url": "ftp://hub.example/"}, "not a URL"),
        ({"url": "https://user:pw@hub.example/"}, "password"),
        ({"url": "https://hub.example:x/"}, "not a URL"),
        ({"secret_file": "missing"}, "No such file"),
        ({"ca_file": "secret"}, "CA file"),
        ({"more": 1}, "more"),
    ],
)
def test_options_that_cannot_be_used_are_refused_at_once(options, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        make_connector(options(**({"url": "https://hub.example/"} | changes)))


class _Retirements:
    async def finish_retirement(self, retirement, audit):
        return True


@pytest.mark.parametrize(
    ("reads", "passed", "finding"),
    [(True, True, "has the identity d disabled"), (False, False, "nothing could be read back")],
)
async def test_a_revocation_says_that_it_was_read_back_only_where_it_was(service, options, reads, passed, finding):
    hub = make_connector(options(service.url, reads=reads))
    await hub.ensure([key_identity("d", bytes(32))])
    registration = make_registration("d", hub="custom", hub_key=bytes(32))
    retirement = Retirement(
        hub="custom", device_id="d", registration_id="d", action=RetirementAction.DISABLE, due_at=AT, reason="test"
    )
    found = await take_from_hub(
        retirement,
        registration,
        hub,
        store=_Retirements(),
        clock=SystemClock(),
        entropy=SystemEntropy(),
        actor="test",
    )
    check = next(check for check in found.checks if check.name == "identity")
    assert (check.passed, finding in check.finding) == (passed, True)
    await hub.aclose()
