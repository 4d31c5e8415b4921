"""A gateway on loopback: the real broker with TLS, the real store, the embedded hub and the operators' desk behind them.

async with make_gateway() as gateway:
    await gateway.enroll(individual("Dev-1"))
    async with gateway.device("Dev-1", key=PRIMARY_KEY) as device:
        await device.publish(…)
"""

import asyncio
import json
import ssl
import tempfile
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiomqtt
from aiomqtt.exceptions import MqttConnectError

from provisiond.attestation.symmetric_key import generate_sas_token
from provisiond.broker.embedded import EmbeddedBroker
from provisiond.broker.limits import BrokerLimits
from provisiond.broker.listener import ListenerSpec
from provisiond.embedded_hub.audience import Audience, EventObserver
from provisiond.embedded_hub.hub import EmbeddedHub
from provisiond.embedded_hub.operator_desk import OperatorDesk
from provisiond.front import Front
from provisiond.hubs.directory import ConfiguredHubs
from provisiond.model import (
    AuditRecord,
    EnrollmentKind,
    Hub,
    Message,
    ProvisioningStatus,
)
from provisiond.observer import Observers
from provisiond.pipeline import Pipeline, ServicePolicy
from provisiond.ports import Write
from provisiond.protocols import operator
from provisiond.registration.attest import AttestationPolicy
from provisiond.registration.decide import RegistrationPolicy
from provisiond.store import SqliteStore
from provisiond.system import SystemClock, SystemEntropy
from tests.certificates import SERVER_AUTH, make_ca, make_leaf
from tests.fakes_decision import RecordingObserver
from tests.store.records import make_registration_of

TOKEN = "a-token-for-operators"
HUBS = (Hub(name="one", host="one.test"), Hub(name="two", host="two.test"))
DEADLINE_S = 60
SOCKET_OPTIONS = [(6, 1, 1)]  # TCP_NODELAY


class Client(aiomqtt.Client):
    """An MQTT client whose every wait has a deadline."""

    async def next_message(self):
        async with asyncio.timeout(DEADLINE_S):
            received = await anext(self.messages)
        return Message(topic=str(received.topic), payload=received.payload, qos=received.qos)

    async def say(self, message):
        await self.publish(message.topic, message.payload, qos=message.qos)

    async def ask(self, message):
        """Publish, and give the next message that comes."""
        await self.say(message)
        return await self.next_message()

    async def gone(self):
        """Wait until the other end has closed the connection."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                async for _ in self.messages:
                    pass
            except aiomqtt.MqttError:
                return


class Operator(Client):
    """An operator's client."""

    async def request(self, body, rid="r1"):
        """Ask, and give status and body of the answer; what else arrives meanwhile is passed over."""
        await self.say(operator.request(rid, body))
        while (reply := operator.parse_answer(await self.next_message())) is None or reply.rid != rid:
            pass
        return reply.status, reply.body


class Gateway:
    """What a test needs of a running gateway."""

    def __init__(self, store, broker, hub, desk, audience, observer, ca_file):
        self.store, self.broker, self.hub, self.desk = store, broker, hub, desk
        self.audience, self.observer, self.ca_file = audience, observer, ca_file

    async def enroll(self, enrollment, registration_id=None, **changes):
        """Enroll, and register the enrollment's device (of a group: `registration_id`) as assigned to hub `one`."""
        audit = make_audit()
        enrollment = replace(enrollment, etag=f'"{enrollment.id}"')
        if await self.store.get_enrollment(enrollment.kind, enrollment.key) is None:
            await self.store.create_enrollment(enrollment, audit)
        return await self.register(enrollment, registration_id or enrollment.id, **changes)

    async def register(self, enrollment, registration_id, **changes):
        existing = await self.store.get_registration(registration_id.lower())
        version = existing.version + 1 if existing else 1
        registration = replace(make_registration(enrollment, registration_id), version=version, **changes)
        await self.store.commit(Write(registration=registration, expected_version=version - 1, audit=make_audit()))
        return registration

    async def set_status(self, kind, key, status):
        enrollment = await self.store.get_enrollment(kind, key)
        await self.store.update_enrollment(
            replace(enrollment, provisioning_status=status), if_match=None, audit=make_audit()
        )

    async def disable(self, key, kind=EnrollmentKind.INDIVIDUAL):
        await self.set_status(kind, key, ProvisioningStatus.DISABLED)

    def device(
        self,
        device_id,
        *,
        key=None,
        token=None,
        certificate=None,
        host="one.test",
        keep_alive_s=60,
        clean_session=False,
    ):
        """A client that connects over TLS as a device."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if certificate is not None:
            with tempfile.TemporaryDirectory() as directory:
                context.load_cert_chain(*certificate.write(Path(directory), "device"))
        if key is not None:
            expiry = datetime.now(UTC) + timedelta(hours=1)
            token = generate_sas_token(resource=f"{host}/devices/{device_id}", key=key, expiry=expiry)
        return Client(
            "localhost",
            self.broker.addresses["devices"][1],
            identifier=device_id,
            username=f"{host}/{device_id}/?api-version=2021-04-12&DeviceClientType=test",
            password=token,
            protocol=aiomqtt.ProtocolVersion.V311,
            clean_session=clean_session,
            keepalive=keep_alive_s,
            timeout=DEADLINE_S,
            tls_context=context,
            socket_options=SOCKET_OPTIONS,
        )

    @asynccontextmanager
    async def operator(self, *filters, token=TOKEN, client_id="operator-1", qos=1):
        """A client that connects without TLS as an operator, and hears its answers."""
        client = Operator(
            "127.0.0.1",
            self.broker.addresses["local"][1],
            identifier=client_id,
            username="operator",
            password=token,
            protocol=aiomqtt.ProtocolVersion.V311,
            timeout=DEADLINE_S,
            socket_options=SOCKET_OPTIONS,
        )
        async with client:
            await client.subscribe([(topic_filter, qos) for topic_filter in (operator.RESPONSE_FILTER, *filters)])
            yield client

    async def is_refused(self, device_id, **credential):
        """Whether the CONNECT is refused with return code 5."""
        try:
            async with self.device(device_id, **credential):
                return False
        except MqttConnectError as error:
            return error.rc == 135  # paho's name for return code 5

    async def presence(self, device_key, *, connected):
        """Wait until it is written down that a device is connected, or not."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                found = (await self.store.list_presence([device_key])).get(device_key)
                if found is not None and found.connected is connected:
                    return found
                await asyncio.sleep(0.01)  # another thread writes it


