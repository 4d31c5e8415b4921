"""The devices that are connected now, and since when; what of it is to be written down."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from provisiond.model import Connection, DevicePresence, Message
from provisiond.ports import Transport
from provisiond.protocols.iothub import own_filters
from provisiond.registration.hub_access import HubAccess

LAST_SEEN_GRAIN: Final = timedelta(seconds=60)
"""How exact a written time of last contact is: finer would write all day long for devices that send all day long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodResult:
    """A device's answer to a direct method; `status` is its own, `payload` as it came."""

    status: int
    payload: bytes


@dataclass(slots=True)
class Session:
    """A device's connection.

    Args:
        connection: as it was admitted.
        access: why.
        judged_at: the count of changes of access that the judgement knew of.
        since: when it connected.
        last_seen_at: when it last sent anything.
        filters: what it has subscribed to.
        calls: direct methods that it has not answered, by request id; None for an answer means that it has gone.
        is_delivering: its cloud-to-device messages are being delivered.
        has_messages: there may be some.
        clean_session: nothing of it counts for its next connection.
        kept: topic filters, with QoS, that are kept for that otherwise.
    """

    connection: Connection
    access: HubAccess
    judged_at: int
    since: datetime
    last_seen_at: datetime
    filters: frozenset[str] = frozenset()
    calls: dict[str, asyncio.Future[MethodResult | None]] = field(default_factory=dict)
    is_delivering: bool = False
    has_messages: bool = True
    clean_session: bool = True
    kept: Mapping[str, int] = field(default_factory=dict)
    _written_at: datetime | None = None

    @property
    def key(self) -> str:
        """Lower-case device id."""
        return self.connection.claimed_id.key

    @property
    def device_id(self) -> str:
        """As the registration has it."""
        return self.access.registration.device_id

    def listens_to(self, prefix: str) -> bool:
        """Whether it has subscribed to what begins like this."""
        return any(topic_filter.startswith(prefix) for topic_filter in self.filters)

    def answer(self, rid: str, result: MethodResult | None) -> None:
        """Give a direct method its answer; one that nobody waits for any more changes nothing."""
        call = self.calls.pop(rid, None)
        if call is not None and not call.done():
            call.set_result(result)

    def end(self) -> None:
        """Its calls will not be answered."""
        for rid in tuple(self.calls):
            self.answer(rid, None)

    def presence(self, *, connected: bool, changed_at: datetime) -> DevicePresence:
        """What is written down of it."""
        return DevicePresence(
            device_key=self.key,
            connected=connected,
            changed_at=changed_at,
            last_seen_at=self.last_seen_at,
            remote_address=self.connection.remote_address,
        )

    def is_worth_writing(self) -> bool:
        """Whether it was seen since it was last written; from then on it counts as written."""
        if self._written_at is not None and self.last_seen_at - self._written_at < LAST_SEEN_GRAIN:
            return False
        self._written_at = self.last_seen_at
        return True


class Sessions:
    """At most one session a device: a newer one takes its place."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self.changed = asyncio.Event()
        """Somebody has come or gone since `take_changes`."""
        self._changed: dict[str, DevicePresence] = {}
        self._arrivals: dict[str, set[asyncio.Future[None]]] = {}
        self._transport: Transport | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._sessions.values()))

    # --- speaking to them ---------------------------------------------------------------------------------------------

    def attach(self, transport: Transport) -> None:
        """Send through this from now on."""
        self._transport = transport

    def post(self, session: Session, message: Message) -> bool:
        """Send, without waiting for anything; False when the device cannot take it, or has not asked for it."""
        return self._transport is not None and self._transport.post(session.connection.connection_id, message)

    async def deliver(self, session: Session, message: Message, *, deadline_s: float) -> bool:
        """Send, and wait until it is acknowledged; False when it was not."""
        connection_id = session.connection.connection_id
        return self._transport is not None and await self._transport.deliver(
            connection_id, message, deadline_s=deadline_s
        )

    def cut(self, session: Session, reason: str) -> None:
        """End a connection."""
        if self._transport is not None:
            self._transport.disconnect(session.connection.connection_id, reason)

    # --- coming and going ---------------------------------------------------------------------------------------------

    def enter(self, session: Session) -> None:
        """A device has connected."""
        older = self._sessions.get(session.key)
        if older is not None:
            older.end()
        self._sessions[session.key] = session
        self._changed[session.key] = session.presence(connected=True, changed_at=session.since)
        self.changed.set()
        session.is_worth_writing()

    def leave(self, connection: Connection, now: datetime) -> Session | None:
        """A connection has ended; the session that ended with it, None when a newer one had taken its place."""
        session = self.of(connection)
        if session is None:
            return None
        del self._sessions[session.key]
        self._changed[session.key] = session.presence(connected=False, changed_at=now)
        self.changed.set()
        session.end()
        return session

    def of(self, connection: Connection) -> Session | None:
        """The session of a connection, unless a newer one has taken its place."""
        session = self._sessions.get(connection.claimed_id.key)
        is_its_own = session is not None and session.connection.connection_id == connection.connection_id
        return session if is_its_own else None

    def find(self, device_key: str) -> Session | None:
        """The session of a device."""
        return self._sessions.get(device_key)

    async def wait_for(self, device_key: str, prefix: str, *, timeout_s: float) -> Session | None:
        """The session of a device that listens to what begins like this; None when there is none in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while (session := self.find(device_key)) is None or not session.listens_to(prefix):
                    if not timeout_s:
                        return None
                    await self._arrival(device_key)
        except TimeoutError:
            return None
        return session

    def subscribed(self, session: Session, filters: frozenset[str]) -> None:
        """A device listens to something else now."""
        session.filters = filters & own_filters(session.connection.claimed_id.text)
        for arrival in self._arrivals.pop(session.key, ()):
            if not arrival.done():
                arrival.set_result(None)

    def take_changes(self) -> list[DevicePresence]:
        """What has to be written since the last time this was asked."""
        changed, self._changed = self._changed, {}
        self.changed.clear()
        for session in self._sessions.values():
            if session.key not in changed and session.is_worth_writing():
                changed[session.key] = session.presence(connected=True, changed_at=session.since)
        return list(changed.values())

    def put_back(self, presences: list[DevicePresence]) -> None:
        """What could not be written; newer changes go before it."""
        self._changed = {presence.device_key: presence for presence in presences} | self._changed

    async def _arrival(self, device_key: str) -> None:
        arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._arrivals.setdefault(device_key, set())
        waiting.add(arrival)
        try:
            await arrival
        finally:
            waiting.discard(arrival)
            if not waiting and self._arrivals.get(device_key) is waiting:
                del self._arrivals[device_key]
