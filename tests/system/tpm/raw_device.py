"""A device that says over `$dps` topics whatever a test wants it to say."""

import base64
import time
from contextlib import asynccontextmanager
from uuid import uuid4

from provisiond.device.credentials import Credential
from provisiond.device.mqtt import connect
from provisiond.model import Message
from provisiond.protocols import dps_client
from tests.running_service import ID_SCOPE

DEADLINE_S = 120


def encode(octets):
    return base64.b64encode(octets).decode()


async def keys_of(device, **replaced):
    """The `tpm` member that a TPM's own client would send, with some of it replaced."""
    own = {
        "endorsementKey": encode(await device.endorsement_key()),
        "storageRootKey": encode(await device.storage_root_key()),
    }
    return own | replaced


async def token_of(device, registration_id):
    """The token that answers a challenge, signed by the key that is in the TPM now."""
    resource = f"{ID_SCOPE}/registrations/{registration_id}"
    return await device.sign_sas(resource=resource, expiry=int(time.time()) + 3600, key_name="registration")


class RawDevice:
    """One connection."""

    def __init__(self, session, registration_id):
        self.registration_id = registration_id
        self._session = session

    async def register(self, **members):
        """Publish a register message with these members; the reply."""
        return await self.publish(dps_client.register_payload(self.registration_id, **members))

    async def publish(self, payload):
        """Publish these octets as a register message; the reply."""
        rid = str(uuid4())
        return await self._exchange(rid, Message(topic=dps_client.register_topic(rid), payload=payload))

    async def poll(self, operation_id):
        """Ask how an operation is doing; the reply."""
        rid = str(uuid4())
        return await self._exchange(rid, Message(topic=dps_client.poll_topic(rid, operation_id), payload=b""))

    async def _exchange(self, rid, message):
        await self._session.publish(message, deadline_s=DEADLINE_S)
        received = await self._session.receive(deadline_s=DEADLINE_S)
        reply = dps_client.parse_reply(received.topic, received.payload)
        assert reply.rid == rid
        return reply

    async def prove(self, device, **members):
        """The whole flow: register, take the challenge in, answer; the last reply."""
        tpm = await keys_of(device, **members)
        challenged = await self.register(tpm=tpm)
        if challenged.challenge is None:
            return challenged
        await device.import_authentication_key(challenged.challenge)
        return await self.register(tpm=tpm, authorization=await token_of(device, self.registration_id))


@asynccontextmanager
async def raw_device(site, registration_id):
    """A connection that claims a registration id and presents nothing."""
    async with connect(
        site.service.endpoint,
        credential=Credential(),
        client_id=registration_id,
        user_name=dps_client.user_name(ID_SCOPE, registration_id, client_version="provisiond-device/0"),
        password=None,
        deadline_s=DEADLINE_S,
    ) as session:
        await session.subscribe(dps_client.RESPONSE_FILTER, deadline_s=DEADLINE_S)
        yield RawDevice(session, registration_id)
