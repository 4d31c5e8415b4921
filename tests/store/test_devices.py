"""What the embedded hub keeps of its devices: twins, queues, presence, and when to judge its sessions again."""

from dataclasses import replace
from datetime import timedelta

import pytest

from provisiond.errors import CorruptRecord, InvalidArgument
from provisiond.model import CloudMessage, DevicePresence, DeviceTwin, Substatus
from provisiond.store import SqliteStore
from tests.store.damage import execute
from tests.store.records import AT, make_audit, make_enrollment, make_registration, make_write

TWIN = DeviceTwin(
    device_id="Pump-7", tags={"line": 4}, desired={"on": True}, reported={"rpm": [1, 2.5, None]}, updated_at=AT
)


def message(number=1, **changes):
    return replace(
        CloudMessage(
            message_id=f"m-{number}",
            payload=b"\x00\xff",
            properties={"key": "Fühler"},
            expires_at=AT + timedelta(hours=1),
        ),
        **changes,
    )


async def take(store, key="pump-7", *, now=AT, deliveries_max=10):
    return await store.take_turn(key, now=now, deliveries_max=deliveries_max)


# --- twins


async def test_a_twin_comes_back_as_it_was_written(store, path):
    assert await store.get_twin("pump-7") is None
    assert await store.change_twin("pump-7", lambda _: TWIN) == (None, TWIN)
    await store.close()
    async with await SqliteStore.open(path) as again:
        assert await again.get_twin("pump-7") == TWIN


async def test_a_change_is_made_of_what_is_there_and_tells_both(store):
    await store.change_twin("pump-7", lambda _: TWIN)
    before, after = await store.change_twin("pump-7", lambda twin: replace(twin, version=twin.version + 1))
    assert (before, after.version) == (TWIN, 2)


async def test_a_change_that_is_refused_leaves_the_twin_as_it_was(store):
    await store.change_twin("pump-7", lambda _: TWIN)

    def refuse(_):
        raise InvalidArgument("too large")

    with pytest.raises(InvalidArgument, match="too large"):
        await store.change_twin("pump-7", refuse)
    assert await store.get_twin("pump-7") == TWIN


async def test_a_damaged_twin_is_noticed(store, path):
    await store.change_twin("pump-7", lambda _: TWIN)
    execute(path, "UPDATE device_twin SET record = replace(record, '4', '5')")
    with pytest.raises(CorruptRecord):
        await store.get_twin("pump-7")
    assert any("device_twin" in line for line in await store.check())


async def move(store, **changes):
    await store.commit(make_write("Pump-7", version=2, hub="other", **changes))


@pytest.mark.parametrize(
    ("substatus", "twin"), [(Substatus.DEVICE_DATA_MIGRATED, TWIN), (Substatus.DEVICE_DATA_RESET, None)]
)
async def test_a_device_that_moves_keeps_its_twin_unless_it_is_to_start_anew(store, substatus, twin):
    await store.commit(make_write("Pump-7"))
    await store.change_twin("pump-7", lambda _: TWIN)
    await move(store, substatus=substatus)
    assert await store.get_twin("pump-7") == twin


async def test_a_device_that_was_reset_once_keeps_its_new_twin_where_it_is(store):
    await store.commit(make_write("Pump-7"))
    await move(store, substatus=Substatus.DEVICE_DATA_RESET)
    await store.change_twin("pump-7", lambda _: TWIN)
    await store.commit(make_write("Pump-7", version=3, hub="other", substatus=Substatus.DEVICE_DATA_RESET))
    assert await store.get_twin("pump-7") == TWIN


# --- who is who


async def test_a_device_is_found_by_its_device_id_whatever_its_case(store):
    await store.commit(make_write("Sensor-1", device_id="Pump-7"))
    assert await store.find_device("pump-7") == make_registration("Sensor-1", device_id="Pump-7")
    assert await store.find_device("sensor-1") is None


