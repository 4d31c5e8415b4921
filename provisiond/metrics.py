"""What Prometheus may ask: registrations and their latency by stage, connections, queues, hubs, certificates."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from provisiond import __version__
from provisiond.errors import ConnectRefused
from provisiond.http_server import Application
from provisiond.model import AttestationType, ConnectAttempt, Connection, Decision, Outcome
from provisiond.registration.tpm_claim import IDENTITY_CONFLICTS, identity_conflict

STAGES: Final = ("facts", "decide", "commit")
"""Of a request: reading what is stored, deciding, making it durable."""

_REGISTERING: Final = ("register", "answer")
_UNPROVED: Final = "unproved"
_CONNACK_CODES: Final = range(1, 6)
"""Refusals of MQTT 3.1.1 table 3.1."""
_STAGE_BUCKETS_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5)
_LATENCY_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """`ports.Observer` that counts; one registry of its own, so that two daemons in one process do not collide."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._decisions = Counter(
            "provisiond_decisions", "Requests decided.", ["event", "outcome", "code"], registry=self.registry
        )
        self._seconds = Histogram(
            "provisiond_decision_seconds",
            "From a request's arrival to its reply, commit included.",
            ["event"],
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._refused = Counter("provisiond_connects_refused", "CONNECTs refused.", ["code"], registry=self.registry)
        self._failures = Counter("provisiond_failures", "Requests that our side failed.", registry=self.registry)
        self._registrations = Counter(
            "provisiond_registration_requests",
            "Register requests that were decided, by how they ended and the mechanism that proved the device.",
            ["outcome", "mechanism"],
            registry=self.registry,
        )
        self._conflicts = Counter(
            "provisiond_identity_conflicts",
            "Refusals of a TPM that asked to be another.",
            ["finding"],
            registry=self.registry,
        )
        stages = Histogram(
            "provisiond_stage_seconds",
            "Time a request spends in each stage.",
            ["stage"],
            buckets=_STAGE_BUCKETS_S,
            registry=self.registry,
        )
        # A look-up by label would cost as much as the observation.
        self._stages = {stage: stages.labels(stage) for stage in STAGES}
        self._show_at_zero()
        Gauge("provisiond_build_info", "1, with the version.", ["version"], registry=self.registry).labels(
            __version__
        ).set(1)

    def _show_at_zero(self) -> None:
        """Have what is to be expected there from the start: a rate does not see a counter's first appearance."""
        for finding in IDENTITY_CONFLICTS:
            self._conflicts.labels(finding)
        for code in _CONNACK_CODES:
            self._refused.labels(str(code))
        for mechanism in AttestationType:
            self._registrations.labels(Outcome.ASSIGNED.value, mechanism.value)
        self._registrations.labels(Outcome.REFUSED.value, _UNPROVED)

    def connect_refused(self, attempt: ConnectAttempt, error: ConnectRefused) -> None:
        """Count a refused CONNECT."""
        del attempt
        self._refused.labels(str(error.return_code)).inc()

    def decided(self, connection: Connection, decision: Decision, *, event: str, elapsed_s: float) -> None:
        """Count a decision and time it."""
        del connection
        code = str(decision.reply.error.code) if decision.reply.error else ""
        self._decisions.labels(event, decision.outcome.value, code).inc()
        self._seconds.labels(event).observe(elapsed_s)
        if code and (finding := identity_conflict(decision)):
            self._conflicts.labels(finding).inc()
        if event in _REGISTERING and decision.outcome is not Outcome.CHALLENGED:
            mechanism = decision.guard.attestation_type.value if decision.guard else _UNPROVED
            self._registrations.labels(decision.outcome.value, mechanism).inc()

    def time_stage(self, stage: str, elapsed_s: float) -> None:
        """Time one stage of a request."""
        self._stages[stage].observe(elapsed_s)

    def failed(self, connection: Connection, error: Exception, *, tracking_id: str) -> None:
        """Count a failure of ours."""
        del connection, error, tracking_id
        self._failures.inc()

    @property
    def application(self) -> Application:
        """What answers Prometheus: in a thread, a scrape never waits for a device nor a device for a scrape."""
        application: Application = make_wsgi_app(self.registry)
        return application

    def gauge(self, name: str, documentation: str, value: Callable[[], float]) -> None:
        """Publish a value that is read when Prometheus asks."""
        Gauge(name, documentation, registry=self.registry).set_function(value)

    def counters(self, name: str, documentation: str, label: str, values: Callable[[], Mapping[str, float]]) -> None:
        """Publish counters that somebody else counts, by the values of one label; read when Prometheus asks."""
        self.registry.register(_Counters(name, documentation, label, values))


class _Counters(Collector):
    def __init__(self, name: str, documentation: str, label: str, values: Callable[[], Mapping[str, float]]) -> None:
        self._name, self._documentation, self._label, self._values = name, documentation, label, values

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(self._name, self._documentation, labels=[self._label])
        for value, total in self._values().items():
            family.add_metric([value], total)
        yield family


class StateMetrics:
    """What is looked at now and then rather than counted: registrations, hubs, queues, certificates, disk."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, documentation: str, *labels: str) -> Gauge:
            return Gauge(f"provisiond_{name}", documentation, labels, registry=registry)

        self.registrations = gauge("registrations", "Registration records by status.", "status")
        self.hub_waiting = gauge("hub_waiting", "Devices that wait for a hub to take them.", "hub")
        self.hub_assigned = gauge("hub_assigned", "Devices assigned to a hub, or being assigned.", "hub")
        self.hub_healthy = gauge("hub_healthy", "1 when the hub answered when it was last asked.", "hub")
        self.hub_latency_ms = gauge("hub_latency_milliseconds", "Smoothed round trip to the hub.", "hub")
        self.certificate_expiry_days = gauge(
            "certificate_expiry_days", "Days until a certificate of this service ends.", "certificate"
        )
        self.store_writes_waiting = gauge("store_writes_waiting", "Writes that wait for their transaction.")
        self.store_reads_waiting = gauge("store_reads_waiting", "Reads that wait for their statement.")
        self.store_transactions = gauge("store_transactions", "Transactions since the start.")
        self.store_rows = gauge("store_rows", "Writes in them; divided by the transactions, what grouping saves.")
        self.state_free_bytes = gauge("state_free_bytes", "Room on the file system of the state directory.")
        self.audit_records = gauge("audit_records", "Sequence number of the newest audit record.")
        self.audit_unsigned_records = gauge("audit_unsigned_records", "Audit records since the newest checkpoint.")
