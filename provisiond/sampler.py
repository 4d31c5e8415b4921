"""Looks now and then at what nobody reports: hubs, certificates, disk, queues; for the metrics."""

import asyncio
import contextlib
import shutil
from collections.abc import Callable
from typing import Final

from cryptography import x509

from provisiond.errors import AdminError, StoreError
from provisiond.local_ca import load_root_certificate
from provisiond.metrics import StateMetrics
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
        """One round. What cannot be seen keeps its last value: the alerts on failures are elsewhere."""
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
        for status, total in (await self._store.count_registrations()).items():
            metrics.registrations.labels(status).set(total)
        for hub, total in (await self._store.count_assigned_by_hub()).items():
            metrics.hub_assigned.labels(hub).set(total)
        trail = AuditTrail(self._store)
        head, checkpoint = await trail.head(), await trail.newest_checkpoint()
        metrics.audit_records.set(head.seq)
        metrics.audit_unsigned_records.set(head.seq - (checkpoint.seq if checkpoint else head.base_seq))

    def _look_at_hubs(self) -> None:
        for hub in self._hubs.snapshot():
            self._metrics.hub_healthy.labels(hub.name).set(hub.healthy)
            if hub.latency_ms is not None:
                self._metrics.hub_latency_ms.labels(hub.name).set(hub.latency_ms)

    def _look_at_files(self) -> None:
        settings = self._settings()
        with contextlib.suppress(OSError):
            self._metrics.state_free_bytes.set(shutil.disk_usage(settings.service.state_dir).free)
        with contextlib.suppress(AdminError):
            self._show_expiry("ca", load_root_certificate(settings.ca_dir))
        for listener in settings.broker.listeners:
            if listener.cert_file is not None:
                with contextlib.suppress(OSError, ValueError):
                    chain = x509.load_pem_x509_certificates(listener.cert_file.read_bytes())
                    self._show_expiry(listener.name, chain[0])

    def _show_expiry(self, name: str, certificate: x509.Certificate) -> None:
        left = certificate.not_valid_after_utc - self._clock.now()
        self._metrics.certificate_expiry_days.labels(name).set(left.total_seconds() / _SECONDS_A_DAY)
