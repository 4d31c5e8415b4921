"""The mosquitto connector against Debian's mosquitto: what is said to be so is proved by devices that try."""

import asyncio
import json
from dataclasses import dataclass, replace

import aiomqtt
import pytest

from provisiond.connectors import HubIdentity, HubOptions, TrialOutcome
from provisiond.device import Endpoint, Refused, SymmetricKeyCredential, connect_hub
from provisiond.errors import ConfigurationError, HubRefused, HubUnauthorized, HubUnavailable
from provisiond.hubs import contract
from provisiond.hubs.certificate_request import asks_for_certificate
from provisiond.hubs.mosquitto import MosquittoHub, make_connector
from provisiond.model import AttestationType
from tests.certificates import make_leaf
from tests.hubs.conftest import PASSWORD, certificate_identity, crl_pem, key_identity, run_mosquitto
from tests.hubs.devices import certificate_device, consumer, is_cut, next_message, password_device
from tests.ports import free_port

pytestmark = pytest.mark.mosquitto

TELEMETRY = "devices/{}/messages/events/"


@dataclass
class Harness:
    connector: MosquittoHub

    def identity(self, device_id: str, *, generation: int = 1) -> HubIdentity:
        return key_identity(device_id, bytes([generation]) * 32)

    async def connects(self, identity: HubIdentity) -> bool | None:
        return await contract.connects(self.connector, identity)


@pytest.fixture(scope="module")
def certificates(pki):
    return make_leaf("with-certificate", pki[0])


@pytest.mark.parametrize("rule", contract.RULES, ids=lambda rule: rule.__name__)
async def test_mosquitto_keeps_the_contract(rule, hub):
    await rule(Harness(hub))


# --- devices with a password ---


async def test_a_device_publishes_with_the_password_that_follows_from_its_key(broker, hub):
    identity = key_identity("d1")
    assert await hub.ensure([identity]) == [None]
    async with consumer(broker, PASSWORD) as listener, password_device(broker, identity) as device:
        await device.publish(TELEMETRY.format("d1"), b"hello", qos=1)
        assert await next_message(listener) == (TELEMETRY.format("d1"), b"hello")


async def test_the_device_library_reaches_it_with_that_password_and_no_other(broker, hub):
    identity = key_identity("d1")
    assert await hub.ensure([identity]) == [None]
    where = Endpoint(host="localhost", port=broker.port, plaintext=True)
    async with consumer(broker, PASSWORD) as listener:
        credential = SymmetricKeyCredential(key=identity.key)
        async with connect_hub(where, assigned_hub="localhost", device_id="d1", credential=credential) as device:
            await device.send(b"hello")
        assert await next_message(listener) == (TELEMETRY.format("d1"), b"hello")
    wrong = SymmetricKeyCredential(key=b"w" * 32)
    with pytest.raises(Refused):
        async with connect_hub(where, assigned_hub="localhost", device_id="d1", credential=wrong):
            pass


async def test_a_device_hears_what_is_sent_to_it(broker, hub):
    identity = key_identity("d1")
    await hub.ensure([identity])
    async with password_device(broker, identity) as device:
        await device.subscribe("devices/d1/messages/devicebound/#", qos=1)
        async with consumer(broker, PASSWORD) as operator:
            await operator.publish("devices/d1/messages/devicebound/x", b"do it", qos=1)
        assert await next_message(device) == ("devices/d1/messages/devicebound/x", b"do it")


async def test_a_device_publishes_as_nobody_else(broker, hub):
    await hub.ensure([key_identity("d1"), key_identity("d2")])
    async with consumer(broker, PASSWORD) as listener, password_device(broker, key_identity("d1")) as device:
        await device.publish(TELEMETRY.format("d2"), b"forged", qos=1)
        await device.publish(TELEMETRY.format("d1"), b"own", qos=1)
        assert (await next_message(listener))[1] == b"own"


async def test_a_device_cannot_connect_under_another_client_id(broker, hub):
    await hub.ensure([key_identity("d1")])
    with pytest.raises(aiomqtt.MqttError):
        async with password_device(broker, key_identity("d1"), client_id="somebody"):
            pass


async def test_a_password_for_one_hub_is_none_for_another(broker, hub):
    await hub.ensure([key_identity("d1")])
    with pytest.raises(aiomqtt.MqttError):
        async with password_device(broker, key_identity("d1"), hub_host="other.example"):
            pass


