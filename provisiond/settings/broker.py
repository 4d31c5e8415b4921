"""[broker]: where devices connect, and what they may take."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from provisiond.settings.addresses import SocketAddress, parse_bind
from provisiond.settings.external import External
from provisiond.settings.problems import Misplaced
from provisiond.settings.section import FilePath, Section
from provisiond.settings.units import Bytes, Seconds, duration_within, size_within
from provisiond.settings.values import Bind, Name, refuse_twins, with_key_beside_certificate


class Listener(Section):
    """One address where devices connect."""

    name: Name = Field(description="Name in logs and metrics.")
    bind: Bind = Field(
        description="HOST:PORT. Without TLS only a loopback host; Azure's SDKs need port 8883. 0.0.0.0 is IPv4 alone "
        "and [::] IPv6 alone: a listener each for both."
    )
    tls: bool = Field(default=False, description="TLS 1.2 and 1.3.")
    cert_file: FilePath | None = Field(
        default=None, description="Server certificate and chain, PEM, the server's first."
    )
    key_file: FilePath | None = Field(
        default=None,
        description="Its private key, PEM, not readable by everybody; without it the .key beside cert_file.",
    )
    client_certs: Literal["none", "optional", "required"] = Field(
        default="optional",
        description="Whether devices may or must present a certificate. Whose it is, is judged at registration.",
    )

    @model_validator(mode="before")
    @classmethod
    def _put_key_beside_certificate(cls, data: Any) -> Any:
        return with_key_beside_certificate(data)

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if self.tls and self.cert_file is None:
            raise ValueError("tls = true needs cert_file; `provisiond init` makes one")
        if not self.tls and self.cert_file is not None:
            raise ValueError("cert_file without tls = true; add it, or leave the certificate out")
        if not self.tls and not self.address.is_loopback:
            raise ValueError(
                f"{self.bind} without TLS would show every device's credentials to the network; "
                "set tls = true and cert_file, or bind to 127.0.0.1"
            )
        return self

    @property
    def address(self) -> SocketAddress:
        """`bind`, read."""
        return parse_bind(self.bind)


class Limits(Section):
    """What one device, one address and all of them together may take of the broker."""

    handshake_timeout_s: Annotated[Seconds, duration_within("100ms", "2m")] = Field(
        default=10.0,
        description="From accepting a connection to the end of its TLS handshake; small devices need seconds for RSA.",
    )
    connect_timeout_s: Annotated[Seconds, duration_within("100ms", "2m")] = Field(
        default=5.0,
        description="From the end of the handshake to a whole CONNECT: one packet.",
    )
    provisioning_idle_s: Annotated[Seconds, duration_within("1s", "1d")] = Field(
        default=120.0,
        description="A provisioning connection that asks nothing is closed after this, but never while an operation is "
        "outstanding. Some SDKs stay connected after a refusal for as long as their process lives.",
    )
    keep_alive_max_s: Annotated[Seconds, duration_within("1s", "18h")] = Field(
        default=1177.0,
        description="Keep-alive that counts when a device asks for a longer one, or for none: what Azure allows.",
    )
    max_packet_bytes: Annotated[Bytes, size_within("1KiB", "1MiB")] = Field(
        default=98304,
        description="Largest packet after CONNECT: Azure's limit for a provisioning message.",
    )
    max_connect_packet_bytes: Annotated[Bytes, size_within("512B", "64KiB")] = Field(
        default=4096,
        description="Largest CONNECT, which nobody has been authenticated for; with a SAS token it is under 1 KiB.",
    )
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=10_000,
        description="Open connections on all listeners; each takes a file descriptor (`LimitNOFILE` must allow it).",
    )
    connections_per_address: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=2500,
        description="Open connections from one address: a quarter of all, so that one site cannot shut the others out.",
    )
    requests_per_min: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=120,
        description="Requests a minute of one registration id at one address; more are answered 429. SDKs poll every "
        "2 s: 30.",
    )
    requests_per_min_per_address: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        default=30_000,
        description="Requests a minute of all registration ids at one address; more are answered 429, each with a "
        "moment of its own. Ten thousand devices of one site that register and poll twice in that minute.",
    )
    wrong_keys: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=100,
        description="Wrong proofs in a row of one registration id at one address before they are answered 429: a "
        "second at first, doubling. A right one is always heard. No number of guesses finds a key of 128 bits: the "
        "pause spares log and processor, and a technician who tries should hear 401.",
    )
    wrong_keys_pause_s: Annotated[Seconds, duration_within("1s", "1h")] = Field(
        default=60.0,
        description="The longest such pause.",
    )
    challenges: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=10_000,
        description="Challenges that wait for an answer, of all devices; more are answered 429. Each is a row of up to "
        "64 KiB in the database, for challenge_ttl at the longest.",
    )
    challenges_per_address: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=1000,
        description="Challenges that wait for an answer, of one address: a tenth of all.",
    )
    inflight: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=20,
        description="Messages to one device that wait for its acknowledgement.",
    )
    write_buffer_bytes: Annotated[Bytes, size_within("16KiB", "64MiB")] = Field(
        default=262_144,
        description="Bytes that wait for a device that does not read; beyond it is cut off.",
    )
    filters_per_subscribe: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=16,
        description="Topic filters in one SUBSCRIBE; an SDK sends one to five.",
    )
    topic_levels: Annotated[int, Field(ge=4, le=128)] = Field(
        default=16,
        description="Levels of a topic or a filter; the longest that Azure defines has nine.",
    )


def _default_listeners() -> tuple[Listener, ...]:
    return (Listener(name="local", bind="127.0.0.1:1883"),)


def _refuse_overlaps(listeners: Sequence[Listener]) -> None:
    for index, listener in enumerate(listeners):
        for other in listeners:
            if other is not listener and other.address.covers(listener.address):
                reason = f'"{listener.bind}" is taken by listener {other.name}, which has bind = "{other.bind}"'
                raise Misplaced(reason, ("listeners", index, "bind"))


class Broker(Section):
    """The MQTT broker that devices meet."""

    mode: Literal["embedded", "external"] = Field(
        default="embedded",
        description='"embedded": provisiond is the broker. "external": the site\'s own is, see [broker.external].',
    )
    listeners: tuple[Listener, ...] = Field(default_factory=_default_listeners)
    limits: Limits = Limits()
    external: External = External()

    @model_validator(mode="before")
    @classmethod
    def _listen_nowhere_when_external(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("mode") == "external" and "listeners" not in data:
            return {**data, "listeners": ()}
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mode == "external":
            if self.listeners:
                raise ValueError('[[broker.listeners]] are the embedded broker\'s; with mode = "external" remove them')
            if self.external.url is None:
                raise ValueError('mode = "external" needs [broker.external] url = "mqtts://HOST:PORT"')
            return self
        if not self.listeners:
            raise ValueError("there must be at least one [[broker.listeners]]")
        refuse_twins(("listeners",), "name", [listener.name for listener in self.listeners])
        binds = [listener.bind if listener.address.port else None for listener in self.listeners]
        refuse_twins(("listeners",), "bind", binds)
        _refuse_overlaps(self.listeners)
        return self
