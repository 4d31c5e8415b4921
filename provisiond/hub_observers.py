"""Who watches the work on the hubs: the log, and what Prometheus may ask."""

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram

from provisiond.errors import ServerFault
from provisiond.model import AuditRecord, Registration
from provisiond.ports import HubObserver

_BUCKETS_S = (0.002, 0.01, 0.05, 0.25, 1.0, 5.0, 10.0)


class HubObservers:
    """Several observers as one."""

    def __init__(self, *observers: HubObserver) -> None:
        self._observers = observers

    def hub_changed(self, hub: str, *, state: str, error: str) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.hub_changed(hub, state=state, error=error)

    def hub_worked(self, hub: str, *, action: str, count: int, elapsed_s: float) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.hub_worked(hub, action=action, count=count, elapsed_s=elapsed_s)

    def hub_settled(self, registration: Registration, audit: AuditRecord) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.hub_settled(registration, audit)

    def hub_failed(self, hub: str, error: Exception) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.hub_failed(hub, error)


class HubMetrics:
    """`ports.HubObserver` that counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._devices = Counter(
            "provisiond_hub_devices",
            "Devices that something was done for at a hub.",
            ["hub", "action"],
            registry=registry,
        )
        self._seconds = Histogram(
            "provisiond_hub_batch_seconds",
            "How long a hub takes for a batch.",
            ["hub", "action"],
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._settled = Counter(
            "provisiond_hub_registrations",
            "Registrations that waited for their hub, by how they ended and the mechanism that proved the device.",
            ["hub", "outcome", "mechanism"],
            registry=registry,
        )
        self._failures = Counter(
            "provisiond_hub_failures", "What our side failed in the work on a hub.", ["hub"], registry=registry
        )

    def hub_changed(self, hub: str, *, state: str, error: str) -> None:
        """Nothing to count: the sampler shows health. Failures are there from now on, for a rate misses the first."""
        del state, error
        self._failures.labels(hub)

    def hub_worked(self, hub: str, *, action: str, count: int, elapsed_s: float) -> None:
        """Count and time a batch."""
        self._devices.labels(hub, action).inc(count)
        self._seconds.labels(hub, action).observe(elapsed_s)

    def hub_settled(self, registration: Registration, audit: AuditRecord) -> None:
        """Count how it ended."""
        self._settled.labels(registration.hub or "", audit.outcome, registration.attestation_type.value).inc()

    def hub_failed(self, hub: str, error: Exception) -> None:
        """Count a failure of ours."""
        del error
        self._failures.labels(hub).inc()


class HubLogObserver:
    """`ports.HubObserver` that writes the log.

    A hub that fails is a WARNING, one that comes back is news. A registration that is finished here is INFO, like one
    that need not wait for a hub.
    """

    def __init__(self) -> None:
        self._log = structlog.get_logger("provisiond.hubs")
        self._registrations = structlog.get_logger("provisiond.registration")

    def hub_changed(self, hub: str, *, state: str, error: str) -> None:
        """One record a change."""
        if error:
            self._log.warning("hub does not answer", hub=hub, state=state, reason=error)
        else:
            self._log.info("hub answers", hub=hub)

    def hub_worked(self, hub: str, *, action: str, count: int, elapsed_s: float) -> None:
        """One record a batch; what had to be repaired, or was refused, is news."""
        write = self._log.warning if action in ("repair", "refuse") else self._log.debug
        write("hub worked", hub=hub, action=action, devices=count, ms=round(elapsed_s * 1000, 2))

    def hub_settled(self, registration: Registration, audit: AuditRecord) -> None:
        """One record a registration."""
        optional = {"code": audit.code, "reason": audit.reason or None}
        self._registrations.info(
            f"{audit.event} {audit.outcome}",
            registration_id=registration.registration_id,
            enrollment=registration.enrollment_id,
            hub=registration.hub,
            tracking_id=audit.tracking_id,
            **{name: value for name, value in optional.items() if value is not None},
        )

    def hub_failed(self, hub: str, error: Exception) -> None:
        """One record a failure; a traceback only for what nobody foresaw."""
        unforeseen = not isinstance(error, ServerFault)
        self._log.error(
            "hub work failed", hub=hub, reason=str(error) or repr(error), exc_info=error if unforeseen else None
        )
