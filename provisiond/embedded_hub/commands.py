"""What operators do to the devices at the embedded hub."""

import asyncio
from collections.abc import Mapping
from typing import Final

from provisiond.embedded_hub.cloud_messages import QUEUE_MAX, CloudMessages
from provisiond.embedded_hub.sessions import MethodResult, Session, Sessions
from provisiond.embedded_hub.twins import Twins
from provisiond.errors import AdminError, RecordNotFound
from provisiond.model import CloudMessage, DeviceTwin, JSONValue, Message, Registration, RegistrationStatus
from provisiond.ports import Clock, DeviceStore, Entropy, HubDirectory
from provisiond.protocols import iothub, twin
from provisiond.registration.hub_access import EMBEDDED

_DESIRED: Final = "$iothub/twin/PATCH/properties/desired/"
_METHODS: Final = "$iothub/methods/POST/"


class HubError(AdminError):
    """What an operator asks of a device cannot be done.

    Args:
        reason: for the operator.
        code: of the Azure IoT Hub table.
    """

    def __init__(self, reason: str, *, code: int) -> None:
        super().__init__(reason)
        self.code = code


class DeviceCommands:
    """Twins, messages, methods and disconnections, on behalf of an operator."""

    def __init__(
        self,
        *,
        store: DeviceStore,
        hubs: HubDirectory,
        clock: Clock,
        entropy: Entropy,
        sessions: Sessions,
        twins: Twins,
        messages: CloudMessages,
    ) -> None:
        self._store = store
        self._hubs = hubs
        self._clock = clock
        self._entropy = entropy
        self._sessions = sessions
        self._twins = twins
        self._messages = messages

    async def show_twin(self, device_id: str) -> DeviceTwin:
        """A device's twin.

        Raises:
            RecordNotFound: there is no such device here.
            StoreUnavailable, CorruptRecord: it cannot be read.
        """
        return await self._twins.get(await self._registration(device_id))

    async def update_twin(
        self,
        device_id: str,
        *,
        tags: Mapping[str, JSONValue] | None = None,
        desired: Mapping[str, JSONValue] | None = None,
        if_match: str | None = None,
    ) -> DeviceTwin:
        """Patch a twin; a device that is connected hears at once what has changed of its desired properties.

        Raises:
            RecordNotFound: there is no such device here.
            MalformedRequest: the patch is not allowed.
            EtagMismatch: the twin has another etag.
            StoreUnavailable, CorruptRecord: it cannot be read or written.
        """
        registration, now = await self._registration(device_id), self._clock.now()
        changed = await self._twins.change(
            registration,
            lambda current: twin.update(current, now=now, tags=tags, desired=desired, if_match=if_match),
        )
        session = self._sessions.find(registration.device_id.lower())
        if desired is not None and session is not None and session.listens_to(_DESIRED):
            push = iothub.desired_patch(twin.clean_patch(desired), changed.desired_version)
            if not self._sessions.post(session, push):
                self._sessions.cut(session, "it does not take its desired properties; it asks for them when it is back")
        return changed

    async def send_message(self, device_id: str, message: CloudMessage) -> tuple[int, bool]:
        """Queue a cloud-to-device message, durably, and deliver it as soon as the device takes it.

        Returns:
            How many messages wait for the device now, this one included, and whether it is connected.

        Raises:
            RecordNotFound: there is no such device here.
            HubError: 403004, its queue is full.
            StoreUnavailable: it was not queued.
        """
        key = (await self._registration(device_id)).device_id.lower()
        waiting = await self._messages.queue(key, message)
        if waiting is None:
            raise HubError(f"{QUEUE_MAX} messages wait for {device_id} already", code=403004)
        return waiting, self._sessions.find(key) is not None

    async def invoke_method(
        self, device_id: str, name: str, payload: JSONValue, *, response_timeout_s: float, connect_timeout_s: float
    ) -> MethodResult:
        """Call a direct method.

        Raises:
            RecordNotFound: there is no such device here.
            HubError: 404103, it is not connected or takes no methods; 504101, it did not answer; 413001, the payload
                or the answer's is too large.
        """
        key = (await self._registration(device_id)).device_id.lower()
        rid = self._entropy.token_bytes(8).hex()
        call = iothub.method_call(name, rid, payload)
        if len(call.payload) > iothub.METHOD_PAYLOAD_MAX_SIZE_BYTES:
            raise HubError(f"more than {iothub.METHOD_PAYLOAD_MAX_SIZE_BYTES} bytes of payload", code=413001)
        session = await self._sessions.wait_for(key, _METHODS, timeout_s=connect_timeout_s)
        if session is None:
            raise HubError(f"{device_id} is not connected, or takes no methods", code=404103)
        answer: asyncio.Future[MethodResult | None] = asyncio.get_running_loop().create_future()
        session.calls[rid] = answer
        try:
            result = await self._call(session, call, answer, response_timeout_s)
        finally:
            session.calls.pop(rid, None)
        if result is None:
            raise HubError(f"{device_id} has gone without an answer", code=404103)
        if len(result.payload) > iothub.METHOD_PAYLOAD_MAX_SIZE_BYTES:
            raise HubError(f"{device_id} answered more than {iothub.METHOD_PAYLOAD_MAX_SIZE_BYTES} bytes", code=413001)
        return result

    def disconnect(self, device_id: str, reason: str) -> bool:
        """Cut a device's connection; False when it had none."""
        session = self._sessions.find(device_id.lower())
        if session is None:
            return False
        self._sessions.cut(session, reason)
        return True

    async def _call(
        self, session: Session, call: Message, answer: "asyncio.Future[MethodResult | None]", timeout_s: float
    ) -> MethodResult | None:
        if not self._sessions.post(session, call):
            return None
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError as error:
            raise HubError(f"{session.device_id} did not answer within {timeout_s:g} s", code=504101) from error

    async def _registration(self, device_id: str) -> Registration:
        registration = await self._store.find_device(device_id.lower())
        ours = {hub.name for hub in self._hubs.snapshot() if hub.type == EMBEDDED}
        if registration is None or registration.hub not in ours:
            raise RecordNotFound(f"there is no device {device_id} at the embedded hub")
        if registration.status is not RegistrationStatus.ASSIGNED:
            raise RecordNotFound(f"device {device_id} is {registration.status}")
        return registration
