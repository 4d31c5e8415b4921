"""Abuse of certificates and of the configuration: cases 36 to 40."""

import asyncio
import resource
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import tomlkit

from provisiond.attestation.certificate import identity_of, parse_certificate
from provisiond.attestation.revocation import check_revocation
from provisiond.errors import AttestationError, ConfigurationError
from provisiond.model import Trace
from provisiond.settings import load_settings
from tests.abuse.site import Site, case
from tests.attestation.der import padding_twin
from tests.certificates import Ca, make_ca, make_leaf

SPARE_FILES = 2


def _present(site: Site, name: str, issuer: Ca | None, *extra: bytes) -> "tuple[Path, Path]":
    certificate, key = make_leaf(name, issuer).write(site.directory, name.replace(":", "_"))
    certificate.write_bytes(certificate.read_bytes() + b"".join(extra))
    return certificate, key


async def _status(site: Site, name: str, issuer: Ca | None, *extra: bytes) -> int | str:
    context = site.client_context(*_present(site, name, issuer, *extra))
    try:
        async with site.device(name, tls=context) as device:
            return (await device.register())[0]
    except (ConnectionError, OSError):
        return "closed"


@case(36, "a hundred certificates, a look-alike authority, a cycle")
async def chains(site: Site) -> str:
    lookalike = make_ca("Line A")
    first, second = make_ca("Cycle 1"), make_ca("Cycle 2")
    answers = [
        await _status(site, "good", site.line_a),
        await _status(site, "hundred", site.line_a, *(make_ca(f"Extra {n}").pem for n in range(100))),
        await _status(site, "seven", site.line_a, *(make_ca(f"Extra {n}").pem for n in range(7))),
        await _status(site, "lookalike", lookalike, lookalike.pem, site.line_a.pem),
        await _status(site, "cycle", first, first.pem, second.pem, make_ca("Cycle 1", second).pem),
        await _status(site, "self-signed", None),
    ]
    assert answers[0] == 200, answers
    assert all(answer in (401, "closed") for answer in answers[1:]), answers
    return f"{answers[1:]}; limbo and PKITS: tests/attestation"


@case(37, "a certificate of one group for a device of another")
async def other_group(site: Site) -> str:
    status = await _status(site, "pinned", site.line_a)
    assert status == 401
    return "401: its enrollment pins another certificate"


@case(38, "the signature-padding twin of a revoked certificate")
async def padding_twins(site: Site) -> str:
    leaf = make_leaf("revoked", site.line_a)
    while leaf.der[-1] & 1:  # the twin needs a signature that ends in a zero bit
        leaf = make_leaf("revoked", site.line_a)
    revoked = frozenset({identity_of(parse_certificate(leaf.der))})
    twin = parse_certificate(padding_twin(leaf.der))
    assert leaf.der != padding_twin(leaf.der)
    try:
        check_revocation((twin,), crls=(), revoked=revoked, now=datetime.now(UTC), trace=Trace())
    except AttestationError as error:
        return f"still {error.finding}"
    raise AssertionError("the twin is not revoked")


@case(39, "a configuration that is empty, cut off at every byte, or wrong")
async def configurations(site: Site) -> str:
    whole = site.service.config_file.read_bytes()
    path = site.directory / "cut.toml"
    refused = accepted = 0
    for end in range(0, len(whole), 1 if site.large else 7):
        path.write_bytes(whole[:end])
        try:
            await asyncio.to_thread(load_settings, path, environment={})
        except ConfigurationError:
            refused += 1
        else:
            accepted += 1
            _check_cut(whole[:end])
    document = tomlkit.parse(whole.decode())
    document["broker"]["limits"]["conect_timeout"] = "1s"
    path.write_text(tomlkit.dumps(document))
    with pytest.raises(ConfigurationError, match="connect_timeout"):
        load_settings(path, environment={})
    return f"{refused} of {refused + accepted} cuts refused; the others end between two settings; did you mean"


def _check_cut(text: bytes) -> None:
    """What is accepted although it is cut off means what it says: TOML has no end mark."""
    assert tomlkit.parse(text.decode()).get("service"), text


@case(40, "SIGHUP without a file descriptor left")
async def reload_at_the_limit(site: Site) -> str:
    soft, hard = resource.prlimit(site.pid, resource.RLIMIT_NOFILE)
    lines = len(site.daemon.text_log.splitlines())
    async with site.device("still-served") as device:
        resource.prlimit(site.pid, resource.RLIMIT_NOFILE, (site.files, hard))
        try:
            site.daemon.process.send_signal(signal.SIGHUP)
            said = await _new_line(site, lines)
            status, _ = await device.register()
        finally:
            resource.prlimit(site.pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert status == 200
    assert "the old configuration stays in force" in said, said
    lines = len(site.daemon.text_log.splitlines())
    site.daemon.process.send_signal(signal.SIGHUP)
    assert "reloaded" in await _new_line(site, lines)
    return "the old configuration stays in force; reloaded once files are free again"


async def _new_line(site: Site, after: int) -> str:
    began_at = time.monotonic()
    while time.monotonic() - began_at < 10:
        for line in site.daemon.text_log.splitlines()[after:]:
            if "reload" in line:
                return line
        await asyncio.sleep(0.05)
    raise AssertionError("nothing was said of the reload")
