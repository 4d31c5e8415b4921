import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.assigner.health import FAILURES_TO_BE_DOWN, HubHealth, answered, backoff_s, failed, measured
from provisiond.assigner.pace import RETRY_AFTER_MAX_S, Pace, retry_after_s, worked
from provisiond.errors import HubUnauthorized, HubUnavailable

FAULT = HubUnavailable("no answer")


def after(count, fault=FAULT):
    health = HubHealth()
    for _ in range(count):
        health = failed(health, fault, now_s=100.0, jitter=1.0)
    return health


def test_a_hub_is_down_after_failures_in_a_row_and_not_before():
    assert after(FAILURES_TO_BE_DOWN - 1).state == "up"
    assert after(FAILURES_TO_BE_DOWN).state == "down"


def test_one_answer_makes_it_healthy_again():
    assert answered(after(10)) == HubHealth()


def test_wrong_credentials_of_ours_count_at_once():
    assert after(1, HubUnauthorized("CONNACK 5")).state == "unauthorized"


def test_waits_double_up_to_a_limit():
    waits = [after(count).retry_at_s - 100 for count in (1, 2, 3, 20)]
    assert waits == [0.5, 1.0, 2.0, 15.0]


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_a_wait_is_never_none_and_never_long(attempts, jitter):
    assert 0.25 <= backoff_s(attempts, jitter=jitter) <= 15


def test_latency_is_smoothed():
    health = measured(HubHealth(), latency_ms=10.0)
    assert health.latency_ms == 10.0
    assert measured(health, latency_ms=20.0).latency_ms == pytest.approx(12.0)
    assert answered(health).latency_ms == 10.0


def test_an_answer_to_a_probe_does_not_make_a_hub_healthy_that_makes_nothing():
    assert measured(after(FAILURES_TO_BE_DOWN), latency_ms=1.0).state == "down"


def test_the_end_of_a_long_queue_is_told_to_wait_as_long_as_the_queue_takes():
    pace = worked(Pace(waiting=1010), count=10, elapsed_s=0.1)
    assert pace.rate_per_s == pytest.approx(100)
    assert retry_after_s(pace) == 10
    assert retry_after_s(pace, recovery_s=5) == 15


@given(st.integers(0, 10**9), st.one_of(st.none(), st.floats(1e-6, 1e6)), st.floats(0, 1e6))
def test_what_devices_are_told_is_whole_seconds_within_bounds(waiting, rate, recovery_s):
    told = retry_after_s(Pace(waiting=waiting, rate_per_s=rate), recovery_s=recovery_s)
    assert isinstance(told, int)
    assert 1 <= told <= RETRY_AFTER_MAX_S