async def test_disabling_cuts_the_live_session_and_keeps_the_device_out(broker, hub):
    identity = key_identity("d1")
    await hub.ensure([identity])
    async with password_device(broker, identity) as device:
        await hub.disable(["d1"])
        assert await is_cut(device)
    assert (await hub.try_connect(identity)).outcome is TrialOutcome.REFUSED


async def test_deleting_cuts_the_live_session_and_keeps_the_device_out(broker, hub):
    identity = key_identity("d1")
    await hub.ensure([identity])
    async with password_device(broker, identity) as device:
        await hub.delete(["d1"])
        assert await is_cut(device)
    assert (await hub.try_connect(identity)).outcome is TrialOutcome.REFUSED


async def test_a_device_that_changes_to_a_certificate_loses_its_password(hub, certificates):
    old = key_identity("with-certificate")
    await hub.ensure([old])
    assert await hub.ensure([certificate_identity("with-certificate", certificates.der)]) == [None]
    assert (await hub.try_connect(old)).outcome is TrialOutcome.REFUSED


# --- devices with a certificate ---


async def test_a_device_publishes_with_its_certificate(broker, hub, certificates):
    assert await hub.ensure([certificate_identity("with-certificate", certificates.der)]) == [None]
    async with consumer(broker, PASSWORD) as listener, certificate_device(broker, certificates) as device:
        await device.publish(TELEMETRY.format("with-certificate"), b"hello", qos=1)
        assert (await next_message(listener))[1] == b"hello"


@pytest.mark.parametrize("action", ["disable", "delete"])
async def test_a_certificate_that_connects_again_may_nothing_and_with_a_crl_cannot(
    broker, hub, certificates, pki, action
):
    await hub.ensure([certificate_identity("with-certificate", certificates.der)])
    async with certificate_device(broker, certificates) as device:
        await getattr(hub, action)(["with-certificate"])
        assert await is_cut(device)
    # The trap: the same certificate connects again. But what it publishes reaches nobody.
    async with consumer(broker, PASSWORD) as listener:
        async with certificate_device(broker, certificates) as device:
            await device.publish(TELEMETRY.format("with-certificate"), b"still here", qos=1)
        await listener.publish("devices/marker", b"marker", qos=1)
        assert await next_message(listener) == ("devices/marker", b"marker")
    broker.revoke(crl_pem(pki[0], certificates))
    await refused_by_tls(broker, certificates)


async def refused_by_tls(broker, leaf):
    async with asyncio.timeout(120):
        while True:  # the broker takes up the list when it comes to handle its signal
            try:
                # The library may miss that the broker has ended the handshake, and then waits as long as this.
                async with certificate_device(broker, leaf, timeout_s=5):
                    await asyncio.sleep(0.01)
            except aiomqtt.MqttError:
                return


async def test_a_certificate_that_says_another_name_is_refused_and_the_rest_of_the_batch_is_not(hub, certificates):
    outcomes = await hub.ensure([certificate_identity("other", certificates.der), key_identity("d1")])
    assert isinstance(outcomes[0], HubRefused)
    assert "common name" in str(outcomes[0])
    assert outcomes[1] is None
    assert set(await hub.read(["other", "d1"])) == {"d1"}


async def test_whether_a_certificate_connects_is_not_tried_without_its_key(hub, certificates):
    assert await hub.try_connect(certificate_identity("with-certificate", certificates.der)) is None


async def test_a_device_without_a_credential_that_can_be_used_is_refused(hub):
    nothing = replace(key_identity("d1"), key=None)
    outcomes = await hub.ensure([nothing, certificate_identity("d2", None), certificate_identity("d3", b"nonsense")])
    assert [type(outcome) for outcome in outcomes] == [HubRefused] * 3


async def test_a_tpm_device_has_the_password_that_its_hub_key_gives(broker, hub):
    identity = replace(key_identity("t1"), attestation_type=AttestationType.TPM)
    await hub.ensure([identity])
    async with password_device(broker, identity):
        pass


# --- what is there in part, and what was meddled with ---


