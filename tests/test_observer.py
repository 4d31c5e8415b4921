"""What the log shows of decisions."""

import structlog.testing

from provisiond.errors import ConnectRefused
from provisiond.model import ConnectAttempt
from provisiond.observer import LogObserver


def test_a_refused_connect_is_left_to_the_door_that_says_it_in_one_line():
    attempt = ConnectAttempt(
        connection_id="c", listener="devices", remote_address="192.0.2.7", tls=True, client_id="dev-1", username="x"
    )
    with structlog.testing.capture_logs() as logs:
        LogObserver().connect_refused(attempt, ConnectRefused("no role"))
    assert [entry["log_level"] for entry in logs] == ["debug"]
