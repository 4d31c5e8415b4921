"""What the log, Prometheus and operators hear of registrations that waited for their hub."""

import json

import structlog.testing
from prometheus_client import CollectorRegistry

from provisiond.embedded_hub.audience import AssignmentObserver
from provisiond.hub_observers import HubLogObserver, HubMetrics
from tests.store.records import make_audit, make_registration

REGISTRATION = make_registration("Device-1", hub="line-2")
ASSIGNED = make_audit(event="assign", outcome="assigned", reason="", hub="line-2", actor="assigner")
FAILED = make_audit(event="assign", outcome="failed", reason="no room", code=400209, hub="line-2")


def test_the_log_has_one_record_of_each_at_the_level_of_those_that_need_not_wait():
    with structlog.testing.capture_logs() as logs:
        HubLogObserver().hub_settled(REGISTRATION, ASSIGNED)
        HubLogObserver().hub_settled(REGISTRATION, FAILED)
    assert [(entry["log_level"], entry["event"], entry["registration_id"], entry["hub"]) for entry in logs] == [
        ("info", "assign assigned", "Device-1", "line-2"),
        ("info", "assign failed", "Device-1", "line-2"),
    ]
    assert (logs[1]["code"], logs[1]["reason"]) == (400209, "no room")
    assert logs[0]["tracking_id"] == ASSIGNED.tracking_id


def test_they_are_counted_by_hub_outcome_and_mechanism():
    registry = CollectorRegistry()
    HubMetrics(registry).hub_settled(REGISTRATION, FAILED)
    labels = {"hub": "line-2", "outcome": "failed", "mechanism": REGISTRATION.attestation_type.value}
    assert registry.get_sample_value("provisiond_hub_registrations_total", labels) == 1


def test_operators_hear_of_them_as_of_any_other_registration():
    heard = []

    class Audience:
        def publish(self, message):
            heard.append(message)

    AssignmentObserver(Audience()).hub_settled(REGISTRATION, ASSIGNED)
    (message,) = heard
    assert message.topic == "provisiond/v1/_events/registration/Device-1"
    told = json.loads(message.payload)
    assert (told["event"], told["outcome"], told["hub"]) == ("assign", "assigned", "line-2")
    assert "remoteAddress" not in told  # nobody asked
