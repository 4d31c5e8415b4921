"""What the log shows of decisions."""

import pytest
import structlog.testing

from provisiond.errors import AttestationError, ConnectRefused
from provisiond.metrics import Metrics
from provisiond.model import ConnectAttempt, Connection, RegistrationId, Role, Trace
from provisiond.observer import LogObserver
from provisiond.registration.context import Context
from provisiond.registration.decide import refuse
from tests.fakes_decision import NOW, FakeEntropy

DEVICE = RegistrationId.parse("press-1")
CONNECTION = Connection(
    connection_id="1", role=Role.DPS, claimed_id=DEVICE, listener="devices", remote_address="192.0.2.7"
)


def refusal(finding):
    context = Context(
        now=NOW,
        immediate=True,
        tracking_id="t",
        operation_id="o",
        etag="e",
        challenge_id="c",
        connection_id="1",
        entropy=FakeEntropy(),
    )
    fault = AttestationError("the presented key is another", finding=finding)
    return refuse(fault, claimed_id=DEVICE, event="register", context=context, trace=Trace())


def test_a_refused_connect_is_left_to_the_door_that_says_it_in_one_line():
    attempt = ConnectAttempt(
        connection_id="c", listener="devices", remote_address="192.0.2.7", tls=True, client_id="dev-1", username="x"
    )
    with structlog.testing.capture_logs() as logs:
        LogObserver().connect_refused(attempt, ConnectRefused("no role"))
    assert [entry["log_level"] for entry in logs] == ["debug"]


@pytest.mark.parametrize(
    ("finding", "level", "count"),
    [
        ("endorsement-key-in-use", "warning", 1),
        ("endorsement-key-mismatch", "warning", 1),
        ("no-evidence", "info", None),
    ],
)
def test_a_tpm_that_asks_to_be_another_is_a_warning_and_counted(finding, level, count):
    metrics = Metrics()
    with structlog.testing.capture_logs() as logs:
        for observer in (LogObserver(), metrics):
            observer.decided(CONNECTION, refusal(finding), event="register", elapsed_s=0.001)
    assert [entry["log_level"] for entry in logs] == [level]
    labels = {"finding": finding}
    assert metrics.registry.get_sample_value("provisiond_identity_conflicts_total", labels) == count
