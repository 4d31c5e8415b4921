"""The wire protocol a device speaks, as an object: what `ProvisioningClient` does not know about topics and bodies."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import time
from typing import Any, Final, Protocol

from pydantic import ValidationError

from provisiond.device import native_proof
from provisiond.device.credentials import Credential
from provisiond.device.errors import CredentialError
from provisiond.errors import MalformedRequest
from provisiond.model import JSONValue, Message, RegistrationId
from provisiond.protocols import dps_client, native_client
from provisiond.protocols.dps_client import ClientReply, MalformedReply
from provisiond.protocols.json_body import parse_json
from provisiond.protocols.native_client import Operation
from provisiond.protocols.native_models import ChallengePart
from provisiond.protocols.native_topics import parse_reply_topic
from provisiond.protocols.sealing import SealingContext

TOKEN_LIFETIME_S: Final = 3600  # as the Azure SDKs; a registration takes seconds, a hub connection renews its own
_CHALLENGED: Final = 401


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """User name and password of the CONNECT; None to send none."""

    user_name: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registrant:
    """Who registers where: the parts of a registration that every message of it needs."""

    id_scope: str
    registration_id: str
    credential: Credential

    @property
    def resource(self) -> str:
        """What SAS tokens name."""
        return f"{self.id_scope}/registrations/{self.registration_id}"


class Conversation(Protocol):
    """One registration, from `register` to its end; a new one begins anew."""

    async def register(self, rid: str, payload: JSONValue) -> Message:
        """Ask to be assigned.

        Raises:
            CredentialError: the credential cannot be used.
            TpmError: the TPM failed.
        """
        ...

    def is_challenge(self, reply: ClientReply) -> bool:
        """Whether a reply asks for a proof."""
        ...

    async def answer(self, rid: str, challenge: ClientReply, payload: JSONValue) -> Message:
        """Answer a challenge.

        Raises:
            CredentialError: this credential cannot.
            TpmError: the TPM failed.
        """
        ...

    def poll(self, rid: str, operation_id: str) -> Message:
        """Ask how an operation is doing."""
        ...

    def parse(self, message: Message) -> ClientReply:
        """Read a reply; raises MalformedReply for anything else."""
        ...

    def hub_credential(self, reply: ClientReply) -> bytes | None:
        """The secret for the hub that came sealed with an assignment; None when there is none.

        Raises:
            CredentialError: it is not for this device.
        """
        ...


class Dialect(Protocol):
    """A wire protocol."""

    retries_answers: bool
    """Whether an answer that was not taken may be sent again: not where a challenge serves one try."""

    async def login(self, registrant: Registrant, client_version: str) -> Login:
        """What the CONNECT says."""
        ...

    def response_filter(self, registration_id: str) -> str:
        """What to subscribe to before the first request."""
        ...

    def converse(self, registrant: Registrant) -> Conversation:
        """Begin a registration."""
        ...


class DpsDialect:
    """Azure DPS over MQTT: the `$dps` topics."""

    retries_answers = False

    async def login(self, registrant: Registrant, client_version: str) -> Login:
        """See Dialect."""
        return Login(
            user_name=dps_client.user_name(
                registrant.id_scope, registrant.registration_id, client_version=client_version
            ),
            password=await registrant.credential.password(resource=registrant.resource, expiry=_token_expiry()),
        )

    def response_filter(self, registration_id: str) -> str:
        """See Dialect: the same for every device, who hears only its own replies all the same."""
        del registration_id
        return dps_client.RESPONSE_FILTER

    def converse(self, registrant: Registrant) -> "DpsConversation":
        """See Dialect."""
        return DpsConversation(registrant)


class DpsConversation:
    """See Conversation."""

    def __init__(self, registrant: Registrant) -> None:
        self._registrant = registrant
        self._members: Mapping[str, JSONValue] = {}

    async def register(self, rid: str, payload: JSONValue) -> Message:
        """See Conversation."""
        self._members = await self._registrant.credential.register_members()
        return self._register(rid, payload, self._members)

    def is_challenge(self, reply: ClientReply) -> bool:
        """See Conversation."""
        return reply.challenge is not None

    async def answer(self, rid: str, challenge: ClientReply, payload: JSONValue) -> Message:
        """See Conversation: the same request once more, with a token that only this TPM can sign."""
        authorization = await self._registrant.credential.answer(
            challenge.challenge or b"",
            resource=self._registrant.resource,
            expiry=_token_expiry(),
            key_name=challenge.key_name,
        )
        return self._register(rid, payload, {**self._members, "authorization": authorization})

    def poll(self, rid: str, operation_id: str) -> Message:
        """See Conversation: the body says nothing."""
        return Message(topic=dps_client.poll_topic(rid, operation_id), payload=b"")

    def parse(self, message: Message) -> ClientReply:
        """See Conversation."""
        return dps_client.parse_reply(message.topic, message.payload)

    def hub_credential(self, reply: ClientReply) -> bytes | None:
        """See Conversation: there is none on these topics."""
        del reply
        return None

    def _register(self, rid: str, payload: JSONValue, members: Mapping[str, JSONValue]) -> Message:
        body = dps_client.register_payload(self._registrant.registration_id, payload=payload, **members)
        return Message(topic=dps_client.register_topic(rid), payload=body)


class NativeDialect:
    """Plain topics, over provisiond's own broker or any other: `docs/native-protocol.md`."""

    retries_answers = False

    async def login(self, registrant: Registrant, client_version: str) -> Login:
        """See Dialect: who the device is stands in its messages."""
        del registrant, client_version
        return Login()

    def response_filter(self, registration_id: str) -> str:
        """See Dialect."""
        return native_client.response_filter(_parse_id(registration_id))

    def converse(self, registrant: Registrant) -> "NativeConversation":
        """See Dialect."""
        return NativeConversation(registrant)


