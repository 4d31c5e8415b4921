"""What a hub is asked: the one interface that every hub connector implements, built in or from another package.

A connector makes the identities of devices in one hub, takes them away again, and says what it sees. It keeps no queue,
retries nothing and has no deadlines: its caller (`provisiond.assigner`) has all three, and may cancel any call at any
await. Every call may be made again after any failure, and must then come to the same end.

`docs/hub-connectors.md` explains how to write one; `provisiond.hubs.contract` holds the rules as tests.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from provisiond.errors import HubFault
from provisiond.model import AttestationType, InitialTwin, Registration, Retirement


@dataclass(frozen=True, slots=True, kw_only=True)
class HubIdentity:
    """A device as its hub has to know it.

    Args:
        device_id: at the hub; what it is told apart by. 1 to 128 of `A-Z a-z 0-9` and `-._:=@,()!'*`.
        registration_id: as the device spelt it.
        attestation_type: which of the two below there is.
        key: what the device and the hub both know, for symmetric keys and TPMs; a hub that wants a password gets
            the one that follows from it (`provisiond.protocols.hub_password`), never the key.
        certificate_der: the device's certificate, for X.509.
        initial_twin: tags and desired properties to start with, None when there are none.
    """

    device_id: str
    registration_id: str
    attestation_type: AttestationType
    key: bytes | None = field(default=None, repr=False)
    certificate_der: bytes | None = field(default=None, repr=False)
    initial_twin: InitialTwin | None = None


def identity_of(registration: Registration) -> HubIdentity:
    """The identity that a registration has at its hub."""
    return HubIdentity(
        device_id=registration.device_id,
        registration_id=registration.registration_id,
        attestation_type=registration.attestation_type,
        key=registration.hub_key,
        certificate_der=registration.certificate_der,
        initial_twin=registration.initial_twin,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityState:
    """An identity as the hub has it.

    Args:
        enabled: the device may connect.
        used_since_change: whether the device has connected since the identity was last changed; None where the hub
            cannot tell. What a device has left at another hub goes once it is True.
    """

    enabled: bool
    used_since_change: bool | None = None


class TrialOutcome(StrEnum):
    """What happened when we tried to connect as a device."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionTrial:
    """What was observed when we connected as the device would.

    Args:
        finding: for the operator: where, and what the hub said.
    """

    outcome: TrialOutcome
    finding: str


class HubConnector(Protocol):
    """One hub.

    Every method may raise, whatever it was asked:
        HubUnavailable: no answer, or one without sense.
        HubUnauthorized: the hub does not take our own credentials.
    """

    @property
    def batch_size(self) -> int:
        """The most identities that one call may be given, 1 to 1000."""
        ...

    async def ensure(self, identities: Sequence[HubIdentity]) -> Sequence[HubFault | None]:
        """Have these identities in the hub, enabled and with these credentials, whatever is there now.

        Returns:
            One for each, in order: None, or what went wrong with it alone (`HubRefused`: not as it is, ever).
        """
        ...

    async def disable(self, device_ids: Sequence[str]) -> None:
        """See that these devices cannot connect, and that those that are connected no longer are.

        An identity that is not there is as good. The hub may keep it or delete it.
        """
        ...

    async def delete(self, device_ids: Sequence[str]) -> None:
        """Have no such identities in the hub, and none of their connections."""
        ...

    async def read(self, device_ids: Sequence[str]) -> Mapping[str, IdentityState]:
        """Those of the identities that the hub has, by device id."""
        ...

    async def probe(self) -> None:
        """Ask the hub for something small, as an administrator: how long that takes is its latency."""
        ...

    async def try_connect(self, identity: HubIdentity) -> ConnectionTrial | None:
        """Connect as the device would, and disconnect; None where that cannot be tried, as without its private key."""
        ...

    async def aclose(self) -> None:
        """Let go of connections; called once, last."""
        ...


@runtime_checkable
class ArrivalWatch(Protocol):
    """What a connector may have besides, where `used_since_change` is nothing that can be read, but can be watched."""

    async def watch(self, device_ids: Collection[str]) -> Collection[str]:
        """Look out for these devices and no others from now on.

        Returns:
            Those of them that were seen to connect, or to send anything, since they were last made.
        """
        ...


def retirement_reason(retirement: Retirement) -> str:
    """Why an identity goes, in the audit log."""
    if not retirement.grace_s:
        return retirement.reason
    return f"{retirement.reason}, not seen there within {retirement.grace_s} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubOptions:
    """A `[[hubs]]` entry of the configuration, as its connector is given it.

    Args:
        name: unique name of the hub.
        host: what devices are told to connect to.
        options: the keys of `[hubs.options]`; the connector checks them and raises ConfigurationError.
        base_dir: what relative paths in the options are relative to.
    """

    name: str
    host: str
    options: Mapping[str, Any] = field(default_factory=dict)
    base_dir: Path = field(default_factory=Path)


ConnectorFactory = Callable[[HubOptions], HubConnector]
"""What an entry point of the group `provisiond.hubs` loads; its name is the hub's `type`.

It does no I/O but read the files its options name, and raises ConfigurationError.
"""
