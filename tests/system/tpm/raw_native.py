"""A device that says over native topics whatever a test wants it to say."""

from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from provisiond.attestation.tpm_transcript import proof, quote_extra_data
from provisiond.attestation.transcript import Transcript
from provisiond.device.credentials import Credential
from provisiond.device.mqtt import connect
from provisiond.device.tpm_wire import ALG_SHA256
from provisiond.model import Message, RegistrationId
from provisiond.protocols import native_client
from provisiond.protocols.json_body import parse_json
from provisiond.protocols.native_models import ChallengePart
from provisiond.protocols.native_topics import Operation
from tests.running_service import ID_SCOPE
from tests.system.tpm.raw_device import DEADLINE_S


@dataclass(frozen=True)
class Heard:
    """A reply: its parts by the names that refusals have on every topic."""

    status: int
    body: dict[str, Any]

    @property
    def challenge(self):
        return None if "challenge" not in self.body else ChallengePart.model_validate(self.body["challenge"])

    @property
    def state(self):
        return self.body["registrationState"]


class RawNative:
    """One connection."""

    def __init__(self, session, registration_id):
        self.registration_id = registration_id
        self.registered = b""
        self._session = session

    async def register(self, device, key, **replaced):
        """Claim with the TPM's keys, some of them replaced; the reply."""
        keys = {
            "endorsement_key": await device.endorsement_key(),
            "storage_root_key": await device.storage_root_key(),
            "attestation_key": key.public,
        }
        self.registered = native_client.register_payload(native_client.tpm_claim(**keys | replaced))
        return await self.publish(Operation.REGISTER, self.registered)

    def transcript(self, challenge, **changed):
        """What an answer to a challenge covers, or should not."""
        own = native_client.answer_transcript(
            challenge, id_scope=ID_SCOPE, registration_id=self.registration_id, register_payload=self.registered
        )
        return replace(own, **changed)

    async def answer(self, payload):
        """Publish an answer; the reply."""
        return await self.publish(Operation.ANSWER, payload)

    async def publish(self, operation, payload):
        topic = native_client.request_topic(RegistrationId.parse(self.registration_id), operation, str(uuid4()))
        await self._session.publish(Message(topic=topic, payload=payload), deadline_s=DEADLINE_S)
        received = await self._session.receive(deadline_s=DEADLINE_S)
        body = parse_json(received.payload)
        if "error" in body:
            return Heard(body["status"], body["error"])
        return Heard(body["status"], body)


@asynccontextmanager
async def raw_native(site, registration_id):
    """A connection that has said nothing yet."""
    async with connect(
        site.service.endpoint,
        credential=Credential(),
        client_id=registration_id,
        user_name=None,
        password=None,
        deadline_s=DEADLINE_S,
    ) as session:
        topic_filter = native_client.response_filter(RegistrationId.parse(registration_id))
        await session.subscribe(topic_filter, deadline_s=DEADLINE_S)
        yield RawNative(session, registration_id)


async def activate(device, key, challenge):
    """The secret of a challenge."""
    sealed = challenge.credential
    return await device.activate_credential(key.handle, sealed.id_object, sealed.encrypted_secret)


async def quoted(device, key, transcript: Transcript, *, bound_to: Transcript | None = None, registers=(0,)):
    """The arguments of `native_client.tpm_answer` for a quote, bound to this transcript or to another one."""
    bound = bound_to or transcript
    attest, signature = await device.quote(
        key,
        qualifying_data=quote_extra_data(bound.challenge_octets, bound.nonce),
        banks={ALG_SHA256: registers},
    )
    values = await device.tpm.pcr_read(ALG_SHA256, registers)
    return {
        "attest": attest,
        "signature": signature,
        "pcr_values": {("sha256", index): value for index, value in zip(registers, values, strict=True)},
    }


def proved(transcript: Transcript, secret, **quote):
    """The payload of an answer that proves a secret."""
    return native_client.tpm_answer(transcript, proof(secret, transcript.challenge_octets), **quote)
