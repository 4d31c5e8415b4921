import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.assignment.policies import allocate, rendezvous_score
from provisiond.errors import AllocationError
from provisiond.model import AllocationPolicy, Hub, Trace

KEYS = [f"device-{number}" for number in range(6000)]


def hub(name, **options):
    return Hub(name=name, host=f"{name}.example", **options)


def choose(hubs, key="device", policy=AllocationPolicy.HASHED, **options):
    return allocate(policy=policy, hubs=hubs, registration_key=key, trace=Trace(), **options).hub.name


def test_hashed_gives_each_hub_its_weight():
    hubs = [hub("a", weight=1), hub("b", weight=2), hub("c", weight=5)]
    counts = Counter(choose(hubs, key) for key in KEYS)
    for entry in hubs:
        assert counts[entry.name] / len(KEYS) == pytest.approx(entry.weight / 8, abs=0.03)


def test_a_new_hub_takes_only_its_share_and_moves_nobody_else():
    before = [hub("a"), hub("b"), hub("c")]
    after = [*before, hub("d")]
    moved = [key for key in KEYS if choose(before, key) != choose(after, key)]
    assert all(choose(after, key) == "d" for key in moved)
    assert len(moved) / len(KEYS) == pytest.approx(0.25, abs=0.03)


def test_a_removed_hub_moves_only_its_own_devices():
    before = [hub("a"), hub("b"), hub("c")]
    after = before[:2]
    assert all(choose(before, key) == "c" for key in KEYS if choose(before, key) != choose(after, key))


@given(st.text(max_size=64), st.integers(1, 1000))
def test_a_score_is_always_a_positive_number(key, weight):
    assert 0 < rendezvous_score(key, "hub", weight) < float("inf")


def test_the_order_of_the_hubs_does_not_matter_to_hashed():
    hubs = [hub("a"), hub("b"), hub("c")]
    assert all(choose(hubs, key) == choose(hubs[::-1], key) for key in KEYS[:200])


def test_a_hub_that_takes_no_new_devices_gets_none():
    hubs = [hub("a", eligible=False), hub("b")]
    assert {choose(hubs, key) for key in KEYS[:200]} == {"b"}


def test_static_takes_the_first_listed_hub_by_name_or_host():
    hubs = [hub("a"), hub("b")]
    assert choose(hubs, policy=AllocationPolicy.STATIC, allowed=["B.example", "a"]) == "b"


def test_only_allowed_hubs_are_chosen():
    hubs = [hub("a"), hub("b"), hub("c")]
    assert {choose(hubs, key, allowed=["A", "c.EXAMPLE"]) for key in KEYS[:200]} == {"a", "c"}


def test_least_loaded_counts_load_by_weight_and_not_the_device_itself():
    hubs = [hub("a", assigned_count=10, weight=10), hub("b", assigned_count=2)]
    assert choose(hubs, policy=AllocationPolicy.LEAST_LOADED) == "a"
    hubs = [hub("a", assigned_count=1), hub("b", assigned_count=1)]
    assert choose(hubs, policy=AllocationPolicy.LEAST_LOADED, current_hub="a") == "a"


def test_lowest_latency_prefers_measured_hubs():
    hubs = [hub("a"), hub("b", latency_ms=30.0), hub("c", latency_ms=12.5)]
    assert choose(hubs, policy=AllocationPolicy.GEO_LATENCY) == "c"


@pytest.mark.parametrize("hubs", [[], [hub("a", eligible=False)]])
def test_no_eligible_hub_is_an_error_of_its_own_code(hubs):
    with pytest.raises(AllocationError) as caught:
        choose(hubs)
    assert caught.value.code == 400208


def test_the_trace_shows_every_score():
    trace = Trace()
    allocate(policy=AllocationPolicy.HASHED, hubs=[hub("a"), hub("b")], registration_key="x", trace=trace)
    (check,) = trace.snapshot()
    assert check.passed
    assert "a " in check.finding
    assert "b " in check.finding


# --- health and draining ---


def test_a_hub_that_drains_or_is_down_gets_nobody_while_another_is_there():
    hubs = [hub("draining", eligible=False), hub("down", healthy=False), hub("open")]
    assert {choose(hubs, key) for key in KEYS[:200]} == {"open"}


def test_where_no_hub_is_healthy_the_device_waits_for_one_that_does_not_drain():
    hubs = [hub("draining", eligible=False), hub("down", healthy=False)]
    assert choose(hubs) == "down"


def test_where_every_hub_drains_there_is_none():
    with pytest.raises(AllocationError) as raised:
        choose([hub("a", eligible=False), hub("b", eligible=False, healthy=False)])
    assert raised.value.code == 400208


def test_a_thousand_devices_over_three_hubs_of_which_one_drains_land_by_weight():
    hubs = [hub("a", weight=2), hub("b", weight=1), hub("draining", weight=5, eligible=False)]
    counts = Counter(choose(hubs, f"sim-{number:04}") for number in range(1000))
    assert counts["draining"] == 0
    assert counts["a"] / 1000 == pytest.approx(2 / 3, abs=0.03)
    assert counts["b"] / 1000 == pytest.approx(1 / 3, abs=0.03)


# --- lowest latency ---


def nearest(hubs, **options):
    return choose(hubs, policy=AllocationPolicy.GEO_LATENCY, **options)


def test_the_nearest_hub_is_the_one_with_the_lowest_latency():
    assert nearest([hub("far", latency_ms=30.0), hub("near", latency_ms=3.0), hub("unknown")]) == "near"


@pytest.mark.parametrize(
    ("here_ms", "there_ms", "chosen"),
    [(10.0, 9.0, "here"), (10.0, 8.5, "here"), (10.0, 7.0, "there"), (1.0, 0.3, "here"), (3.0, 0.5, "there")],
)
def test_a_device_moves_only_for_a_hub_that_is_much_nearer(here_ms, there_ms, chosen):
    hubs = [hub("here", latency_ms=here_ms), hub("there", latency_ms=there_ms)]
    assert nearest(hubs, current_hub="here") == chosen


def test_without_any_measurement_devices_are_spread_by_weight():
    hubs = [hub("a"), hub("b")]
    assert {nearest(hubs, key=key) for key in KEYS[:200]} == {"a", "b"}


@pytest.mark.parametrize("policy", [policy for policy in AllocationPolicy if policy is not AllocationPolicy.CUSTOM])
def test_scores_are_numbers_that_json_can_carry(policy):
    hubs = [hub("unknown"), hub("here", latency_ms=0.0), hub("there", latency_ms=2.0)]
    scores = allocate(policy=policy, hubs=hubs, registration_key="device", trace=Trace()).scores
    json.dumps(scores, allow_nan=False)
    assert "-0.0" not in [str(score) for _, score in scores]
