"""A hub that we do not know: each change is an HTTP POST, signed, to a service that makes it so.

    POST URL
    X-Provisiond-Event: created | disabled | deleted | read | probe
    X-Provisiond-Timestamp: seconds since 1970
    X-Provisiond-Signature: sha256=HEX     HMAC-SHA256(secret, timestamp "." body)

`docs/hub-connectors.md` has the bodies. A status of 2xx means that it is so; 400, 409 and 422 that it will never be;
401 and 403 that the signature is not taken; anything else that it should be asked again.
"""

import asyncio
import hmac
import json
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from provisiond.connectors import ConnectionTrial, HubIdentity, HubOptions, IdentityState
from provisiond.errors import (
    ConfigurationError,
    HubFault,
    HubRefused,
    HubUnauthorized,
    HubUnavailable,
    InvalidArgument,
)
from provisiond.hubs.http import HttpAnswer, HttpClient
from provisiond.hubs.options import read_secret, resolve
from provisiond.protocols.hub_password import derive_hub_password
from provisiond.protocols.webhook_url import check_webhook_url

_ANSWER_MAX_BYTES: Final = 64 * 1024
"""States of a batch take 2 KiB; nothing else in an answer is of use."""
_AT_ONCE: Final = 8
"""Requests in flight: enough to hide a round trip, few enough for a small service."""
_REFUSALS: Final = frozenset({400, 409, 422})
_UNAUTHORIZED: Final = frozenset({401, 403})


