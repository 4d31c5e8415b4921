"""Who was seen at a mosquitto: the plugin itself does not tell, but an administrator may listen.

| heard on                           | what it shows                              | needs                              |
|------------------------------------|--------------------------------------------|------------------------------------|
| `$SYS/broker/log/N`                | a client has connected, with its user name | `log_dest topic` in mosquitto.conf |
| the topics a device may publish to | it has sent something just now             | nothing                            |

Retained messages are passed over, for they may be of any time. Where an administrator may hear neither, nobody is seen,
and what a device has left elsewhere goes when its time is up.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from typing import Final

import aiomqtt

from provisiond.errors import HubUnavailable
from provisiond.hubs.mqtt import MqttClient, MqttEndpoint, connect

_LOG: Final = "$SYS/broker/log/N"
_CONNECTED: Final = re.compile(r"New client connected from .* \(p\d, c[01], k\d+, u'(\S+)'\)\.\Z", re.DOTALL)
"""As 2.0.x writes it. The client id, which may be anything, comes before; no device id has a space in it."""
_SEEN_MAX: Final = 10_000
"""Devices remembered that were seen before anybody asked for them."""
_FILTERS_AT_ONCE: Final = 100


class MosquittoWatch:
    """Listens while there is anybody to look out for.

    Args:
        endpoint: where, and as whom.
        client_id: one of its own.
        publish: what a device may publish to, with `{deviceId}` in it.
    """

    def __init__(self, endpoint: MqttEndpoint, *, client_id: str, publish: Sequence[str]) -> None:
        self._endpoint = endpoint
        self._client_id = client_id
        self._publish = tuple(topic for topic in publish if "{deviceId}" in topic)
        self._patterns = tuple(_pattern(topic) for topic in self._publish)
        self._turn = asyncio.Lock()
        self._client: MqttClient | None = None
        self._connection = AsyncExitStack()
        self._filters: frozenset[str] = frozenset()
        self._seen: OrderedDict[str, None] = OrderedDict()

    async def look(self, device_ids: Collection[str]) -> Collection[str]:
        """Look out for these devices; those of them that were seen.

        Raises:
            HubUnavailable, HubUnauthorized: nobody can listen now.
        """
        async with self._turn:
            try:
                await self._listen(device_ids)
            except aiomqtt.MqttError as error:
                await self._drop()
                raise HubUnavailable(f"the connection was lost: {error.__cause__ or error}") from error
            except BaseException:  # also when the caller gives up: nobody knows what is subscribed then
                await self._drop()
                raise
        return {device_id for device_id in device_ids if device_id in self._seen}

    def forget(self, device_id: str) -> None:
        """It is made anew: what was seen of it before shows nothing."""
        self._seen.pop(device_id, None)

    async def aclose(self) -> None:
        """Disconnect."""
        async with self._turn:
            await self._drop()

    async def _listen(self, device_ids: Collection[str]) -> None:
        if not device_ids:
            await self._drop()
            return
        client = await self._connected()
        wanted = frozenset(topic.replace("{deviceId}", name) for topic in self._publish for name in device_ids)
        for part in _parts(self._filters - wanted):
            await client.unsubscribe(part)
        for part in _parts(wanted - self._filters):
            await client.subscribe([(topic_filter, 0) for topic_filter in part])
        self._filters = wanted

    async def _connected(self) -> MqttClient:
        if self._client is None:
            await self._drop()  # what is left of a connection that was lost
            stack = AsyncExitStack()
            client = await stack.enter_async_context(connect(self._endpoint, client_id=self._client_id))
            self._client, self._connection, self._filters = client, stack, frozenset()
            listening = asyncio.create_task(self._hear(client), name="mosquitto-watch")
            stack.push_async_callback(_ended, listening)
            await client.subscribe(_LOG, qos=0)
        return self._client

    async def _hear(self, client: MqttClient) -> None:
        try:
            async for message in client.messages:
                device_id = self._sender(message)
                if device_id is not None:
                    self._seen[device_id] = None
                    self._seen.move_to_end(device_id)
                    if len(self._seen) > _SEEN_MAX:
                        self._seen.popitem(last=False)
        except aiomqtt.MqttError:
            pass  # `look` finds out, and connects again
        if self._client is client:
            self._client = None

    def _sender(self, message: aiomqtt.Message) -> str | None:
        topic = str(message.topic)
        if topic == _LOG:
            line = bytes(message.payload).decode(errors="replace") if isinstance(message.payload, bytes) else ""
            found = _CONNECTED.search(line)
            return found[1] if found else None
        if message.retain:
            return None
        return next((found[1] for pattern in self._patterns if (found := pattern.fullmatch(topic))), None)

    async def _drop(self) -> None:
        self._client, connection, self._connection = None, self._connection, AsyncExitStack()
        await connection.aclose()


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


def _pattern(topic: str) -> re.Pattern[str]:
    """What the topics of a filter look like, with the device id as its first group."""
    levels = [
        ".*" if level == "#" else "[^/]*" if level == "+" else re.escape(level).replace(r"\{deviceId\}", "([^/]+)", 1)
        for level in topic.split("/")
    ]
    return re.compile("/".join(levels).replace("/.*", "(?:/.*)?"))


def _parts(topic_filters: Collection[str]) -> list[list[str]]:
    ordered = sorted(topic_filters)
    return [ordered[start : start + _FILTERS_AT_ONCE] for start in range(0, len(ordered), _FILTERS_AT_ONCE)]
