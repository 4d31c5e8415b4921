"""Abuse of registrations: cases 31 to 35."""

import asyncio
import secrets
import time
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from provisiond.attestation.sas_token import generate_sas_token
from tests.abuse.site import POLL, REGISTER, Site, Stranger, case, second_daemon
from tests.broker.wire import PUBLISH, puback, publish
from tests.certificates import make_leaf

AT_ONCE = 11  # fewer than may be unacknowledged
CUT_S = 5.0
UNAUTHORIZED = 401002
TEN_THOUSAND = 10_000


@case(31, "registering again with another key")
async def another_key(site: Site) -> str:
    async with site.device("again", address="127.0.0.31") as device:
        assert (await device.register())[0] == 200
    async with site.device("again", secrets.token_bytes(64), address="127.0.0.31") as thief:
        assert (await thief.register())[0] == 401
    for issuer, expected in ((site.line_b, 200), (None, 401)):
        certificate, key = make_leaf("pinned-again", issuer).write(site.directory, f"pinned-again-{expected}")
        if issuer is not None:
            await asyncio.to_thread(site.service.enroll, "pinned-again", certificate_path=certificate)
        async with site.device("pinned-again", tls=site.client_context(certificate, key)) as device:
            assert (await device.register())[0] == expected
    return "401: a wrong key, and another certificate of the same name"


@case(32, "disabled or deleted while it registers and while it is connected")
async def withdrawn(site: Site) -> str:
    async with site.device("disabled-later", site.device_key) as device:
        _, assigned = await device.register()
        async with _at_hub(site, assigned["registrationState"]) as session:
            registering = asyncio.create_task(_until_told(device))
            await asyncio.to_thread(
                site.service.command, "enrollment", "update", "disabled-later", "--provisioning-status", "disabled"
            )
            cut_s = await session.closed(CUT_S)
            assert await registering == "disabled"
    async with site.device("deleted-later", site.device_key) as device:
        registering = asyncio.create_task(_until_told(device))
        await asyncio.to_thread(site.service.command, "enrollment", "delete", "deleted-later", "--yes")
        assert await registering == UNAUTHORIZED
    return f"disabled; 401: on the connections that they had; the session at the hub is cut after {cut_s:.1f} s"


def _at_hub(site: Site, state: dict[str, Any]) -> Any:
    """The device's session at its hub, which is the daemon itself."""
    host, device_id = state["assignedHub"], state["deviceId"]
    password = generate_sas_token(
        resource=f"{host}/devices/{device_id}", key=site.device_key, expiry=int(time.time()) + 3600
    )
    username = f"{host}/{quote(device_id)}/?api-version=2021-04-12"
    return site.device(
        device_id, username=username, password=password.encode(), tls=site.client_context(), replies=None
    )


async def _until_told(device: Stranger) -> str | int:
    """Register until it is not assigned any more: the status or the error that it hears then."""
    async with asyncio.timeout(CUT_S + 120):
        while True:
            _, answer = await device.register()
            if answer.get("status") != "assigned":
                return answer.get("status") or answer["errorCode"]
            await asyncio.sleep(0.02)


@case(33, "the operation id of another device")
async def foreign_operation(site: Site) -> str:
    async with site.device("owner") as owner, site.device("nosy") as nosy:
        _, assigned = await owner.register()
        await nosy.register()
        status, answer = await nosy.ask(b"", POLL.replace("{operation}", assigned["operationId"]))
    assert status in (401, 404), answer
    return str(status)


@case(34, "one id registers ten thousand times at once")
async def stampede(site: Site) -> str:
    connections = TEN_THOUSAND // AT_ONCE if site.large else 20

    async def one() -> list[tuple[int, str]]:
        with suppress(ConnectionError):  # all of them at once are more than this process can have in before a deadline
            async with site.device("stampede", address="127.0.0.34") as device:
                for number in range(1, AT_ONCE + 1):
                    device.send(publish(REGISTER.format(rid=number), b"{}", packet_id=number))
                return [await next_reply(device) for _ in range(AT_ONCE)]
        return []

    answers = [answer for each in await asyncio.gather(*(one() for _ in range(connections))) for answer in each]
    statuses = [status for status, _ in answers]
    assert set(statuses) == {200} or set(statuses) == {200, 429}, set(statuses)
    rows = await asyncio.to_thread(site.service.command, "registration", "list", "-o", "json")
    mine = [row for row in rows if row["registrationId"] == "stampede"]
    assert len(mine) == 1
    assert mine[0]["substatus"] == "initialAssignment"
    asked = connections * AT_ONCE
    return f"{len(answers):,} of {asked:,} at once are answered: one row, one hub; {statuses.count(429):,} times 429"


@case(35, "polling a hundred times a second")
async def polling(site: Site) -> str:
    with second_daemon(site) as other:
        async with other.device("known", site.device_key) as device:
            _, assigned = await device.register()
            topic = POLL.replace("{operation}", assigned["operationId"])
            asked, status, answer = 0, 200, ""
            while status == 200 and asked < TEN_THOUSAND:
                for number in range(AT_ONCE):
                    device.send(publish(topic.replace("{rid}", str(number)), b"", packet_id=number + 1))
                    status, answer = await next_reply(device)
                asked += AT_ONCE
                await asyncio.sleep(AT_ONCE / 100)
    assert status == 429, (asked, status)
    assert "retry-after=1" in answer
    return f"429 with retry-after=1 after {asked} polls (120 a minute by default)"


async def next_reply(device: Stranger) -> tuple[int, str]:
    """The status and the topic of the next reply."""
    while (reply := await device.receive()).kind != PUBLISH:
        pass
    if reply.qos:
        device.send(puback(reply.packet_id))
    return int(reply.topic.split("/")[3]), reply.topic
