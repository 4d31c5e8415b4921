"""`[broker.external]`: the broker that the site runs already."""

from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, field_validator, model_validator

from provisiond.settings.addresses import SocketAddress, check_host
from provisiond.settings.section import FilePath, Section
from provisiond.settings.units import Seconds, duration_within
from provisiond.settings.values import with_key_beside_certificate

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


class External(Section):
    """An MQTT broker that the site runs already, for `mode = "external"`; devices use the native protocol there."""

    url: str | None = Field(
        default=None,
        description='Such as "mqtts://broker:8883"; "mqtt://" for a broker on this machine only.',
    )
    protocol: Literal["3.1.1", "5"] = Field(default="5", description="MQTT version to speak to it.")
    username: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        default=None, description="User name of provisiond there."
    )
    password_file: FilePath | None = Field(
        default=None, description="File with its password, not readable by everybody; read at every connection."
    )
    ca_file: FilePath | None = Field(
        default=None, description="Authorities that the broker's certificate must chain to, PEM; mqtts needs them."
    )
    cert_file: FilePath | None = Field(
        default=None, description="Certificate of provisiond for a broker that asks for one, PEM."
    )
    key_file: FilePath | None = Field(
        default=None,
        description="Its private key, PEM, not readable by everybody; without it the .key beside cert_file.",
    )
    client_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = Field(
        default=None,
        description="Client id of this daemon, its own among several; without it a new one at every start.",
    )
    group: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = Field(
        default="provisiond",
        description="Daemons of one group share the work: each request goes to one of them. Where the broker lets "
        "anybody join a group, as mosquitto's acl_file does, nobody should guess it: who joins swallows requests.",
    )
    shared_subscriptions: Literal["auto", "on", "off"] = Field(
        default="auto",
        description='Whether the broker knows $share. "auto": with MQTT 5. Without it run one daemon only, for each '
        "would get every request.",
    )
    keep_alive_s: Annotated[Seconds, duration_within("5s", "10m")] = Field(
        default=30.0, description="A broker that is silent for one and a half of this is taken for lost."
    )
    inflight: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=200,
        description="Requests in progress at once; the broker keeps the rest. What shares a disk write at best.",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        if url is not None:
            _address_of(_split(url))
        return url

    @field_validator("username")
    @classmethod
    def _check_username(cls, username: str | None) -> str | None:
        if username is not None and not username.isprintable():
            raise ValueError("a user name has no control characters")
        return username

    @model_validator(mode="before")
    @classmethod
    def _put_key_beside_certificate(cls, data: Any) -> Any:
        return with_key_beside_certificate(data)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.password_file is not None and self.username is None:
            raise ValueError("password_file without username; add the user that it belongs to")
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file without cert_file; add the certificate")
        if self.url is None:
            return self
        if self.tls and self.ca_file is None:
            raise ValueError(
                "mqtts needs ca_file, or anybody could be the broker; for a broker with a public certificate name the "
                'system\'s authorities, such as "/etc/ssl/certs/ca-certificates.crt"'
            )
        if not self.tls and (self.ca_file is not None or self.cert_file is not None):
            raise ValueError("ca_file and cert_file are for TLS; write mqtts://, or leave them out")
        if not self.tls and not self.address.is_loopback:
            raise ValueError(
                f"mqtt:// to {self.address.host} would show every registration to the network, and let others answer "
                "in our name; write mqtts://, or use a broker on 127.0.0.1"
            )
        return self

    @property
    def tls(self) -> bool:
        """Whether the connection is to be encrypted."""
        return self.url is not None and _split(self.url).scheme == "mqtts"

    @property
    def address(self) -> SocketAddress:
        """Host and port of `url`, which must be there."""
        return _address_of(_split(self.url or ""))

    @property
    def is_shared(self) -> bool:
        """Whether to subscribe with `$share`."""
        return self.shared_subscriptions == "on" or (self.shared_subscriptions == "auto" and self.protocol == "5")


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise ValueError(f"{url[:80]!r} is not a URL: {error}") from error


def _address_of(parts: SplitResult) -> SocketAddress:
    if parts.scheme not in _PORTS:
        raise ValueError('write "mqtts://HOST:PORT", or "mqtt://127.0.0.1:PORT" for a broker on this machine')
    if "@" in parts.netloc:
        raise ValueError("no user name and no password in the URL; write username and password_file")
    if parts.path not in ("", "/") or parts.query or parts.fragment or not parts.hostname:
        raise ValueError(f"nothing but a host and a port belongs behind {parts.scheme}://")
    return SocketAddress(host=check_host(parts.hostname), port=parts.port or _PORTS[parts.scheme])
