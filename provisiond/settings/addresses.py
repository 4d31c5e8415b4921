"""Network addresses as an operator writes them: `127.0.0.1:8883`, `[::]:8883`, `gateway.local`."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?)*",
    re.ASCII,
)
_BIND: Final = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[^:\[\]\s]+):(\d{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketAddress:
    """Where to listen. `host` is a name or an address without brackets; `port` 0 lets the system choose."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    def covers(self, other: "SocketAddress") -> bool:
        """Whether nothing can listen on `other` while something listens here, as far as no resolver has to be asked."""
        if self.port != other.port or not self.port:
            return False
        name = other.host.lower()
        if self.host.lower() == "localhost":
            return name in ("localhost", "127.0.0.1", "::1")
        try:
            mine = ipaddress.ip_address(self.host)
            return mine.is_unspecified and (name == "localhost" or ipaddress.ip_address(name).version == mine.version)
        except ValueError:
            return False


def parse_bind(text: str) -> SocketAddress:
    """Read `HOST:PORT`; an IPv6 host stands in brackets.

    Raises:
        ValueError: no such text.
    """
    match = _BIND.fullmatch(text)
    if match is None or int(match[2]) > 65535:
        raise ValueError(f'{text[:80]!r} is not HOST:PORT, such as "127.0.0.1:1883" or "[::]:8883"')
    return SocketAddress(host=check_host(match[1].strip("[]")), port=int(match[2]))


def check_host(text: str) -> str:
    """Return `text` when it is a DNS name or an IP address without brackets.

    Raises:
        ValueError: neither.
    """
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if _HOST_NAME.fullmatch(text) is None:
            raise ValueError(f"{text[:80]!r} is neither a host name nor an IP address") from None
    return text


def check_host_and_port(text: str) -> str:
    """Return `text` when it is a host that devices can be told, with a port or without.

    Raises:
        ValueError: it is not.
    """
    if _BIND.fullmatch(text) is not None:
        parse_bind(text)
        return text
    return check_host(text)
