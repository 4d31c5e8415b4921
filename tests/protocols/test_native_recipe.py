"""The shell recipe of the document, run as it stands there: Debian's tools, a real mosquitto, our half of the protocol."""

import asyncio
import json
import re
import shutil
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import aiomqtt
import pytest

from provisiond.attestation.message_proof import SignatureAlgorithm, verify_signature
from provisiond.attestation.transcript import Transcript, request_digest
from provisiond.errors import AttestationError
from provisiond.model import (
    AttestationType,
    Challenge,
    ErrorBody,
    IssuedChallenge,
    Message,
    PollRequest,
    RegistrationStatus,
    Reply,
    Role,
)
from provisiond.protocols import native
from provisiond.protocols.native_topics import reply_topic
from tests.certificates import make_ca, make_key, make_leaf
from tests.mosquitto import until_listening
from tests.ports import free_port
from tests.protocols.native_vectors import DOCUMENT

pytestmark = pytest.mark.mosquitto

SCOPE = "0ne00A1B2C3"
SBIN = "/usr/sbin:/usr/bin:/bin:/usr/local/bin"


def recipe():
    found = re.findall(r"<!-- recipe: x509 -->\n```sh\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
    assert len(found) == 1
    return found[0]


@pytest.fixture
async def port(tmp_path):
    missing = [tool for tool in ("mosquitto", "mosquitto_rr", "openssl", "jq") if not shutil.which(tool, path=SBIN)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    port = free_port()
    configuration = tmp_path / "mosquitto.conf"
    configuration.write_text(f"allow_anonymous true\nlistener {port} 127.0.0.1\n")
    process = await asyncio.create_subprocess_exec(
        shutil.which("mosquitto", path=SBIN), "-c", str(configuration), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await until_listening(process, port)
        yield port
    finally:
        process.terminate()
        await process.wait()


class Service:
    """Challenges whoever registers, assigns whoever answers; the first status is not yet final."""

    def __init__(self):
        self.issued = None
        self.polls = 0
        self.algorithm = None

    def reply(self, message):
        request = native.parse(message, connection=None)
        if isinstance(request, PollRequest):
            self.polls += 1
            return self.assigned()
        if request.answer is None:
            return self.challenge(request)
        request = native.recall(request, self.issued)
        self.issued, told = None, request.issued.challenge
        self.algorithm = request.answer.algorithm
        try:
            verify_signature(
                request.evidence.unverified_chain[0],
                algorithm=SignatureAlgorithm(request.answer.algorithm),
                signature=request.answer.signature,
                transcript=Transcript(
                    id_scope=SCOPE,
                    registration_id=request.claimed_id.text,
                    challenge_id=told.challenge_id,
                    session_id=told.session_id,
                    nonce=told.nonce,
                    request_sha256=request_digest(request.octets),
                ),
            )
        except AttestationError as error:
            body = ErrorBody(code=error.code, message=str(error), tracking_id="t", timestamp=datetime.now(UTC))
            return Reply(status=401, error=body)
        return Reply(status=202, operation_id="op-1", status_text=RegistrationStatus.ASSIGNING, retry_after_s=0)

    def challenge(self, request):
        challenge = Challenge(
            challenge_id="c-1",
            session_id="s-1",
            attestation_type=AttestationType.X509,
            nonce=b"\x00\x0a" * 16,
            expires_at=datetime.now(UTC),
        )
        self.issued = IssuedChallenge(
            challenge=challenge,
            registration_key=request.claimed_id.key,
            connection_id="",
            protocol=Role.NATIVE,
            request=request.octets,
        )
        return Reply(status=401, challenge=challenge)

    def assigned(self):
        return Reply(status=200, operation_id="op-1", status_text=RegistrationStatus.ASSIGNED)


@asynccontextmanager
async def run_service(port):
    service = Service()

    async def answer(client):
        async for received in client.messages:
            message = Message(topic=str(received.topic), payload=bytes(received.payload))
            request = native.parse(message, connection=None)
            encoded = native.encode(
                service.reply(message), topic=reply_topic(message.topic), registration_id=request.claimed_id
            )
            await client.publish(encoded.topic, encoded.payload, qos=1)

    async with aiomqtt.Client("127.0.0.1", port) as client, asyncio.TaskGroup() as tasks:
        await client.subscribe("provisiond/v1/+/req/#", qos=1)
        answering = tasks.create_task(answer(client))
        yield service
        answering.cancel()


async def run_recipe(port, leaf, directory, *, key=None):
    chain_path, key_path = leaf.write(directory, "device")
    if key is not None:
        key_path.write_bytes(key.key_pem)
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        recipe(),
        env={
            "PATH": SBIN,
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "ID_SCOPE": SCOPE,
            "ID": "press-7",
            "CHAIN": str(chain_path),
            "KEY": str(key_path),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(240):
        output, errors = await process.communicate()
    return process.returncode, output, errors.decode()


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [("p256", "ES256"), ("p384", "ES384"), ("p521", "ES512"), ("rsa2048", "PS256"), ("ed25519", "EdDSA")],
)
async def test_the_recipe_registers_a_device(port, tmp_path, kind, algorithm):
    leaf = make_leaf("press-7", make_ca("Line 4", make_ca("Root")), key=make_key(kind))
    async with run_service(port) as service:
        code, output, errors = await run_recipe(port, leaf, tmp_path)
    assert code == 0, errors
    assert json.loads(output)["registrationState"] == {"registrationId": "press-7", "status": "assigned"}
    assert (service.algorithm, service.polls) == (algorithm, 1)


async def test_the_recipe_fails_with_the_key_of_another_device(port, tmp_path):
    async with run_service(port) as service:
        code, output, _ = await run_recipe(port, make_leaf("press-7"), tmp_path, key=make_leaf("press-8"))
    assert code == 1
    assert json.loads(output)["error"]["errorCode"] == 401002
    assert service.polls == 0
