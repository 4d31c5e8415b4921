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
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

from provisiond import __version__
from provisiond.device.credentials import Credential
from provisiond.device.dialect import Dialect, DpsDialect
from provisiond.device.errors import CannotConnect, ConnectionLost, DeviceError, Refused, TimedOut
from provisiond.device.mqtt import Endpoint, Session, connect
from provisiond.model import JSONValue, Message, RegistrationStatus
from provisiond.protocols.dps_client import ClientReply, MalformedReply

CLIENT_VERSION: Final = f"provisiond-device/{__version__}"
TOKEN_LIFETIME_S: Final = 3600  # as the Azure SDKs; a registration takes seconds, a hub connection renews its own
_ASK_AGAIN: Final = frozenset({409, 429, *range(500, 600)})
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
        challenged: whether a TPM challenge was answered.
        polls: how often the operation was asked about.
        body: the whole reply as it came.
        connect_s, register_s: what it took until the connection stood, and from then to the assignment.
    """

    registration_id: str
    assigned_hub: str
    device_id: str
    substatus: str
    payload: JSONValue
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
        self._id_scope = id_scope
        self._registration_id = registration_id
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
                reply = await self._ask_until_final(payload)
                return await self._conclude(reply, started)
        except TimeoutError as error:
            raise self._give_up() from error

    async def _ask_until_final(self, payload: JSONValue) -> ClientReply:
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

    async def _attempt(self, payload: JSONValue) -> ClientReply:
        """One registration on one connection: register, answer a challenge if there is one, poll."""
        members = dict(await self._credential.register_members())
        reply = await self._register(payload, members)
        if reply.challenge is not None:
            members["authorization"] = await self._answer(reply)
            reply = await self._register(payload, members)
        while reply.status == 202 and reply.operation_id:
            operation_id = reply.operation_id
            self._report(Step.ASSIGNING, operation_id)
            await asyncio.sleep(self._patience.before_poll(reply.retry_after_s))
            self._polls += 1
            reply = await self._poll(operation_id)
            if reply.status == _STALE_OPERATION:
                raise TimedOut(f"the service has forgotten operation {operation_id}")
        return reply

    async def _register(self, payload: JSONValue, members: Mapping[str, JSONValue]) -> ClientReply:
        return await self._request(
            lambda rid: self._dialect.register(rid, self._registration_id, payload=payload, members=members)
        )

    async def _poll(self, operation_id: str) -> ClientReply:
        return await self._request(lambda rid: self._dialect.poll(rid, operation_id))

    async def _answer(self, reply: ClientReply) -> str:
        self._report(Step.CHALLENGE, self._registration_id)
        self._challenged = True
        return await self._credential.answer(
            reply.challenge or b"", resource=self._resource, expiry=_token_expiry(), key_name=reply.key_name
        )

    async def _request(self, make: Callable[[str], Message]) -> ClientReply:
        """One request and its answer; again, with a new request id, while the service is busy."""
        attempt = 0
        while True:
            rid = str(uuid4())
            reply = await self._exchange(rid, make(rid))
            if reply.status not in _ASK_AGAIN:
                return reply
            self._trouble = TimedOut(f"the service kept answering {reply.status} {reply.message}".rstrip())
            await asyncio.sleep(self._patience.before_retry(attempt, reply.retry_after_s))
            attempt += 1

    async def _exchange(self, rid: str, message: Message) -> ClientReply:
        session = self._session
        if session is None:
            raise ConnectionLost("there is no connection")
        deadline = time.monotonic() + self._patience.request_s
        await session.publish(message, deadline_s=self._patience.request_s)
        while True:
            received = await session.receive(deadline_s=max(0.0, deadline - time.monotonic()))
            try:
                reply = self._dialect.parse(received)
            except MalformedReply as error:
                raise Refused(f"the service answered nonsense: {error}", status=502, body={}) from error
            if reply.rid == rid:
                return reply

    async def _conclude(self, reply: ClientReply, started: float) -> RegistrationResult:
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
            challenged=self._challenged,
            polls=self._polls,
            body=reply.body,
            connect_s=self._connect_s,
            register_s=time.monotonic() - started,
        )

    @property
    def _resource(self) -> str:
        return f"{self._id_scope}/registrations/{self._registration_id}"

    async def _connect(self) -> None:
        started = time.monotonic()
        password = await self._credential.password(resource=self._resource, expiry=_token_expiry())
        session = await self._stack.enter_async_context(
            connect(
                self._endpoint,
                credential=self._credential,
                client_id=self._registration_id,
                user_name=self._dialect.user_name(self._id_scope, self._registration_id, CLIENT_VERSION),
                password=password,
                deadline_s=self._patience.connect_s,
            )
        )
        await session.subscribe(
            self._dialect.response_filter(self._registration_id), deadline_s=self._patience.request_s
        )
        self._session = session
        self._connect_s = time.monotonic() - started
        self._report(Step.CONNECTED, f"{self._endpoint.host}:{self._endpoint.port}")

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


def _token_expiry() -> int:
    return int(time.time()) + TOKEN_LIFETIME_S


def _refusal(reply: ClientReply) -> Refused:
    about = reply.message or reply.status_text or "no reason given"
    return Refused(
        f"the service refused the registration ({reply.status}): {about}", status=reply.status, body=reply.body
    )
