"""Looks now and then at what nobody reports: hubs, certificates, disk, queues; for the metrics."""

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from cryptography import x509
from prometheus_client import Gauge

from provisiond.errors import AdminError, StoreError
from provisiond.local_ca import load_root_certificate
from provisiond.metrics import StateMetrics
from provisiond.model import RegistrationStatus
from provisiond.ports import Clock, HubDirectory
from provisiond.settings import Settings
from provisiond.store.audit_trail import AuditTrail
from provisiond.store.sqlite import SqliteStore

ROUND_S: Final = 10.0
"""Prometheus asks every 15 to 60 s; what is older than this looks stuck."""
_SECONDS_A_DAY: Final = 86400.0


class Sampler:
    """One look every ten seconds.

    Args:
        metrics: where it says what it saw.
        store: asked for counters.
        hubs: as decisions see them.
        clock: the time.
        settings: the present ones; called each time, so that a reload counts.
    """

    def __init__(
        self,
        metrics: StateMetrics,
        *,
        store: SqliteStore,
        hubs: HubDirectory,
        clock: Clock,
        settings: Callable[[], Settings],
    ) -> None:
        self._metrics = metrics
        self._store = store
        self._hubs = hubs
        self._clock = clock
        self._settings = settings

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(ROUND_S)

    async def look(self) -> None:
        """One round. What the store does not tell keeps its last value: the alerts on failures are elsewhere."""
        with contextlib.suppress(StoreError):
            await self._look_at_store()
        self._look_at_hubs()
        self._look_at_files()

    async def _look_at_store(self) -> None:
        metrics, statistics = self._metrics, self._store.statistics
        metrics.store_writes_waiting.set(statistics.writes_waiting)
        metrics.store_reads_waiting.set(statistics.reads_waiting)
        metrics.store_transactions.set(statistics.transactions)
        metrics.store_rows.set(statistics.rows)
        by_status = await self._store.count_registrations()
        show(metrics.registrations, {status.value: by_status.get(status, 0) for status in RegistrationStatus})
        await self._look_at_queues()
        trail = AuditTrail(self._store)
        head, checkpoint = await trail.head(), await trail.newest_checkpoint()
        metrics.audit_records.set(head.seq)
        metrics.audit_unsigned_records.set(head.seq - (checkpoint.seq if checkpoint else head.base_seq))

    async def _look_at_queues(self) -> None:
        """Devices at each hub, and those that wait for it; a hub that is gone is told of while it has devices."""
        by_hub = await self._store.count_by_hub()
        totals = {hub: by_hub.get(hub, {}) for hub in {*by_hub, *(hub.name for hub in self._hubs.snapshot())} if hub}
        waiting = {hub: total.get(RegistrationStatus.ASSIGNING, 0) for hub, total in totals.items()}
        at_hub = {hub: total.get(RegistrationStatus.ASSIGNED, 0) + waiting[hub] for hub, total in totals.items()}
        show(self._metrics.hub_waiting, waiting)
        show(self._metrics.hub_assigned, at_hub)

    def _look_at_hubs(self) -> None:
        hubs = self._hubs.snapshot()
        show(self._metrics.hub_healthy, {hub.name: hub.healthy for hub in hubs})
        show(self._metrics.hub_latency_ms, {hub.name: hub.latency_ms for hub in hubs if hub.latency_ms is not None})

    def _look_at_files(self) -> None:
        settings = self._settings()
        with contextlib.suppress(OSError):
            self._metrics.state_free_bytes.set(shutil.disk_usage(settings.service.state_dir).free)
        now, found = self._clock.now(), dict(_certificates(settings))
        left = {name: certificate.not_valid_after_utc - now for name, certificate in found.items()}
        show(
            self._metrics.certificate_expiry_days,
            {name: time.total_seconds() / _SECONDS_A_DAY for name, time in left.items()},
        )


def _certificates(settings: Settings) -> Iterator[tuple[str, x509.Certificate]]:
    """The local CA's, each listener's, and the one that a broker of the site's asks for, as far as they can be read."""
    with contextlib.suppress(AdminError):
        yield "ca", load_root_certificate(settings.ca_dir)
    files = {listener.name: listener.cert_file for listener in settings.broker.listeners}
    if settings.broker.mode == "external":
        files = {"broker": settings.broker.external.cert_file}
    for name, file in files.items():
        if file is not None:
            with contextlib.suppress(OSError, ValueError):
                yield name, x509.load_pem_x509_certificates(file.read_bytes())[0]


def show(gauge: Gauge, values: Mapping[str, float]) -> None:
    """Set a gauge of one label to exactly these values: what is gone would else be shown as it last was, for ever."""
    shown = {next(iter(sample.labels.values())) for family in gauge.collect() for sample in family.samples}
    for gone in shown - values.keys():
        gauge.remove(gone)
    for label, value in values.items():
        gauge.labels(label).set(value)