class NativeConversation:
    """See Conversation."""

    def __init__(self, registrant: Registrant) -> None:
        self._registrant = registrant
        self._registration_id = _parse_id(registrant.registration_id)
        self._registered = b""

    async def register(self, rid: str, payload: JSONValue) -> Message:
        """See Conversation; the answer will cover these very octets."""
        attestation = await native_proof.claim(self._registrant.credential)
        self._registered = native_client.register_payload(attestation, payload=payload)
        return self._request(Operation.REGISTER, rid, self._registered)

    def is_challenge(self, reply: ClientReply) -> bool:
        """See Conversation."""
        return reply.status == _CHALLENGED and "challenge" in reply.body

    async def answer(self, rid: str, challenge: ClientReply, payload: JSONValue) -> Message:
        """See Conversation."""
        del payload
        try:
            asked = ChallengePart.model_validate(challenge.body["challenge"])
        except ValidationError as error:
            raise CredentialError(f"the service asks for a proof in a way that is not understood: {error}") from error
        transcript = native_client.answer_transcript(
            asked,
            id_scope=self._registrant.id_scope,
            registration_id=self._registrant.registration_id,
            register_payload=self._registered,
        )
        proof = await native_proof.answer(self._registrant.credential, asked, transcript)
        return self._request(Operation.ANSWER, rid, proof)

    def poll(self, rid: str, operation_id: str) -> Message:
        """See Conversation."""
        return self._request(Operation.STATUS, rid, native_client.status_payload(operation_id))

    def parse(self, message: Message) -> ClientReply:
        """See Conversation; the body is given in the form of Azure's, with `challenge` beside it."""
        reply = native_client.parse_reply(message.payload)
        rid = parse_reply_topic(message.topic, self._registration_id)
        if rid is None:
            raise MalformedReply(f"{message.topic[:200]!r} is not the topic of a reply")
        return ClientReply(
            status=reply.status, rid=rid, retry_after_s=reply.retry_after, body=_azure_body(message.payload)
        )

    def hub_credential(self, reply: ClientReply) -> bytes | None:
        """See Conversation."""
        sealed = reply.registration_state.get("sealedCredential")
        if not isinstance(sealed, dict):
            return None
        context = SealingContext(
            id_scope=self._registrant.id_scope,
            registration_id=self._registrant.registration_id,
            operation_id=reply.operation_id,
        )
        return native_proof.open_sealed(self._registrant.credential, sealed, context)

    def _request(self, operation: Operation, rid: str, payload: bytes) -> Message:
        topic = native_client.request_topic(self._registration_id, operation, rid)
        return Message(topic=topic, payload=payload)


def find_dialect(name: str) -> Dialect:
    """The dialect called `dps` or `native`.

    Raises:
        CredentialError: there is no such protocol.
    """
    match name:
        case "dps":
            return DpsDialect()
        case "native":
            return NativeDialect()
    raise CredentialError(f"there is no protocol {name!r}; use --protocol dps or --protocol native")


def _azure_body(payload: bytes) -> dict[str, Any]:
    """A native reply in the form of an Azure one: the status in words, the error at the top."""
    body: dict[str, Any] = dict(parse_json(payload))
    body.pop("status", None)
    state, error = body.get("registrationState"), body.pop("error", None)
    if isinstance(state, dict):
        body["status"] = state.get("status")
    return body | (error if isinstance(error, dict) else {})


def _parse_id(registration_id: str) -> RegistrationId:
    try:
        return RegistrationId.parse(registration_id)
    except MalformedRequest as error:
        raise CredentialError(str(error)) from error


def _token_expiry() -> int:
    return int(time()) + TOKEN_LIFETIME_S
