"""The embedded hub: devices that were assigned here connect, are heard, and are spoken to.

| what happens  | what becomes of it                                                        |
|---------------|---------------------------------------------------------------------------|
| CONNECT       | judged by the enrollment that let the device in; a session, or return code 5 |
| event         | handed to whoever listens, at once; nothing is stored                     |
| twin request  | answered from the store; a change is one transaction                      |
| cloud message | kept in the store until the device has acknowledged it                    |
| method        | called while the device is connected, answered or timed out               |
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final, Self

from provisiond.embedded_hub.audience import Audience
from provisiond.embedded_hub.background import Background
from provisiond.embedded_hub.cloud_messages import CloudMessages
from provisiond.embedded_hub.commands import DeviceCommands
from provisiond.embedded_hub.departures import Departures
from provisiond.embedded_hub.judge import AccessJudge
from provisiond.embedded_hub.sessions import MethodResult, Session, Sessions
from provisiond.embedded_hub.subscriptions import Subscriptions
from provisiond.embedded_hub.twins import Twins
from provisiond.errors import AttestationError, ConnectRefused, EtagMismatch, MalformedRequest, ServerFault
from provisiond.model import ConnectAttempt, Connection, Message
from provisiond.ports import Clock, DeviceStore, Entropy, HubDirectory, Observer, Transport
from provisiond.protocols import iothub, twin
from provisiond.protocols.iothub import Event, MethodAnswer, TwinGet, TwinReport
from provisiond.protocols.operator import device_event
from provisiond.protocols.timestamps import format_timestamp
from provisiond.registration.attest import AttestationPolicy

_LOOK_S: Final = 1.0
"""How often sessions are looked after: how late a disabled device is cut off."""

_GATHER_S: Final = 0.05
"""How late it is written down that a device is connected: a fleet that comes back shares its writes."""

_LAST_SEEN_LOOK_S: Final = 10.0
"""How often is looked whether something was seen that is worth writing."""

_JUDGED_AT_ONCE: Final = 64
"""Sessions that are judged together when enrollments have changed: one group of the store's reads."""

_OUTDATED: Final = -1
"""No count of changes of access: whoever was judged at it is judged again."""

_CONDITION_FAILED: Final = 412001

logger = logging.getLogger("provisiond.hub")


