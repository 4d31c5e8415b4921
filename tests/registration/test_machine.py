import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.errors import ServerFault
from provisiond.model import RegistrationStatus
from provisiond.registration.machine import TRANSITIONS, Event, step


@pytest.mark.parametrize(("status", "event"), list(itertools.product(RegistrationStatus, Event)))
def test_every_pair_steps_as_the_table_says_or_is_refused(status, event):
    if (status, event) in TRANSITIONS:
        assert step(status, event) is TRANSITIONS[status, event]
    else:
        with pytest.raises(ServerFault):
            step(status, event)


@given(st.lists(st.sampled_from(Event), max_size=30))
def test_whatever_happens_a_device_is_only_assigned_by_placement_or_confirmation(events):
    status = RegistrationStatus.UNASSIGNED
    for event in events:
        try:
            after = step(status, event)
        except ServerFault:
            continue
        if after is RegistrationStatus.ASSIGNED and status is not RegistrationStatus.ASSIGNED:
            assert event in (Event.PLACED, Event.CONFIRMED)
        status = after


def test_every_status_that_is_reached_can_be_left_for_assigned():
    assert {status for status, event in TRANSITIONS if event is Event.PLACED} == set(TRANSITIONS.values()) | {
        RegistrationStatus.UNASSIGNED
    }
