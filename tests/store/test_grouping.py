"""What waits together is done together."""

import asyncio

import pytest

from provisiond.errors import StoreUnavailable, VersionConflict
from provisiond.store import grouping
from provisiond.store.grouping import GroupedCalls
from tests.passing_time import pass_time


class Groups:
    """Stands in for the connection's thread: keeps every group until the test ends it."""

    def __init__(self):
        self.started = []
        self.begun = asyncio.Event()

    def start(self, items):
        future = asyncio.get_running_loop().create_future()
        self.started.append((items, future))
        self.begun.set()
        return future

    async def next(self):
        await self.begun.wait()
        self.begun.clear()
        return self.started[-1]


@pytest.fixture
async def groups():
    return Groups()


def explain(error):
    return error if isinstance(error, VersionConflict) else StoreUnavailable(str(error))


@pytest.fixture
async def calls(groups):
    return GroupedCalls(groups.start, explain, group_max=3, waiting_max=4, room_timeout_s=3600)


async def begin(calls, *items):
    tasks = [asyncio.create_task(calls.call(item)) for item in items]
    await asyncio.sleep(0)  # each has put its item in
    return tasks


async def test_callers_of_one_turn_of_the_loop_share_a_group(calls, groups):
    tasks = await begin(calls, 1, 2, 3)
    items, done = await groups.next()
    assert items == [1, 2, 3]
    done.set_result(["a", "b", "c"])
    assert await asyncio.gather(*tasks) == ["a", "b", "c"]


async def test_what_comes_while_a_group_runs_waits_for_the_next_one(calls, groups):
    first = await begin(calls, 1)
    _, done = await groups.next()
    others = await begin(calls, 2, 3)
    assert len(groups.started) == 1
    done.set_result(["a"])
    items, done = await groups.next()
    assert items == [2, 3]
    done.set_result(["b", "c"])
    assert await asyncio.gather(*first, *others) == ["a", "b", "c"]


async def test_a_group_has_at_most_so_many_items(calls, groups):
    tasks = await begin(calls, 1, 2, 3, 4)
    items, done = await groups.next()
    done.set_result(items)
    rest, done = await groups.next()
    done.set_result(rest)
    assert (items, rest) == ([1, 2, 3], [4])
    await asyncio.gather(*tasks)


async def test_an_exception_among_the_results_is_one_callers(calls, groups):
    tasks = await begin(calls, 1, 2)
    _, done = await groups.next()
    done.set_result([VersionConflict("late"), "b"])
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], VersionConflict)
    assert results[1] == "b"


async def test_when_the_group_fails_every_caller_hears_an_exception_of_its_own(calls, groups):
    tasks = await begin(calls, 1, 2)
    _, done = await groups.next()
    done.set_exception(OSError("gone"))
    first, second = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, StoreUnavailable)
    assert isinstance(second, StoreUnavailable)
    assert first is not second


async def test_when_a_group_cannot_be_started_its_callers_hear_it_and_the_next_group_is_tried(calls, groups):
    start, groups.start = groups.start, None
    calls._start = lambda items: (_ for _ in ()).throw(StoreUnavailable("closed"))
    (task,) = await begin(calls, 1)
    with pytest.raises(StoreUnavailable, match="closed"):
        await task
    calls._start = start
    (task,) = await begin(calls, 2)
    _, done = await groups.next()
    done.set_result(["b"])
    assert await task == "b"


async def test_a_caller_that_is_cancelled_while_it_waits_takes_its_item_along(calls, groups):
    (first,) = await begin(calls, 1)
    _, done = await groups.next()
    cancelled, kept = await begin(calls, 2, 3)
    cancelled.cancel()
    done.set_result(["a"])
    items, done = await groups.next()
    done.set_result(["c"])
    assert items == [3]
    assert (await first, await kept) == ("a", "c")


async def test_a_caller_that_is_cancelled_while_its_group_runs_does_not_disturb_the_others(calls, groups):
    cancelled, kept = await begin(calls, 1, 2)
    _, done = await groups.next()
    cancelled.cancel()
    await asyncio.sleep(0)
    done.set_result(["a", "b"])
    assert await kept == "b"
    assert cancelled.cancelled()


async def test_when_all_who_wait_are_cancelled_nothing_runs(calls, groups):
    (first,) = await begin(calls, 1)
    _, done = await groups.next()
    (second,) = await begin(calls, 2)
    second.cancel()
    done.set_result(["a"])
    await first
    await calls.drain()
    assert len(groups.started) == 1


async def test_when_too_many_wait_for_too_long_the_next_is_refused(calls, groups):
    tasks = await begin(calls, 0)
    _, done = await groups.next()
    tasks += await begin(calls, 1, 2, 3, 4)
    (late,) = await begin(calls, 5)
    pass_time(3601)
    with pytest.raises(StoreUnavailable, match="4 requests have waited"):
        await late
    done.set_result(["0"])
    _, done = await groups.next()
    done.set_result(["1", "2", "3"])
    _, done = await groups.next()
    done.set_result(["4"])
    assert await asyncio.gather(*tasks) == ["0", "1", "2", "3", "4"]


async def test_a_caller_waits_for_room_and_gets_it(calls, groups):
    tasks = await begin(calls, 0)
    _, done = await groups.next()
    tasks += await begin(calls, 1, 2, 3, 4, 5)
    assert calls.waiting == 4
    done.set_result(["0"])
    _, done = await groups.next()
    done.set_result(["1", "2", "3"])
    items, done = await groups.next()
    assert items == [4, 5]
    done.set_result(["4", "5"])
    assert await asyncio.gather(*tasks) == ["0", "1", "2", "3", "4", "5"]


async def test_after_a_refusal_nothing_more_is_taken(calls):
    calls.refuse("the disk failed")
    with pytest.raises(StoreUnavailable, match="the disk failed"):
        await calls.call(1)


async def test_statistics_count_groups_and_items(calls, groups):
    tasks = await begin(calls, 1, 2)
    _, done = await groups.next()
    done.set_result(["a", "b"])
    await asyncio.gather(*tasks)
    assert (calls.statistics.groups, calls.statistics.items, calls.statistics.largest) == (1, 2, 2)


async def test_a_crowd_gathers_before_its_next_group_begins(groups, monkeypatch):
    monkeypatch.setattr(grouping, "CROWD_S", 7200)
    calls = GroupedCalls(groups.start, explain, rest_s=3600)
    first = await begin(calls, 1, 2, 3, 4)
    _, done = await groups.next()
    done.set_result(["a", "b", "c", "d"])
    await asyncio.gather(*first)
    tasks = await begin(calls, 5)
    tasks += await begin(calls, 6)
    assert len(groups.started) == 1
    pass_time(3600)
    items, done = await groups.next()
    done.set_result(["e", "f"])
    assert await asyncio.gather(*tasks) == ["e", "f"]
    assert items == [5, 6]


async def test_a_few_callers_never_wait_for_company(groups):
    calls = GroupedCalls(groups.start, explain, rest_s=3600)
    for item in range(5):
        (first,) = await begin(calls, item)
        async with asyncio.timeout(60):
            _, done = await groups.next()
            (second,) = await begin(calls, "other")
            done.set_result([item])
            _, done = await groups.next()
            done.set_result(["other"])
        assert await asyncio.gather(first, second) == [item, "other"]
