"""Who watches: the log and the metrics."""

from typing import Protocol

from provisiond.errors import ConnectRefused
from provisiond.model import AuditRecord, ConnectAttempt, Connection, Decision, Registration


class Observer(Protocol):
    """Who watches the decisions: the log and the metrics. Must not block and must not raise."""

    def connect_refused(self, attempt: ConnectAttempt, error: ConnectRefused) -> None:
        """A CONNECT was refused."""
        ...

    def decided(self, connection: Connection, decision: Decision, *, event: str, elapsed_s: float) -> None:
        """A request was decided, and committed if it had to be. `event`: `register`, `poll`, `invalid`."""
        ...

    def failed(self, connection: Connection, error: Exception, *, tracking_id: str) -> None:
        """Our side failed a request; the device heard 500 and the tracking id."""
        ...


class HubObserver(Protocol):
    """Who watches the work on the hubs: the log and the metrics. Must not block and must not raise."""

    def hub_changed(self, hub: str, *, state: str, error: str) -> None:
        """A hub answers, or does not any more. `state`: `up`, `down`, `unauthorized`."""
        ...

    def hub_worked(self, hub: str, *, action: str, count: int, elapsed_s: float) -> None:
        """A call did something. `action`: `ensure`, `refuse`, `delete`, `disable`, `repair`, `arrive`."""
        ...

    def hub_settled(self, registration: Registration, audit: AuditRecord) -> None:
        """A registration that waited for its hub is finished: `assigned` or `failed`, and that is on disk."""
        ...

    def hub_failed(self, hub: str, error: Exception) -> None:
        """A connector raised what it may not."""
        ...
