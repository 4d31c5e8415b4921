"""The packet path of the listener: bytes into a real connection of a real broker, cut where the fuzzer says."""

import asyncio
import logging

from provisiond.broker.embedded import EmbeddedBroker
from provisiond.broker.limits import BrokerLimits
from provisiond.broker.listener import ListenerSpec
from provisiond.errors import ConnectRefused, MalformedRequest
from provisiond.model import ConnectAttempt, Connection
from tests.fakes import EchoGatekeeper

_TURNS = 12
_CHUNK_MAX = 256


class _Gatekeeper(EchoGatekeeper):
    """Refuses who has no registration id, as every real one does."""

    async def admit(self, attempt: ConnectAttempt) -> Connection:
        try:
            return await super().admit(attempt)
        except MalformedRequest as error:
            raise ConnectRefused(str(error)) from error


class _Sink(asyncio.Transport):
    """Takes what is written; says that it is closed once it was."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = False

    def write(self, data: bytes) -> None:
        """Drop it."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Never full."""

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def is_closing(self) -> bool:
        """Whether somebody closed it."""
        return self.closing

    def close(self) -> None:
        """Remember it."""
        self.closing = True

    abort = close

    def pause_reading(self) -> None:
        """Nothing."""

    resume_reading = pause_reading


class _Alarm(logging.Handler):
    """Raises what the broker logs as its own failure."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.seen = record.exc_info[1] if record.exc_info else RuntimeError(record.getMessage())


class PacketPath:
    """One broker for all inputs: the first octet of an input says how long the chunks are that it arrives in."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._alarm = _Alarm()
        logging.getLogger("provisiond.broker").addHandler(self._alarm)
        logging.getLogger("provisiond.broker").propagate = False
        self._loop.set_exception_handler(self._complain)
        self._broker = self._loop.run_until_complete(self._start())

    def feed(self, data: bytes) -> None:
        """A client that says this; raises what the broker did not expect, or left behind."""
        self._loop.run_until_complete(self._visit(data))
        error, self._alarm.seen = self._alarm.seen, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Stop the broker."""
        self._loop.run_until_complete(self._broker.stop(grace_s=1))
        self._loop.close()

    async def _start(self) -> EmbeddedBroker:
        listener = ListenerSpec(name="local", host="127.0.0.1", port=0, tls=False)
        broker = EmbeddedBroker(gatekeeper=_Gatekeeper(), listeners=[listener], limits=BrokerLimits())
        await broker.start()
        return broker

    async def _visit(self, data: bytes) -> None:
        door = self._broker._door
        assert door.enter("127.0.0.1")
        client, sink = door.connect("local", ("127.0.0.1", 1), None), _Sink()
        client.connection_made(sink)
        size = 1 + data[0] % _CHUNK_MAX if data else 1
        for start in range(1, len(data), size):
            if sink.closing:
                break
            chunk = data[start : start + size]
            buffer = client.get_buffer(-1)
            buffer[: len(chunk)] = chunk
            client.buffer_updated(len(chunk))
            await asyncio.sleep(0)
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        client.connection_lost(None)
        while self._broker._tasks:  # noqa: ASYNC110 - each turn brings them nearer to their end
            await asyncio.sleep(0)
        gatekeeper = self._broker._gatekeeper
        for kept in (
            gatekeeper.attempts,
            gatekeeper.admitted,
            gatekeeper.messages,
            gatekeeper.handled,
            gatekeeper.ended,
        ):
            kept.clear()
        gatekeeper.subscriptions.clear()
        assert not self._broker._sessions
        assert not door.clients

    def _complain(self, _: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        self._alarm.seen = error if isinstance(error, BaseException) else RuntimeError(str(context["message"]))