class EmbeddedHub:
    """The use case behind connections of `Role.IOTHUB` (`ports.Gatekeeper`).

    `async with` it: leaving ends its work and writes down who was last seen when. `commands` is for operators.

    Args:
        store: twins, queues, presence, and whom to let in.
        hubs: the linked hubs; those of type `embedded` are this one, under several names perhaps.
        clock, entropy: the time, and method request ids.
        observer: hears of refused connections.
        audience: who listens.
        policy: what counts as proof.
        look_s: how often sessions are looked after.
    """

    def __init__(
        self,
        *,
        store: DeviceStore,
        hubs: HubDirectory,
        clock: Clock,
        entropy: Entropy,
        observer: Observer,
        audience: Audience,
        policy: AttestationPolicy,
        look_s: float = _LOOK_S,
    ) -> None:
        self._store = store
        self._clock = clock
        self._observer = observer
        self._audience = audience
        self._look_s = look_s
        self._judge = AccessJudge(store=store, hubs=hubs, clock=clock, policy=policy)
        self._sessions = Sessions()
        self._background = Background()
        self._twins = Twins(store, clock)
        self._messages = CloudMessages(store=store, clock=clock, sessions=self._sessions, background=self._background)
        self._subscriptions = Subscriptions(store, self._sessions)
        self._access_changes = 0
        self._departures = Departures(store=store, hubs=hubs, clock=clock, entropy=entropy)
        self.commands = DeviceCommands(
            store=store,
            hubs=hubs,
            clock=clock,
            entropy=entropy,
            sessions=self._sessions,
            twins=self._twins,
            messages=self._messages,
        )

    async def __aenter__(self) -> Self:
        await self._store.reset_presence(self._clock.now())
        self._access_changes = await self._store.count_access_changes()
        self._background.start(self._look_after(), "hub-look-after")
        self._background.start(self._keep_presence(), "hub-presence")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._background.close()
        await self._write_presence()

    def attach(self, transport: Transport) -> None:
        """Send through this from now on."""
        self._sessions.attach(transport)

    def reload(self, policy: AttestationPolicy) -> None:
        """Judge by this policy from now on; who is connected is judged again at the next look."""
        if policy == self._judge.policy:
            return
        self._judge.policy = policy
        for session in self._sessions:
            session.judged_at = _OUTDATED

    @property
    def connected(self) -> int:
        """Devices that are connected now."""
        return len(self._sessions)

    # --- ports.Gatekeeper ---------------------------------------------------------------------------------------------

    async def admit(self, attempt: ConnectAttempt) -> Connection:
        """Judge a CONNECT: who is not proved to be the device is refused, whatever the reason, with the same answer.

        Raises:
            ConnectRefused: return code 5; 2 for a device id that cannot be one, 3 when our side failed.
        """
        try:
            connection = iothub.claim(attempt)
            session = await self._judged(connection, clean_session=attempt.clean_session)
        except ConnectRefused as error:
            self._observer.connect_refused(attempt, error)
            raise
        # No await from here to the broker's own table: a session that is entered is also closed.
        self._sessions.enter(session)
        if session.access.departing_from is None:
            self._departures.arrived(session.access.registration.hub or "", session.access.registration.key)
        self._tell(session, "connected")
        return session.connection

    async def handle(self, connection: Connection, message: Message) -> Message | None:
        """Take what a device says: an event is handed on, a twin request is answered."""
        session = self._sessions.of(connection)
        if session is None:
            return None
        session.last_seen_at = self._clock.now()
        try:
            request = iothub.parse(connection.claimed_id.text, message.topic)
        except MalformedRequest as error:
            self._sessions.cut(session, str(error))
            return None
        match request:
            case Event():
                self._hand_on(session, message)
            case MethodAnswer():
                session.answer(request.rid, MethodResult(status=request.status, payload=message.payload))
            case TwinGet() | TwinReport():
                return await self._answer_twin(session, request, message.payload)
        return None

    async def subscriptions_changed(self, connection: Connection, granted: Mapping[str, int]) -> None:
        """Deliver what has waited for a subscription."""
        session = self._sessions.of(connection)
        if session is not None:
            self._sessions.subscribed(session, frozenset(granted))
            self._messages.deliver(session)
            await self._subscriptions.changed(session, granted)

    def has_outstanding_operation(self, connection: Connection) -> bool:
        """False: a device at its hub is not waited for."""
        del connection
        return False

    async def closed(self, connection: Connection) -> None:
        """A device has gone, unless it is connected again already."""
        session = self._sessions.leave(connection, self._clock.now())
        if session is not None:
            self._tell(session, "disconnected")

    async def _judged(self, connection: Connection, *, clean_session: bool) -> Session:
        judged_at = self._access_changes
        try:
            access = await self._judge.judge(connection)
            kept = await self._subscriptions.resume(connection.claimed_id.key, clean_session=clean_session)
        except AttestationError as error:
            raise ConnectRefused(f"{error.finding}: {error}") from error
        except ServerFault as error:
            raise ConnectRefused(str(error), return_code=3) from error
        now = self._clock.now()
        return Session(
            connection=replace(connection, resumed=tuple(kept.items())),
            access=access,
            judged_at=judged_at if access.departing_from is None else _OUTDATED,  # it may have been let go of meanwhile
            since=now,
            last_seen_at=now,
            clean_session=clean_session,
            kept=kept,
        )

    # --- what devices say ---------------------------------------------------------------------------------------------

    def _hand_on(self, session: Session, message: Message) -> None:
        if len(message.topic) + len(message.payload) > iothub.EVENT_MAX_SIZE_BYTES:
            self._sessions.cut(session, f"an event of more than {iothub.EVENT_MAX_SIZE_BYTES} bytes")
            return
        # Listeners know the device by the spelling of its registration.
        spelt = f"devices/{session.connection.claimed_id}/"
        topic = f"devices/{session.device_id}/{message.topic.removeprefix(spelt)}"
        self._audience.publish(replace(message, topic=topic))

    async def _answer_twin(self, session: Session, request: TwinGet | TwinReport, payload: bytes) -> Message:
        try:
            if isinstance(request, TwinGet):
                current = await self._twins.get(session.access.registration)
                return iothub.twin_reply(request.rid, 200, body=twin.device_view(current))
            version = await self._report(session, request, payload)
            return iothub.twin_reply(request.rid, 204, version=version)
        except MalformedRequest as error:
            code, message = error.code, error.public_message
        except EtagMismatch as error:
            code, message = _CONDITION_FAILED, str(error)
        except ServerFault as error:
            logger.warning("the twin of %s cannot be read or written: %s", session.device_id, error)
            code, message = error.code, error.public_message
        return iothub.twin_reply(request.rid, code // 1000, body={"errorCode": code, "message": message})

    async def _report(self, session: Session, request: TwinReport, payload: bytes) -> int:
        patch, now, base_version = twin.parse_patch(payload), self._clock.now(), request.base_version
        changed = await self._twins.change(
            session.access.registration,
            lambda current: twin.report(current, patch, now=now, base_version=base_version),
        )
        return changed.reported_version

    # --- looking after ------------------------------------------------------------------------------------------------

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(self._look_s)
            try:
                await self._cut_whose_access_ended()
                await self._let_go_of_who_has_left()
            except ServerFault as error:
                logger.warning("cannot look after the sessions now: %s", error)
            except Exception:  # a bug of ours must not let disabled devices stay connected for ever
                logger.exception("looking after the sessions failed")

    async def _cut_whose_access_ended(self) -> None:
        now = self._clock.now()
        for session in self._sessions:
            if session.access.expires_at <= now:
                self._sessions.cut(session, "its token or certificate has expired")
        self._access_changes = changes = await self._store.count_access_changes()
        outdated = [session for session in self._sessions if session.judged_at != changes]
        for start in range(0, len(outdated), _JUDGED_AT_ONCE):
            batch = outdated[start : start + _JUDGED_AT_ONCE]
            await asyncio.gather(*(self._judge_again(session, changes) for session in batch))

    async def _let_go_of_who_has_left(self) -> None:
        for device_key in await self._departures.step():
            session = self._sessions.find(device_key)
            if session is not None:
                await self._judge_again(session, self._access_changes)

    async def _judge_again(self, session: Session, changes: int) -> None:
        try:
            session.access = await self._judge.judge(session.connection)
            session.judged_at = changes
        except AttestationError as error:
            self._sessions.cut(session, f"{error.finding}: {error}")

    async def _keep_presence(self) -> None:
        """Write down who came and went, many at a time, and now and then who was last seen when."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_SEEN_LOOK_S):
                    await self._sessions.changed.wait()
            await asyncio.sleep(_GATHER_S)
            try:
                await self._write_presence()
            except ServerFault as error:
                logger.warning("cannot write down who is connected now: %s", error)
                await asyncio.sleep(self._look_s)
            except Exception:  # as above
                logger.exception("writing down who is connected failed")

    async def _write_presence(self) -> None:
        presences = self._sessions.take_changes()
        if not presences:
            return
        try:
            await self._store.put_presence(presences)
        except ServerFault:
            self._sessions.put_back(presences)
            raise

    def _tell(self, session: Session, event: str) -> None:
        hub = session.access.departing_from or session.access.registration.hub
        remote_address = session.connection.remote_address
        logger.info("device %s %s (%s, %s)", session.device_id, event, hub, remote_address)
        document = {
            "event": event,
            "hub": hub,
            "remoteAddress": remote_address,
            "timestampUtc": format_timestamp(self._clock.now()),
        }
        self._audience.publish(device_event(session.device_id, document))
