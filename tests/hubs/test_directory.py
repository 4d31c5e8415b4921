from provisiond.hubs.directory import ConfiguredHubs
from provisiond.model import Hub, HubView

REMOTE = Hub(name="a", host="a.example", type="mosquitto", immediate=False)
LOCAL = Hub(name="b", host="b.example")


def seen(hubs, name="a"):
    return next(hub for hub in hubs.snapshot() if hub.name == name)


def test_a_hub_that_was_not_seen_yet_is_given_the_benefit_of_the_doubt():
    hub = seen(ConfiguredHubs([REMOTE]))
    assert hub.healthy
    assert hub.latency_ms is None


def test_what_was_seen_is_told():
    hubs = ConfiguredHubs([REMOTE, LOCAL])
    hubs.see("a", HubView(healthy=False, latency_ms=7.0, retry_after_s=9))
    assert (seen(hubs).healthy, seen(hubs).latency_ms, seen(hubs).retry_after_s) == (False, 7.0, 9)


def test_the_hub_in_this_process_is_always_there_and_takes_no_time():
    hubs = ConfiguredHubs([REMOTE, LOCAL])
    hubs.see("b", HubView(healthy=False, latency_ms=7.0))
    assert (seen(hubs, "b").healthy, seen(hubs, "b").latency_ms) == (True, 0.0)


def test_a_latency_that_wavers_is_told_once():
    hubs = ConfiguredHubs([REMOTE])
    for latency_ms in (10.0, 10.5, 9.2, 10.9):
        hubs.see("a", HubView(latency_ms=latency_ms))
        assert seen(hubs).latency_ms == 10.0
    hubs.see("a", HubView(latency_ms=12.0))
    assert seen(hubs).latency_ms == 12.0


def test_devices_are_counted_as_they_are_placed_until_all_are_counted_again():
    hubs = ConfiguredHubs([REMOTE, LOCAL])
    hubs.count({"a": 3})
    hubs.place(before=None, after="b")
    hubs.place(before="a", after="b")
    hubs.place(before="a", after="a")
    assert (seen(hubs).assigned_count, seen(hubs, "b").assigned_count) == (2, 2)
    hubs.count({"a": 7})
    assert (seen(hubs).assigned_count, seen(hubs, "b").assigned_count) == (7, 0)


def test_a_count_is_never_below_nobody():
    hubs = ConfiguredHubs([REMOTE])
    hubs.place(before="a", after="gone")
    assert seen(hubs).assigned_count == 0


def test_other_hubs_are_told_from_the_next_look_on():
    hubs = ConfiguredHubs([REMOTE])
    hubs.snapshot()
    hubs.replace([LOCAL])
    assert [hub.name for hub in hubs.snapshot()] == ["b"]
