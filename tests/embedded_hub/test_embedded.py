"""Devices at the embedded hub, over real sockets and real TLS."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from provisiond.attestation.ek_certificate import EkDenyList
from provisiond.attestation.symmetric_key import derive_device_key, generate_sas_token
from provisiond.attestation.tpm import endorsement_key_hash
from provisiond.model import EnrollmentKind, InitialTwin, Retirement, Substatus, TpmMaterial
from provisiond.protocols import iothub, operator
from provisiond.protocols.operator import Disconnect, GetTwin, InvokeMethod, SendMessage, TwinProperties, UpdateTwin
from provisiond.registration.attest import AttestationPolicy
from provisiond.registration.tpm_claim import TpmPolicy
from tests.certificates import make_ca, make_leaf
from tests.embedded_hub.gateway import body_of, make_audit
from tests.enrollment_factory import PRIMARY_KEY, SECONDARY_KEY, certificates, group, individual
from tests.noticing import until_none

ALL_EVENTS = "devices/+/messages/events/#"
DEVICEBOUND = "devices/Dev-1/messages/devicebound/#"
TWIN_REPLIES = "$iothub/twin/res/#"
DESIRED = "$iothub/twin/PATCH/properties/desired/#"
METHODS = "$iothub/methods/POST/#"
HUB_KEY = b"h" * 32


@pytest.fixture
async def enrolled(gateway):
    await gateway.enroll(individual("Dev-1", initial_twin=InitialTwin(tags={"line": 4}, desired={"interval_s": 10})))
    return gateway


def dev_1(gateway, **options):
    return gateway.device("Dev-1", **{"key": PRIMARY_KEY, **options})


# --- coming back


async def test_a_device_that_connects_again_is_still_subscribed_as_the_sdks_take_for_granted(make_gateway):
    async with make_gateway() as gateway:
        await gateway.enroll(individual("Dev-1"))
        async with dev_1(gateway) as device:
            await device.subscribe([(DEVICEBOUND, 1), (DESIRED, 0), (METHODS, 0)])
        async with dev_1(gateway) as device, gateway.operator() as operator_:  # with another token
            await operator_.request(SendMessage(device_id="Dev-1", payload="hello"))
            assert (await device.next_message()).payload == b"hello"
            await device.unsubscribe(DESIRED)
    async with make_gateway() as gateway, dev_1(gateway) as device, gateway.operator() as operator_:
        await operator_.request(UpdateTwin(device_id="Dev-1", properties=TwinProperties(desired={"a": 1})))
        asked = asyncio.create_task(operator_.request(InvokeMethod(device_id="Dev-1", method_name="m"), rid="r2"))
        call = iothub.parse_hub_message("Dev-1", (await device.next_message()).topic)
        await device.say(iothub.method_answer(call.rid, 200, None))
        assert (await asked)[0] == 200


async def test_what_waited_is_delivered_to_a_device_that_comes_back_without_a_word(enrolled):
    async with dev_1(enrolled) as device:
        await device.subscribe(DEVICEBOUND, qos=1)
    async with enrolled.operator() as operator_:
        await operator_.request(SendMessage(device_id="Dev-1", payload="waited"))
    async with dev_1(enrolled) as device:
        assert (await device.next_message()).payload == b"waited"


async def test_a_clean_session_begins_with_nothing_and_leaves_nothing(enrolled):
    async with dev_1(enrolled) as device:
        await device.subscribe([(DEVICEBOUND, 1), (METHODS, 0)])
    async with dev_1(enrolled, clean_session=True) as device, enrolled.operator() as operator_:
        await device.subscribe(TWIN_REPLIES)
        status, body = await operator_.request(InvokeMethod(device_id="Dev-1", method_name="m"))
        assert (status, body["error"]["errorCode"]) == (404, 404103)
    assert await enrolled.store.get_subscriptions("dev-1") == {}
    async with dev_1(enrolled), enrolled.operator() as operator_:
        assert (await operator_.request(InvokeMethod(device_id="Dev-1", method_name="m")))[0] == 404


async def test_only_what_a_device_may_hear_is_resumed_and_it_goes_with_the_device(enrolled):
    await enrolled.store.put_subscriptions("dev-1", {"#": 1, "devices/Dev-2/messages/devicebound/#": 1, METHODS: 0})
    async with dev_1(enrolled) as device, enrolled.operator() as operator_:
        asked = asyncio.create_task(operator_.request(InvokeMethod(device_id="Dev-1", method_name="m")))
        assert (await device.next_message()).topic.startswith("$iothub/methods/POST/m/")
        await device.say(iothub.method_answer("none", 200, None))
        asked.cancel()
    await enrolled.store.delete_registration("dev-1", if_match=None, audit=make_audit())
    assert await enrolled.store.get_subscriptions("dev-1") == {}


# --- who gets in


async def test_devices_of_every_kind_connect_with_what_they_were_enrolled_with(gateway):
    ca, pinned = make_ca("Line 4"), make_leaf("Pinned-1")
    tpm = TpmMaterial(endorsement_key=b"ek" * 50)
    await gateway.enroll(individual("Keyed-1"))
    await gateway.enroll(group("keys"), "Keyed-2")
    await gateway.enroll(individual("Pinned-1", certificates(pinned)))
    await gateway.enroll(group("line-4", certificates(ca)), "Issued-1")
    await gateway.enroll(individual("Tpm-1", tpm), hub_key=HUB_KEY, endorsement_key=tpm.endorsement_key)
    async with (
        gateway.device("Keyed-1", key=SECONDARY_KEY),
        gateway.device("Keyed-2", key=derive_device_key(PRIMARY_KEY, "Keyed-2")),
        gateway.device("Pinned-1", certificate=pinned),
        gateway.device("Issued-1", certificate=make_leaf("Issued-1", ca)),
        gateway.device("Tpm-1", key=HUB_KEY),
    ):
        assert gateway.hub.connected == 5


async def test_everybody_else_hears_the_same_refusal(enrolled):
    gateway = enrolled
    await gateway.enroll(individual("Disabled-1", enabled=False))
    await gateway.enroll(individual("Elsewhere-1"), hub="mosquitto-7")
    assert await gateway.is_refused("Dev-1", key=b"wrong" * 8)
    assert await gateway.is_refused("Dev-1")
    assert await gateway.is_refused("Dev-1", token="not a token")
    assert await gateway.is_refused("Dev-1", certificate=make_leaf("Dev-1"))
    assert await gateway.is_refused("Unknown-1", key=PRIMARY_KEY)
    assert await gateway.is_refused("Disabled-1", key=PRIMARY_KEY)
    assert await gateway.is_refused("Elsewhere-1", key=PRIMARY_KEY)
    assert len(gateway.observer.refused) == 7


async def move_away(gateway, *, seconds=3600, grace_s=3600):
    """The device was assigned to a hub of somebody else; what it has here stays for a while."""
    due_at = datetime.now(UTC) + timedelta(seconds=seconds)
    retire = Retirement(hub="one", device_id="Dev-1", registration_id="Dev-1", due_at=due_at, grace_s=grace_s)
    await gateway.store.put_retirement(retire)
    await gateway.register(individual("Dev-1"), "Dev-1", hub="mosquitto-7")


async def test_a_device_that_has_moved_away_stays_until_it_was_seen_at_its_new_hub(enrolled, make_gateway):
    await move_away(enrolled)
    async with dev_1(enrolled) as device, enrolled.operator(ALL_EVENTS) as listener:
        await device.publish("devices/Dev-1/messages/events/", b"still here", qos=1)
        assert (await listener.next_message()).payload == b"still here"
        await enrolled.store.note_arrivals("mosquitto-7", ["dev-1"], datetime.now(UTC))
        await device.gone()
    assert await enrolled.is_refused("Dev-1", key=PRIMARY_KEY)
    await until_none(lambda: enrolled.store.departures_of("dev-1"))
    (record,) = [one for _, one in await enrolled.store.list_audit(limit=100) if one.event == "retire"]
    assert ", seen there at " in record.reason


@pytest.mark.parametrize("moves_first", [True, False])
async def test_who_has_moved_and_arrived_between_two_looks_is_let_go_of_as_well(make_gateway, moves_first):
    async with make_gateway(look_s=3600) as gateway:
        await gateway.enroll(individual("Dev-1"))
        if moves_first:
            await move_away(gateway)
        async with dev_1(gateway) as device:
            if not moves_first:
                await move_away(gateway)
            await gateway.store.note_arrivals("mosquitto-7", ["dev-1"], datetime.now(UTC))
            await gateway.hub._let_go_of_who_has_left()
            await device.gone()


async def test_who_was_let_go_of_while_it_was_let_in_is_looked_at_again(make_gateway):
    async with make_gateway(look_s=3600) as gateway:
        await gateway.enroll(individual("Dev-1"))
        await move_away(gateway)
        await gateway.hub._cut_whose_access_ended()  # what has changed so far is known
        async with dev_1(gateway) as device:
            for one in await gateway.store.departures_of("dev-1"):
                await gateway.store.finish_retirement(one, make_audit())
            await gateway.hub._cut_whose_access_ended()
            await device.gone()


async def test_a_session_from_before_the_move_ends_when_the_time_is_up(enrolled):
    async with dev_1(enrolled) as device:
        await move_away(enrolled, seconds=1)
        await device.gone()
    assert await enrolled.is_refused("Dev-1", key=PRIMARY_KEY)


async def test_a_device_that_has_moved_away_is_still_let_in_after_a_restart(make_gateway):
    async with make_gateway() as gateway:
        await gateway.enroll(individual("Dev-1"))
        await move_away(gateway)
    async with make_gateway() as gateway, dev_1(gateway) as device:
        await gateway.disable("dev-1")
        await device.gone()


async def test_a_device_that_comes_from_another_hub_has_left_it_once_it_has_connected(enrolled):
    due_at = datetime.now(UTC) + timedelta(hours=1)
    await enrolled.store.put_retirement(
        Retirement(hub="mosquitto-7", device_id="Dev-1", registration_id="Dev-1", due_at=due_at, grace_s=3600)
    )
    assert await enrolled.is_refused("Dev-1", key=b"wrong" * 8)
    async with dev_1(enrolled):
        async with asyncio.timeout(60):
            while True:
                if await enrolled.store.list_retirements("mosquitto-7", due_by=datetime.now(UTC), limit=1):
                    break
                await asyncio.sleep(0.01)  # another task writes it


async def test_the_newer_connection_of_a_device_takes_over_with_its_own_credentials_only(enrolled):
    async with dev_1(enrolled) as older:
        assert await enrolled.is_refused("Dev-1", key=b"wrong" * 8)
        assert enrolled.hub.connected == 1
        async with dev_1(enrolled) as newer:
            await older.gone()
            await newer.subscribe(TWIN_REPLIES)
            assert "/res/200/" in (await newer.ask(iothub.twin_get("1"))).topic


async def test_a_device_speaks_and_listens_only_for_itself(enrolled):
    async with dev_1(enrolled) as device:
        for topic_filter in ("#", "devices/+/messages/events/#", "devices/Dev-2/messages/devicebound/#"):
            assert [code.value for code in await device.subscribe(topic_filter)] == [128]
        await device.publish("devices/Dev-2/messages/events/", b"", qos=0)
        await device.gone()


# --- telemetry


async def test_events_are_handed_to_who_listens_with_their_properties(enrolled):
    topic = "devices/Dev-1/messages/events/%24.ct=application%2Fjson&line=4%264"
    async with (
        enrolled.operator(ALL_EVENTS) as everything,
        enrolled.operator("devices/Dev-1/messages/events/#", client_id="operator-2", qos=0) as one,
        enrolled.operator("devices/Dev-2/messages/events/#", client_id="operator-3") as another,
        dev_1(enrolled) as device,
    ):
        await device.publish(topic, b'{"t":21.5}', qos=1)
        heard = await everything.next_message()
        assert (heard.topic, heard.payload, heard.qos) == (topic, b'{"t":21.5}', 1)
        assert iothub.parse("Dev-1", heard.topic).properties == {"$.ct": "application/json", "line": "4&4"}
        assert (await one.next_message()).qos == 0
        assert await another.request(Disconnect(device_id="Dev-2")) == (200, {"disconnected": False})


async def test_events_are_heard_under_the_id_of_the_registration_however_the_device_spells_it(enrolled):
    async with enrolled.operator(ALL_EVENTS) as listener, enrolled.device("DEV-1", key=PRIMARY_KEY) as device:
        await device.publish("devices/DEV-1/messages/events/a=1", b"x", qos=1)
        assert (await listener.next_message()).topic == "devices/Dev-1/messages/events/a=1"


async def test_an_event_is_acknowledged_when_nobody_listens(enrolled):
    async with dev_1(enrolled) as device:
        await device.publish("devices/Dev-1/messages/events/", b"x" * 200_000, qos=1)


async def test_a_device_whose_event_is_too_large_is_cut_off(enrolled):
    async with dev_1(enrolled) as device:
        await device.publish("devices/Dev-1/messages/events/", b"x" * 262_144, qos=0)
        await device.gone()


async def test_a_device_that_says_what_no_device_says_is_cut_off(enrolled):
    async with dev_1(enrolled) as device:
        await device.publish("$iothub/twin/GET/nonsense", b"", qos=0)
        await device.gone()


# --- twins


async def test_the_twin_starts_with_what_the_enrollment_says(enrolled):
    async with dev_1(enrolled) as device:
        await device.subscribe(TWIN_REPLIES)
        reply = await device.ask(iothub.twin_get("7"))
    assert reply.topic == "$iothub/twin/res/200/?$rid=7"
    assert body_of(reply) == {"desired": {"interval_s": 10, "$version": 1}, "reported": {"$version": 1}}


async def test_reported_properties_outlive_the_gateway(make_gateway):
    async with make_gateway() as gateway:
        await gateway.enroll(individual("Dev-1"))
        async with dev_1(gateway) as device:
            await device.subscribe(TWIN_REPLIES)
            reply = await device.ask(iothub.twin_report("1", {"rpm": 900, "net": {"ip": "10.0.0.7"}}))
            assert reply.topic == "$iothub/twin/res/204/?$rid=1&$version=2"
            await device.ask(iothub.twin_report("2", {"net": None}))
    async with make_gateway() as gateway, gateway.operator() as operator_:
        status, twin = await operator_.request(GetTwin(device_id="Dev-1"))
        assert (status, twin["properties"]["reported"]) == (200, {"rpm": 900, "$version": 3})


@pytest.mark.parametrize(
    ("payload", "suffix", "status"),
    [(b"[]", "", 400), (b"{", "", 400), (b'{"a b":1}', "", 400), (b"{}", "&$version=9", 412)],
)
async def test_a_report_that_cannot_be_is_refused_and_changes_nothing(enrolled, payload, suffix, status):
    async with dev_1(enrolled) as device:
        await device.subscribe(TWIN_REPLIES)
        await device.publish(f"$iothub/twin/PATCH/properties/reported/?$rid=1{suffix}", payload, qos=0)
        refusal = await device.next_message()
        assert refusal.topic == f"$iothub/twin/res/{status}/?$rid=1"
        assert body_of(refusal)["message"]
        assert body_of(await device.ask(iothub.twin_get("2")))["reported"] == {"$version": 1}


async def test_a_device_hears_at_once_what_changed_of_its_desired_properties(enrolled):
    async with enrolled.operator() as operator_, dev_1(enrolled) as device:
        await device.subscribe(DESIRED)
        status, twin = await operator_.request(
            UpdateTwin(device_id="Dev-1", properties=TwinProperties(desired={"interval_s": None, "on": True}))
        )
        push = await device.next_message()
        assert (status, twin["properties"]["desired"]) == (200, {"on": True, "$version": 2})
        assert push.topic == "$iothub/twin/PATCH/properties/desired/?$version=2"
        assert body_of(push) == {"interval_s": None, "on": True, "$version": 2}


async def test_a_twin_that_has_changed_is_not_overwritten(enrolled):
    async with enrolled.operator() as operator_:
        _, twin = await operator_.request(GetTwin(device_id="Dev-1"))
        update = UpdateTwin(device_id="Dev-1", tags={"hall": "B"}, etag=twin["etag"])
        status, changed = await operator_.request(update)
        assert (status, changed["tags"]) == (200, {"line": 4, "hall": "B"})
        assert (await operator_.request(update))[0] == 412


@pytest.mark.parametrize(
    ("substatus", "tags", "reported"),
    [
        (Substatus.DEVICE_DATA_MIGRATED, {"line": 4, "hall": "B"}, {"rpm": 1, "$version": 2}),
        (Substatus.DEVICE_DATA_RESET, {"line": 4}, {"$version": 1}),
    ],
)
async def test_a_device_that_moves_to_another_hub_here_brings_its_twin_or_starts_anew(
    enrolled, substatus, tags, reported
):
    async with enrolled.operator() as operator_:
        async with dev_1(enrolled) as device:
            await device.subscribe(TWIN_REPLIES)
            await device.ask(iothub.twin_report("1", {"rpm": 1}))
        await operator_.request(UpdateTwin(device_id="Dev-1", tags={"hall": "B"}))
        enrollment = await enrolled.store.get_enrollment(EnrollmentKind.INDIVIDUAL, "dev-1")
        await enrolled.register(enrollment, "Dev-1", hub="two", assigned_host="two.test", substatus=substatus)
        async with dev_1(enrolled, host="two.test"):
            _, twin = await operator_.request(GetTwin(device_id="Dev-1"))
    assert (twin["tags"], twin["properties"]["reported"]) == (tags, reported)


# --- cloud-to-device messages


def messages_waiting(connection):
    return connection.execute("SELECT count(*) FROM device_message").fetchone()[0]


async def test_a_message_waits_for_its_device_over_a_restart(make_gateway):
    async with make_gateway() as gateway:
        await gateway.enroll(individual("Dev-1"))
        async with gateway.operator() as operator_:
            for number in (1, 2):
                status, body = await operator_.request(
                    SendMessage(
                        device_id="Dev-1",
                        payload=f"hello {number}",
                        message_id=f"m-{number}",
                        content_type="text/plain",
                        properties={"key": "a b"},
                    )
                )
                assert (status, body) == (200, {"messageId": f"m-{number}", "waiting": number, "connected": False})
    async with make_gateway() as gateway, dev_1(gateway) as device:
        await device.subscribe(DEVICEBOUND, qos=1)
        first, second = await device.next_message(), await device.next_message()
        properties = iothub.parse_hub_message("Dev-1", first.topic).properties
        assert (properties["$.mid"], properties["$.ct"], properties["key"]) == ("m-1", "text/plain", "a b")
        assert (first.payload, first.qos, second.payload) == (b"hello 1", 1, b"hello 2")
        await until_none(lambda: gateway.store.read(messages_waiting))  # the acknowledgement is on its way
    async with make_gateway() as gateway, gateway.operator() as operator_:
        _, body = await operator_.request(SendMessage(device_id="Dev-1", payload="hello 3"))
        assert body["waiting"] == 1


async def test_a_message_reaches_a_connected_device_at_once(enrolled):
    async with enrolled.operator() as operator_, dev_1(enrolled) as device:
        await device.subscribe(DEVICEBOUND, qos=1)
        for number in range(3):
            status, body = await operator_.request(SendMessage(device_id="Dev-1", payload=f"{number}"))
            assert (status, body["connected"]) == (200, True)
            assert (await device.next_message()).payload == b"%d" % number


async def test_a_queue_has_an_end(enrolled):
    async with enrolled.operator() as operator_:
        message = SendMessage(device_id="Dev-1", payload="x")
        statuses = [(await operator_.request(message))[0] for _ in range(51)]
    assert statuses == [200] * 50 + [403]


# --- methods


async def test_a_method_is_called_and_answered(enrolled):
    async with enrolled.operator() as operator_, dev_1(enrolled) as device:
        await device.subscribe(METHODS)
        asked = asyncio.create_task(
            operator_.request(InvokeMethod(device_id="Dev-1", method_name="re-boot", payload={"in": 5}))
        )
        call = await device.next_message()
        parsed = iothub.parse_hub_message("Dev-1", call.topic)
        assert (parsed.name, body_of(call)) == ("re-boot", {"in": 5})
        await device.say(iothub.method_answer("another", 500, None))
        await device.say(iothub.method_answer(parsed.rid, 202, {"ok": True}))
        assert await asked == (200, {"result": {"status": 202, "payload": {"ok": True}}})


async def test_an_answer_to_a_method_has_a_limit_as_well(enrolled):
    async with dev_1(enrolled) as device, enrolled.operator() as operator_:
        await device.subscribe(METHODS)
        asked = asyncio.create_task(operator_.request(InvokeMethod(device_id="Dev-1", method_name="dump")))
        call = iothub.parse_hub_message("Dev-1", (await device.next_message()).topic)
        await device.say(iothub.method_answer(call.rid, 200, "x" * 131_071))
        status, body = await asked
    assert (status, body["error"]["errorCode"]) == (413, 413001)


async def test_a_method_waits_for_a_device_that_is_about_to_connect(enrolled):
    async with enrolled.operator() as operator_:
        call = InvokeMethod(device_id="Dev-1", method_name="reboot", connect_timeout_in_seconds=60)
        asked = asyncio.create_task(operator_.request(call))
        async with dev_1(enrolled) as device:
            await device.subscribe(METHODS)
            rid = iothub.parse_hub_message("Dev-1", (await device.next_message()).topic).rid
            await device.publish(f"$iothub/methods/res/200/?$rid={rid}", b"not json", qos=0)
            assert await asked == (200, {"result": {"status": 200, "payload": "not json"}})


async def test_a_method_that_nobody_answers_says_why(enrolled):
    call = InvokeMethod(device_id="Dev-1", method_name="reboot", response_timeout_in_seconds=1)
    async with enrolled.operator() as operator_:
        status, body = await operator_.request(call)
        assert (status, body["error"]["errorCode"]) == (404, 404103)
        async with dev_1(enrolled) as device:
            assert (await operator_.request(call))[1]["error"]["errorCode"] == 404103
            await device.subscribe(METHODS)
            assert (await operator_.request(call))[1]["error"]["errorCode"] == 504101
            asked = asyncio.create_task(operator_.request(call.model_copy(update={"response_timeout_in_seconds": 60})))
            for _ in range(2):
                await device.next_message()
        assert (await asked)[1]["error"]["errorCode"] == 404103


# --- revocation


async def test_disabling_an_enrollment_cuts_its_live_session_whoever_does_it(enrolled):
    async with dev_1(enrolled) as device:
        await enrolled.disable("dev-1")
        await device.gone()
    assert await enrolled.is_refused("Dev-1", key=PRIMARY_KEY)


async def test_disabling_a_group_cuts_its_devices_and_no_others(enrolled):
    await enrolled.enroll(group("keys"), "Keyed-2")
    async with (
        dev_1(enrolled) as other,
        enrolled.device("Keyed-2", key=derive_device_key(PRIMARY_KEY, "Keyed-2")) as device,
    ):
        await enrolled.disable("keys", EnrollmentKind.GROUP)
        await device.gone()
        await other.subscribe(TWIN_REPLIES)
        assert "/res/200/" in (await other.ask(iothub.twin_get("1"))).topic


async def test_deleting_the_enrollment_or_the_registration_cuts_the_session(enrolled):
    async with dev_1(enrolled) as device:
        await enrolled.store.delete_registration("dev-1", if_match=None, audit=make_audit())
        await device.gone()
    await enrolled.enroll(individual("Dev-2"))
    async with enrolled.device("Dev-2", key=PRIMARY_KEY) as device:
        await enrolled.store.delete_enrollment(EnrollmentKind.INDIVIDUAL, "dev-2", if_match=None, audit=make_audit())
        await device.gone()


async def test_a_tpm_on_the_deny_list_is_cut_off_at_the_reload_and_nobody_else(enrolled):
    ek = b"ek" * 50
    keys = {"hub_key": HUB_KEY, "endorsement_key": ek, "endorsement_key_hash": endorsement_key_hash(ek)}
    await enrolled.enroll(individual("Tpm-1", TpmMaterial(endorsement_key=ek)), **keys)
    policy = AttestationPolicy(id_scope="0ne0TEST")
    denied = EkDenyList(endorsement_key_hashes=frozenset({endorsement_key_hash(ek)}))
    async with dev_1(enrolled) as other, enrolled.device("Tpm-1", key=HUB_KEY) as device:
        enrolled.hub.reload(replace(policy, tpm=TpmPolicy(deny=denied)))
        await device.gone()
        await other.subscribe(TWIN_REPLIES)
        assert "/res/200/" in (await other.ask(iothub.twin_get("1"))).topic
    assert await enrolled.is_refused("Tpm-1", key=HUB_KEY)
    enrolled.hub.reload(policy)
    async with enrolled.device("Tpm-1", key=HUB_KEY):
        pass


async def test_an_operator_cuts_a_device_off(enrolled):
    async with enrolled.operator() as operator_, dev_1(enrolled) as device:
        assert await operator_.request(Disconnect(device_id="Dev-1")) == (200, {"disconnected": True})
        await device.gone()


async def test_a_session_ends_with_its_token(enrolled):
    clock_skew_s = 120
    expiry = datetime.now(UTC) - timedelta(seconds=clock_skew_s - 2)
    token = generate_sas_token(resource="one.test/devices/Dev-1", key=PRIMARY_KEY, expiry=expiry)
    async with enrolled.device("Dev-1", token=token) as device:
        await device.gone()


# --- presence and events


async def test_who_is_connected_and_was_last_seen_when_is_written_down(enrolled):
    async with enrolled.operator(f"{operator.EVENTS_PREFIX}#") as listener:
        async with dev_1(enrolled):
            connected = await listener.next_message()
            await enrolled.presence("dev-1", connected=True)
        went = await listener.next_message()
        assert [body_of(event)["event"] for event in (connected, went)] == ["connected", "disconnected"]
        assert connected.topic == "provisiond/v1/_events/device/Dev-1"
        await enrolled.presence("dev-1", connected=False)


async def test_after_a_restart_nobody_is_connected(make_gateway):
    async with make_gateway() as gateway:
        await gateway.enroll(individual("Dev-1"))
        async with dev_1(gateway):
            pass
    async with make_gateway() as gateway:
        presence = (await gateway.store.list_presence(["dev-1"]))["dev-1"]
        assert not presence.connected
        assert presence.remote_address == "127.0.0.1"
