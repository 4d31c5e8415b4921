"""The queues and states of hubs."""

from datetime import timedelta

import pytest

from provisiond.errors import VersionConflict
from provisiond.model import RegistrationStatus, Retirement, RetirementAction
from provisiond.ports import FactsQuery, Write
from tests.store.records import AT, make_audit, make_registration, make_write

SOON = AT.replace(microsecond=0)
LATE = SOON + timedelta(days=1)


def retirement(device_id="d", hub="old", **changes):
    return Retirement(**({"hub": hub, "device_id": device_id, "registration_id": device_id, "due_at": SOON} | changes))


async def due(store, hub="old", by=LATE, **options):
    return [found.device_id for found in await store.list_retirements(hub, due_by=by, **({"limit": 10} | options))]


async def test_what_is_to_go_is_written_with_the_decision(store):
    write = make_write("d", hub="new")
    await store.commit(Write(registration=write.registration, audit=write.audit, retire=retirement()))
    assert await due(store) == ["d"]


async def test_a_decision_that_loses_its_race_retires_nothing(store):
    await store.commit(make_write("d"))
    with pytest.raises(VersionConflict):
        await store.commit(Write(registration=make_registration("d"), retire=retirement()))
    assert await due(store) == []


@pytest.mark.parametrize("status", [RegistrationStatus.ASSIGNED, RegistrationStatus.ASSIGNING])
async def test_a_device_that_comes_back_voids_its_retirement_and_no_other(store, status):
    for one in (retirement("d"), retirement("d", hub="elsewhere"), retirement("other")):
        await store.put_retirement(one)
    await store.commit(make_write("d", hub="old", status=status))
    assert await due(store) == ["other"]
    assert await due(store, "elsewhere") == ["d"]


async def test_a_disabled_device_voids_nothing(store):
    await store.put_retirement(retirement("d", action=RetirementAction.DISABLE))
    await store.commit(make_write("d", hub="old", status=RegistrationStatus.DISABLED))
    assert await due(store) == ["d"]


async def test_only_what_is_due_is_listed_page_by_page(store):
    for name in "cab":
        await store.put_retirement(retirement(name))
    await store.put_retirement(retirement("later", due_at=LATE))
    assert await due(store, by=SOON, limit=2) == ["a", "b"]
    assert await due(store, by=SOON, after_device="b") == ["c"]
    assert await due(store, by=SOON - timedelta(seconds=1)) == []


async def test_what_is_done_is_forgotten_once_with_its_audit_record(store):
    await store.put_retirement(retirement())
    assert await store.finish_retirement(retirement(), make_audit("t-1"))
    assert await store.get_audit("t-1") is not None
    assert not await store.finish_retirement(retirement(), make_audit("t-2"))


async def test_an_order_that_was_changed_meanwhile_is_not_done(store):
    await store.put_retirement(retirement(due_at=LATE))
    assert not await store.finish_retirement(retirement(), make_audit("t-1"))
    assert await due(store) == ["d"]


async def test_everything_of_a_registration_can_be_made_to_go_now(store):
    await store.put_retirement(retirement("D-1", due_at=LATE))
    await store.put_retirement(retirement("d-2", due_at=LATE))
    await store.expedite_retirements("d-1", SOON)
    assert await due(store, by=SOON) == ["D-1"]


# --- devices that move


def moving(device_id="d", **changes):
    return retirement(device_id, **{"due_at": LATE, "grace_s": 3600, "reason": "moved to new"} | changes)


async def at_new(store, device_id="d", status=RegistrationStatus.ASSIGNED, **options):
    await store.commit(Write(registration=make_registration(device_id, hub="new", status=status), **options))


async def test_what_a_device_has_left_goes_once_it_was_seen_at_its_new_hub(store):
    await store.put_retirement(moving("D"))
    await store.put_retirement(moving("other"))
    await at_new(store, "D")
    await at_new(store, "other")
    assert {one.device_id for one in await store.awaited_arrivals("new", limit=10)} == {"D", "other"}
    assert await store.note_arrivals("new", ["d"], SOON) == 1
    (left,) = await store.list_retirements("old", due_by=SOON, limit=10)
    assert (left.device_id, left.grace_s) == ("D", 0)
    assert left.reason == f"moved to new, seen there at {SOON:%Y-%m-%dT%H:%M:%SZ}"
    assert [one.device_id for one in await store.awaited_arrivals("new", limit=10)] == ["other"]