async def test_a_device_id_belongs_to_who_had_it_first(store):
    await store.commit(make_write("Sensor-1", device_id="Pump-7"))
    await store.commit(make_write("Pump-7"))
    assert (await store.find_device("pump-7")).registration_id == "Sensor-1"


async def test_what_the_hub_has_of_a_device_goes_with_its_registration(store):
    await store.commit(make_write("Pump-7"))
    await store.change_twin("pump-7", lambda _: TWIN)
    await store.queue_message("pump-7", message(), limit=50)
    await store.put_presence([DevicePresence(device_key="pump-7", connected=False, changed_at=AT, last_seen_at=AT)])
    await store.delete_registration("pump-7", if_match=None, audit=make_audit())
    assert await store.find_device("pump-7") is None
    assert await store.get_twin("pump-7") is None
    assert await take(store) is None
    assert await store.list_presence(["pump-7"]) == {}


async def test_what_the_hub_has_stays_while_another_registration_has_the_device_id(store):
    await store.commit(make_write("Pump-7"))
    await store.commit(make_write("Sensor-1", device_id="Pump-7"))
    await store.change_twin("pump-7", lambda _: TWIN)
    await store.delete_registration("sensor-1", if_match=None, audit=make_audit())
    assert await store.get_twin("pump-7") == TWIN


# --- messages


async def test_messages_are_delivered_in_order_until_they_are_removed(store):
    assert [await store.queue_message("pump-7", message(number), limit=50) for number in (1, 2)] == [1, 2]
    first = await take(store)
    assert (first.message_id, first.payload, first.properties, first.deliveries) == (
        "m-1",
        b"\x00\xff",
        {"key": "Fühler"},
        1,
    )
    assert (await take(store)).deliveries == 2
    await store.remove_message(first.sequence)
    assert (await take(store)).message_id == "m-2"
    assert await take(store, "pump-8") is None


async def test_a_full_queue_takes_no_more(store):
    assert [await store.queue_message("pump-7", message(number), limit=2) for number in (1, 2, 3)] == [1, 2, None]
    assert await store.queue_message("pump-8", message(), limit=2) == 1


async def test_a_message_is_not_delivered_after_its_time_or_again_and_again(store):
    await store.queue_message("pump-7", message(1, expires_at=AT), limit=50)
    await store.queue_message("pump-7", message(2), limit=50)
    await store.queue_message("pump-7", message(3), limit=50)
    taken = [(await take(store, deliveries_max=2)).message_id for _ in range(3)]
    assert taken == ["m-2", "m-2", "m-3"]


# --- presence


async def test_presence_is_replaced_and_reset(store):
    later = AT.replace(microsecond=0) + timedelta(minutes=1)
    first, second = (
        DevicePresence(
            device_key="pump-7",
            connected=True,
            changed_at=AT.replace(microsecond=0),
            last_seen_at=seen,
            remote_address="192.0.2.7",
        )
        for seen in (AT.replace(microsecond=0), later)
    )
    await store.put_presence([first])
    await store.put_presence([second])
    assert await store.list_presence(["pump-7", "pump-8"]) == {"pump-7": second}
    await store.reset_presence(later)
    assert await store.list_presence(["pump-7"]) == {"pump-7": replace(second, connected=False, changed_at=later)}


# --- access


async def test_every_change_of_what_sessions_rest_on_is_counted(store):
    counts = [await store.count_access_changes()]

    async def note():
        counts.append(await store.count_access_changes())

    await store.create_enrollment(make_enrollment("Pump-7"), make_audit("1"))
    await note()
    await store.update_enrollment(make_enrollment("Pump-7"), if_match=None, audit=make_audit("2"))
    await note()
    await store.delete_enrollment(make_enrollment().kind, "pump-7", if_match=None, audit=make_audit("3"))
    await note()
    await store.commit(make_write("Pump-7"))
    await note()
    assert counts[-1] == counts[-2]
    await store.delete_registration("pump-7", if_match=None, audit=make_audit("4"))
    await note()
    assert len(set(counts)) == 5
