"""What a device stays subscribed to from one connection to the next (MQTT 3.1.1 4.1).

The Azure SDKs connect without a clean session and subscribe once: when they renew their token, or come back after the
service was restarted, they count on what they had subscribed to before.
"""

import logging
from collections.abc import Mapping

from provisiond.embedded_hub.sessions import Session, Sessions
from provisiond.errors import ServerFault
from provisiond.ports import DeviceStore

logger = logging.getLogger("provisiond.hub")


class Subscriptions:
    """The subscriptions of devices that want them kept, in the store."""

    def __init__(self, store: DeviceStore, sessions: Sessions) -> None:
        self._store = store
        self._sessions = sessions

    async def resume(self, device_key: str, *, clean_session: bool) -> Mapping[str, int]:
        """What a device that connects is subscribed to, with QoS by filter; a clean session ends what was kept.

        Raises:
            StoreUnavailable: nobody can say.
        """
        stored = await self._store.get_subscriptions(device_key)
        older = self._sessions.find(device_key)
        # What an older connection was granted just now may be on its way to the store.
        kept = stored if older is None or older.clean_session else older.kept
        if not clean_session:
            return kept
        if kept or stored:
            await self._store.put_subscriptions(device_key, {})
        return {}

    async def changed(self, session: Session, granted: Mapping[str, int]) -> None:
        """Keep what a device is subscribed to now, if it wants that and it is something else."""
        if session.clean_session or dict(granted) == dict(session.kept):
            return
        session.kept = dict(granted)
        try:
            await self._store.put_subscriptions(session.key, session.kept)
        except ServerFault as error:
            logger.warning("the subscriptions of %s cannot be kept: %s", session.device_id, error)
