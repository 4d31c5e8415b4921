"""A device that asks to be assigned.

    endpoint = Endpoint(host="gateway.local", ca_file=Path("root.crt"))
    credential = SymmetricKeyCredential.from_file(Path("device.key"))
    async with ProvisioningClient(
        endpoint, id_scope="0ne0LOCAL01", registration_id="sensor-7", credential=credential
    ) as client:
        result = await client.register()
    print(result.assigned_hub, result.device_id)

The client connects once it is entered, and again by itself when the connection is lost before the answer came: asking
again is always safe.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

from provisiond import __version__
from provisiond.device.credentials import Credential
from provisiond.device.dialect import Conversation, Dialect, DpsDialect, Login, Registrant
from provisiond.device.errors import CannotConnect, ConnectionLost, DeviceError, Refused, TimedOut
from provisiond.device.mqtt import Endpoint, Session, connect
from provisiond.model import JSONValue, Message, RegistrationStatus
from provisiond.protocols.dps_client import ClientReply, MalformedReply

CLIENT_VERSION: Final = f"provisiond-device/{__version__}"
_ASK_AGAIN: Final = frozenset({409, 429, *range(500, 600)})
_NOT_TAKEN: Final = frozenset({429})  # a request that was not even looked at
_UNPROVED: Final = 401
_STALE_OPERATION: Final = 404  # the service restarted between a registration and its poll


class Step(StrEnum):
    """Where a registration has got to, in the words of the Azure samples."""

    CONNECTED = "connected"
    CHALLENGE = "challenge"
    ASSIGNING = "assigning"
    ASSIGNED = "assigned"
    HUB_CONNECTED = "hub connected"
    MESSAGE_SENT = "message sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a device waits, in seconds. The defaults are those of the Azure SDKs where they agree.

    Args:
        connect_s: for TCP, TLS and CONNACK together.
        request_s: for the answer to one request.
        total_s: for a whole registration, pauses included.
        poll_s: before a poll when the service does not say.
        max_poll_s: at most, whatever the service says.
        backoff_s: first pause after an outage; doubles up to `max_backoff_s`.
        jitter: every pause is longer by up to this share, so that devices do not come back all at once.
    """

    connect_s: float = 10.0
    request_s: float = 30.0
    total_s: float = 120.0
    poll_s: float = 2.0
    max_poll_s: float = 300.0
    backoff_s: float = 0.5
    max_backoff_s: float = 30.0
    jitter: float = 0.2

    def spread(self, pause_s: float) -> float:
        """A pause with its jitter."""
        return pause_s * random.uniform(1.0, 1.0 + self.jitter)  # noqa: S311 - spreads load, keeps no secret

    def before_poll(self, retry_after_s: int | None) -> float:
        """Pause before the next request of a registration that is going well."""
        return self.spread(min(self.poll_s if retry_after_s is None else float(retry_after_s), self.max_poll_s))

    def before_retry(self, attempt: int, retry_after_s: int | None = None) -> float:
        """Pause before trying once more; `attempt` counts from 0."""
        if retry_after_s is not None:
            return self.before_poll(retry_after_s)
        return self.spread(min(self.backoff_s * 2.0 ** min(attempt, 16), self.max_backoff_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationResult:
    """An assignment.

    Args:
        assigned_hub: host of the hub, sometimes with a port.
        substatus: how it came about, such as `initialAssignment`; may be empty.
        payload: what a custom allocation returned, any JSON or None.
        hub_credential: the secret for the hub that came sealed to this device, opened; None when there was none.
        challenged: whether a challenge was answered.
        polls: how often the operation was asked about.
        body: the whole reply; one of the native protocol is given in the form of Azure's.
        connect_s, register_s: what it took until the connection stood, and from then to the assignment.
    """

    registration_id: str
    assigned_hub: str
    device_id: str
    substatus: str
    payload: JSONValue
    hub_credential: bytes | None = field(default=None, repr=False)
    challenged: bool
    polls: int
    body: Mapping[str, Any]
    connect_s: float
    register_s: float


class ProvisioningClient:
    """One device's connection to the provisioning service.

    Args:
        endpoint: where the service listens.
        id_scope: of the service.
        registration_id: of the device; also its MQTT client id.
        credential: what the device proves itself with.
        patience: deadlines and pauses.
        dialect: wire protocol.
        on_step: hears of every step, with a detail (`host:port`, operation id, hub and device id).
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        id_scope: str,
        registration_id: str,
        credential: Credential,
        patience: Patience | None = None,
        dialect: Dialect | None = None,
        on_step: Callable[[Step, str], None] | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._registration_id = registration_id
        self._registrant = Registrant(id_scope=id_scope, registration_id=registration_id, credential=credential)
        self._credential = credential
        self._patience = patience or Patience()
        self._dialect = dialect or DpsDialect()
        self._on_step = on_step
        self._stack = AsyncExitStack()
        self._session: Session | None = None
        self._connect_s = 0.0
        self._polls = 0
        self._challenged = False
        self._steps: set[Step] = set()
        self._trouble: DeviceError | None = None

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            CannotConnect: no connection within the deadline.
            Refused: the CONNECT was refused.
            CredentialError: the credential cannot be used.
        """
        try:
            await self._connect()
        except BaseException:
            await self._disconnect()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._disconnect()

    async def register(self, payload: JSONValue = None) -> RegistrationResult:
        """Ask until there is a final answer.

        Args:
            payload: custom payload, any JSON; None for none.

        Raises:
            Refused: the service said no, or the registration is `failed` or `disabled`.
            CannotConnect: the connection was lost and did not come back in time.
            TimedOut: there was no final answer in time.
            CredentialError: the credential cannot be used, or the TPM does not take what the service sent.
            TpmError: the TPM failed.
        """
        started = time.monotonic()
        self._trouble, self._polls, self._challenged = None, 0, False
        self._steps = {Step.CONNECTED}
        try:
            async with asyncio.timeout(self._patience.total_s):
                reply, talk = await self._ask_until_final(payload)
                return await self._conclude(reply, talk, started)
        except TimeoutError as error:
            raise self._give_up() from error

    async def _ask_until_final(self, payload: JSONValue) -> tuple[ClientReply, Conversation]:
        attempt = 0
        while True:
            try:
                if self._session is None:
                    await self._connect()
                return await self._attempt(payload)
            except (CannotConnect, TimedOut) as error:
                self._trouble = error
                await self._disconnect()
            await asyncio.sleep(self._patience.before_retry(attempt))
            attempt += 1

    async def _attempt(self, payload: JSONValue) -> tuple[ClientReply, Conversation]:
        """One registration on one connection: register, answer a challenge if there is one, poll."""
        talk = self._dialect.converse(self._registrant)
        reply = await self._prove(talk, payload)
        if reply.status == _UNPROVED and self._challenged and not self._dialect.retries_answers:
            # An answer that was delivered twice finds its challenge gone the second time: that is no refusal yet.
            reply = await self._prove(talk, payload)
        while reply.status == 202 and reply.operation_id:
            operation_id = reply.operation_id
            self._report(Step.ASSIGNING, operation_id)
            await asyncio.sleep(self._patience.before_poll(reply.retry_after_s))
            self._polls += 1
            reply = await self._poll(talk, operation_id)
            if reply.status == _STALE_OPERATION:
                raise TimedOut(f"the service has forgotten operation {operation_id}")
        return reply, talk

    async def _prove(self, talk: Conversation, payload: JSONValue) -> ClientReply:
        """Register, and answer the challenge if there is one."""

        async def register(rid: str) -> Message:
            return await talk.register(rid, payload)

        reply = await self._request(talk, register)
        if not talk.is_challenge(reply):
            return reply
        challenge = reply

        async def answer(rid: str) -> Message:
            return await talk.answer(rid, challenge, payload)

        self._report(Step.CHALLENGE, self._registration_id)
        self._challenged = True
        ask_again = _ASK_AGAIN if self._dialect.retries_answers else _NOT_TAKEN
        return await self._request(talk, answer, ask_again)

    async def _poll(self, talk: Conversation, operation_id: str) -> ClientReply:
        async def poll(rid: str) -> Message:
            return talk.poll(rid, operation_id)

        return await self._request(talk, poll)

    async def _request(
        self, talk: Conversation, make: Callable[[str], Awaitable[Message]], ask_again: frozenset[int] = _ASK_AGAIN
    ) -> ClientReply:
        """One request and its answer; again, with a new request id, while the service is busy.

        Raises:
            TimedOut: the service is busy, and may have had the one use of this request.
        """
        attempt = 0
        while True:
            rid = str(uuid4())
            reply = await self._exchange(talk, rid, await make(rid))
            if reply.status not in _ASK_AGAIN:
                return reply
            self._trouble = TimedOut(f"the service kept answering {reply.status} {reply.message}".rstrip())
            if reply.status not in ask_again:
                raise self._trouble
            await asyncio.sleep(self._patience.before_retry(attempt, reply.retry_after_s))
            attempt += 1

    async def _exchange(self, talk: Conversation, rid: str, message: Message) -> ClientReply:
        session = self._session
        if session is None:
            raise ConnectionLost("there is no connection")
        deadline = time.monotonic() + self._patience.request_s
        await session.publish(message, deadline_s=self._patience.request_s)
        while True:
            received = await session.receive(deadline_s=max(0.0, deadline - time.monotonic()))
            try:
                reply = talk.parse(received)
            except MalformedReply as error:
                raise Refused(f"the service answered nonsense: {error}", status=502, body={}) from error
            if reply.rid == rid:
                return reply

    async def _conclude(self, reply: ClientReply, talk: Conversation, started: float) -> RegistrationResult:
        if reply.status != 200 or reply.status_text != RegistrationStatus.ASSIGNED:
            raise _refusal(reply)
        state = reply.registration_state
        hub, device_id = str(state.get("assignedHub") or ""), str(state.get("deviceId") or "")
        if not hub or not device_id:
            raise Refused("the service assigned no hub or no device id", status=502, body=reply.body)
        self._report(Step.ASSIGNING, reply.operation_id)
        await self._credential.accept_hub_key(reply.hub_key)
        self._report(Step.ASSIGNED, f"{hub}, {device_id}")
        return RegistrationResult(
            registration_id=self._registration_id,
            assigned_hub=hub,
            device_id=device_id,
            substatus=str(state.get("substatus") or ""),
            payload=state.get("payload"),
            hub_credential=talk.hub_credential(reply),
            challenged=self._challenged,
            polls=self._polls,
            body=reply.body,
            connect_s=self._connect_s,
            register_s=time.monotonic() - started,
        )

    async def _connect(self) -> None:
        started = time.monotonic()
        login = await self._login()
        session = await self._stack.enter_async_context(
            connect(
                self._endpoint,
                credential=self._credential,
                client_id=self._registration_id,
                user_name=login.user_name,
                password=login.password,
                deadline_s=self._patience.connect_s,
            )
        )
        await session.subscribe(
            self._dialect.response_filter(self._registration_id), deadline_s=self._patience.request_s
        )
        self._session = session
        self._connect_s = time.monotonic() - started
        self._report(Step.CONNECTED, f"{self._endpoint.host}:{self._endpoint.port}")

    async def _login(self) -> Login:
        user_name, password = self._endpoint.user_name, self._endpoint.password
        if user_name is not None or password is not None:
            return Login(user_name=user_name or self._registration_id, password=password)
        return await self._dialect.login(self._registrant, CLIENT_VERSION)

    async def _disconnect(self) -> None:
        self._session = None
        await self._stack.aclose()

    def _report(self, step: Step, detail: str) -> None:
        if self._on_step is not None and step not in self._steps:
            self._on_step(step, detail)
        self._steps.add(step)

    def _give_up(self) -> DeviceError:
        if isinstance(self._trouble, CannotConnect):
            return self._trouble
        last = f": {self._trouble}" if self._trouble else ""
        return TimedOut(f"no final answer within {self._patience.total_s:g} s{last}")


def _refusal(reply: ClientReply) -> Refused:
    about = reply.message or reply.status_text or "no reason given"
    return Refused(
        f"the service refused the registration ({reply.status}): {about}", status=reply.status, body=reply.body
    )
