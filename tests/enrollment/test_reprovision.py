from dataclasses import replace

import pytest

from provisiond.enrollment.reprovision import POLICIES, stays, substatus_after
from provisiond.model import RegistrationStatus, Substatus
from tests.store.records import make_registration

MIGRATE, RESET, NEVER = (POLICIES[name] for name in ("reprovisionandmigratedata", "reprovisionandresetdata", "never"))
ASSIGNED = make_registration(hub="one")


@pytest.mark.parametrize("policy", [MIGRATE, RESET])
def test_a_policy_that_updates_the_assignment_always_allocates_again(policy):
    assert not stays(ASSIGNED, policy)


def test_never_keeps_a_device_that_has_a_hub_and_only_such_a_one():
    assert stays(ASSIGNED, NEVER)
    assert not stays(None, NEVER)
    assert not stays(replace(ASSIGNED, status=RegistrationStatus.FAILED), NEVER)


@pytest.mark.parametrize(
    ("existing", "hub", "policy", "substatus"),
    [
        (None, "one", MIGRATE, Substatus.INITIAL_ASSIGNMENT),
        (ASSIGNED, "one", MIGRATE, Substatus.INITIAL_ASSIGNMENT),
        (ASSIGNED, "two", MIGRATE, Substatus.DEVICE_DATA_MIGRATED),
        (ASSIGNED, "two", RESET, Substatus.DEVICE_DATA_RESET),
        (replace(ASSIGNED, substatus=Substatus.DEVICE_DATA_MIGRATED), "one", RESET, Substatus.DEVICE_DATA_MIGRATED),
        (replace(ASSIGNED, status=RegistrationStatus.FAILED), "two", MIGRATE, Substatus.INITIAL_ASSIGNMENT),
    ],
)
def test_the_substatus_says_how_a_device_came_to_its_hub(existing, hub, policy, substatus):
    assert substatus_after(existing, hub, policy) is substatus
