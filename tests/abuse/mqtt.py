"""Abuse of MQTT: cases 7 to 20."""

import asyncio
import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from tests.abuse.site import REPLIES, Site, Stranger, case
from tests.broker import wire
from tests.broker.wire import packet, publish, subscribe, text

AT_ONCE_S = 1.0
TRIES = 10
HUGE = b"\x30\xff\xff\xff\x7f"
FIVE_BYTE_LENGTH = b"\x30\xff\xff\xff\xff\x01"
_CLIENT_TYPES = {1: 0, 4: 0, 5: 0, 6: 2, 7: 0, 8: 2, 10: 2, 12: 0, 14: 0}


async def _closed_before_connect(site: Site, data: bytes) -> float:
    return await _quickest(site.stranger, data)


async def _closed_after_connect(site: Site, data: bytes) -> float:
    return await _quickest(lambda: site.device("mqtt-abuser"), data)


async def _quickest(connect: Callable[[], AbstractAsyncContextManager[Stranger]], data: bytes) -> float:
    """How long it takes when this machine does nothing else: of several tries the quickest."""
    quickest = math.inf
    for _ in range(TRIES):
        async with connect() as stranger:
            stranger.send(data)
            quickest = min(quickest, await stranger.closed(AT_ONCE_S))
        if quickest <= AT_ONCE_S:
            break
    return quickest


async def _each(seconds: "asyncio.Future[list[float]]", what: str) -> str:
    taken = await seconds
    assert max(taken) <= AT_ONCE_S, f"one took {max(taken):.2f} s"
    return f"{len(taken)} {what}, each closed within {max(taken):.2f} s"


@case(7, "any packet before CONNECT, with a megabyte behind it")
async def no_connect(site: Site) -> str:
    first = [packet(kind << 4 | flags, bytes(60_000)) * 16 for kind, flags in _CLIENT_TYPES.items() if kind != 1]
    return await _each(asyncio.gather(*(_closed_before_connect(site, data) for data in first)), "packet types")


@case(8, "a second CONNECT")
async def second_connect(site: Site) -> str:
    return f"closed after {await _closed_after_connect(site, wire.connect('mqtt-abuser')):.2f} s"


@case(9, "a remaining length of 256 MB")
async def huge(site: Site) -> str:
    before_mib = site.memory_mib
    seconds = asyncio.gather(
        _closed_before_connect(site, b"\x10" + HUGE[1:] + bytes(1 << 20)),
        _closed_after_connect(site, HUGE + bytes(1 << 20)),
    )
    answer = await _each(seconds, "connections")
    assert site.memory_mib - before_mib < 16
    return answer


@case(10, "a remaining length of five bytes")
async def five_bytes(site: Site) -> str:
    seconds = asyncio.gather(
        _closed_before_connect(site, b"\x10" + FIVE_BYTE_LENGTH[1:]), _closed_after_connect(site, FIVE_BYTE_LENGTH)
    )
    return await _each(seconds, "connections")


@case(11, "another protocol name or level")
async def other_protocol(site: Site) -> str:
    answers = []
    for name, level in (("MQIsdp", 3), ("MQTT", 3), ("MQTT", 6), ("HTTP", 4), ("", 4)):
        async with site.stranger() as stranger:
            stranger.send(wire.connect("old", name=name, level=level))
            answers.append((await stranger.receive()).body[1])
            await stranger.closed(AT_ONCE_S)
    assert answers == [1] * 5
    return "CONNACK 1, then closed"


@case(12, "reserved flags, QoS 3, packet id 0, U+0000, bad UTF-8, wildcards")
async def malformed(site: Site) -> str:
    offences = [
        packet(0x32 | 0x06, text("$dps/registrations/PUT/x") + b"\x00\x01"),
        publish(packet_id=0),
        publish("$dps/registrations/PUT/\0"),
        publish(b"$dps/registrations/PUT/\xff\xfe"),
        publish("$dps/registrations/#"),
        publish("$dps/registrations/+/x"),
        publish(""),
        publish(flags=8, qos=0),
        subscribe(REPLIES, qos=3),
        subscribe(REPLIES, packet_id=0),
        subscribe(),
        subscribe(""),
        subscribe(b"\xc0\x80"),
        packet(0x80, b"\x00\x01" + text(REPLIES) + b"\x01"),
        packet(0xC0, b"x"),
        packet(0x40, b"\x00"),
        packet(0x40, b"\x00\x00"),
        publish(qos=2),
    ]
    return await _each(asyncio.gather(*(_closed_after_connect(site, data) for data in offences)), "offences")


