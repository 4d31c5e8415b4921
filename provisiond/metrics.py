"""What Prometheus may ask: decisions, their latency, connections."""

from collections.abc import Callable
from threading import Thread
from typing import Final
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from provisiond.errors import ConfigurationError, ConnectRefused
from provisiond.model import ConnectAttempt, Connection, Decision

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

    def failed(self, connection: Connection, error: Exception, *, tracking_id: str) -> None:
        """Count a failure of ours."""
        del connection, error, tracking_id
        self._failures.inc()

    def gauge(self, name: str, documentation: str, value: Callable[[], float]) -> None:
        """Publish a value that is read when Prometheus asks."""
        Gauge(name, documentation, registry=self.registry).set_function(value)


class MetricsServer:
    """`/metrics` over HTTP, in a thread of its own: a scrape never waits for a device nor a device for a scrape."""

    def __init__(self, metrics: Metrics, *, host: str, port: int) -> None:
        try:
            served: tuple[WSGIServer, Thread] = start_http_server(port, host, metrics.registry)
        except OSError as error:
            raise ConfigurationError(
                f"[metrics] cannot listen on {host}:{port}: {error.strerror}; choose another bind or enabled = false"
            ) from error
        self._server, self._thread = served

    @property
    def port(self) -> int:
        """The port it really listens on."""
        return self._server.server_port

    def close(self) -> None:
        """Stop serving and release the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