class WebhookOptions(BaseModel):
    """`[hubs.options]` of a hub of type `webhook`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    """`https://…`, or `http://…` on this machine."""
    secret_file: Path
    """What the signature is made with; the first line of a file that not everybody can read."""
    ca_file: Path | None = None
    reads: bool = False
    """The service answers `read`, so that devices it has forgotten are found and made again."""


class _State(BaseModel):
    model_config = ConfigDict(extra="ignore")

    enabled: StrictBool
    used_since_change: StrictBool | None = Field(default=None, alias="usedSinceChange")


class _States(BaseModel):
    model_config = ConfigDict(extra="ignore")

    devices: dict[str, _State]


def make_connector(options: HubOptions) -> "WebhookHub":
    """`connectors.ConnectorFactory`.

    Raises:
        ConfigurationError: an option or a file cannot be used.
    """
    try:
        parsed = WebhookOptions.model_validate(dict(options.options))
        check_webhook_url(parsed.url)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        raise ConfigurationError(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error
    except InvalidArgument as error:
        raise ConfigurationError(f"url: {error}") from error
    secret = read_secret(parsed.secret_file, options.base_dir)
    return WebhookHub(
        name=options.name,
        host=options.host,
        options=parsed,
        secret=(secret or "").encode(),
        ca_file=resolve(parsed.ca_file, options.base_dir),
    )


def sign(secret: bytes, timestamp: str, body: bytes) -> str:
    """The value of `X-Provisiond-Signature`; receivers compute the same, and compare in constant time."""
    return "sha256=" + hmac.digest(secret, timestamp.encode() + b"." + body, sha256).hex()


class WebhookHub:
    """`connectors.HubConnector`."""

    batch_size: int = 32

    def __init__(self, *, name: str, host: str, options: WebhookOptions, secret: bytes, ca_file: Path | None) -> None:
        self._name = name
        self._host = host
        self._options = options
        self._secret = secret
        self._client = HttpClient(ca_file=ca_file)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self.reads = options.reads
        """Whether `read` is the service's answer; a revocation must not take our own guess for it."""

    async def ensure(self, identities: Sequence[HubIdentity]) -> list[HubFault | None]:
        """Post `created` for each."""
        return list(await asyncio.gather(*(self._ensure(identity) for identity in identities)))

    async def disable(self, device_ids: Sequence[str]) -> None:
        """Post `disabled` for each."""
        await self._post_each("disabled", device_ids)

    async def delete(self, device_ids: Sequence[str]) -> None:
        """Post `deleted` for each."""
        await self._post_each("deleted", device_ids)

    async def read(self, device_ids: Sequence[str]) -> Mapping[str, IdentityState]:
        """Post `read`; where the service does not answer that, what it was told is taken for true."""
        if not self._options.reads:
            return {device_id: IdentityState(enabled=True) for device_id in device_ids}
        answer = _expect(await self._post("read", {"deviceIds": list(device_ids)}), "read")
        try:
            states = _States.model_validate_json(answer.body)
        except ValidationError as error:
            raise HubUnavailable('the answer to read is not {"devices": {ID: {"enabled": BOOLEAN}}}') from error
        wanted = set(device_ids)
        return {
            name: IdentityState(enabled=state.enabled, used_since_change=state.used_since_change)
            for name, state in states.devices.items()
            if name in wanted
        }

    async def probe(self) -> None:
        """Post `probe`."""
        _expect(await self._post("probe", {}), "probe")

    async def try_connect(self, identity: HubIdentity) -> ConnectionTrial | None:
        """None: how a device connects there, only the service knows."""
        _ = identity
        return None

    async def aclose(self) -> None:
        """Let go of connections."""
        await self._client.aclose()

    async def _ensure(self, identity: HubIdentity) -> HubFault | None:
        answer = await self._post("created", self._describe(identity))
        if answer.status in _REFUSALS:
            return HubRefused(f"created: the service answered {answer.status}: {_excerpt(answer.body)}")
        _expect(answer, "created")
        return None

    def _describe(self, identity: HubIdentity) -> dict[str, Any]:
        credential: dict[str, Any] = {}
        if identity.key is not None:
            password = derive_hub_password(identity.key, hub_host=self._host, device_id=identity.device_id)
            credential["password"] = password
        if identity.certificate_der is not None:
            credential["certificate"] = b64encode(identity.certificate_der).decode("ascii")
            credential["sha256Thumbprint"] = sha256(identity.certificate_der).hexdigest().upper()
        twin = identity.initial_twin
        return {
            "deviceId": identity.device_id,
            "registrationId": identity.registration_id,
            "attestationType": identity.attestation_type.value,
            "credential": credential,
            "initialTwin": None
            if twin is None
            else {"tags": dict(twin.tags), "properties": {"desired": dict(twin.desired)}},
        }

    async def _post_each(self, event: str, device_ids: Sequence[str]) -> None:
        answers = await asyncio.gather(*(self._post(event, {"deviceId": device_id}) for device_id in device_ids))
        for answer in answers:
            if answer.status != 404:  # it is not there, which is what was asked for
                _expect(answer, event)

    async def _post(self, event: str, body: Mapping[str, Any]) -> HttpAnswer:
        content = json.dumps({"event": event, "hub": self._name, **body}).encode()
        timestamp = str(int(time.time()))
        headers = {
            "X-Provisiond-Event": event,
            "X-Provisiond-Timestamp": timestamp,
            "X-Provisiond-Signature": sign(self._secret, timestamp, content),
        }
        async with self._turns:
            return await self._client.post(
                self._options.url, content, headers=headers, answer_max_bytes=_ANSWER_MAX_BYTES
            )


def _expect(answer: HttpAnswer, event: str) -> HttpAnswer:
    """Require a status of 2xx.

    Raises:
        HubUnauthorized, HubUnavailable: it is another.
    """
    if answer.status in _UNAUTHORIZED:
        raise HubUnauthorized(f"{event}: the service answered {answer.status}: is the secret the same on both sides?")
    if not 200 <= answer.status < 300:
        hint = "; redirects are not followed" if 300 <= answer.status < 400 else ""
        raise HubUnavailable(f"{event}: the service answered {answer.status}{hint}: {_excerpt(answer.body)}")
    return answer


def _excerpt(body: bytes) -> str:
    return repr(body[:120].decode(errors="replace")) if body else "nothing"
