"""mosquitto's dynamic-security plugin as an MQTT conversation: commands out, responses back.

    $CONTROL/dynamic-security/v1            {"commands": [{"command": "createClient", …, "correlationData": "7-0"}, …]}
    $CONTROL/dynamic-security/v1/response   {"responses": [{"command": …, "correlationData": "7-0", "error": "…"?}, …]}

Everybody who subscribes hears everybody's responses, so only those count that carry our correlation data.
"""

import asyncio
import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import aiomqtt

from provisiond.errors import HubUnauthorized, HubUnavailable
from provisiond.hubs.mqtt import MqttClient, MqttEndpoint, connect

CONTROL_TOPIC: Final = "$CONTROL/dynamic-security/v1"
RESPONSE_TOPIC: Final = f"{CONTROL_TOPIC}/response"

COMMANDS_MAX: Final = 50
"""In one message: the whole broker stands still for as long as it takes, 8 s for 1,000 commands (measured)."""

Command = Mapping[str, Any]
Response = Mapping[str, Any]


class DynsecClient:
    """One administrator's connection, made when it is needed and again when it was lost.

    Commands of several callers go one after another.
    """

    def __init__(self, endpoint: MqttEndpoint) -> None:
        self._endpoint = endpoint
        self._turn = asyncio.Lock()
        self._client: MqttClient | None = None
        self._connection = AsyncExitStack()
        # Ours alone among the administrators of this broker, and for this run.
        self._name = secrets.token_hex(8)
        self._sent = 0

    async def send(self, commands: Sequence[Command]) -> list[Response]:
        """Have commands done, in order, each judged alone; wait for all responses.

        Args:
            commands: at most `COMMANDS_MAX`.

        Returns:
            A response for each; `error` in it says what went wrong.

        Raises:
            HubUnavailable: no connection, or it was lost.
            HubUnauthorized: the broker does not take us, or not as an administrator of the plugin.
        """
        async with self._turn:
            try:
                return await self._exchange(await self._connected(), commands)
            except aiomqtt.MqttError as error:
                await self._drop()
                raise HubUnavailable(f"the connection was lost: {error.__cause__ or error}") from error
            except BaseException:
                # Also when the caller gives up: an answer that comes later must not find another question.
                await self._drop()
                raise

    async def aclose(self) -> None:
        """Disconnect."""
        async with self._turn:
            await self._drop()

    async def _exchange(self, client: MqttClient, commands: Sequence[Command]) -> list[Response]:
        self._sent += 1
        names = [f"{self._name}-{self._sent}-{index}" for index in range(len(commands))]
        tagged = [dict(command, correlationData=name) for command, name in zip(commands, names, strict=True)]
        client.drain()
        # QoS 0: the responses say more than an acknowledgement, which aiomqtt would wait for although all is lost.
        await client.publish(CONTROL_TOPIC, json.dumps({"commands": tagged}), qos=0)
        found: dict[str, Response] = {}
        async for message in client.messages:
            found |= _responses(message.payload, set(names))
            if len(found) == len(names):
                return [found[name] for name in names]
        raise HubUnavailable("the connection ended before the answer")

    async def _connected(self) -> MqttClient:
        if self._client is None:
            stack = AsyncExitStack()
            client = await stack.enter_async_context(connect(self._endpoint, client_id=f"provisiond-{self._name}"))
            self._client, self._connection = client, stack
            granted = await client.subscribe(RESPONSE_TOPIC, qos=1)
            if any(getattr(code, "value", code) >= 128 for code in granted or ()):
                raise HubUnauthorized(
                    f"user {self._endpoint.username!r} is no administrator of the dynamic-security plugin: it may not "
                    f"subscribe to {RESPONSE_TOPIC}"
                )
        return self._client

    async def _drop(self) -> None:
        self._client, connection, self._connection = None, self._connection, AsyncExitStack()
        await connection.aclose()


def _responses(payload: Any, names: set[str]) -> dict[str, Response]:
    """Those of a message that are for us; anything else is somebody else's, or nonsense."""
    try:
        responses = json.loads(payload)["responses"]
        return {
            response["correlationData"]: response for response in responses if response.get("correlationData") in names
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
