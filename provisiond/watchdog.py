"""Feeding the service manager's watchdog: only after the store was read and the broker has answered itself.

A process whose event loop turns while its database hangs, or whose listener is deaf, had better be started again; one
that is merely busy had better not. So an answer of any kind counts, a refusal too, and only silence does not.
"""

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from secrets import token_hex
from typing import Final

from provisiond.errors import StoreError

_CONNACK: Final = 0x20
_DISCONNECT: Final = b"\xe0\x00"
_PROTOCOL_LEVEL: Final = 4
_CLEAN_SESSION_AND_USER_NAME: Final = 0x82
_KEEP_ALIVE_S: Final = 60
_FEEDS_A_PERIOD: Final = 3
"""One that is late, and one that is lost, must not end a healthy service."""
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Silent(Exception):
    """The broker does not answer."""


def watchdog_period_s(environment: Mapping[str, str] = os.environ) -> float | None:
    """Within how many seconds the service manager wants to hear of us (sd_watchdog_enabled(3)); None for never."""
    usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1e6


class Watchdog:
    """Looks three times a period, and feeds when everything answered.

    Args:
        period_s: of the service manager.
        checks: each raises when it is not well; they share a third of the period.
        notify: tells the service manager.
        report: hears why it was not fed.
    """

    def __init__(
        self,
        period_s: float,
        *,
        checks: Mapping[str, Callable[[], Awaitable[object]]],
        notify: Callable[[str], object],
        report: Callable[[str], object],
    ) -> None:
        self._interval_s = period_s / _FEEDS_A_PERIOD
        self._checks = checks
        self._notify = notify
        self._report = report

    async def run(self) -> None:
        """Feed until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._interval_s)

    async def look(self) -> bool:
        """One round; whether it was fed."""
        for name, check in self._checks.items():
            try:
                async with asyncio.timeout(self._interval_s):
                    await check()
            except (TimeoutError, OSError, StoreError, Silent) as error:
                self._report(f"{name}: {str(error) or 'no answer in time'}")
                return False
        self._notify("WATCHDOG=1")
        return True


async def ping_listener(host: str, port: int, *, tls: bool, id_scope: str) -> None:
    """Connect to a listener as a device would, and leave again.

    Args:
        host: where it listens; an address of all interfaces is asked on loopback.
        port: its port.
        tls: whether it speaks TLS; whose certificate it has does not matter here.
        id_scope: of this service.

    Raises:
        Silent: something else than an MQTT broker answers.
        OSError: nothing listens there.
    """
    context = None
    if tls:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        reader, writer = await asyncio.open_connection(_ANY.get(host, host), port, ssl=context)
    except (ssl.SSLError, ConnectionResetError):
        return  # it answered: it wants a certificate, or has no room
    try:
        writer.write(_connect(id_scope))
        answer = await reader.read(4)
        if answer and answer[0] != _CONNACK:
            raise Silent(f"{host}:{port} answers, but not as an MQTT broker")
        writer.write(_DISCONNECT)
        await writer.drain()
    except (ssl.SSLError, ConnectionError):
        pass  # as above
    finally:
        writer.transport.abort()


def _connect(id_scope: str) -> bytes:
    """A CONNECT (MQTT 3.1.1 3.1) of a device that has never been heard of."""
    client_id = f"provisiond-watchdog-{token_hex(4)}"
    user_name = f"{id_scope}/registrations/{client_id}/api-version=2019-03-31"
    payload = _text(client_id) + _text(user_name)
    variable = _text("MQTT") + bytes((_PROTOCOL_LEVEL, _CLEAN_SESSION_AND_USER_NAME)) + _KEEP_ALIVE_S.to_bytes(2, "big")
    remaining = len(variable) + len(payload)
    low, high = remaining & 0x7F, remaining >> 7
    return bytes((0x10, *((low,) if not high else (low | 0x80, high)))) + variable + payload


def _text(text: str) -> bytes:
    octets = text.encode()
    return len(octets).to_bytes(2, "big") + octets
