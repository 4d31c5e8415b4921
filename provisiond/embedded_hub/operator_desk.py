"""Operators and local consumers: they listen to devices and events, and ask for things to be done to devices."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from hmac import compare_digest
from typing import Final, Self

from provisiond.embedded_hub.audience import Audience
from provisiond.embedded_hub.background import Background
from provisiond.embedded_hub.commands import DeviceCommands, HubError
from provisiond.errors import (
    AdminError,
    ConnectRefused,
    DeviceFault,
    EtagMismatch,
    InvalidArgument,
    MalformedRequest,
    RecordNotFound,
    ServerFault,
    Throttled,
)
from provisiond.model import (
    CloudMessage,
    ConnectAttempt,
    Connection,
    JSONValue,
    Message,
    RegistrationId,
    Role,
)
from provisiond.ports import Clock, Entropy, Observer, Transport
from provisiond.protocols import operator, twin
from provisiond.protocols.json_body import parse_json
from provisiond.protocols.operator import Disconnect, GetTwin, InvokeMethod, OperatorRequest, SendMessage, UpdateTwin
from provisiond.protocols.topic_filters import matches

_REQUESTS_AT_ONCE: Final = 32
"""Of one operator: a method call may take minutes, and a dashboard makes a few at a time."""

_RETRY_AFTER_S: Final = 1
_CONDITION_FAILED: Final = 412001
_NOT_FOUND: Final = 404001
_BAD_REQUEST: Final = 400004

logger = logging.getLogger("provisiond.operator")


class OperatorDesk:
    """The use case behind connections of `Role.OPERATOR` (`ports.Gatekeeper`).

    `async with` it: leaving ends what is under way.

    Args:
        commands: what can be done to devices.
        audience: who listens.
        token: the password of user name `operator`.
        status: tells how the service is.
        observer: hears of refused connections.
        clock, entropy: the time, and message ids.
    """

    def __init__(
        self,
        *,
        commands: DeviceCommands,
        audience: Audience,
        token: str,
        status: Callable[[], Mapping[str, JSONValue]],
        observer: Observer,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._commands = commands
        self._audience = audience
        self._token = token
        self._status = status
        self._observer = observer
        self._clock = clock
        self._entropy = entropy
        self._background = Background()
        self._under_way: dict[str, set[asyncio.Task[None]]] = {}
        self._transport: Transport | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._background.close()

    def attach(self, transport: Transport) -> None:
        """Send through this from now on."""
        self._transport = transport

    def say_status(self, **changes: JSONValue) -> None:
        """Tell everyone who listens how the service is now."""
        self._audience.publish(operator.status_message({**self._status(), **changes}))

    # --- ports.Gatekeeper ---------------------------------------------------------------------------------------------

    async def admit(self, attempt: ConnectAttempt) -> Connection:
        """Judge a CONNECT with user name `operator` by its password.

        Raises:
            ConnectRefused: it is not the token.
        """
        if not compare_digest(attempt.password or b"", self._token.encode()):
            error = ConnectRefused("the password of the operator is not the token in operator.token")
            self._observer.connect_refused(attempt, error)
            raise error
        self._under_way[attempt.connection_id] = set()
        return Connection(
            connection_id=attempt.connection_id,
            role=Role.OPERATOR,
            claimed_id=_client_id(attempt),
            listener=attempt.listener,
            remote_address=attempt.remote_address,
        )

    async def handle(self, connection: Connection, message: Message) -> Message | None:
        """Take a request: it is answered when it is done, and others may be asked meanwhile."""
        under_way = self._under_way[connection.connection_id]
        try:
            request = operator.parse(message)
            if len(under_way) >= _REQUESTS_AT_ONCE:
                raise Throttled(f"{_REQUESTS_AT_ONCE} requests are under way", retry_after_s=_RETRY_AFTER_S)
        except DeviceFault as fault:
            return operator.answer(message.topic, fault.status, operator.error_body(fault.code, fault.public_message))
        work = self._serve(connection, message.topic, request)
        task = self._background.start(work, f"operator {connection.claimed_id}")
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        return None

    async def subscriptions_changed(self, connection: Connection, granted: Mapping[str, int]) -> None:
        """Listen to these from now on; who listens to the status hears it at once."""
        new = self._audience.listen(connection.connection_id, granted)
        if self._transport is not None and any(matches(topic_filter, operator.STATUS_TOPIC) for topic_filter in new):
            self._transport.post(connection.connection_id, operator.status_message(self._status()))

    def has_outstanding_operation(self, connection: Connection) -> bool:
        """Whether something is under way for this operator."""
        return bool(self._under_way.get(connection.connection_id))

    async def closed(self, connection: Connection) -> None:
        """Forget an operator; what it has asked for is given up."""
        self._audience.leave(connection.connection_id)
        for task in tuple(self._under_way.pop(connection.connection_id)):
            task.cancel()

    # --- requests -----------------------------------------------------------------------------------------------------

    async def _serve(self, connection: Connection, topic: str, request: OperatorRequest) -> None:
        status, body = await self._answer(request)
        logger.info("%s of %s: %s", type(request).__name__, request.device_id, status)
        answer = operator.answer(topic, status, body)
        if answer is not None and self._transport is not None:
            self._transport.post(connection.connection_id, answer)

    async def _answer(self, request: OperatorRequest) -> tuple[int, Mapping[str, JSONValue]]:
        try:
            return 200, await self._do(request)
        except MalformedRequest as error:
            return _refusal(error.code, error.public_message)
        except (AdminError, ServerFault) as error:
            return _refusal(_code_of(error), str(error))

    async def _do(self, request: OperatorRequest) -> Mapping[str, JSONValue]:
        match request:
            case SendMessage():
                return await self._send(request)
            case GetTwin():
                return twin.operator_view(await self._commands.show_twin(request.device_id))
            case UpdateTwin():
                changed = await self._commands.update_twin(
                    request.device_id,
                    tags=request.tags,
                    desired=request.properties.desired,
                    if_match=request.etag,
                )
                return twin.operator_view(changed)
            case InvokeMethod():
                return await self._invoke(request)
            case Disconnect():
                return {"disconnected": self._commands.disconnect(request.device_id, request.reason)}

    async def _send(self, request: SendMessage) -> Mapping[str, JSONValue]:
        message = CloudMessage(
            message_id=request.message_id or self._entropy.token_bytes(16).hex(),
            payload=request.octets,
            properties=request.all_properties,
            expires_at=self._clock.now() + timedelta(seconds=request.expiry_s),
        )
        waiting, connected = await self._commands.send_message(request.device_id, message)
        return {"messageId": message.message_id, "waiting": waiting, "connected": connected}

    async def _invoke(self, request: InvokeMethod) -> Mapping[str, JSONValue]:
        result = await self._commands.invoke_method(
            request.device_id,
            request.method_name,
            request.payload,
            response_timeout_s=request.response_timeout_in_seconds,
            connect_timeout_s=request.connect_timeout_in_seconds,
        )
        return {"result": {"status": result.status, "payload": _payload(result.payload)}}


def _client_id(attempt: ConnectAttempt) -> RegistrationId:
    """What a newer connection takes over by; clients without an id of their own take nobody's place."""
    try:
        return RegistrationId.parse(attempt.client_id)
    except MalformedRequest:
        return RegistrationId(f"operator-{attempt.connection_id}")


def _payload(octets: bytes) -> JSONValue:
    """What a device answered: JSON, or what it sent instead as text."""
    try:
        return parse_json(octets) if octets.strip() else None
    except MalformedRequest:
        return octets.decode(errors="replace")


def _code_of(error: AdminError | ServerFault) -> int:
    match error:
        case HubError() | ServerFault():
            return error.code
        case RecordNotFound():
            return _NOT_FOUND
        case EtagMismatch():
            return _CONDITION_FAILED
        case InvalidArgument():
            return _BAD_REQUEST
        case _:
            return 500000


def _refusal(code: int, message: str) -> tuple[int, Mapping[str, JSONValue]]:
    return code // 1000, operator.error_body(code, message)
