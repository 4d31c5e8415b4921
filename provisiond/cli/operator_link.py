"""The running daemon, as a command talks to it: as operator, over its own broker."""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import typer

from provisiond.cli.exit_codes import ExitCode, print_error
from provisiond.cli.session import start_command
from provisiond.connectors import ConnectionTrial, TrialOutcome
from provisiond.device.credentials import Credential, SymmetricKeyCredential
from provisiond.device.errors import CannotConnect, DeviceError, Refused
from provisiond.device.hub import open_hub_session
from provisiond.device.mqtt import Endpoint, Session, connect
from provisiond.embedded_hub.operator_token import read_operator_token
from provisiond.errors import ConfigurationError, EtagMismatch, InvalidArgument, RecordNotFound
from provisiond.model import JSONValue, Registration
from provisiond.protocols import operator
from provisiond.protocols.operator import Disconnect, OperatorRequest
from provisiond.settings import Settings

_CONNECT_S: Final = 5.0
"""The daemon is on this machine."""
_ANSWER_S: Final = 15.0
"""What the daemon may take for what it does itself; a method's own time comes on top."""
_TRY_LATER: Final = frozenset({404103, 504101, 403004, 429001})
"""The device is not there, does not answer, or has too much waiting: nothing is wrong with the request."""


class DaemonUnreachable(ConnectionError):
    """The daemon does not run, or cannot be reached from here."""


class OperatorLink:
    """A connection to the running daemon; make one with `open_link`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def request(self, body: OperatorRequest, *, patience_s: float = 0.0) -> Mapping[str, JSONValue]:
        """Ask, and give the answer's body.

        Args:
            body: what is asked.
            patience_s: how much longer than usual it may take.

        Raises:
            RecordNotFound, EtagMismatch, InvalidArgument: as the daemon says.
            typer.Exit: 75, try later; 69, the daemon failed.
            DeviceError: the connection was lost, or no answer came.
        """
        rid = secrets.token_hex(8)
        await self._session.publish(operator.request(rid, body), deadline_s=_ANSWER_S)
        while True:
            reply = operator.parse_answer(await self._session.receive(deadline_s=_ANSWER_S + patience_s))
            if reply is not None and reply.rid == rid:
                break
        if reply.status == 200:
            return reply.body
        error = reply.body.get("error")
        code = error.get("errorCode") if isinstance(error, dict) else None
        raise _refusal(reply.status, code, reply.error_message)


@asynccontextmanager
async def open_link(settings: Settings, config: Path | None) -> AsyncIterator[OperatorLink]:
    """Connect to the running daemon as operator.

    Raises:
        DaemonUnreachable: it does not run.
        ConfigurationError: its token cannot be read.
    """
    hint = f"start the daemon first: {start_command(config)}"
    try:
        token = read_operator_token(settings.service.state_dir)
    except ConfigurationError as error:
        if (settings.service.state_dir / "operator.token").exists():
            raise
        raise DaemonUnreachable(f"the daemon has never run here; {hint}") from error
    try:
        async with connect(
            endpoint_of(settings),
            credential=Credential(),
            client_id=f"cli-{secrets.token_hex(6)}",
            user_name=operator.USER_NAME,
            password=token,
            deadline_s=_CONNECT_S,
        ) as session:
            await session.subscribe(operator.RESPONSE_FILTER, deadline_s=_ANSWER_S)
            yield OperatorLink(session)
    except CannotConnect as error:
        raise DaemonUnreachable(f"the daemon does not run: {error}; {hint}") from error
    except Refused as error:
        raise DaemonUnreachable(f"whatever listens there does not take this service's operator: {error}") from error
    except DeviceError as error:
        raise DaemonUnreachable(f"the daemon did not answer: {error}") from error


class LiveProbe:
    """`admin.devices.DeviceProbe` on the daemon of this machine."""

    def __init__(self, settings: Settings, config: Path | None) -> None:
        self._settings = settings
        self._config = config

    async def cut(self, device_id: str) -> bool | None:
        """End the device's session; False when it had none, None when the daemon does not run."""
        try:
            async with open_link(self._settings, self._config) as link:
                answer = await link.request(Disconnect(device_id=device_id, reason="its access was taken away"))
        except DaemonUnreachable:
            return None
        return bool(answer.get("disconnected"))

    async def try_connect(self, registration: Registration, key: bytes) -> ConnectionTrial:
        """Connect to the embedded hub as the device would, with this key."""
        endpoint = endpoint_of(self._settings)
        try:
            async with open_hub_session(
                endpoint,
                host=registration.assigned_host or "localhost",
                device_id=registration.device_id,
                credential=SymmetricKeyCredential(key=key),
                deadline_s=_CONNECT_S,
            ):
                return ConnectionTrial(outcome=TrialOutcome.ACCEPTED, finding="the hub let it in")
        except Refused as error:
            return ConnectionTrial(outcome=TrialOutcome.REFUSED, finding=str(error))
        except DeviceError as error:
            return ConnectionTrial(outcome=TrialOutcome.UNREACHABLE, finding=str(error))


def endpoint_of(settings: Settings) -> Endpoint:
    """Where the daemon listens for commands of this machine: without TLS on loopback, or else over TLS.

    Raises:
        DaemonUnreachable: there is no listener with a fixed port.
    """
    listeners = [listener for listener in settings.broker.listeners if listener.address.port]
    plaintext = next((listener for listener in listeners if not listener.tls), None)
    if plaintext is not None:
        return Endpoint(host=plaintext.address.host, port=plaintext.address.port, plaintext=True)
    if not listeners:
        raise DaemonUnreachable("the configuration has no listener with a fixed port that a command could use")
    root = settings.ca_dir / "root.crt"
    return Endpoint(host="localhost", port=listeners[0].address.port, ca_file=root if root.exists() else None)


def _refusal(status: int, code: JSONValue, message: str) -> Exception:
    match status:
        case _ if code in _TRY_LATER:
            print_error(message)
            return typer.Exit(ExitCode.TRY_LATER)
        case 404:
            return RecordNotFound(message)
        case 412:
            return EtagMismatch(message)
        case 400 | 413:
            return InvalidArgument(message)
        case _:
            print_error(f"the daemon failed: {message}")
            return typer.Exit(ExitCode.UNAVAILABLE)