@pytest.mark.parametrize(
    ("status", "hub"), [(RegistrationStatus.ASSIGNING, "new"), (RegistrationStatus.ASSIGNED, "elsewhere")]
)
async def test_only_where_a_device_is_it_can_be_seen(store, status, hub):
    await store.put_retirement(moving())
    await at_new(store, status=status)
    assert await store.note_arrivals(hub, ["d"], SOON) == 0
    assert await due(store, by=SOON) == []


@pytest.mark.parametrize("status", [RegistrationStatus.ASSIGNING, RegistrationStatus.FAILED])
async def test_what_a_device_has_left_stays_while_it_has_nothing_else(store, status):
    await store.put_retirement(moving(due_at=SOON))
    await store.put_retirement(retirement("ordered"))
    await at_new(store, status=status)
    assert await due(store) == ["ordered"]


async def test_the_grace_begins_when_the_device_is_made_at_its_new_hub(store):
    await store.put_retirement(moving(due_at=SOON))
    await store.put_retirement(retirement("d", hub="revoked", due_at=SOON))
    await at_new(store, made_at=SOON + timedelta(minutes=5))
    (left, revoked) = await store.departures_of("d")
    assert (left.hub, left.due_at) == ("old", SOON + timedelta(minutes=65))
    assert revoked.due_at == SOON


async def test_revoking_waits_for_nobody(store):
    await store.put_retirement(moving())
    await at_new(store, status=RegistrationStatus.ASSIGNING)
    await store.expedite_retirements("D", SOON)
    assert await due(store, by=SOON) == ["d"]


async def test_devices_that_depart_are_listed_by_hub(store):
    for one in (moving("D-1"), moving("d-2", hub="far")):
        await store.put_retirement(one)
    assert await store.departing_devices(["old"]) == {"d-1"}
    assert await store.departing_devices(["old", "far", "none"]) == {"d-1", "d-2"}


async def test_a_hub_that_drains_is_known_with_the_next_facts_of_any_process(path, store):
    from provisiond.store import SqliteStore

    assert await store.set_hub_draining("a", True, make_audit("t-1"))
    assert not await store.set_hub_draining("a", True, make_audit("t-2"))
    async with await SqliteStore.open(path) as other:
        facts = await other.facts(FactsQuery(registration_key="d"))
        assert facts.draining_hubs == await other.draining_hubs() == {"a"}
        assert await other.set_hub_draining("a", False, make_audit("t-3"))
    assert (await store.facts(FactsQuery(registration_key="d"))).draining_hubs == frozenset()


async def test_devices_are_counted_by_hub_and_status(store):
    await store.commit(make_write("one", hub="a"))
    await store.commit(make_write("two", hub="a", status=RegistrationStatus.ASSIGNING))
    await store.commit(make_write("three", hub=None, status=RegistrationStatus.FAILED))
    assert await store.count_by_hub() == {"a": {RegistrationStatus.ASSIGNED: 1, RegistrationStatus.ASSIGNING: 1}}


async def test_what_was_seen_of_a_hub_is_kept(store):
    await store.put_hub_observation("a", {"state": "down", "error": "no answer"})
    await store.put_hub_observation("a", {"state": "up", "drift": {"missing": 1}})
    assert await store.hub_observations() == {"a": {"state": "up", "drift": {"missing": 1}}}


async def test_a_revoked_certificate_is_revoked_since_it_first_was(store):
    serial = 2**159 - 1
    await store.revoke_certificate("issuer", serial, SOON)
    await store.revoke_certificate("issuer", serial, LATE)
    await store.revoke_certificate("another", 1, SOON)
    assert await store.revoked_certificates("issuer") == {serial: SOON}


async def test_a_disabled_registration_is_noticed_by_whoever_watches_access(store):
    await store.commit(make_write("d"))
    before = await store.count_access_changes()
    await store.commit(make_write("d", version=2, status=RegistrationStatus.DISABLED))
    assert await store.count_access_changes() > before


async def test_the_certificate_and_the_twin_of_a_registration_come_back(store):
    from provisiond.model import InitialTwin

    registration = make_registration("d", certificate_der=b"\x30\x00", initial_twin=InitialTwin(tags={"a": 1}))
    await store.commit(Write(registration=registration))
    assert await store.get_registration("d") == registration
