"""The assigned hub, as far as a device needs it to show that its credential works there: connect, send a message."""

import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from provisiond.device.client import CLIENT_VERSION, Patience
from provisiond.device.credentials import Credential
from provisiond.device.dialect import TOKEN_LIFETIME_S
from provisiond.device.errors import Refused
from provisiond.device.mqtt import Endpoint, Session, connect
from provisiond.model import Message
from provisiond.protocols.iothub import UserName, event_topic, format_user_name

_API_VERSION: Final = "2021-04-12"
_DEFAULT_PORT: Final = 8883
_HOST_AND_PORT: Final = re.compile(r"(?P<host>[^:]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")


class HubConnection:
    """A device's connection to its hub. Make one with `connect_hub`."""

    def __init__(self, session: Session, device_id: str, patience: Patience) -> None:
        self._session = session
        self._device_id = device_id
        self._patience = patience

    async def send(self, payload: bytes) -> None:
        """Send one device-to-cloud message and wait for its acknowledgement.

        Raises:
            ConnectionLost: the hub ended the connection.
            TimedOut: the hub did not acknowledge it.
        """
        message = Message(topic=event_topic(self._device_id, {}), payload=payload)
        await self._session.publish(message, deadline_s=self._patience.request_s)


@asynccontextmanager
async def connect_hub(
    provisioning: Endpoint,
    *,
    assigned_hub: str,
    device_id: str,
    credential: Credential,
    patience: Patience | None = None,
) -> AsyncIterator[HubConnection]:
    """Connect to the assigned hub as its device: as at an Azure hub, and where that is refused, as at a mosquitto.

    Args:
        provisioning: where the device was assigned; the hub is trusted through the same CA file, or is plaintext too.
        assigned_hub: `host` or `host:port`; the port is 8883 otherwise, or the service's own without TLS.
        device_id: at the hub.
        credential: the one that was registered; a TPM signs with the key it was sent.
        patience: deadlines.

    Raises:
        CannotConnect: no connection, or a hub name that is none.
        Refused: the hub does not take the credential.
        CredentialError: the credential cannot be used, or the hub is elsewhere and plaintext was asked for.
    """
    patience = patience or Patience()
    host, endpoint = hub_endpoint(provisioning, assigned_hub)
    async with AsyncExitStack() as stack:
        try:
            session = await stack.enter_async_context(
                open_hub_session(
                    endpoint, host=host, device_id=device_id, credential=credential, deadline_s=patience.connect_s
                )
            )
        except Refused as refused:
            password = await credential.derived_password(hub_host=assigned_hub, device_id=device_id)
            if password is None:
                raise
            with_password = connect(
                endpoint,
                credential=credential,
                client_id=device_id,
                user_name=device_id,
                password=password,
                deadline_s=patience.connect_s,
            )
            try:
                session = await stack.enter_async_context(with_password)
            except Refused:
                raise refused from None
        yield HubConnection(session, device_id, patience)


@asynccontextmanager
async def open_hub_session(
    endpoint: Endpoint, *, host: str, device_id: str, credential: Credential, deadline_s: float
) -> AsyncIterator[Session]:
    """Connect as a device to the hub that listens at `endpoint`.

    Args:
        endpoint: where it listens.
        host: what the hub is called in user name and token.
        device_id: at the hub.
        credential: the one that was registered.
        deadline_s: for the whole connection.

    Raises:
        CannotConnect: no connection.
        Refused: the hub does not take the credential.
        CredentialError: the credential cannot be used.
    """
    user_name = UserName(host=host, device_id=device_id, api_version=_API_VERSION, client_version=CLIENT_VERSION)
    async with connect(
        endpoint,
        credential=credential,
        client_id=device_id,
        user_name=format_user_name(user_name),
        password=await credential.hub_password(
            resource=f"{host}/devices/{device_id}", expiry=int(time.time()) + TOKEN_LIFETIME_S
        ),
        deadline_s=deadline_s,
    ) as session:
        yield session


def hub_endpoint(provisioning: Endpoint, assigned_hub: str) -> tuple[str, Endpoint]:
    """The hub's name, and where to connect."""
    match = _HOST_AND_PORT.fullmatch(assigned_hub)
    host, port = (match["host"], match["port"]) if match else (assigned_hub, None)
    default_port = provisioning.port if provisioning.plaintext else _DEFAULT_PORT
    endpoint = Endpoint(
        host=host.strip("[]"),
        port=int(port) if port else default_port,
        ca_file=provisioning.ca_file,
        plaintext=provisioning.plaintext,
    )
    return host, endpoint