async def test_a_role_without_its_client_is_completed(broker, hub):
    identity = key_identity("d1")
    await hub.ensure([identity])
    await hub._dynsec.send([{"command": "deleteClient", "username": "d1"}])
    assert await hub.ensure([identity]) == [None]
    async with password_device(broker, identity):
        pass


async def test_rights_that_somebody_took_away_come_back(broker, hub):
    identity = key_identity("d1")
    await hub.ensure([identity])
    await hub._dynsec.send(
        [
            {"command": "modifyRole", "rolename": "provisiond:d1", "acls": []},
            {"command": "removeClientRole", "username": "d1", "rolename": "provisiond:d1"},
        ]
    )
    assert not (await hub.read(["d1"]))["d1"].enabled
    await hub.ensure([identity])
    async with consumer(broker, PASSWORD) as listener, password_device(broker, identity) as device:
        await device.publish(TELEMETRY.format("d1"), b"hello", qos=1)
        assert (await next_message(listener))[1] == b"hello"


# --- certificates where nobody asks for them


async def test_a_device_with_a_certificate_has_a_password_where_the_hub_says_so(broker, certificates):
    hub = make_connector(broker.options(x509="password"))
    identity = replace(certificate_identity("other-name", certificates.der), key=b"k" * 32)
    assert await hub.ensure([identity]) == [None]
    async with password_device(broker, identity):
        pass
    assert (await hub.try_connect(identity)).outcome is TrialOutcome.ACCEPTED
    (outcome,) = await hub.ensure([certificate_identity("with-certificate", certificates.der)])
    assert isinstance(outcome, HubRefused)
    assert "register it again" in str(outcome)
    await hub.aclose()


async def test_a_listener_that_asks_for_no_certificate_is_not_sent_who_has_nothing_else(tmp_path, pki, certificates):
    port = free_port()
    tls = f"listener {port} 127.0.0.1\ncafile {tmp_path}/ca.crt\ncertfile {{}}\nkeyfile {{}}"
    async with run_mosquitto(tmp_path, pki, tls.format(*pki[1].write(tmp_path, "server"))) as broker:
        identities = [certificate_identity("with-certificate", certificates.der), key_identity("d1")]
        asking = make_connector(broker.options(device_url=f"mqtts://127.0.0.1:{broker.tls_port}"))
        assert await asking.ensure(identities) == [None, None]
        not_asking = make_connector(broker.options(device_url=f"mqtts://127.0.0.1:{port}"))
        refused, made = await not_asking.ensure(identities)
        assert (isinstance(refused, HubRefused), made) == (True, None)
        assert "asks for no certificate" in str(refused)
        gone = make_connector(broker.options(device_url="mqtts://127.0.0.1:1"))
        assert await gone.ensure(identities) == [None, None]  # nobody can tell
        for hub in (asking, not_asking, gone):
            await hub.aclose()


@pytest.mark.parametrize("version", ["tlsv1.2", "tlsv1.3"])
async def test_whether_a_listener_asks_is_seen_with_either_version_of_tls(tmp_path, pki, version):
    async with run_mosquitto(tmp_path, pki, f"tls_version {version}") as broker:
        assert await asks_for_certificate("127.0.0.1", broker.tls_port) is True
        assert await asks_for_certificate("127.0.0.1", broker.port) is None  # no TLS at all


# --- who was seen


async def until_seen(hub, *device_ids, others=()):
    async with asyncio.timeout(60):
        while True:
            if await hub.watch([*device_ids, *others]) == set(device_ids):
                return
            await asyncio.sleep(0.02)  # the broker tells when it likes


async def test_a_device_is_seen_by_what_it_sends_and_not_by_what_was_kept(broker, hub):
    await hub.ensure([key_identity("d1"), key_identity("d2")])
    async with password_device(broker, key_identity("d2")) as device:
        await device.publish(TELEMETRY.format("d2"), b"of yesterday", qos=1, retain=True)
    assert not await hub.watch(["d1", "d2"])
    async with password_device(broker, key_identity("d1")) as device:
        assert not await hub.watch(["d1", "d2"])  # without the broker's log, connecting shows nothing
        await device.publish(TELEMETRY.format("d1") + "a=b", b"hello", qos=1)
        await until_seen(hub, "d1", others=["d2"])
        await device.publish(TELEMETRY.format("d2"), b"forged", qos=1)
    assert await hub.watch(["d2"]) == set()


