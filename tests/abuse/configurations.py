"""Abuse of the configuration: cases 39 and 40."""

import asyncio
import re
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomlkit

from provisiond.errors import ConfigurationError
from provisiond.settings import load_settings
from tests.abuse.site import Site, Stranger, case
from tests.broker.wire import PINGREQ

CONFIGURATION_EXIT_CODE = 78
PLACE = re.compile(r"\.toml:\d+: ")


@case(39, "a configuration that is empty, cut off at every byte, or wrong")
async def configurations(site: Site) -> str:
    whole = site.service.config_file.read_bytes()
    refused, accepted = await asyncio.to_thread(_cut_everywhere, site, whole)
    assert set(accepted) <= {len(whole) - 1}, f"cut off, and taken: {accepted}"  # nothing but the last line's end
    wrong = [_judge(site, change) for change in _MISTAKES]
    nameless = [message for message in wrong if not PLACE.search(message)]
    assert not nameless, nameless
    open_key = await asyncio.to_thread(_with_open_key, site)
    kept = await _reload_with(site, b"")
    kept += await _reload_with(site, whole[: len(whole) // 2])
    site.service.config_file.write_bytes(whole)
    return (
        f"{refused} cuts refused; {len(wrong)} mistakes refused with their line; {open_key}; "
        f"{kept} failed reloads keep the old one"
    )


def _cut_everywhere(site: Site, whole: bytes) -> tuple[int, list[int]]:
    path, refused, accepted = site.directory / "cut.toml", 0, []
    for end in range(0, len(whole), 1 if site.large else 7):
        path.write_bytes(whole[:end])
        try:
            load_settings(path, environment={})
        except ConfigurationError:
            refused += 1
        else:
            accepted.append(end)
    return refused, accepted


def _unknown_key(document: Any) -> None:
    document["broker"]["limits"]["conect_timeout"] = "1s"


def _unknown_section(document: Any) -> None:
    document["brocker"] = {"mode": "embedded"}


def _twin_hubs(document: Any) -> None:
    document["hubs"] = [{"name": "a", "type": "embedded", "host": host} for host in ("a.test", "b.test")]


def _twin_listeners(document: Any) -> None:
    document["broker"]["listeners"].append({"name": "local", "bind": "127.0.0.1:0", "tls": False})


def _open_plaintext(document: Any) -> None:
    document["broker"]["listeners"][0]["bind"] = "0.0.0.0:1883"


def _nonsense(document: Any) -> None:
    document["broker"]["limits"]["connect_timeout"] = "soon"


def _no_limit(document: Any) -> None:
    document["broker"]["limits"]["max_connections"] = 0


_MISTAKES: tuple[Callable[[Any], None], ...] = (
    _unknown_key,
    _unknown_section,
    _twin_hubs,
    _twin_listeners,
    _open_plaintext,
    _nonsense,
    _no_limit,
)


def _judge(site: Site, change: Callable[[Any], None]) -> str:
    """What is said of a configuration with a mistake."""
    text = site.service.config_file.read_text()
    document = tomlkit.parse(text)
    change(document)
    path = site.service.directory / "mistaken.toml"
    path.write_text(tomlkit.dumps(document))
    try:
        load_settings(path, environment={})
    except ConfigurationError as error:
        return str(error)
    raise AssertionError(f"taken in spite of {change.__name__}")


def _with_open_key(site: Site) -> str:
    """A key that everybody may read; restored at the end."""
    key: Path = site.service.directory / "tls" / "server.key"
    key.chmod(0o644)
    try:
        site.service.command("run", expect=CONFIGURATION_EXIT_CODE)
    finally:
        key.chmod(0o600)
    return "a key with mode 0644 refused"


async def _reload_with(site: Site, configuration: bytes) -> int:
    whole = site.service.config_file.read_bytes()
    lines = len(site.daemon.text_log.splitlines())
    site.service.config_file.write_bytes(configuration)
    try:
        site.daemon.process.send_signal(signal.SIGHUP)
        assert "the old configuration stays in force" in await _new_line(site, lines)
    finally:
        site.service.config_file.write_bytes(whole)
    async with site.device("after-reload") as device:
        assert (await device.register())[0] == 200
    return 1


@case(40, "SIGHUP without a file descriptor left")
async def reload_at_the_limit(site: Site) -> str:
    soft, hard = resource.prlimit(site.pid, resource.RLIMIT_NOFILE)
    lines = len(site.daemon.text_log.splitlines())
    async with site.device("still-served") as device:
        # The limit is on the number of a new one; whatever closes meanwhile, those of the standard streams are taken.
        resource.prlimit(site.pid, resource.RLIMIT_NOFILE, (3, hard))
        try:
            site.daemon.process.send_signal(signal.SIGHUP)
            said = await _new_line(site, lines, beside=device)
            status, _ = await device.register()
        finally:
            resource.prlimit(site.pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert status == 200
    assert "the old configuration stays in force" in said, said
    lines = len(site.daemon.text_log.splitlines())
    site.daemon.process.send_signal(signal.SIGHUP)
    assert "reloaded" in await _new_line(site, lines)
    return "the old configuration stays in force; reloaded once files are free again"


async def _new_line(site: Site, after: int, *, beside: Stranger | None = None) -> str:
    """What is said of the reload; a device that waits meanwhile pings, as devices do."""
    began_at = time.monotonic()
    while time.monotonic() - began_at < 60:
        for line in site.daemon.text_log.splitlines()[after:]:
            if "reload" in line:
                return line
        if beside is not None:
            beside.send(PINGREQ)
        await asyncio.sleep(0.05)
    raise AssertionError("nothing was said of the reload")
