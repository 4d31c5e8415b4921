"""Cloud-to-device messages: queued durably, delivered in order, each until the device acknowledges it."""

from typing import Final

from provisiond.embedded_hub.background import Background
from provisiond.embedded_hub.sessions import Session, Sessions
from provisiond.model import CloudMessage
from provisiond.ports import Clock, DeviceStore
from provisiond.protocols import iothub

QUEUE_MAX: Final = 50
"""Messages that wait for one device: as Azure has it."""

_DELIVERIES_MAX: Final = 10
"""How often one is tried, as Azure has it: a device that dies of a message must not do so for ever."""

_ACKNOWLEDGE_TIMEOUT_S: Final = 30.0
"""How long a device may take to acknowledge a message; after that it is sent again when the device is back."""

_TOPICS: Final = "devices/"


class CloudMessages:
    """The queues of the devices here."""

    def __init__(self, *, store: DeviceStore, clock: Clock, sessions: Sessions, background: Background) -> None:
        self._store = store
        self._clock = clock
        self._sessions = sessions
        self._background = background

    async def queue(self, device_key: str, message: CloudMessage) -> int | None:
        """Queue a message, durably; how many wait now, None when the queue is full.

        Raises:
            StoreUnavailable: it was not queued.
        """
        waiting = await self._store.queue_message(device_key, message, limit=QUEUE_MAX)
        session = self._sessions.find(device_key)
        if session is not None:
            self.deliver(session)
        return waiting

    def deliver(self, session: Session) -> None:
        """Deliver what waits, if the device listens; it goes on beside whatever else the device does."""
        session.has_messages = True
        if not session.is_delivering and session.listens_to(_TOPICS):
            session.is_delivering = True
            self._background.start(self._deliver(session), f"hub-messages {session.device_id}")

    async def _deliver(self, session: Session) -> None:
        try:
            while session.has_messages:
                session.has_messages = False  # what is queued from here on sets it again
                while await self._deliver_first(session):
                    pass
        finally:
            session.is_delivering = False

    async def _deliver_first(self, session: Session) -> bool:
        """One message; one that is not acknowledged stays where it is, and so does what is behind it."""
        if self._sessions.of(session.connection) is not session:
            return False
        message = await self._store.take_turn(session.key, now=self._clock.now(), deliveries_max=_DELIVERIES_MAX)
        if message is None:
            return False
        packet = iothub.cloud_message(session.connection.claimed_id.text, message)
        acknowledged = await self._sessions.deliver(session, packet, deadline_s=_ACKNOWLEDGE_TIMEOUT_S)
        if acknowledged:
            await self._store.remove_message(message.sequence)
        return acknowledged
