"""The client's patience on native topics, against a service that answers as a test tells it."""

import asyncio
import json
from base64 import b64encode
from contextlib import asynccontextmanager

import pytest

from provisiond.device import (
    CredentialError,
    Endpoint,
    Patience,
    ProvisioningClient,
    Refused,
    SymmetricKeyCredential,
    X509Credential,
)
from provisiond.device.dialect import NativeDialect
from provisiond.protocols.hub_credential import seal_secret
from provisiond.protocols.sealing import SealingContext
from tests.certificates import make_key, make_leaf
from tests.device.service import ScriptedService
from tests.loopback_server import serving

KEY = SymmetricKeyCredential(key=b"k" * 32)
QUICK = Patience(connect_s=60, request_s=60, total_s=120, poll_s=0, backoff_s=0.01, jitter=0)
OPERATION = "op-1"


class NativeService(ScriptedService):
    """Answers native requests: each answer is the JSON of a reply, or None for silence."""

    def handle_publish(self, packet, writer):
        size = int.from_bytes(packet[:2])
        topic, payload = packet[2 : 2 + size].decode(), packet[4 + size :]
        self.requests.append((topic.split("/")[4], json.loads(payload)))
        writer.write(b"\x40\x02" + packet[2 + size : 4 + size])
        answer = self.next_answer()
        if answer is not None:
            reply = topic.replace("/req/", "/res/").encode()
            body = len(reply).to_bytes(2) + reply + json.dumps(answer).encode()
            writer.write(b"\x30" + length_of(body) + body)


def length_of(body):
    size, octets = len(body), bytearray()
    while True:
        size, low = divmod(size, 128)
        octets.append(low | (0x80 if size else 0))
        if not size:
            return bytes(octets)


@asynccontextmanager
async def run_native(*answers):
    service = NativeService(answers=list(answers))
    async with serving(service.serve) as service.port:
        yield service


async def register(service, credential=KEY, **patience):
    endpoint = Endpoint(host="127.0.0.1", port=service.port, plaintext=True)
    async with ProvisioningClient(
        endpoint,
        id_scope="0ne",
        registration_id="dev-1",
        credential=credential,
        dialect=NativeDialect(),
        patience=Patience(**({name: getattr(QUICK, name) for name in QUICK.__slots__} | patience)),
    ) as client:
        return await client.register()


def challenge(kind="symmetricKey"):
    nonce = b64encode(bytes(32)).decode()
    told = {"challengeId": "c1", "type": kind, "nonce": nonce, "expiresAt": "2030-01-01T00:00:00Z", "sessionId": "c1"}
    return {"status": 401, "challenge": told}


def error(status, **members):
    return {"status": status, "error": {"errorCode": status * 1000, "message": "no", "trackingId": "t1"}, **members}


def assigned(**state):
    told = {"registrationId": "dev-1", "status": "assigned", "assignedHub": "hub", "deviceId": "dev-1", **state}
    return {"status": 200, "operationId": OPERATION, "registrationState": told}


def asked(service):
    return [operation for operation, _ in service.requests]


async def test_a_challenge_is_answered_and_an_unfinished_operation_asked_about():
    assigning = {"status": 202, "operationId": OPERATION, "retryAfter": 0}
    async with run_native(challenge(), assigning, assigning, assigned()) as service:
        result = await register(service)
    assert asked(service) == ["register", "answer", "status", "status"]
    assert service.requests[-1][1] == {"operationId": OPERATION}
    assert (result.assigned_hub, result.polls, result.challenged) == ("hub", 2, True)
    assert service.connects[0].username is None
    assert service.connects[0].client_id == "dev-1"
    assert service.filters == ["provisiond/v1/dev-1/res/#"]


async def test_an_answer_whose_challenge_was_gone_is_tried_once_more_from_the_start():
    async with run_native(challenge(), error(401), challenge(), assigned()) as service:
        await register(service)
    assert asked(service) == ["register", "answer", "register", "answer"]


