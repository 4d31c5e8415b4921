import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.errors import Throttled
from provisiond.registration.throttle import (
    CONCURRENT_MAX,
    RequestLimits,
    Standing,
    Throttle,
    ThrottleKey,
    address_group,
)

DEVICE = ThrottleKey.of("dev-1", "192.0.2.1")
STRANGER = ThrottleKey.of("dev-1", "198.51.100.7")
NEIGHBOUR = ThrottleKey.of("dev-2", "192.0.2.1")
FREE = RequestLimits().wrong_keys
PAUSE_MAX_S = RequestLimits().wrong_keys_pause_s


def limits(per_min=60, **more):
    return RequestLimits(requests_per_min=per_min, **more)


def ask(throttle, key=DEVICE, *, at=0.0, per_min=60, on="a", result=Standing.PROVED, wrong=False, **more):
    """One request and its answer; what it would have heard, had it been refused."""
    allowed = limits(per_min, **more)
    with throttle.admitted(key, on, limits=allowed, now_s=at) as overdue:
        pass
    throttle.answered(key, on, result, is_wrong_proof=wrong, limits=allowed, now_s=at)
    return overdue


def guess(throttle, key=DEVICE, *, at=0.0, on="thief", **more):
    return ask(throttle, key, at=at, on=on, result=Standing.REFUSED, wrong=True, **more)


def refused(throttle, key=DEVICE, **options):
    with pytest.raises(Throttled) as raised:
        ask(throttle, key, **options)
    return raised.value


def exhausted(per_min=60, on="a"):
    throttle = Throttle()
    for _ in range(per_min):
        ask(throttle, per_min=per_min, on=on)
    return throttle


def failing(failures, key=DEVICE, on="thief"):
    """A throttle that has seen so many wrong proofs."""
    throttle = Throttle()
    for number in range(failures):
        guess(throttle, key, per_min=1_000_000, on=f"{on}-{number}")
    return throttle


def test_a_minutes_allowance_may_be_used_at_once_and_no_more():
    assert refused(exhausted()).retry_after_s == 1


def test_an_allowance_is_one_devices_on_however_many_connections_it_asks():
    assert refused(exhausted(), on="b").retry_after_s == 1


@pytest.mark.parametrize(("per_min", "wait_s"), [(1, 60), (6, 10), (120, 1)])
def test_who_waits_as_long_as_it_was_told_is_let_in(per_min, wait_s):
    throttle = exhausted(per_min)
    assert refused(throttle, per_min=per_min).retry_after_s == wait_s
    ask(throttle, at=wait_s, per_min=per_min)


def test_a_flood_of_one_id_wears_out_nobody_elses_allowance():
    throttle = exhausted()
    ask(throttle, NEIGHBOUR)
    ask(throttle, STRANGER, on="b")


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
    throttle, allowed = Throttle(), limits(2 * CONCURRENT_MAX)
    ask(throttle, per_min=2 * CONCURRENT_MAX)
    running = [throttle.admitted(DEVICE, "a", limits=allowed, now_s=0.0) for _ in range(CONCURRENT_MAX)]
    for request in running:
        request.__enter__()
    refused(throttle, per_min=2 * CONCURRENT_MAX)
    running[0].__exit__(None, None, None)
    ask(throttle, per_min=2 * CONCURRENT_MAX)


# --- wrong proofs ----------------------------------------------------------------------------------------------------


def pause_after(failures):
    """What a connection that has failed is told after so many wrong proofs in all."""
    throttle = failing(failures - 1)
    guess(throttle, per_min=1_000_000, on="last")
    return refused(throttle, on="last", per_min=1_000_000).retry_after_s


