"""Every setting: its name in the file, its type, its default, its unit and the reason for the default.

A field that holds seconds or bytes says so in its name here (`connect_timeout_s`); in the file the unit stands in the
value (`connect_timeout = "5s"`).
"""

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from provisiond.enrollment.reprovision import POLICIES
from provisiond.model import AllocationPolicy, AttestationType, Hub, ReprovisionPolicy
from provisiond.settings.addresses import SocketAddress, parse_bind
from provisiond.settings.enrollments import EnrollmentGroupSettings, EnrollmentSettings
from provisiond.settings.external import External
from provisiond.settings.hubs import HubSettings
from provisiond.settings.section import FilePath, Section
from provisiond.settings.units import Bytes, Seconds, duration_within, size_within

CONFIG_VERSION: Final = 1


def _refuse_twins(where: str, key: str, values: list[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value.lower() in seen:
            raise ValueError(f'two {where} have {key} = "{value}"; each needs its own')
        seen.add(value.lower())


def _socket_address(text: str) -> str:
    parse_bind(text)
    return text


Bind = Annotated[str, AfterValidator(_socket_address)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Service(Section):
    """What devices know this service by, and where it keeps its state."""

    id_scope: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = Field(
        default="0ne0LOCAL01",
        description="ID scope that devices name in their CONNECT; any other scope is refused.",
    )
    state_dir: FilePath = Field(
        default=Path("/var/lib/provisiond"),
        description="Database, backups; mode 0700.",
    )


class Ca(Section):
    """The local certification authority that `provisiond init` makes."""

    dir: FilePath | None = Field(
        default=None,
        description='Directory of root.crt and root.key; without it "ca" in the state directory.',
    )


class Store(Section):
    """Where enrollments and registrations are kept."""

    url: str = Field(
        default="sqlite:///provisiond.db",
        description="Three slashes and a path relative to state_dir, or four and an absolute path.",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme != "sqlite":
            raise ValueError(
                f"{parts.scheme or 'no'} database is not supported; write sqlite:///FILE or sqlite:////DIR/FILE"
            )
        if parts.netloc or parts.path in ("", "/"):
            raise ValueError("write sqlite:///FILE, relative to state_dir, or sqlite:////DIR/FILE")
        return url

    @property
    def file(self) -> Path:
        """The database file as the URL has it; a relative one is relative to the state directory."""
        return Path(urlsplit(self.url).path[1:])


class Listener(Section):
    """One address where devices connect."""

    name: Name = Field(description="Name in logs and metrics.")
    bind: Bind = Field(description="HOST:PORT. Without TLS only a loopback host; Azure's SDKs need port 8883.")
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
        if isinstance(data, dict) and isinstance(data.get("cert_file"), str) and "key_file" not in data:
            return {**data, "key_file": str(Path(data["cert_file"]).with_suffix(".key"))}
        return data

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
        default=1000,
        description="Open connections from one address: a tenth of all, so that one site cannot shut the others out.",
    )
    requests_per_min: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=120,
        description="Requests a minute of one registration id at one address; more are answered 429. SDKs poll every "
        "2 s: 30.",
    )
    requests_per_min_per_address: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        default=30_000,
        description="Requests a minute of all registration ids at one address; more are answered 429, each with a "
        "moment of its own. A thousand devices, as many as may be connected from there, that poll every 2 s.",
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
        _refuse_twins("[[broker.listeners]]", "name", [listener.name for listener in self.listeners])
        binds = [listener.bind for listener in self.listeners if listener.address.port]
        _refuse_twins("[[broker.listeners]]", "bind", binds)
        return self


class X509(Section):
    """Certificate chains of devices."""

    max_chain: Annotated[int, Field(ge=1, le=8)] = Field(
        default=5,
        description="Authorities above a device's certificate, the enrolled one included. Five is a root, three "
        "intermediates and one to spare.",
    )
    crl_files: tuple[FilePath, ...] = Field(
        default=(),
        description="Certificate revocation lists, PEM or DER, of the authorities in enrollment groups.",
    )


class Tpm(Section):
    """TPM endorsement keys."""

    ek_roots_dir: FilePath = Field(
        default=Path("/etc/provisiond/tpm-roots.d"),
        description="Directory of the certificates of the TPM makers that are trusted, PEM or DER; for enrollment "
        "groups. Every file in it counts, but those whose names begin with a dot.",
    )
    deny_file: FilePath | None = Field(
        default=None,
        description="TPMs and certificates that are refused all the same, one a line: the SHA-256 of an endorsement "
        "key (TPM2B_PUBLIC) or of a certificate (DER); a derived registration id; the SHA-256 of an issuer's name "
        "(DER) and a serial number in hexadecimal; or a TPM manufacturer and a version (id:49465800 id:00070002).",
    )


class Attestation(Section):
    """How devices may prove who they are."""

    allowed: tuple[AttestationType, ...] = Field(
        default=tuple(AttestationType),
        description="Mechanisms that are accepted, whatever is enrolled.",
    )
    challenge_ttl_s: Annotated[Seconds, duration_within("1s", "1h")] = Field(
        default=120.0,
        description="How long a challenge may be answered; a slow TPM takes 10 s.",
    )
    clock_skew_s: Annotated[Seconds, duration_within("0s", "1d")] = Field(
        default=120.0,
        description="How wrong a device's clock may be when SAS tokens expire.",
    )
    x509: X509 = X509()
    tpm: Tpm = Tpm()


class RegistrationSettings(Section):
    """What a registering device is told, and the defaults of enrollments."""

    reply: Literal["auto", "poll", "immediate"] = Field(
        default="auto",
        description='"poll": 202, then 200 at the first poll, as Azure does. "immediate": 200 at once. '
        '"auto": at once for clients that are known to take it, else poll.',
    )
    retry_after_s: Annotated[Seconds, duration_within("1s", "5m")] = Field(
        default=3.0,
        description="When a device is told to ask again, in whole seconds; what Azure says.",
    )
    default_allocation: AllocationPolicy = Field(
        default=AllocationPolicy.HASHED,
        description='How a hub is chosen where an enrollment does not say: "hashed" spreads by weight.',
    )
    reprovision: Literal["reprovisionandmigratedata", "reprovisionandresetdata", "never"] = Field(
        default="reprovisionandmigratedata",
        description="What happens when an assigned device registers again, where an enrollment does not say.",
    )
    retire_after_s: Annotated[Seconds, duration_within("0s", "30d")] = Field(
        default=3600.0,
        description="How long a device that was moved may still connect to the hub that it left, unless it was seen at "
        "its new one before: one that crashed before it heard of the move must not be locked out.",
    )
    webhook_ca_file: FilePath | None = Field(
        default=None,
        description="PEM certificates that webhooks of custom allocations must chain to; without it the system's.",
    )
    unknown: Literal["reject", "pending"] = Field(
        default="reject",
        description='What happens to devices that nobody enrolled: "reject", or "pending": those with a certificate or '
        "a TPM wait in `registration list --pending` until an operator accepts or rejects them.",
    )
    pending_devices: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=1000,
        description="Unknown devices that may wait at a time, 1 KB each; a stranger must not fill the disk.",
    )
    pending_ttl_s: Annotated[Seconds, duration_within("1m", "365d")] = Field(
        default=7 * 86400.0,
        description="How long they wait after they were last seen: a technician's week.",
    )

    @field_validator("retry_after_s")
    @classmethod
    def _check_whole_seconds(cls, seconds: float) -> float:
        if seconds % 1:
            raise ValueError("devices are told whole seconds")
        return seconds

    @field_validator("default_allocation")
    @classmethod
    def _check_allocation(cls, policy: AllocationPolicy) -> AllocationPolicy:
        if policy in (AllocationPolicy.CUSTOM, AllocationPolicy.STATIC):
            raise ValueError(f'"{policy}" needs an enrollment that says where to; write "hashed"')
        return policy

    @property
    def reprovision_policy(self) -> ReprovisionPolicy:
        """`reprovision`, as the decision takes it."""
        return POLICIES[self.reprovision]


class Log(Section):
    """What is logged to stderr, and how."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is shown."
    )
    format: Literal["auto", "console", "logfmt", "json"] = Field(
        default="auto",
        description='"auto": console on a terminal, logfmt elsewhere, with priorities under systemd.',
    )


class Metrics(Section):
    """Prometheus metrics."""

    enabled: bool = Field(default=True, description="Serve /metrics.")
    bind: Bind = Field(default="127.0.0.1:9109", description="HOST:PORT; it is plain HTTP without authentication.")

    @property
    def address(self) -> SocketAddress:
        """`bind`, read."""
        return parse_bind(self.bind)


class Audit(Section):
    """The record of every decision and change."""

    keep_s: Annotated[Seconds, duration_within("1d", "36500d")] = Field(
        default=400 * 86400.0,
        description="Records that are older are removed; a year, and a month to look back on it. A fleet of a thousand "
        "devices that register daily makes about 1 MB a day.",
    )


def _default_hubs() -> tuple[HubSettings, ...]:
    return (HubSettings(name="local", host="localhost"),)


class Settings(Section):
    """The whole configuration."""

    config_version: Literal[1] = Field(
        default=CONFIG_VERSION,
        description="Version of this file's format. Must be there: a file without it was cut short.",
    )
    service: Service = Service()
    ca: Ca = Ca()
    store: Store = Store()
    broker: Broker = Broker()
    attestation: Attestation = Attestation()
    registration: RegistrationSettings = RegistrationSettings()
    hubs: tuple[HubSettings, ...] = Field(default_factory=_default_hubs)
    log: Log = Log()
    metrics: Metrics = Metrics()
    audit: Audit = Audit()
    enrollments: tuple[EnrollmentSettings, ...] = Field(
        default=(), description="Devices that are enrolled by this file; applied at a start and at SIGHUP."
    )
    enrollment_groups: tuple[EnrollmentGroupSettings, ...] = Field(
        default=(), description="Enrollment groups of this file, likewise."
    )

    @model_validator(mode="after")
    def _note_places(self, info: ValidationInfo) -> Self:
        place = (info.context or {}).get("place")
        for name in ("enrollments", "enrollment_groups"):
            for index, declared in enumerate(getattr(self, name)):
                declared.note_place(place((name, index)) if place else f"{name}[{index}]")
        return self

    @model_validator(mode="after")
    def _check_hubs(self) -> Self:
        if not self.hubs:
            raise ValueError("there must be at least one [[hubs]]")
        _refuse_twins("[[hubs]]", "name", [hub.name for hub in self.hubs])
        _refuse_twins("[[hubs]]", "host", [hub.host for hub in self.hubs])
        return self

    @property
    def database_file(self) -> Path:
        """The SQLite database, absolute when the state directory is."""
        return self.service.state_dir / self.store.file

    @property
    def ca_dir(self) -> Path:
        """The directory of the local certification authority."""
        return self.ca.dir or self.service.state_dir / "ca"

    def linked_hubs(self) -> tuple[Hub, ...]:
        """The hubs as decisions see them."""
        return tuple(hub.to_hub() for hub in self.hubs)