async def test_a_device_is_seen_in_the_brokers_log_however_it_has_connected(tmp_path, pki, certificates):
    async with run_mosquitto(tmp_path, pki, "log_dest topic") as broker:
        hub = make_connector(broker.options(bind_client_id=False))
        await hub.ensure([key_identity("d1"), key_identity("d2"), certificate_identity("with-certificate", b"")])
        await hub.ensure([certificate_identity("with-certificate", certificates.der)])
        assert not await hub.watch(["d1", "d2", "with-certificate"])
        misleading = "x as d2 (p2, c1, k60, u'd2')."
        async with password_device(broker, key_identity("d1"), client_id=misleading):
            await until_seen(hub, "d1", others=["d2"])
        async with certificate_device(broker, certificates):
            await until_seen(hub, "d1", "with-certificate", others=["d2"])
        await hub.ensure([key_identity("d1")])
        assert await hub.watch(["d1", "d2"]) == set()  # made anew: it has to come again
        await broker.stop()
        await broker.start()
        async with asyncio.timeout(60):
            while True:
                try:
                    await hub.watch(["d1"])
                    break
                except HubUnavailable:
                    await asyncio.sleep(0.05)
        async with password_device(broker, key_identity("d1")):
            await until_seen(hub, "d1")
        assert not await hub.watch([])
        await hub.aclose()


async def test_identities_outlive_the_broker(broker, hub):
    await hub.ensure([key_identity("d1")])
    await broker.stop()
    with pytest.raises(HubUnavailable):
        await hub.probe()
    await broker.start()
    await hub.probe()
    assert (await hub.read(["d1"]))["d1"].enabled


# --- hubs that fail ---


async def test_a_broker_that_hangs_is_given_up_and_used_again_when_it_answers(broker, hub):
    await hub.probe()
    broker.pause()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await hub.ensure([key_identity("d1")])
    broker.resume()
    assert await hub.ensure([key_identity("d1")]) == [None]


async def test_a_broker_that_is_not_there_is_unavailable(broker, hub):
    await broker.stop()
    with pytest.raises(HubUnavailable, match="cannot connect"):
        await hub.ensure([key_identity("d1")])


async def test_a_wrong_administrators_password_is_said_so(broker):
    (broker.directory / "admin.password").write_text("wrong")
    hub = make_connector(broker.options())
    with pytest.raises(HubUnauthorized, match="refused"):
        await hub.probe()
    await hub.aclose()


async def test_a_user_that_is_no_administrator_is_said_so(broker, hub):
    await hub._dynsec.send([{"command": "createClient", "username": "plain", "password": PASSWORD}])
    plain = make_connector(broker.options(username="plain"))
    with pytest.raises(HubUnauthorized, match="no administrator"):
        await plain.probe()
    await plain.aclose()


async def test_what_other_administrators_do_does_not_disturb(broker, hub):
    async def meddle():
        async with consumer(broker, PASSWORD) as other:
            for number in range(200):
                command = {"command": "getClient", "username": f"n{number}"}
                await other.publish("$CONTROL/dynamic-security/v1", json.dumps({"commands": [command]}), qos=1)
            await other.publish("$CONTROL/dynamic-security/v1", b"not JSON", qos=1)

    await hub.probe()
    await asyncio.gather(meddle(), *(hub.ensure([key_identity(f"d{number}")]) for number in range(10)))
    assert len(await hub.read([f"d{number}" for number in range(10)])) == 10


# --- options ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"admin_url": "http://x"}, "not a URL"),
        ({"admin_url": "mqtt://x:99999"}, "not a URL"),
        ({"admin_url": 7}, "admin_url"),
        ({"unknown": 1}, "unknown"),
        ({"password_file": "missing"}, "No such file"),
        ({"password_file": "public"}, "chmod"),
        ({"password_file": "empty"}, "empty"),
        ({"device_url": "nonsense"}, "not a URL"),
    ],
)
def test_options_that_cannot_be_used_are_refused_at_once(tmp_path, changes, message):
    for name, mode, text in (("public", 0o644, "secret"), ("empty", 0o600, "")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    with pytest.raises(ConfigurationError, match=message):
        make_connector(HubOptions(name="h", host="h", options=changes, base_dir=tmp_path))
