"""The twins of the devices here: each is made when it is first needed, and changed in one transaction at a time."""

from provisiond.errors import RecordNotFound
from provisiond.model import DeviceTwin, InitialTwin, Registration
from provisiond.ports import Clock, DeviceStore
from provisiond.protocols.twin import Change, new_twin


class Twins:
    """Device twins in the store."""

    def __init__(self, store: DeviceStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def get(self, registration: Registration) -> DeviceTwin:
        """A device's twin.

        Raises:
            StoreUnavailable, CorruptRecord: it cannot be read.
        """
        found = await self._store.get_twin(registration.device_id.lower())
        return found if found is not None else await self.change(registration, lambda twin: twin)

    async def change(self, registration: Registration, change: Change) -> DeviceTwin:
        """Replace a twin by what `change` makes of it.

        Args:
            registration: the device's.
            change: pure; runs on the store's thread.

        Raises:
            StoreUnavailable, CorruptRecord: it cannot be read or written.
            Exception: what `change` raises.
        """
        key = registration.device_id.lower()

        def change_known(twin: DeviceTwin | None) -> DeviceTwin:
            if twin is None:
                raise RecordNotFound(key)
            return change(twin)

        try:
            _, changed = await self._store.change_twin(key, change_known)
        except RecordNotFound:
            new = new_twin(registration.device_id, await self._initial(registration), now=self._clock.now())
            _, changed = await self._store.change_twin(key, lambda twin: change(twin or new))
        return changed

    async def _initial(self, registration: Registration) -> InitialTwin | None:
        """What a custom allocation wants the twin to start with, or else the enrollment."""
        if registration.initial_twin is not None:
            return registration.initial_twin
        enrollment = await self._store.find_enrollment(registration.enrollment_kind, registration.enrollment_id.lower())
        return None if enrollment is None else enrollment.initial_twin
