"""Connections of devices, and what is said on them."""

from dataclasses import dataclass, field
from enum import StrEnum

from provisiond.model.registration_id import RegistrationId


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectAttempt:
    """A CONNECT as it arrived, with what the transport knows. Nothing here is trusted.

    Args:
        connection_id: unique in this process, never reused.
        unverified_chain: DER certificates the TLS peer presented, leaf first. That the peer holds the leaf's key was
            proved in this connection's own handshake; nothing else about the chain was looked at.
        clean_session: nothing of an earlier connection is to count for this one, nor of it for a later one.
    """

    connection_id: str
    listener: str
    remote_address: str
    tls: bool
    unverified_chain: tuple[bytes, ...] = ()
    client_id: str
    username: str | None = None
    password: bytes | None = field(default=None, repr=False)
    clean_session: bool = True


class Role(StrEnum):
    """What a connection is for; told by its user name."""

    DPS = "dps"
    NATIVE = "native"
    IOTHUB = "iothub"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """An admitted connection. Immutable: what was presented in its handshake and CONNECT is its own for ever.

    Args:
        claimed_id: the id its CONNECT claims; proved only by `attestation`.
        sas_token: password of the CONNECT, when there was one.
        api_version, client_version: from the user name; empty when absent.
        resumed: topic filters, with QoS, that it is subscribed to from an earlier connection.
    """

    connection_id: str
    role: Role
    claimed_id: RegistrationId
    listener: str
    remote_address: str
    unverified_chain: tuple[bytes, ...] = ()
    sas_token: str | None = field(default=None, repr=False)
    api_version: str = ""
    client_version: str = ""
    resumed: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """An MQTT application message. `qos` is 0 or 1; never retained."""

    topic: str
    payload: bytes
    qos: int = 1
