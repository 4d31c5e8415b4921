"""Devices with credentials made ahead of time: what a round of the benchmark uses up."""

import base64
import hashlib
import hmac
import time
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from tests.bench import packets
from tests.certificates import Ca, make_leaf

CLIENT_VERSION = quote("azure-iot-device-provisioning-py/2.14.0(3.11.7;Linux)", safe="")
TOKEN_LIFETIME_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device's packets, and its certificate and key when it has one."""

    registration_id: str
    connect: bytes = field(repr=False)
    subscribe: bytes = field(repr=False)
    register: bytes = field(repr=False)
    certificate: Any = None
    key: Any = field(default=None, repr=False)


def make_x509_device(registration_id: str, issuer: Ca, id_scope: str, keep_alive_s: int = 60) -> Device:
    """A device with a fresh P-256 key and certificate."""
    leaf = make_leaf(registration_id, issuer)
    return _make_device(registration_id, id_scope, None, keep_alive_s, certificate=leaf.certificate, key=leaf.key)


def at_hub(device: Device, host: str, keep_alive_s: int) -> Device:
    """The same device as it connects to its hub."""
    name = device.registration_id
    return replace(
        device,
        connect=packets.encode_connect(name, f"{host}/{name}/?api-version=2021-04-12", None, keep_alive_s),
        subscribe=packets.encode_subscribe(f"devices/{name}/messages/devicebound/#"),
    )


def make_symmetric_key_device(registration_id: str, group_key: bytes, id_scope: str) -> Device:
    """A device of a symmetric-key group: the token of its derived key, ready to send."""
    key = hmac.digest(group_key, registration_id.encode(), hashlib.sha256)
    resource = quote(f"{id_scope}/registrations/{registration_id}", safe="")
    expiry = int(time.time()) + TOKEN_LIFETIME_S
    signature = hmac.digest(key, f"{resource}\n{expiry}".encode(), hashlib.sha256)
    encoded = quote(base64.b64encode(signature), safe="")
    token = f"SharedAccessSignature sr={resource}&sig={encoded}&se={expiry}"
    return _make_device(registration_id, id_scope, token)


def _make_device(
    registration_id: str, id_scope: str, password: str | None, keep_alive_s: int = 60, **credentials: Any
) -> Device:
    username = f"{id_scope}/registrations/{registration_id}/api-version=2019-03-31&ClientVersion={CLIENT_VERSION}"
    return Device(
        registration_id=registration_id,
        connect=packets.encode_connect(registration_id, username, password, keep_alive_s),
        subscribe=packets.encode_subscribe(),
        register=packets.encode_register(registration_id),
        **credentials,
    )
