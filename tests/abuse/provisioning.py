"""Abuse of provisioning: cases 21 to 35."""

import asyncio
import json
import math
import secrets
import statistics
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

from tests.abuse.site import POLL, Site, Stranger, case, token, user
from tests.broker.wire import PUBLISH, puback, publish

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "tpm_vectors.json").read_text(encoding="utf-8"))
SUSPICIOUS_T = 4.0
AT_ONCE = 16  # fewer than may be unacknowledged


@case(21, "hostile JSON")
async def hostile_json(site: Site) -> str:
    bodies = [
        b"[]",
        b"null",
        b'"' + b"x" * 90_000 + b'"',
        b"[" * 10_000,
        b'{"a":' * 10_000,
        b'{"payload":1,"payload":2}',
        b'{"payload":NaN}',
        b'{"payload":1' + b"0" * 400 + b"}",
        b'{"payload":1e400}',
        b'{"payload":"\\ud800"}',
        b'{"registrationId":7}',
        b'{"tpm":[]}',
        b'{"tpm":{"endorsementKey":"!","storageRootKey":"!"}}',
        b'{"authorization":{}}',
        b"\xff\xfe{}",
        b'{"payload":}',
    ]
    slowest = 0.0
    async with site.device("json") as device:
        for body in bodies:
            began_at = time.monotonic()
            status, answer = await device.ask(body)
            slowest = max(slowest, time.monotonic() - began_at)
            assert 400 <= status < 500, (body[:40], status, answer)
        status, _ = await device.register()
        assert status == 200
    return f"{len(bodies)} times 4xx, the slowest in {1e3 * slowest:.1f} ms; then assigned"


@case(22, "$rid missing, twice, 10 KB, with CR LF, %00 and &")
async def request_ids(site: Site) -> str:
    register = "$dps/registrations/PUT/iotdps-register/"
    answers = []
    async with site.device("rid") as device:
        for query in (
            "",
            "?",
            "?$rid=1&$rid=2",
            "?$rid=" + "x" * 10_000,
            "?$rid=a\r\nb",
            "?$rid=a%00b",
            "?$rid=a&retry-after=0&x=y",
        ):
            status, answer = await device.ask(b"{}", register + query)
            answers.append(status)
            topic = answer["topic"]
            assert topic.isascii(), topic
            assert topic.isprintable(), topic
            assert len(topic) < 400
    assert set(answers) <= {200, 400}, answers
    assert answers[2:5] == [400, 400, 400], answers
    return f"{answers.count(400)} times 400, the others served; nothing unprintable is echoed"


@case(23, "registration id differs from client id, token or body")
async def other_ids(site: Site) -> str:
    async with site.stranger() as stranger:
        await stranger.log_in("mine", b"", username=user("another"), expect=5)
    async with site.device("mine", password=token("another", site.device_of_group("another")).encode()) as device:
        status, _ = await device.register()
        assert status == 401
    async with site.device("mine") as device:
        status, _ = await device.ask({"registrationId": "another"})
        assert status == 401
    return "CONNACK 5; 401; 401"


@case(24, "impossible ids, look-alikes, upper and lower case")
async def odd_ids(site: Site) -> str:
    for odd in ("../x", "a+b", "a#", "a/b", "x" * 129, "dev\u0456ce", "a b", "ends-with.", "\u202edev"):
        async with site.stranger() as stranger:
            await stranger.log_in(odd, b"x", expect=5)
    states = []
    for spelt in ("Twin-Case", "TWIN-CASE", "twin-case"):
        async with site.device(spelt, site.device_key) as device:
            status, answer = await device.register()
            assert status == 200, answer
            states.append(answer["registrationState"])
    assert len({state["createdDateTimeUtc"] for state in states}) == 1, states
    assert {state["substatus"] for state in states} == {"initialAssignment"}
    return "CONNACK 5 nine times; three spellings are one device"


