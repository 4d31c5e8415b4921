"""Who listens: operators and local consumers, by what they have subscribed to."""

from collections.abc import Callable, Mapping

from provisiond.errors import ConnectRefused
from provisiond.model import AuditRecord, ConnectAttempt, Connection, Decision, Message, Registration
from provisiond.ports import Transport
from provisiond.protocols.operator import assignment_event, registration_event
from provisiond.protocols.topic_filters import matches


class Audience:
    """Hands messages to every operator that has subscribed to them, and keeps none.

    There are few operators with few filters each (the broker's bounds), so all are looked at.
    """

    def __init__(self) -> None:
        self.lost = 0
        """Messages that a listener could not take, since the start."""
        self._transport: Transport | None = None
        self._filters: dict[str, tuple[str, ...]] = {}
        self._relay: Callable[[Message], bool] | None = None

    def attach(self, transport: Transport) -> None:
        """Send through this from now on."""
        self._transport = transport

    def relay(self, publish: Callable[[Message], bool]) -> None:
        """Have everything published at the site's broker as well, whose access rules say who hears it."""
        self._relay = publish

    def listen(self, connection_id: str, granted: Mapping[str, int]) -> tuple[str, ...]:
        """Take over what a connection listens to; gives the filters that are new."""
        before = self._filters.get(connection_id, ())
        self._filters[connection_id] = tuple(granted)
        return tuple(topic_filter for topic_filter in granted if topic_filter not in before)

    def leave(self, connection_id: str) -> None:
        """Forget a connection."""
        self._filters.pop(connection_id, None)

    @property
    def is_there(self) -> bool:
        """Whether anybody may be listening; if not, nothing need be made to be published."""
        return bool(self._filters) or self._relay is not None

    def publish(self, message: Message) -> int:
        """Send to everyone who listens; how many have taken it."""
        taken = 0
        if self._relay is not None and self._relay(message):
            taken += 1
        if self._transport is None:
            return taken
        for connection_id, filters in self._filters.items():
            if any(matches(topic_filter, message.topic) for topic_filter in filters):
                if self._transport.post(connection_id, message):
                    taken += 1
                else:
                    self.lost += 1
        return taken


class EventObserver:
    """`ports.Observer` that tells everyone who listens what was decided."""

    def __init__(self, audience: Audience) -> None:
        self._audience = audience

    def connect_refused(self, attempt: ConnectAttempt, error: ConnectRefused) -> None:
        """Nothing: anybody can bring that about as often as they like."""

    def decided(self, connection: Connection, decision: Decision, *, event: str, elapsed_s: float) -> None:
        """An event."""
        del elapsed_s
        if not self._audience.is_there:
            return
        message = registration_event(connection.claimed_id, decision, event=event)
        if message is not None:
            self._audience.publish(message)

    def failed(self, connection: Connection, error: Exception, *, tracking_id: str) -> None:
        """Nothing: `decided` follows."""


class AssignmentObserver:
    """`ports.HubObserver` that tells everyone who listens of registrations that waited for their hub."""

    def __init__(self, audience: Audience) -> None:
        self._audience = audience

    def hub_changed(self, hub: str, *, state: str, error: str) -> None:
        """Nothing: the status of the service has it."""

    def hub_worked(self, hub: str, *, action: str, count: int, elapsed_s: float) -> None:
        """Nothing: each registration is told by itself."""

    def hub_settled(self, registration: Registration, audit: AuditRecord) -> None:
        """An event."""
        self._audience.publish(assignment_event(registration, audit))

    def hub_failed(self, hub: str, error: Exception) -> None:
        """Nothing: it is the log's."""
