from dataclasses import replace

import pytest

from provisiond.model import AllocationPolicy, Hub, ReprovisionPolicy
from provisiond.registration.drain import Fate, plan_move
from tests.enrollment_factory import group, individual
from tests.store.records import make_registration

HUBS = (Hub(name="a", host="a.example"), Hub(name="b", host="b.example"))
NEVER = ReprovisionPolicy(update_hub_assignment=False, migrate_device_data=False)
CUSTOM = {"webhookUrl": "https://allocate.example/"}


def plan(enrollment, hubs=HUBS, **registration):
    return plan_move(
        make_registration("dev-1", **({"hub": "a"} | registration)),
        enrollment,
        hubs,
        default_allocation=AllocationPolicy.HASHED,
        default_reprovision=ReprovisionPolicy(),
    )


def test_a_device_moves_to_where_its_policy_says_without_its_hub():
    move = plan(individual("dev-1"))
    assert (move.fate, move.target) == (Fate.MOVES, "b")
    assert plan(group("line")).target == "b"


@pytest.mark.parametrize(
    ("changes", "fate"),
    [
        ({"reprovision_policy": NEVER}, Fate.STAYS),
        ({"allocation_policy": AllocationPolicy.CUSTOM, "custom_allocation": CUSTOM}, Fate.WEBHOOK),
        ({"allocation_policy": AllocationPolicy.STATIC, "iot_hubs": ("a",)}, Fate.STRANDED),
        ({"enabled": False}, Fate.UNENROLLED),
    ],
)
def test_a_device_that_does_not_move_is_said_why(changes, fate):
    move = plan(individual("dev-1", **changes))
    assert (move.fate, move.target) == (fate, None)


def test_a_device_that_nothing_lets_in_any_more_goes_nowhere():
    assert plan(None).fate is Fate.UNENROLLED


def test_a_hub_that_drains_itself_is_no_target():
    hubs = (HUBS[0], replace(HUBS[1], eligible=False))
    assert plan(individual("dev-1"), hubs=hubs).fate is Fate.STRANDED