def test_wrong_proofs_are_free_at_first_then_double_the_pause_up_to_a_minute():
    ask(failing(FREE - 1), on="thief-0", per_min=1_000_000)
    assert [pause_after(FREE + more) for more in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert pause_after(2000) == PAUSE_MAX_S


def test_how_many_wrong_proofs_are_free_and_how_long_the_pause_becomes_is_the_operators():
    throttle = Throttle()
    for number in range(12):
        guess(throttle, on=f"thief-{number}", wrong_keys=4, wrong_keys_pause_s=5.0)
    assert refused(throttle, on="thief-0", wrong_keys=4, wrong_keys_pause_s=5.0).retry_after_s == 5


def test_wrong_proofs_from_elsewhere_do_not_keep_the_true_device_out():
    throttle = failing(1000, STRANGER)
    refused(throttle, STRANGER, on="thief-0")
    assert ask(throttle, DEVICE) is None


@pytest.mark.parametrize("failures", [FREE, 1000])
def test_nor_do_those_from_its_own_address_whatever_is_asked_in_its_name(failures):
    throttle = failing(failures)
    refused(throttle, on="thief-0")
    assert isinstance(ask(throttle, on="true"), Throttled)  # what it would hear, were it wrong too
    throttle = failing(failures)
    for number in range(1000):
        guess(throttle, on=f"late-{number}")
    for _ in range(50):
        ask(throttle, on="true")


def test_who_has_not_failed_yet_but_does_hears_the_pause_and_no_reason():
    overdue = guess(failing(FREE), on="new")
    assert overdue is not None
    assert overdue.retry_after_s == 1
    refused(failing(FREE), on="thief-0")


def test_a_stream_of_new_connections_that_fail_costs_the_proved_nothing():
    throttle = Throttle()
    for number in range(500):
        guess(throttle, on=f"thief-{number}")
    for _ in range(60):
        ask(throttle, on="true")
    refused(throttle, on="true")


def test_a_device_is_challenged_once_beyond_its_allowance():
    throttle = Throttle()
    ask(throttle, on="tpm", result=Standing.CHALLENGED)
    assert throttle.standing("tpm") is Standing.CHALLENGED
    ask(throttle, on="tpm", result=Standing.CHALLENGED)
    assert throttle.standing("tpm") is Standing.REFUSED


def test_a_closed_connection_is_forgotten():
    throttle = Throttle()
    guess(throttle, on="gone")
    throttle.closed("gone")
    assert throttle.standing("gone") is Standing.FRESH


def test_wrong_proofs_from_an_unknown_place_keep_nobody_out():
    anywhere, throttle = ThrottleKey.of("dev-1", ""), Throttle()
    for _ in range(1000):
        guess(throttle, anywhere, on="", per_min=1_000_000)
    ask(throttle, anywhere, on="", per_min=1_000_000)


def test_an_unknown_place_has_an_allowance_too():
    anywhere, throttle = ThrottleKey.of("dev-1", ""), Throttle()
    for _ in range(60):
        ask(throttle, anywhere, on="")
    refused(throttle, anywhere, on="")


def test_a_device_that_proves_itself_begins_anew():
    throttle = failing(FREE + 5)
    ask(throttle, on="true")
    assert guess(throttle, on="thief-new") is None


# --- addresses -------------------------------------------------------------------------------------------------------


def crowd(throttle, names, *, at=0.0, per_address=60):
    """The waits of devices of one address that come at once; 0 for who is let in."""
    waits = []
    for name in names:
        try:
            ask(throttle, ThrottleKey.of(name, "192.0.2.1"), at=at, on=name, requests_per_min_per_address=per_address)
        except Throttled as throttled:
            waits.append(throttled.retry_after_s)
        else:
            waits.append(0)
    return waits


def test_all_devices_of_an_address_have_an_allowance_together_and_each_its_own_turn():
    throttle, names = Throttle(), [f"dev-{number}" for number in range(90)]
    assert crowd(throttle, names) == [0] * 60 + list(range(1, 31))
    # Whoever comes at its turn is let in, even after a crowd of newcomers.
    assert crowd(throttle, [f"new-{number}" for number in range(20)], at=5.0) == list(range(26, 46))
    assert crowd(throttle, names[60:65], at=5.0) == [0] * 5
    assert crowd(throttle, names[65:70], at=5.0) == [1, 2, 3, 4, 5]
    assert crowd(throttle, names[60:90], at=60.0).count(0) == 30


def test_nobody_is_told_to_wait_longer_than_a_minute():
    assert max(crowd(Throttle(), [f"dev-{number}" for number in range(500)])) == 60


def test_one_refusal_tells_of_a_crowd_at_an_address():
    throttle = Throttle()
    told = []
    for number in range(70):
        key = ThrottleKey.of(f"dev-{number}", "192.0.2.1")
        try:
            ask(throttle, key, on=f"{number}", requests_per_min_per_address=60)
        except Throttled as throttled:
            told.append(throttled.repeated)
    assert told == [False] + [True] * 9


def test_another_address_has_its_own():
    throttle = Throttle()
    assert crowd(throttle, [f"dev-{number}" for number in range(61)])[-1] == 1
    ask(throttle, STRANGER, on="b", requests_per_min_per_address=60)


def test_only_so_many_are_remembered():
    throttle = Throttle(keys_max=10)
    for number in range(100):
        ask(throttle, ThrottleKey.of(f"dev-{number}", "192.0.2.1"), on=str(number))
    assert len(throttle) <= 20


def test_one_ipv6_host_has_one_address_whatever_it_calls_itself():
    assert address_group("2001:db8:0:1::1") == address_group("2001:db8:0:1:ffff::2%eth0")
    assert address_group("2001:db8:0:1::1") != address_group("2001:db8:0:2::1")
    assert address_group("::ffff:192.0.2.1") == address_group("192.0.2.1") == "192.0.2.1"


@given(st.lists(st.floats(0, 30), max_size=200), st.integers(1, 300), st.booleans())
def test_nobody_gets_more_than_its_allowance_in_any_minute(pauses, per_min, by_address):
    allowed = {"per_min": 10_000, "requests_per_min_per_address": per_min} if by_address else {"per_min": per_min}
    throttle, now_s, let_in = Throttle(), 0.0, []
    for pause_s in pauses:
        now_s += pause_s
        try:
            ask(throttle, at=now_s, **allowed)
        except Throttled:
            continue
        let_in.append(now_s)
    for start in let_in:
        # A full bucket and a minute's refill.
        assert sum(start <= at < start + 60 for at in let_in) <= 2 * per_min


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 3)), max_size=150))
def test_who_comes_when_it_was_told_is_let_in_whoever_else_has_come(arrivals):
    throttle, now_s, told = Throttle(), 0.0, {}
    for number, pause_s in arrivals:
        now_s += pause_s
        name = f"dev-{number}"
        is_due = name in told and told[name] <= now_s
        try:
            key = ThrottleKey.of(name, "192.0.2.1")
            ask(throttle, key, at=now_s, on=name, per_min=1000, requests_per_min_per_address=10)
        except Throttled as throttled:
            assert not is_due
            if throttled.retry_after_s < 60:
                told.setdefault(name, now_s + throttled.retry_after_s)
        else:
            told.pop(name, None)