@case(14, "another client takes a device's client id")
async def take_over(site: Site) -> str:
    async with site.device("taken") as device:
        async with site.device("taken", password=b"SharedAccessSignature sr=x&sig=x&se=1") as thief:
            status, _ = await thief.register()
            assert status == 401
        status, _ = await device.register()
    assert status == 200
    return "the thief hears 401, the device stays and is assigned"


@case(15, "SUBSCRIBE to everything and to others' topics")
async def subscribe_to_all(site: Site) -> str:
    foreign = [
        "#",
        "+/#",
        "$SYS/#",
        f"$share/g/{REPLIES}",
        "$dps/#",
        "provisiond/v1/other/res/#",
        "devices/other/messages/devicebound/#",
        "provisiond/v1/_events/#",
    ]
    async with site.device("listener") as spy, site.device("spoken-to") as device:
        spy.send(subscribe(*foreign))
        codes = (await spy.receive()).body[2:]
        assert codes == b"\x80" * len(foreign), codes
        await device.register()
        spy.send(wire.PINGREQ)
        assert (await spy.receive()).kind == wire.PINGRESP
    return f"{len(foreign)} times 0x80, and nothing was delivered"


@case(16, "10,000 filters, 65,000 levels")
async def many_filters(site: Site) -> str:
    many = packet(0x82, b"\x00\x01" + (text("a") + b"\x01") * 10_000)
    deep = subscribe("/".join(["a"] * 32_000))
    deeper = publish("$dps/registrations/" + "/" * 65_000)
    return await _each(asyncio.gather(*(_closed_after_connect(site, each) for each in (many, deep, deeper))), "packets")


@case(17, "retained messages and wills for others")
async def retained(site: Site) -> str:
    async with site.device("willing", will=("$dps/registrations/res/200/?$rid=1", b"fake")) as device:
        device.send(publish("$dps/registrations/PUT/iotdps-register/?$rid=9", b"{}", flags=1))
        await device.receive()
    async with site.device("later") as later:
        later.send(wire.PINGREQ)
        assert (await later.receive()).kind == wire.PINGRESP
    return "nothing reaches who comes later"


@case(18, "requests whose replies are never acknowledged, QoS 2")
async def unacknowledged(site: Site) -> str:
    async with site.device("hoarder") as device:
        for number in range(1, 201):
            device.send(publish(f"$dps/registrations/PUT/iotdps-register/?$rid={number}", packet_id=number))
        await device.closed(10)
    qos_2 = await _closed_after_connect(site, publish(qos=2))
    return f"closed at the limit of unacknowledged messages; QoS 2 closed after {qos_2:.2f} s"


@case(19, "a client that never reads")
async def never_reads(site: Site) -> str:
    before_mib = site.memory_mib
    async with site.device("deaf", receive_buffer=4096) as device:
        device.send(subscribe(REPLIES, qos=0))
        await device.receive()
        device.writer.transport.pause_reading()
        for number in range(20_000):
            device.send(publish(f"$dps/registrations/GET/nothing/?$rid={number:0250d}", b"", qos=0))
            await device.drain()
            if device.writer.transport.is_closing():
                break
        device.writer.transport.resume_reading()
        await device.closed(90)
    grown = site.memory_mib - before_mib
    assert grown < 16, f"{grown:.0f} MiB"
    return f"cut off after {number} requests; {max(grown, 0):.1f} MiB more"


@case(20, "keep-alive 0")
async def keep_alive(site: Site) -> str:
    async with site.device("for-ever", keep_alive=0) as device:
        seconds = await device.closed(4.5)
    return f"closed after {seconds:.1f} s: the ceiling, here 3 s, times one and a half"
