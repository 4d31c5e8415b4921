"""What waits in a row is done, exactly once as far as anybody can see, whatever happens on the way."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from provisiond.connectors import identity_of
from provisiond.errors import HubRefused, HubUnauthorized
from provisiond.model import RegistrationStatus, Retirement, RetirementAction
from provisiond.ports import Write
from provisiond.store import SqliteStore
from tests.assigner.conftest import QUICK, working
from tests.fakes_hubs import Claims, FakeHub, HubLog, down
from tests.noticing import until_none
from tests.store.records import make_audit, make_registration

ASSIGNING, ASSIGNED, FAILED = RegistrationStatus.ASSIGNING, RegistrationStatus.ASSIGNED, RegistrationStatus.FAILED


async def reserve(store, *ids, hub="a", version=1, **changes):
    changes = {"status": ASSIGNING, "hub": hub, "hub_key": b"k" * 32, **changes}
    await asyncio.gather(
        *(
            store.commit(
                Write(registration=make_registration(id_, version=version, **changes), expected_version=version - 1)
            )
            for id_ in ids
        )
    )


async def status(store, key):
    found = await store.get_registration(key)
    return None if found is None else found.status


async def events(store):
    return [(record.event, record.registration_id, record.outcome) for _, record in await store.list_audit(limit=1000)]


def retirement(device_id="d", *, hub="a", action=RetirementAction.DELETE, seconds=-1):
    return Retirement(
        hub=hub,
        device_id=device_id,
        registration_id=device_id,
        action=action,
        due_at=datetime.now(UTC) + timedelta(seconds=seconds),
        reason="the test says so",
    )


# --- making ---


async def test_each_registration_that_is_finished_at_its_hub_is_told_once_it_is_on_disk(store, log):
    await reserve(store, "Device-1", "Device-2")
    async with working(store, log, a=FakeHub(refusals={"Device-2": HubRefused("no")})):
        await log.until(lambda: len(log.settled) == 2)
        assert (await status(store, "device-1"), await status(store, "device-2")) == (ASSIGNED, FAILED)
    assert sorted(log.settled) == [("Device-1", "assigned"), ("Device-2", "failed")]


async def test_a_device_that_waits_is_made_at_its_hub_and_then_assigned(store, log):
    hub = FakeHub()
    await reserve(store, "Device-1")
    async with working(store, log, a=hub):
        await log.until(lambda: log.total("a", "ensure") == 1)
    record = await store.get_registration("device-1")
    assert (record.status, record.version) == (ASSIGNED, 2)
    assert hub.identities["Device-1"].key == b"k" * 32
    assert await events(store) == [("assign", "Device-1", "assigned")]


async def test_a_device_that_is_reserved_while_the_assigner_sleeps_wakes_it(store, log):
    hub = FakeHub()
    async with working(store, log, replace(QUICK, poll_s=60), a=hub) as assigner:
        await hub.until(lambda: hub.count("read") or hub.count("probe"))
        await reserve(store, "d")
        assigner.wake("a")
        await log.until(lambda: log.total("a", "ensure") == 1)


async def test_many_devices_are_made_in_batches(store, log):
    hub = FakeHub(batch_size=10)
    await reserve(store, *(f"d-{number}" for number in range(95)))
    async with working(store, log, a=hub):
        await log.until(lambda: log.total("a", "ensure") == 95)
    assert max(len(ids) for action, ids in hub.calls if action == "ensure") == 10
    assert (await store.count_by_hub())["a"] == {ASSIGNED: 95}


async def test_each_hub_makes_its_own(store, log):
    hubs = {"a": FakeHub(), "b": FakeHub()}
    await reserve(store, "one", hub="a")
    await reserve(store, "two", hub="b")
    async with working(store, log, **hubs):
        await log.until(lambda: log.total("a", "ensure") == log.total("b", "ensure") == 1)
    assert list(hubs["a"].identities) == ["one"]
    assert list(hubs["b"].identities) == ["two"]


async def test_one_device_that_the_hub_refuses_fails_and_the_others_do_not(store, log):
    hub = FakeHub(refusals={"bad": HubRefused("its name is too long")})
    await reserve(store, "bad", "good")
    async with working(store, log, a=hub):
        await log.until(lambda: log.total("a", "refuse") == log.total("a", "ensure") == 1)
    record = await store.get_registration("bad")
    assert (record.status, record.error_code) == (FAILED, 400209)
    assert "too long" not in record.error_message  # what a device hears is what the class says
    tracking_id = record.error_message.partition("tracking id ")[2].rstrip(")")
    assert (await store.get_audit(tracking_id)).reason == "its name is too long"
    assert await status(store, "good") is ASSIGNED


async def test_one_device_that_the_hub_cannot_make_is_tried_a_few_times_and_then_fails(store, log):
    hub = FakeHub(refusals={"bad": down()})
    await reserve(store, "bad", "good")
    async with working(store, log, a=hub):
        await log.until(lambda: log.total("a", "refuse") == 1)
    assert sum("bad" in ids for action, ids in hub.calls if action == "ensure") == QUICK.attempts
    assert await status(store, "bad") is FAILED


# --- hubs that fail ---


async def test_a_hub_that_is_down_leaves_its_devices_waiting_and_gets_them_when_it_is_back(store, log):
    hub = FakeHub(fault=down())
    await reserve(store, "d")
    async with working(store, log, a=hub):
        await log.until(lambda: not log.views.get("a").healthy if "a" in log.views else False)
        assert await status(store, "d") is ASSIGNING
        assert log.views["a"].retry_after_s >= 5
        hub.fault = None
        await log.until(lambda: log.total("a", "ensure") == 1 and log.states[-1] == ("a", "up", ""))
    assert await status(store, "d") is ASSIGNED
    # The first failure is said, though the hub does not count as down yet; then that it does; then that it is back.
    assert [state for _, state, _ in log.states] == ["up", "down", "up"]


async def test_a_hub_that_does_not_take_our_credentials_is_said_so_at_once(store, log):
    hub = FakeHub(fault=HubUnauthorized("CONNACK 5"))
    async with working(store, log, a=hub):
        await hub.until(lambda: hub.count("probe") == 2)  # the second comes after what was seen was written down
        assert (await store.hub_observations())["a"]["state"] == "unauthorized"
    assert log.states[0] == ("a", "unauthorized", "CONNACK 5")
    assert not log.views["a"].healthy


async def test_a_hub_that_answers_late_twice_has_the_device_once(store, log):
    late = 2

    async def hang(_):
        nonlocal late
        if late:
            late -= 1
            await asyncio.Event().wait()

    hub = FakeHub(after_ensure=hang)  # it has done it each time, and says so in vain
    await reserve(store, "d")
    async with working(store, log, replace(QUICK, call_timeout_s=0.3), a=hub):
        await log.until(lambda: log.total("a", "ensure") == 1)
    assert hub.count("ensure") == 3
    assert list(hub.identities) == ["d"]
    assert (await store.get_registration("d")).version == 2


async def test_a_connector_with_a_bug_stops_nobody_else(store, log):
    hubs = {"a": FakeHub(fault=ZeroDivisionError("a bug")), "b": FakeHub()}
    await reserve(store, "one", hub="a")
    await reserve(store, "two", hub="b")
    async with working(store, log, **hubs):
        await log.until(lambda: log.total("b", "ensure") == 1 and log.failures)
    assert isinstance(log.failures[0][1], ZeroDivisionError)


async def test_one_device_that_a_connector_fails_over_holds_up_no_other(store, log):
    async def choke(identities):
        if any(identity.device_id == "poison" for identity in identities):
            raise ZeroDivisionError("a bug")

    hub = FakeHub(before_ensure=choke)
    await reserve(store, "a", "poison", "z")
    async with working(store, log, a=hub):
        await log.until(lambda: log.total("a", "ensure") == 2 and log.total("a", "refuse") == 1)
    assert await status(store, "poison") is FAILED
    assert log.views["a"].healthy


async def test_a_hub_that_answers_probes_and_makes_nothing_counts_as_down(store, log):
    async def fail(_):
        raise down()

    await reserve(store, "d")
    async with working(store, log, a=FakeHub(before_ensure=fail)):
        await log.until(lambda: "a" in log.views and not log.views["a"].healthy)
    assert [state for _, state, _ in log.states] == ["up", "down"]


# --- rows that change meanwhile ---


async def test_a_device_that_registers_again_while_it_is_made_gets_its_new_credentials(store, log):
    async def rotate(identities):
        hub.after_ensure = None
        await reserve(store, "d", version=2, hub_key=b"n" * 32)

    hub = FakeHub(after_ensure=rotate)
    await reserve(store, "d")
    async with working(store, log, a=hub):
        await log.until(lambda: log.total("a", "ensure") == 2)
    record = await store.get_registration("d")
    assert (record.status, record.version) == (ASSIGNED, 3)
    assert hub.identities["d"].key == b"n" * 32


async def test_a_device_that_is_deleted_while_it_is_made_does_not_stay_at_the_hub(store, log):
    async def delete(identities):
        await store.delete_registration("d", if_match=None, audit=make_audit())

    hub = FakeHub(after_ensure=delete)
    await reserve(store, "d")
    async with working(store, log, a=hub):
        await log.until(lambda: log.total("a", "delete") == 1)
    assert hub.identities == {}


async def test_a_device_that_is_disabled_while_it_is_made_does_not_stay_at_the_hub(store, log):
    async def disable(identities):
        await reserve(store, "d", version=2, status=RegistrationStatus.DISABLED)

    hub = FakeHub(after_ensure=disable)
    await reserve(store, "d")
    async with working(store, log, a=hub):
        await log.until(lambda: log.total("a", "delete") == 1)
    assert hub.identities == {}


# --- retirement ---


@pytest.mark.parametrize("action", RetirementAction)
async def test_what_is_to_go_goes_when_it_is_due(store, log, action):
    hub = FakeHub()
    await hub.ensure([make_identity("now"), make_identity("later")])
    await store.put_retirement(retirement("now", action=action))
    await store.put_retirement(retirement("later", action=action, seconds=3600))
    async with working(store, log, a=hub):
        await log.until(lambda: log.total("a", action.value) == 1)
    assert [ids for name, ids in hub.calls if name == action.value] == [["now"]]
    assert ("retire", "now", f"{action.value}d") in await events(store)
    left = await store.list_retirements("a", due_by=datetime.now(UTC) + timedelta(days=1), limit=10)
    assert [entry.device_id for entry in left] == ["later"]


async def test_a_device_that_comes_back_is_not_retired(store, log):
    hub = FakeHub()
    await store.put_retirement(retirement("d"))
    await reserve(store, "d")
    async with working(store, log, a=hub):
        await log.until(lambda: log.total("a", "ensure") == 1)
    assert hub.count("delete") == 0
    assert list(hub.identities) == ["d"]


async def test_a_hub_that_is_down_retires_when_it_is_back(store, log):
    hub = FakeHub(fault=down())
    await store.put_retirement(retirement("d"))
    async with working(store, log, a=hub):
        await log.until(lambda: log.states)
        hub.fault = None
        await log.until(lambda: log.total("a", "delete") == 1)


# --- devices that have moved here ---


class Watching(FakeHub):
    """One that is told whom to look out for, and has seen whom the test says."""

    seen = frozenset()

    async def watch(self, device_ids):
        self._note("watch", list(device_ids))
        return self.seen & set(device_ids)


async def move(store, *, status=ASSIGNING, seconds=3600):
    await store.put_retirement(replace(retirement(seconds=seconds, hub="old"), grace_s=3600))
    await reserve(store, "d", status=status)


async def test_what_a_device_has_left_goes_once_it_was_seen_at_its_new_hub(store, log):
    old, new = FakeHub(), Watching()
    await old.ensure([make_identity("d")])
    await move(store)
    async with working(store, log, replace(QUICK, arrival_interval_s=0.02), old=old, a=new):
        await new.until(lambda: new.count("ensure") and new.count("watch") > 3)
        names = [name for name, _ in new.calls]
        assert names.index("watch") < names.index("ensure")  # it may connect at once
        assert list(old.identities) == ["d"]
        new.seen = frozenset({"d"})
        await until_none(lambda: store.departures_of("d"))
    assert old.identities == {}
    (reason,) = [record.reason for _, record in await store.list_audit(limit=100) if record.event == "retire"]
    assert ", seen there at " in reason


async def test_a_hub_that_can_be_read_may_say_who_was_there(store, log):
    hub = FakeHub(used={"d"})
    await move(store, status=ASSIGNED)
    await hub.ensure([make_identity("d")])
    async with working(store, log, a=hub, old=FakeHub()):
        await until_none(lambda: store.departures_of("d"))


async def test_what_a_device_has_left_goes_at_the_deadline_where_nobody_can_see_it(store, log):
    await move(store, status=ASSIGNED, seconds=-1)
    async with working(store, log, a=FakeHub(), old=FakeHub()):
        await until_none(lambda: store.departures_of("d"))
    (reason,) = [record.reason for _, record in await store.list_audit(limit=100) if record.event == "retire"]
    assert reason.endswith("not seen there within 3600 s")


async def test_nothing_goes_while_the_new_hub_is_down_and_the_grace_begins_when_it_is_back(store, log):
    old, new = FakeHub(), FakeHub(fault=down())
    await old.ensure([make_identity("d")])
    await move(store, seconds=-1)
    async with working(store, log, a=new, old=old):
        await log.until(lambda: "a" in log.views and not log.views["a"].healthy)
        assert (list(old.identities), await status(store, "d")) == (["d"], ASSIGNING)
        new.fault = None
        await log.until(lambda: log.total("a", "ensure") == 1)
        (left,) = await store.departures_of("d")
        assert left.due_at > datetime.now(UTC) + timedelta(seconds=3500)
    assert list(old.identities) == ["d"]


# --- drift ---


async def test_what_a_hub_has_forgotten_is_made_again_and_said(store, log):
    hub = FakeHub(batch_size=3)
    await reserve(store, *(f"d-{number:02}" for number in range(20)), status=ASSIGNED)
    await hub.ensure([make_identity(f"d-{number:02}") for number in range(20) if number not in (4, 13)])
    async with working(store, log, a=hub):
        await log.until(lambda: log.total("a", "repair") == 2)
    assert len(hub.identities) == 20
    assert hub.identities["d-04"].key == b"k" * 32
    assert {id_ for event, id_, outcome in await events(store) if (event, outcome) == ("repair", "repaired")} == {
        "d-04",
        "d-13",
    }


async def test_what_somebody_else_has_disabled_in_the_hub_is_left_alone(store, log):
    hub = FakeHub()
    await reserve(store, "d", status=ASSIGNED)
    await hub.ensure([make_identity("d")])
    hub.disabled.add("d")
    async with working(store, log, a=hub):
        await hub.until(lambda: hub.count("read") == 3)
    assert hub.disabled == {"d"}


# --- several daemons ---


async def test_two_daemons_make_each_device_once(tmp_path):
    path, logs, hub = tmp_path / "provisiond.db", (HubLog(), HubLog()), FakeHub(batch_size=5)
    held = {}
    async with await SqliteStore.open(path) as first, await SqliteStore.open(path) as second:
        await reserve(first, *(f"d-{number}" for number in range(60)))
        async with (
            working(first, logs[0], claims=Claims(held), a=hub),
            working(second, logs[1], claims=Claims(held), a=hub),
        ):
            await hub.until(lambda: len(hub.identities) == 60)
            await logs[0].until(lambda: logs[0].total("a", "ensure") + logs[1].total("a", "ensure") == 60)
        records = await first.list_registrations(limit=100)
    assert {(record.status, record.version) for record in records} == {(ASSIGNED, 2)}
    made = [id_ for action, ids in hub.calls if action == "ensure" for id_ in ids]
    assert len(made) == len(set(made))


async def test_two_daemons_without_claims_still_end_with_one_winner_a_row(tmp_path):
    path, logs, hub = tmp_path / "provisiond.db", (HubLog(), HubLog()), FakeHub(batch_size=5)
    async with await SqliteStore.open(path) as first, await SqliteStore.open(path) as second:
        await reserve(first, *(f"d-{number}" for number in range(40)))
        async with working(first, logs[0], a=hub), working(second, logs[1], a=hub):
            async with asyncio.timeout(60):
                while (await first.count_by_hub())["a"].get(ASSIGNED, 0) < 40:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0)
        records = await first.list_registrations(limit=100)
        assigned = [record for _, record in await first.list_audit(limit=1000) if record.event == "assign"]
    assert {(record.status, record.version) for record in records} == {(ASSIGNED, 2)}
    assert len(assigned) == 40


async def test_a_daemon_that_does_not_have_the_claim_hears_how_the_hub_is(store, log):
    held = {"a": object()}
    await store.put_hub_observation("a", {"state": "down", "latencyMs": 3.5})
    async with working(store, log, claims=Claims(held), a=FakeHub()):
        await log.until(lambda: "a" in log.views)
        assert not log.views["a"].healthy
        assert log.views["a"].latency_ms == 3.5


# --- reload ---


async def test_hubs_that_are_gone_are_let_go_of_and_new_ones_begin(store, log):
    old, kept, new = FakeHub(), FakeHub(), FakeHub()
    async with working(store, log, a=old, b=kept) as assigner:
        await kept.until(lambda: kept.calls)
        assigner.adopt({"b": kept, "c": new})
        await new.until(lambda: new.calls)
        assert (old.closed, kept.closed) == (True, False)


async def test_the_census_tells_how_many_devices_each_hub_has(store, log):
    await reserve(store, "one", "two", hub="a", status=ASSIGNED)
    await reserve(store, "three", hub="b", status=FAILED)
    async with working(store, log, a=FakeHub()):
        await log.until(lambda: log.assigned)
    assert log.assigned == {"a": 2, "b": 0}


def make_identity(device_id):
    return identity_of(make_registration(device_id))
