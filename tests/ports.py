"""Ports for programs that must be told one before they bind it."""

import random
import socket
from contextlib import suppress
from pathlib import Path


def _has_ipv6() -> bool:
    with suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


HAS_IPV6 = _has_ipv6()
_CHOICE = random.SystemRandom()
_FIRST, _LAST = 10_240, 65_535
_ENOUGH = 1000
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL_RANGE = 32_768, 60_999


def free_port() -> int:
    """A port of loopback for as long as this process lives.

    The kernel gives it to nobody who asks for any port, and no other test gets it: it stays free while the program
    that will bind it starts, and when it is stopped and started again.
    """
    for port in _CHOICE.sample(_candidates(), k=_ENOUGH):
        if _reserve(port):
            return port
    raise AssertionError("there is no free port")


def _candidates() -> list[int]:
    """Those that the kernel does not choose for outgoing connections and for port 0; all, when it leaves hardly any."""
    low, high = _USUAL_RANGE
    with suppress(OSError):  # not every container shows it
        low, high = map(int, _RANGE_FILE.read_text().split())
    others = [port for port in range(_FIRST, _LAST + 1) if not low <= port <= high]
    return others if len(others) >= _ENOUGH else list(range(_FIRST, _LAST + 1))


def _reserve(port: int) -> bool:
    """Whether nobody has the port, nor any test of this machine has been given it."""
    with socket.socket() as probe:
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    with socket.socket(socket.AF_UNIX) as reservation:
        try:
            reservation.bind(f"\0provisiond-test-port-{port}")
        except OSError:
            return False
        reservation.detach()  # it ends with this process
    return True
