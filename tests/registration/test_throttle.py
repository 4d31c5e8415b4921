import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.errors import Throttled
from provisiond.registration.throttle import (
    BACKOFF_MAX_S,
    CONCURRENT_MAX,
    FREE_FAILURES,
    Throttle,
    ThrottleKey,
    address_group,
)

DEVICE = ThrottleKey.of("dev-1", "192.0.2.1")
STRANGER = ThrottleKey.of("dev-1", "198.51.100.7")
NEIGHBOUR = ThrottleKey.of("dev-2", "192.0.2.1")


def ask(throttle, key=DEVICE, *, at=0.0, per_min=60):
    with throttle.admitted(key, requests_per_min=per_min, now_s=at):
        pass


def refused(throttle, key=DEVICE, *, at=0.0, per_min=60):
    with pytest.raises(Throttled) as raised:
        ask(throttle, key, at=at, per_min=per_min)
    return raised.value


def exhausted(per_min=60):
    throttle = Throttle()
    for _ in range(per_min):
        ask(throttle, per_min=per_min)
    return throttle


def failing(failures, key=DEVICE):
    throttle = Throttle()
    ask(throttle, key)
    for _ in range(failures):
        throttle.proof_failed(key, now_s=0.0)
    return throttle


def test_a_minutes_allowance_may_be_used_at_once_and_no_more():
    assert refused(exhausted()).retry_after_s == 1


@pytest.mark.parametrize(("per_min", "wait_s"), [(1, 60), (6, 10), (120, 1)])
def test_who_waits_as_long_as_it_was_told_is_let_in(per_min, wait_s):
    throttle = exhausted(per_min)
    assert refused(throttle, per_min=per_min).retry_after_s == wait_s
    ask(throttle, at=wait_s, per_min=per_min)


def test_a_flood_of_one_id_wears_out_nobody_elses_allowance():
    throttle = exhausted()
    ask(throttle, NEIGHBOUR)
    ask(throttle, STRANGER)


def test_only_the_first_refusal_of_a_flood_is_news():
    throttle = exhausted()
    assert [refused(throttle).repeated for _ in range(3)] == [False, True, True]
    ask(throttle, at=1.0)
    assert refused(throttle, at=1.0).repeated
    ask(throttle, at=60.0)
    for _ in range(58):
        ask(throttle, at=60.0)
    assert not refused(throttle, at=60.0).repeated


def test_a_device_may_have_only_so_many_requests_in_progress():
    throttle, per_min = Throttle(), 2 * CONCURRENT_MAX
    running = [throttle.admitted(DEVICE, requests_per_min=per_min, now_s=0.0) for _ in range(CONCURRENT_MAX)]
    for request in running:
        request.__enter__()
    refused(throttle, per_min=per_min)
    running[0].__exit__(None, None, None)
    ask(throttle, per_min=per_min)


def test_wrong_proofs_are_free_at_first_then_double_the_pause_up_to_a_minute():
    ask(failing(FREE_FAILURES - 1))
    assert [refused(failing(FREE_FAILURES + more)).retry_after_s for more in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert refused(failing(10_000)).retry_after_s == BACKOFF_MAX_S


def test_wrong_proofs_from_elsewhere_do_not_keep_the_true_device_out():
    throttle = failing(1000, STRANGER)
    refused(throttle, STRANGER)
    ask(throttle, DEVICE)


def test_wrong_proofs_from_an_unknown_place_keep_nobody_out():
    anywhere = ThrottleKey.of("dev-1", "")
    ask(failing(1000, anywhere), anywhere)


def test_a_device_that_proves_itself_begins_anew():
    throttle = failing(FREE_FAILURES + 5)
    throttle.proved(DEVICE)
    ask(throttle)


def test_only_so_many_are_remembered():
    throttle = Throttle(keys_max=10)
    for number in range(100):
        ask(throttle, ThrottleKey.of(f"dev-{number}", "192.0.2.1"))
    assert len(throttle) == 10


def test_one_ipv6_host_has_one_address_whatever_it_calls_itself():
    assert address_group("2001:db8:0:1::1") == address_group("2001:db8:0:1:ffff::2%eth0")
    assert address_group("2001:db8:0:1::1") != address_group("2001:db8:0:2::1")
    assert address_group("::ffff:192.0.2.1") == address_group("192.0.2.1") == "192.0.2.1"


@given(st.lists(st.floats(0, 30), max_size=200), st.integers(1, 300))
def test_nobody_gets_more_than_its_allowance_in_any_minute(pauses, per_min):
    throttle, now_s, let_in = Throttle(), 0.0, []
    for pause_s in pauses:
        now_s += pause_s
        try:
            ask(throttle, at=now_s, per_min=per_min)
        except Throttled:
            continue
        let_in.append(now_s)
    for start in let_in:
        # A full bucket and a minute's refill.
        assert sum(start <= at < start + 60 for at in let_in) <= 2 * per_min