async def test_a_second_refusal_is_one():
    async with run_native(challenge(), error(401), challenge(), error(401)) as service:
        with pytest.raises(Refused) as raised:
            await register(service)
    assert (raised.value.status, raised.value.tracking_id) == (401, "t1")
    assert len(service.requests) == 4


async def test_a_refusal_without_a_challenge_is_final():
    async with run_native(error(401)) as service:
        with pytest.raises(Refused):
            await register(service)
    assert asked(service) == ["register"]


async def test_a_throttled_answer_is_sent_again_after_the_time_that_it_was_told():
    loop = asyncio.get_running_loop()
    async with run_native(challenge(), error(429, retryAfter=1), assigned()) as service:
        started = loop.time()
        await register(service)
    assert asked(service) == ["register", "answer", "answer"]
    assert loop.time() - started >= 1


@pytest.mark.parametrize("status", [409, 500, 503])
async def test_an_answer_that_failed_at_the_service_is_not_sent_again_for_its_challenge_is_spent(status):
    async with run_native(challenge(), error(status), challenge(), assigned()) as service:
        await register(service)
    assert asked(service) == ["register", "answer", "register", "answer"]
    assert len(service.connects) == 2


async def test_an_answer_that_gets_lost_begins_anew():
    async with run_native(challenge(), None, challenge(), assigned()) as service:
        await register(service, request_s=3)
    assert asked(service) == ["register", "answer", "register", "answer"]


async def test_a_challenge_for_another_credential_is_not_answered():
    async with run_native(challenge("x509")) as service:
        with pytest.raises(CredentialError, match="x509"):
            await register(service)
    assert asked(service) == ["register"]


@pytest.mark.parametrize("told", [{"challenge": {}}, {"challenge": {"challengeId": "c"}}, {"challenge": 1}])
async def test_a_challenge_that_makes_no_sense_is_refused(told):
    async with run_native({"status": 401, **told}) as service:
        with pytest.raises((CredentialError, Refused)):
            await register(service)


CONTEXT = SealingContext(id_scope="0ne", registration_id="dev-1", operation_id=OPERATION)


async def test_a_sealed_credential_is_opened_with_the_devices_key():
    sealed = seal_secret(b"secret", context=CONTEXT, device_key=KEY.key)
    async with run_native(assigned(sealedCredential=sealed)) as service:
        result = await register(service)
    assert result.hub_credential == b"secret"
    assert "secret" not in repr(result).replace("sealedCredential", "")


@pytest.mark.parametrize("kind", ["p256", "rsa2048"])
async def test_a_sealed_credential_is_opened_with_the_certificates_key(kind):
    leaf = make_leaf("dev-1", key=make_key(kind))
    sealed = seal_secret(b"secret", context=CONTEXT, certificate_der=leaf.der)
    credential = X509Credential.from_pem(leaf.chain_pem, leaf.key_pem)
    async with run_native(assigned(sealedCredential=sealed)) as service:
        assert (await register(service, credential)).hub_credential == b"secret"


async def test_a_credential_that_was_sealed_for_another_operation_is_not_taken():
    context = SealingContext(id_scope="0ne", registration_id="dev-1", operation_id="another")
    sealed = seal_secret(b"secret", context=context, device_key=KEY.key)
    async with run_native(assigned(sealedCredential=sealed)) as service:
        with pytest.raises(CredentialError, match="another operation"):
            await register(service)


async def test_a_login_of_the_sites_broker_is_used():
    async with run_native(assigned()) as service:
        endpoint = Endpoint(host="127.0.0.1", port=service.port, plaintext=True, password="secret")
        async with ProvisioningClient(
            endpoint, id_scope="0ne", registration_id="dev-1", credential=KEY, dialect=NativeDialect(), patience=QUICK
        ) as client:
            await client.register()
    assert (service.connects[0].username, service.connects[0].password) == ("dev-1", "secret")
    assert "secret" not in repr(endpoint)
