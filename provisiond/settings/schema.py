"""Every setting: its name in the file, its type, its default, its unit and the reason for the default.

A field that holds seconds or bytes says so in its name here (`connect_timeout_s`); in the file the unit stands in the
value (`connect_timeout = "5s"`).
"""

from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator, model_validator

from provisiond.model import Hub
from provisiond.settings.addresses import SocketAddress, parse_bind
from provisiond.settings.attestation import Attestation
from provisiond.settings.broker import Broker
from provisiond.settings.enrollments import EnrollmentGroupSettings, EnrollmentSettings
from provisiond.settings.hubs import HubSettings
from provisiond.settings.problems import Misplaced
from provisiond.settings.registration import RegistrationSettings
from provisiond.settings.section import FilePath, Section
from provisiond.settings.units import Seconds, duration_within
from provisiond.settings.values import Bind, Name, refuse_twins

CONFIG_VERSION: Final = 1


class Service(Section):
    """What devices know this service by, and where it keeps its state."""

    id_scope: Name = Field(
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
        if not url.isprintable() or set("?#") & set(url):
            raise ValueError("neither ? nor # nor control characters belong in it: a database has no options")
        if parts.netloc or parts.path in ("", "/"):
            raise ValueError("write sqlite:///FILE, relative to state_dir, or sqlite:////DIR/FILE")
        return url

    @property
    def file(self) -> Path:
        """The database file as the URL has it; a relative one is relative to the state directory."""
        return Path(urlsplit(self.url).path[1:])


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


class Crl(Section):
    """The revocation list of the local certification authority, for hubs that take devices by their certificates."""

    bind: Bind | None = Field(
        default=None,
        description="HOST:PORT where /crl/root.crl (DER) and /crl/root.pem are served over plain HTTP, for hubs on "
        "other machines: the list is signed. On this machine, [metrics] serves them as well.",
    )
    lifetime_s: Annotated[Seconds, duration_within("1d", "3650d")] = Field(
        default=30 * 86400.0,
        description="How long a list is good. The daemon signs one daily, where it finds root.key; a hub whose list "
        "has expired lets nobody in.",
    )

    @property
    def address(self) -> SocketAddress | None:
        """`bind`, read."""
        return None if self.bind is None else parse_bind(self.bind)


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
        description="Version of this file's format; a file of a later version is refused.",
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
    crl: Crl = Crl()
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
            raise Misplaced("there must be at least one [[hubs]]", ("hubs",))
        refuse_twins(("hubs",), "name", [hub.name for hub in self.hubs])
        refuse_twins(("hubs",), "host", [hub.host for hub in self.hubs])
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
