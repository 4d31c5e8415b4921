"""Eclipse mosquitto 2.x as a hub, through its dynamic-security plugin.

A device is a client and a role of its own in the plugin (2.0.x knows no `%u` in the plugin's topics). It connects with

    an mTLS listener with `use_identity_as_username`   its certificate, whose common name must be its device id; unless
                                                       `x509 = "password"`, which gives it a key for a password
    any other listener                                 user name = client id = device id, and the password that follows
                                                       from its key (`provisiond.protocols.hub_password`)

Observed on 2.0.11: `disableClient` ends the session of a device with a certificate, which then connects again, as does
one whose client was deleted; without its role it may publish and subscribe nothing. A revocation list (`crlfile`, and
SIGHUP) keeps it from connecting. So disabling takes the role away first.
"""

import asyncio
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cryptography import x509
from cryptography.x509.oid import NameOID
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from provisiond.connectors import ConnectionTrial, HubIdentity, HubOptions, IdentityState, TrialOutcome
from provisiond.errors import ConfigurationError, HubFault, HubRefused, HubUnauthorized, HubUnavailable
from provisiond.hubs.certificate_request import CertificateListener
from provisiond.hubs.dynsec import COMMANDS_MAX, Command, DynsecClient, Response
from provisiond.hubs.mosquitto_watch import MosquittoWatch
from provisiond.hubs.mqtt import MqttEndpoint, connect
from provisiond.hubs.options import read_secret, resolve
from provisiond.model import AttestationType
from provisiond.protocols.hub_password import derive_hub_password

_STALL_S: Final = 0.05
"""How long one message may hold up the broker's other clients; what a batch takes is what they wait."""
_FIRST_CHUNK: Final = 8
_CHUNK_MAX: Final = COMMANDS_MAX // 2  # two commands a device
_PAUSE_MAX_S: Final = 1.0

_EXISTS: Final = "already exists"
_NOT_FOUND: Final = "not found"


class MosquittoOptions(BaseModel):
    """`[hubs.options]` of a hub of type `mosquitto`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    admin_url: str = "mqtt://127.0.0.1:1883"
    """Where we connect as the plugin's administrator."""
    username: str | None = "admin"
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    device_url: str | None = None
    """Where devices connect, to try it as one; without it `mqtts://HOST:8883`, HOST being the hub's."""
    publish: tuple[Annotated[str, Field(min_length=1)], ...] = ("devices/{deviceId}/messages/events/#",)
    """What a device may publish to."""
    subscribe: tuple[Annotated[str, Field(min_length=1)], ...] = ("devices/{deviceId}/messages/devicebound/#",)
    """What a device may subscribe to, and receive."""
    x509: Literal["certificate", "password"] = "certificate"
    """How a device with a certificate connects."""
    bind_client_id: bool = True
    """A device that connects with a password must have its device id as its client id: one connection a device."""