@case(25, "an unknown id, and a known one with a wrong key")
async def known_or_unknown(site: Site) -> str:
    wrong = secrets.token_bytes(64)
    times: dict[str, list[float]] = {"known": [], "unknown": []}
    answers = set()
    for number in range(90):
        name = ("known", "unknown")[number % 2]
        spelt = "known" if name == "known" else f"nobody-{number:02d}"
        async with site.device(spelt, wrong, address="127.0.0.25") as device:
            began_at = time.perf_counter()
            status, answer = await device.register()
            times[name].append(time.perf_counter() - began_at)
            answers.add((status, answer["errorCode"], answer["message"]))
    assert len(answers) == 1, answers
    t = _welch({name: sorted(each)[: len(each) * 4 // 5] for name, each in times.items()})
    assert abs(t) < SUSPICIOUS_T, f"t = {t:.1f}"
    return f"the same {answers.pop()[1]}; t = {t:+.1f} over {len(times['known'])} each"


def _welch(samples: dict[str, list[float]]) -> float:
    first, second = samples.values()
    variance = statistics.variance(first) / len(first) + statistics.variance(second) / len(second)
    return (statistics.mean(first) - statistics.mean(second)) / math.sqrt(variance)


@case(26, "tokens: expired, absurd, mangled, of another tenant")
async def tokens(site: Site) -> str:
    key, name = site.device_of_group("token"), "token"
    now = int(time.time())
    bad = [
        token(name, key, expiry=now - 3600),
        token(name, key, expiry=-1),
        token(name, key, expiry="9" * 400),
        token(name, key, expiry="soon"),
        token(name, key, mangle=lambda signature: signature + "!"),
        token(name, key, mangle=lambda signature: signature[:-2]),
        token(name, key, mangle=lambda _: ""),
        token(name, key, scope="0ne0OTHER"),
        token(name, secrets.token_bytes(64)),
        "SharedAccessSignature",
        "SharedAccessSignature sr=&sig=&se=",
        token(name, key).replace("sr=", "sr=x&sr="),
        "x" * 2000,
    ]
    for each in bad:
        async with site.device(name, password=each.encode()) as device:
            status, answer = await device.register()
            assert status == 401, (each[:80], answer)
    async with site.device(name, password=token(name, key, policy="registration").encode()) as device:
        status, _ = await device.register()
        assert status == 200
    return f"{len(bad)} times 401; the right one is assigned"


@case(27, "a thousand wrong keys")
async def wrong_keys(site: Site) -> str:
    statuses: list[int] = []
    wrong = secrets.token_bytes(64)
    async with site.device("known", wrong, address="127.0.0.66") as thief:
        for _ in range(1000 if site.large else 150):
            status, answer = await thief.register()
            statuses.append(status)
    assert set(statuses) == {401, 429}, set(statuses)
    assert "retry-after=" in answer["topic"]
    async with site.device("known", site.device_key, address="127.0.0.67") as device:
        status, _ = await device.register()
        assert status == 200
    return f"{statuses.count(401)} times 401, then 429; the true device is assigned from its own address"


# --- TPM -------------------------------------------------------------------------------------------------------------


def _tpm_body(ek: int, **more: Any) -> dict[str, Any]:
    keys = [vector for vector in VECTORS["software_ek"] if vector["id"] in ("rsa2048", "p256")]
    srk = next(vector for vector in VECTORS["public"] if vector["note"] == "srk-rsa2048")
    encoded = [b64encode(bytes.fromhex(vector["tpm2b_public"])).decode() for vector in (keys[ek], srk)]
    return {"tpm": {"endorsementKey": encoded[0], "storageRootKey": encoded[1]}, **more}


def _enroll_tpm(site: Site, name: str, ek: int) -> None:
    if name not in site.notes:
        site.notes[name] = True
        site.service.enroll(name, attestation_type="tpm", endorsement_key=_tpm_body(ek)["tpm"]["endorsementKey"])


async def _challenged(device: Stranger, ek: int = 0) -> dict[str, Any]:
    status, answer = await device.ask(_tpm_body(ek))
    assert (status, "authenticationKey" in answer) == (401, True), answer
    return answer


def _wrong_answer(name: str) -> str:
    return token(name, secrets.token_bytes(32), policy="registration")


@case(28, "a challenge answered twice, or on another connection")
async def challenge_elsewhere(site: Site) -> str:
    await asyncio.to_thread(_enroll_tpm, site, "tpm-1", 0)
    async with site.device("tpm-1", password=b"") as first, site.device("tpm-1", password=b"") as second:
        await _challenged(first)
        status, elsewhere = await second.ask(_tpm_body(0, authorization=_wrong_answer("tpm-1")))
        assert (status, "authenticationKey" in elsewhere) == (401, False), elsewhere
        for _ in range(2):
            status, twice = await first.ask(_tpm_body(0, authorization=_wrong_answer("tpm-1")))
            assert (status, "authenticationKey" in twice) == (401, False), twice
    return "401 three times; a restart voids all (tests/system/tpm)"


@case(29, "a wrong answer to a TPM challenge")
async def wrong_answer(site: Site) -> str:
    await asyncio.to_thread(_enroll_tpm, site, "tpm-1", 0)
    async with site.device("tpm-1", password=b"") as device:
        first = await _challenged(device)
        status, _ = await device.ask(_tpm_body(0, authorization=_wrong_answer("tpm-1")))
        assert status == 401
        second = await _challenged(device)
    assert first["authenticationKey"] != second["authenticationKey"]
    return "401, the challenge is gone, the next one differs"


@case(30, "the endorsement key of another device")
async def another_endorsement_key(site: Site) -> str:
    await asyncio.to_thread(_enroll_tpm, site, "tpm-2", 1)
    async with site.device("tpm-2", password=b"") as device:
        status, answer = await device.ask(_tpm_body(0))
    assert (status, "authenticationKey" in answer) == (401, False), answer
    return "401 without a challenge, in the audit log"


# --- registrations ---------------------------------------------------------------------------------------------------


@case(31, "registering again with another key")
async def another_key(site: Site) -> str:
    async with site.device("again", address="127.0.0.31") as device:
        assert (await device.register())[0] == 200
    async with site.device("again", secrets.token_bytes(64), address="127.0.0.31") as thief:
        status, _ = await thief.register()
    assert status == 401
    return "401"


@case(32, "disabled or deleted while it is connected")
async def withdrawn(site: Site) -> str:
    async with (
        site.device("disabled-later", site.device_key) as first,
        site.device("deleted-later", site.device_key) as second,
    ):
        assert {(await device.register())[0] for device in (first, second)} == {200}
        await asyncio.to_thread(
            site.service.command, "enrollment", "update", "disabled-later", "--provisioning-status", "disabled"
        )
        await asyncio.to_thread(site.service.command, "enrollment", "delete", "deleted-later", "--yes")
        _, disabled = await first.register()
        status, _ = await second.register()
    assert disabled["status"] == "disabled", disabled
    assert status == 401
    return "disabled; 401: on the connections that they had"


@case(33, "the operation id of another device")
async def foreign_operation(site: Site) -> str:
    async with site.device("owner") as owner, site.device("nosy") as nosy:
        _, assigned = await owner.register()
        await nosy.register()
        status, answer = await nosy.ask(b"", POLL.replace("{operation}", assigned["operationId"]))
    assert status in (401, 404), answer
    return str(status)


@case(34, "one id registers on many connections at once")
async def stampede(site: Site) -> str:
    count = 900 if site.large else 100

    async def one() -> tuple[int, str]:
        async with site.device("stampede", address="127.0.0.34") as device:
            status, answer = await device.register()
            return status, answer.get("registrationState", {}).get("assignedHub", "")

    answers = await asyncio.gather(*(one() for _ in range(count)))
    hubs = {hub for status, hub in answers if status == 200}
    assert len(hubs) == 1
    assert {status for status, _ in answers} <= {200, 429}
    rows = await asyncio.to_thread(site.service.command, "registration", "list", "-o", "json")
    assert sum(row["registrationId"] == "stampede" for row in rows) == 1
    return f"{count} at once: one row, one hub, {sum(status == 429 for status, _ in answers)} times 429"


@case(35, "polling as fast as it can")
async def polling(site: Site) -> str:
    async with site.device("hasty", address="127.0.0.35") as device:
        _, assigned = await device.register()
        topic = POLL.replace("{operation}", assigned["operationId"])
        asked, status, answer = 0, 200, assigned
        while status == 200 and asked < 20_000:
            for number in range(AT_ONCE):
                device.send(publish(topic.replace("{rid}", str(number)), b"", packet_id=number + 1))
            for _ in range(AT_ONCE):
                status, answer = await _next_reply(device)
            asked += AT_ONCE
    assert status == 429, (asked, status)
    assert "retry-after=" in answer["topic"]
    return f"429 with retry-after after {asked} requests (the allowance here is 6,000 a minute)"


async def _next_reply(device: Stranger) -> tuple[int, dict[str, Any]]:
    while (reply := await device.receive()).kind != PUBLISH:
        pass
    if reply.qos:
        device.send(puback(reply.packet_id))
    return int(reply.topic.split("/")[3]), {"topic": reply.topic}