def make_audit():
    return AuditRecord(tracking_id="t", at=datetime.now(UTC), event="test", registration_id="test", outcome="done")


def make_registration(enrollment, registration_id):
    place = {"hub": "one", "assigned_host": "one.test", "device_id": enrollment.device_id or registration_id}
    return make_registration_of(enrollment, registration_id, **place)


@asynccontextmanager
async def run_gateway(directory, server_files, ca_file, *, look_s=0.05, **limits):
    """A gateway with its database in `directory`; at the end, nothing of any client may be left."""
    certificate_path, key_path = server_files
    audience, observer, clock, entropy = Audience(), RecordingObserver(), SystemClock(), SystemEntropy()
    hubs, policy = ConfiguredHubs(HUBS), AttestationPolicy(id_scope="0ne0TEST")
    async with (
        await SqliteStore.open(directory / "provisiond.db") as store,
        EmbeddedHub(
            store=store,
            hubs=hubs,
            clock=clock,
            entropy=entropy,
            observer=observer,
            audience=audience,
            policy=policy,
            look_s=look_s,
        ) as hub,
        OperatorDesk(
            commands=hub.commands,
            audience=audience,
            token=TOKEN,
            status=lambda: {"running": True, "connectedDevices": hub.connected},
            observer=observer,
            clock=clock,
            entropy=entropy,
        ) as desk,
    ):
        pipeline = Pipeline(
            store=store,
            hubs=hubs,
            clock=clock,
            entropy=entropy,
            observer=Observers([observer, EventObserver(audience)]),
            policy=ServicePolicy(registration=RegistrationPolicy(attestation=policy)),
        )
        broker = EmbeddedBroker(
            gatekeeper=Front(provisioning=pipeline, hub=hub, operators=desk),
            listeners=[
                ListenerSpec(name="local", host="127.0.0.1", port=0, tls=False),
                ListenerSpec(
                    name="devices",
                    host="127.0.0.1",
                    port=0,
                    certificate_path=certificate_path,
                    key_path=key_path,
                    client_certificates="optional",
                ),
            ],
            limits=BrokerLimits(**limits),
        )
        for speaker in (audience, hub, desk):
            speaker.attach(broker)
        await broker.start()
        try:
            yield Gateway(store, broker, hub, desk, audience, observer, ca_file)
        finally:
            await broker.stop(grace_s=2)
        assert not hub.connected
        assert not audience._filters
        assert not desk._under_way


def make_server_files(directory):
    """Certificate and key of a server on localhost, and the root they chain to."""
    ca = make_ca("Gateway test root")
    ca_file = directory / "root.crt"
    ca_file.write_bytes(ca.pem)
    leaf = make_leaf("localhost", ca, dns_names=("localhost",), ip_addresses=("127.0.0.1",), usages=(SERVER_AUTH,))
    return leaf.write(directory, "server"), ca_file


def body_of(message):
    """The JSON of a message."""
    return json.loads(message.payload)
