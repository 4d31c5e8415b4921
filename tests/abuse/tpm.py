"""Abuse of TPM challenges: cases 28 to 30."""

import asyncio
import secrets
from typing import Any

from tests.abuse.site import CHALLENGE_S, Site, Stranger, case, second_daemon, token
from tests.abuse.soft_tpm import SoftTpm

REFUSED_EXIT_CODE = 5


def _tpm(site: Site, name: str) -> SoftTpm:
    """The TPM of a device that is enrolled with it."""
    if name not in site.notes:
        site.notes[name] = SoftTpm()
        site.service.enroll(name, attestation_type="tpm", endorsement_key=site.notes[name].endorsement_key)
    tpm: SoftTpm = site.notes[name]
    return tpm


async def _challenged(device: Stranger, tpm: SoftTpm) -> dict[str, Any]:
    status, answer = await device.ask(tpm.body())
    assert (status, "authenticationKey" in answer) == (401, True), answer
    return answer


async def _refused(device: Stranger, body: dict[str, Any]) -> None:
    status, answer = await device.ask(body)
    assert (status, "authenticationKey" in answer) == (401, False), answer


def _wrong(tpm: SoftTpm, name: str) -> dict[str, Any]:
    return tpm.body(authorization=token(name, secrets.token_bytes(32), policy="registration"))


@case(28, "a right answer twice, on another connection, too late, after a restart")
async def answers_out_of_place(site: Site) -> str:
    tpm = await asyncio.to_thread(_tpm, site, "tpm-1")
    async with site.device("tpm-1", password=b"") as first, site.device("tpm-1", password=b"") as second:
        answer = tpm.answer("tpm-1", await _challenged(first, tpm))
        await _refused(second, answer)
        status, _ = await first.ask(answer)
        assert status == 200
        await _refused(first, answer)
        answer = tpm.answer("tpm-1", await _challenged(second, tpm))
        await second.linger(CHALLENGE_S + 0.5)
        await _refused(second, answer)
    await _after_a_restart(site)
    return "401 each time; in its place it is assigned"


async def _after_a_restart(site: Site) -> None:
    tpm, name = SoftTpm(), f"tpm-{secrets.token_hex(4)}"
    with second_daemon(site) as other:
        other.service.enroll(name, attestation_type="tpm", endorsement_key=tpm.endorsement_key)
        async with other.device(name, password=b"") as device:
            answer = tpm.answer(name, await _challenged(device, tpm))
    with second_daemon(site) as other:
        async with other.device(name, password=b"") as device:
            await _refused(device, answer)
            status, _ = await device.ask(tpm.answer(name, await _challenged(device, tpm)))
            assert status == 200


@case(29, "a wrong answer to a TPM challenge, then the right one")
async def wrong_answer(site: Site) -> str:
    tpm = await asyncio.to_thread(_tpm, site, "tpm-1")
    async with site.device("tpm-1", password=b"") as device:
        first = await _challenged(device, tpm)
        await _refused(device, _wrong(tpm, "tpm-1"))
        await _refused(device, tpm.answer("tpm-1", first))
        second = await _challenged(device, tpm)
    assert first["authenticationKey"] != second["authenticationKey"]
    return "401, and 401: the challenge is gone; the next one differs"


@case(30, "the endorsement key of another device")
async def another_endorsement_key(site: Site) -> str:
    tpm = await asyncio.to_thread(_tpm, site, "tpm-1")
    await asyncio.to_thread(_tpm, site, "tpm-2")
    async with site.device("tpm-2", password=b"") as device:
        status, answer = await device.ask(tpm.body())
    assert (status, "authenticationKey" in answer) == (401, False), answer
    explain = ("explain", "--tracking-id", answer["trackingId"], "-o", "json")
    record = await asyncio.to_thread(site.service.command, *explain, expect=REFUSED_EXIT_CODE)
    assert "endorsement-key-mismatch" in str(record), record
    warnings = [line for line in site.daemon.text_log.splitlines() if answer["trackingId"] in line]
    assert any('"level": "warning"' in line for line in warnings), warnings
    return "401 without a challenge; in the audit log, a warning, and an alert in config/prometheus-alerts.yml"