def make_connector(options: HubOptions) -> "MosquittoHub":
    """`connectors.ConnectorFactory`.

    Raises:
        ConfigurationError: an option or a file cannot be used.
    """
    try:
        parsed = MosquittoOptions.model_validate(dict(options.options))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        raise ConfigurationError(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error
    return MosquittoHub(host=options.host, options=parsed, base_dir=options.base_dir)


class MosquittoHub:
    """`connectors.HubConnector`.

    Args:
        host: what devices are told to connect to.
        options: checked.
        base_dir: what relative paths are relative to.

    Raises:
        ConfigurationError: a URL is none, or the password file cannot be read.
    """

    batch_size: int = _CHUNK_MAX

    def __init__(self, *, host: str, options: MosquittoOptions, base_dir: Path) -> None:
        self._host = host
        self._options = options
        ca_file = resolve(options.ca_file, base_dir)
        admin = MqttEndpoint(
            url=options.admin_url,
            username=options.username,
            password=read_secret(options.password_file, base_dir),
            ca_file=ca_file,
            cert_file=resolve(options.cert_file, base_dir),
            key_file=resolve(options.key_file, base_dir),
        )
        self._device_url = options.device_url or f"mqtts://{host if ':' in host else f'{host}:8883'}"
        self._listener = CertificateListener(self._device_url)
        self._ca_file = ca_file
        _ = admin.address, MqttEndpoint(url=self._device_url).address  # refused now rather than at the first device
        self._dynsec = DynsecClient(admin)
        self._watch = MosquittoWatch(admin, client_id=f"provisiond-{secrets.token_hex(8)}", publish=options.publish)
        self._chunk = _FIRST_CHUNK

    @property
    def device_url(self) -> str:
        """Where devices connect."""
        return self._device_url

    @property
    def device_address(self) -> tuple[str, int]:
        """The same as host and port."""
        return MqttEndpoint(url=self._device_url).address

    async def ensure(self, identities: Sequence[HubIdentity]) -> list[HubFault | None]:
        """Make roles and clients, or bring those that are there up to date; see `connectors.HubConnector`."""
        for identity in identities:
            self._watch.forget(identity.device_id)
        outcomes: list[HubFault | None] = []
        start = 0
        while start < len(identities):
            size = self._chunk
            begun = time.monotonic()
            outcomes += await self._ensure_chunk(identities[start : start + size])
            await self._yield_broker(time.monotonic() - begun)
            start += size
        return outcomes

    async def disable(self, device_ids: Sequence[str]) -> None:
        """Take the role away, then disable, which ends the session; see the module."""
        for device_id in device_ids:
            await self._do(
                [
                    {"command": "removeClientRole", "username": device_id, "rolename": _role(device_id)},
                    {"command": "disableClient", "username": device_id},
                ],
                tolerated=_NOT_FOUND,
            )

    async def delete(self, device_ids: Sequence[str]) -> None:
        """Delete client and role, which ends the session; see the module."""
        for device_id in device_ids:
            await self._do(
                [
                    {"command": "deleteClient", "username": device_id},
                    {"command": "deleteRole", "rolename": _role(device_id)},
                ],
                tolerated=_NOT_FOUND,
            )

    async def read(self, device_ids: Sequence[str]) -> dict[str, IdentityState]:
        """What the plugin has of these clients; one without its role counts as disabled."""
        found: dict[str, IdentityState] = {}
        for start in range(0, len(device_ids), COMMANDS_MAX):
            part = device_ids[start : start + COMMANDS_MAX]
            responses = await self._dynsec.send([{"command": "getClient", "username": name} for name in part])
            for device_id, response in zip(part, responses, strict=True):
                client = response.get("data", {}).get("client")
                if client is not None:
                    roles = {role.get("rolename") for role in client.get("roles", ())}
                    enabled = not client.get("disabled", False) and _role(device_id) in roles
                    found[device_id] = IdentityState(enabled=enabled)
                elif _NOT_FOUND not in response.get("error", ""):
                    raise _fault(response)
        return found

    async def probe(self) -> None:
        """Ask for the default access, which the plugin has in memory."""
        await self._do([{"command": "getDefaultACLAccess"}])

    async def try_connect(self, identity: HubIdentity) -> ConnectionTrial | None:
        """Connect with the device's password; None for a certificate, whose key is where it belongs."""
        if identity.key is None:
            return None
        endpoint = MqttEndpoint(
            url=self._device_url,
            username=identity.device_id,
            password=derive_hub_password(identity.key, hub_host=self._host, device_id=identity.device_id),
            ca_file=self._ca_file,
        )
        try:
            async with connect(endpoint, client_id=identity.device_id):
                pass
        except HubUnauthorized as error:
            return ConnectionTrial(outcome=TrialOutcome.REFUSED, finding=str(error))
        except HubUnavailable as error:
            return ConnectionTrial(outcome=TrialOutcome.UNREACHABLE, finding=str(error))
        return ConnectionTrial(outcome=TrialOutcome.ACCEPTED, finding=f"{self._device_url} accepted the connection")

    async def watch(self, device_ids: Collection[str]) -> Collection[str]:
        """`connectors.ArrivalWatch`: by the broker's log, where it can be heard, and by what devices send."""
        return await self._watch.look(device_ids)

    async def aclose(self) -> None:
        """Disconnect."""
        await self._watch.aclose()
        await self._dynsec.aclose()

    # --- identities --------------------------------------------------------------------------------------------------

    async def _ensure_chunk(self, identities: Sequence[HubIdentity]) -> list[HubFault | None]:
        outcomes: dict[int, HubFault | None] = {}
        wanted: dict[int, Command] = {}
        for index, identity in enumerate(identities):
            try:
                if self._comes_by_certificate(identity):
                    await self._listener.require()
                wanted[index] = self._client(identity)
            except HubRefused as fault:
                outcomes[index] = fault
        creation: list[Command] = []
        for index, client in wanted.items():
            creation += [self._role(identities[index].device_id, "createRole"), {"command": "createClient", **client}]
        responses = await self._dynsec.send(creation) if creation else []
        for position, (index, client) in enumerate(wanted.items()):
            role, made = responses[2 * position : 2 * position + 2]
            if "error" not in role and "error" not in made:
                outcomes[index] = None
            else:
                outcomes[index] = await self._update(identities[index].device_id, client, (role, made))
        return [outcomes[index] for index in range(len(identities))]

    async def _update(self, device_id: str, client: Command, made: Sequence[Response]) -> HubFault | None:
        """Bring an identity that was there, or is there in part, to what it has to be."""
        for response in made:
            if "error" in response and _EXISTS not in response["error"]:
                return _fault(response)
        commands: list[Command] = [
            self._role(device_id, "modifyRole"),
            {"command": "modifyClient", **client},
            {"command": "enableClient", "username": device_id},
        ]
        for response in await self._dynsec.send(commands):
            if "error" in response:
                return _fault(response)
        return None

    def _client(self, identity: HubIdentity) -> Command:
        """The plugin's client of a device.

        Raises:
            HubRefused: it cannot have one.
        """
        client: dict[str, Any] = {
            "username": identity.device_id,
            "textname": f"provisiond: {identity.registration_id}",
            "roles": [{"rolename": _role(identity.device_id)}],
        }
        if self._comes_by_certificate(identity):
            _require_common_name(identity)
            # One that nobody knows, so that a password of an earlier enrollment is void.
            client["password"] = secrets.token_urlsafe(32)
            return client
        if identity.key is None:
            raise HubRefused(f"{identity.device_id} has no key that a password could follow from; register it again")
        client["password"] = derive_hub_password(identity.key, hub_host=self._host, device_id=identity.device_id)
        if self._options.bind_client_id:
            client["clientid"] = identity.device_id
        return client

    def _comes_by_certificate(self, identity: HubIdentity) -> bool:
        return identity.attestation_type is AttestationType.X509 and self._options.x509 == "certificate"

    def _role(self, device_id: str, command: str) -> Command:
        acls = [_acl("publishClientSend", topic, device_id) for topic in self._options.publish]
        for topic in self._options.subscribe:
            acls += [_acl(kind, topic, device_id) for kind in ("subscribePattern", "publishClientReceive")]
        return {"command": command, "rolename": _role(device_id), "acls": acls}

    async def _do(self, commands: Sequence[Command], *, tolerated: str | None = None) -> None:
        for response in await self._dynsec.send(commands):
            error = response.get("error")
            if error is not None and (tolerated is None or tolerated not in error):
                raise _fault(response)

    async def _yield_broker(self, elapsed_s: float) -> None:
        """Let the broker's other clients have their turn, and keep what they wait for short as the file grows."""
        if elapsed_s > _STALL_S:
            self._chunk = max(1, self._chunk // 2)
        elif elapsed_s < _STALL_S / 4:
            self._chunk = min(_CHUNK_MAX, self._chunk * 2)
        await asyncio.sleep(min(_PAUSE_MAX_S, elapsed_s))


def _role(device_id: str) -> str:
    return f"provisiond:{device_id}"


def _acl(kind: str, topic: str, device_id: str) -> Mapping[str, Any]:
    return {"acltype": kind, "topic": topic.replace("{deviceId}", device_id), "priority": 0, "allow": True}


def _require_common_name(identity: HubIdentity) -> None:
    """Mosquitto knows a device with a certificate by its common name, and nothing else."""
    try:
        certificate = x509.load_der_x509_certificate(identity.certificate_der or b"")
    except ValueError as error:
        raise HubRefused(f"{identity.device_id} has no certificate that can be read; register it again") from error
    names = [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [identity.device_id]:
        raise HubRefused(
            f"the common name of the certificate is {names}, and the device id {identity.device_id!r}: mosquitto knows "
            "the device by its common name, so they must be the same"
        )


def _fault(response: Response) -> HubFault:
    """What the plugin will say every time is a refusal."""
    error = str(response.get("error", "no reason"))[:200]
    command = str(response.get("command", "?"))[:40]
    if "Unknown command" in error:
        return HubUnavailable(f"the plugin is too old for {command}: mosquitto 2.0 or newer is needed")
    if error.startswith(("Invalid", "Client not", "Role not")):
        return HubRefused(f"{command}: {error}")
    return HubUnavailable(f"{command}: {error}")
