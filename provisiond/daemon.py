"""The daemon: compose the rooms, run them, stop them in reverse."""

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from typing import Final, Self

import structlog

from provisiond.admin.declared import Planned, apply
from provisiond.broker.external import ExternalBroker
from provisiond.declaring import declares, plan_declared, record_hubs
from provisiond.edge import make_edge, measure_edge, reload_edge
from provisiond.embedded_hub.audience import AssignmentObserver, Audience, EventObserver
from provisiond.embedded_hub.background import Background
from provisiond.embedded_hub.hub import EmbeddedHub
from provisiond.embedded_hub.operator_desk import OperatorDesk
from provisiond.embedded_hub.operator_token import make_operator_token
from provisiond.errors import AdminError, ConfigurationError, CorruptRecord, StoreError, StoreUnavailable
from provisiond.front import Front
from provisiond.http_server import HttpServer, not_found, route
from provisiond.hub_observers import HubLogObserver, HubMetrics, HubObservers
from provisiond.hubs.directory import ConfiguredHubs
from provisiond.logs import configure_logs
from provisiond.metrics import Metrics, StateMetrics
from provisiond.model import JSONValue
from provisiond.observer import LogObserver, Observers
from provisiond.outbox import HubWork
from provisiond.pipeline import Pipeline
from provisiond.policy import service_policy
from provisiond.ports import FactsQuery
from provisiond.private_files import make_private_directory
from provisiond.protocols.timestamps import format_timestamp
from provisiond.revocation_list import FILE_NAME, RevocationListFile, RevocationListKeeper
from provisiond.sampler import Sampler
from provisiond.settings import Settings
from provisiond.settings.reloading import take_over
from provisiond.store.audit_keeper import AuditKeeper
from provisiond.store.audit_trail import AuditTrail
from provisiond.store.checkpoints import CheckpointSigner
from provisiond.store.declared import DeclaredTables
from provisiond.store.sqlite import SqliteStore
from provisiond.system import (
    SystemClock,
    SystemEntropy,
    background,
    notify_service_manager,
    raise_file_limit,
    spare_the_collector,
)
from provisiond.watchdog import Watchdog, ping_listener, watchdog_period_s

_STOP_GRACE_S: Final = 8.0
"""What a stop gives requests in progress: a service manager waits 10 s before it kills."""

_GROUPS_NAMED_MAX: Final = 10

Reload = Callable[[], Settings]
"""Reads the configuration again; raises ConfigurationError."""


class Daemon:
    """One provisiond: `async with Daemon(settings) as daemon: await daemon.stopped()`.

    Entering opens the store, binds every listener and says READY; leaving stops accepting, lets requests in progress
    finish, and closes the store last, so that nothing acknowledged is lost.

    Raises (entering):
        ConfigurationError: a listener, certificate or metrics address cannot be used.
        StoreError: the database cannot be opened, is newer than this code, or cannot be written.
    """

    def __init__(self, settings: Settings, *, reload: Reload | None = None) -> None:
        self._settings = settings
        self._reload = reload
        self._log = structlog.get_logger("provisiond.daemon")
        self._stop = asyncio.Event()
        self._resources = contextlib.AsyncExitStack()
        self._metrics = Metrics()
        self._background = Background()
        self._hubs = ConfiguredHubs(settings.linked_hubs())
        self._observer = Observers([LogObserver(), self._metrics])
        self._audience = Audience()
        self._events = EventObserver(self._audience)
        self._started_at = SystemClock().now()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as resources:
            await self._start(resources)
            self._resources = resources.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        notify_service_manager("STOPPING=1")
        await self._resources.aclose()
        self._log.info("stopped")

    @property
    def addresses(self) -> dict[str, tuple[str, int]]:
        """Where the listeners really are, by name."""
        return dict(self._broker.addresses)

    def stop(self) -> None:
        """Begin to stop; `stopped` returns."""
        self._stop.set()

    async def stopped(self) -> None:
        """Wait until somebody asks the daemon to stop, or the store is beyond help.

        Raises:
            StoreError: the database failed in a way that only a restart can mend.
        """
        broken = asyncio.create_task(self._store.fatal.wait(), name="store-watch")
        asked = asyncio.create_task(self._stop.wait(), name="stop-watch")
        try:
            await asyncio.wait({broken, asked}, return_when=asyncio.FIRST_COMPLETED)
            if broken.done():
                raise StoreUnavailable(self._store.fatal_reason)
        finally:
            for task in (broken, asked):
                task.cancel()
            await asyncio.gather(broken, asked, return_exceptions=True)

    def reload(self) -> None:
        """Take over what can change while running: log level, hubs, limits, certificates, registration settings.

        On any error the old configuration stays in force, and the log says why. Limits hold for new connections.
        """
        if self._reload is None:
            return
        try:
            read = self._reload()
        except (ConfigurationError, OSError) as error:
            self._refuse_reload(error)
            return
        if declares(read) or declares(self._settings):
            self._background.start(self._reload_declared(read), "reload")
        elif self._take_over(read):
            self._background.start(record_hubs(self._settings, self._store), "record-hubs")

    async def _reload_declared(self, read: Settings) -> None:
        """Judge the enrollments before anything is taken over, and store them when everything else was."""
        try:
            steps = await plan_declared(read, self._store)
            if not self._take_over(read):
                return
            await apply(DeclaredTables(self._store), steps)
            await record_hubs(self._settings, self._store)
        except (AdminError, ConfigurationError, OSError, StoreError) as error:
            self._refuse_reload(error)
            return
        self._say_declared(steps)

    def _refuse_reload(self, error: Exception) -> None:
        self._log.error("reload failed; the old configuration stays in force", reason=str(error))

    def _say_declared(self, steps: Sequence[Planned]) -> None:
        if steps:
            counts = Counter(step.action.value for step in steps)
            self._log.info("enrollments of the configuration applied", **counts)

    async def _declare(self) -> None:
        steps = await plan_declared(self._settings, self._store)
        await apply(DeclaredTables(self._store), steps)
        await record_hubs(self._settings, self._store)
        self._say_declared(steps)

    def _take_over(self, read: Settings) -> bool:
        """Whether it could be."""
        try:
            settings, waiting = take_over(self._settings, read)
            policy = service_policy(settings)
            reload_edge(self._broker, settings)
            self._work.reload(settings)
        except (ConfigurationError, OSError) as error:
            self._refuse_reload(error)
            return False
        configure_logs(level=settings.log.level, output_format=settings.log.format)
        self._hubs.replace(settings.linked_hubs())
        self._pipeline.policy = policy
        self._hub.reload(policy.registration.attestation)
        raise_file_limit(settings.broker.limits.max_connections)
        self._log.info("reloaded", needs_restart=",".join(waiting) or "nothing")
        self._settings = settings
        return True

    async def _start(self, resources: contextlib.AsyncExitStack) -> None:
        settings = self._settings
        raise_file_limit(settings.broker.limits.max_connections)
        make_private_directory(settings.service.state_dir)
        self._store = await resources.enter_async_context(await SqliteStore.open(settings.database_file))
        watching = HubObservers(
            HubLogObserver(), HubMetrics(self._metrics.registry), AssignmentObserver(self._audience)
        )
        work = HubWork(settings, store=self._store, hubs=self._hubs, observer=watching)
        self._work = await resources.enter_async_context(work)
        self._pipeline = Pipeline(
            store=self._store,
            hubs=self._hubs,
            clock=SystemClock(),
            entropy=SystemEntropy(),
            observer=Observers([self._observer, self._events]),
            policy=service_policy(settings),
            time_stage=self._metrics.time_stage,
            outbox=self._work.assigner,
            allocator=self._work.allocator,
        )
        await self._declare()
        resources.push_async_callback(self._background.close)
        await self._warn_of_tpm_groups()
        await self._keep_audit(resources)
        self._broker = make_edge(settings, gatekeeper=await self._open_hub(resources), status=self._status)
        if isinstance(self._broker, ExternalBroker):
            self._audience.relay(self._broker.publish)
        for speaker in (self._audience, self._hub, self._desk):
            speaker.attach(self._broker)
        await self._broker.start()
        resources.push_async_callback(self._broker.stop, _STOP_GRACE_S)
        self._desk.say_status()
        resources.callback(self._desk.say_status, running=False)
        await self._serve_metrics(resources)
        self._watch_signals(resources)
        self._log.info(
            "ready",
            version=version("provisiond"),
            id_scope=settings.service.id_scope,
            hubs=",".join(hub.name for hub in self._hubs.snapshot()),
            **{f"listener_{name}": _written(host, port) for name, (host, port) in self.addresses.items()},
        )
        notify_service_manager("READY=1")
        await self._feed_watchdog(resources)

    async def _feed_watchdog(self, resources: contextlib.AsyncExitStack) -> None:
        period_s = watchdog_period_s()
        if period_s is None:
            return
        checks: dict[str, Callable[[], Awaitable[object]]] = {"store": self._store.count_registrations}
        for listener in self._settings.broker.listeners:
            if listener.name in self.addresses:  # none of them when the broker is the site's
                host, port = self.addresses[listener.name]
                checks[f"listener {listener.name}"] = partial(
                    ping_listener, host, port, tls=listener.tls, id_scope=self._settings.service.id_scope
                )
        watchdog = Watchdog(
            period_s,
            checks=checks,
            notify=notify_service_manager,
            report=lambda reason: self._log.error("the watchdog was not fed", reason=reason),
        )
        await resources.enter_async_context(background(watchdog.run(), name="watchdog"))

    async def _open_hub(self, resources: contextlib.AsyncExitStack) -> Front:
        """The embedded hub and the operators' desk, with the pipeline behind one door."""
        clock, entropy = SystemClock(), SystemEntropy()
        self._hub = await resources.enter_async_context(
            EmbeddedHub(
                store=self._store,
                hubs=self._hubs,
                clock=clock,
                entropy=entropy,
                observer=self._observer,
                audience=self._audience,
                policy=self._pipeline.policy.registration.attestation,
            )
        )
        self._desk = await resources.enter_async_context(
            OperatorDesk(
                commands=self._hub.commands,
                audience=self._audience,
                token=make_operator_token(self._settings.service.state_dir, entropy),
                status=self._status,
                observer=self._observer,
                clock=clock,
                entropy=entropy,
            )
        )
        hub, audience = self._hub, self._audience
        self._metrics.gauge(
            "provisiond_connected_devices", "Devices connected to the embedded hub.", lambda: hub.connected
        )
        self._metrics.gauge("provisiond_lost_messages", "What listeners could not take.", lambda: audience.lost)
        return Front(provisioning=self._pipeline, hub=hub, operators=self._desk)

    def _status(self) -> dict[str, JSONValue]:
        """What operators hear on the status topic."""
        return {
            "running": True,
            "version": version("provisiond"),
            "idScope": self._settings.service.id_scope,
            "startedAt": format_timestamp(self._started_at),
            "hubs": [{"name": hub.name, "host": hub.host, "type": hub.type} for hub in self._hubs.snapshot()],
            "connections": self._broker.statistics.connections,
            "connectedDevices": self._hub.connected,
            "lostMessages": self._audience.lost,
        }

    async def _keep_audit(self, resources: contextlib.AsyncExitStack) -> None:
        keeper = AuditKeeper(
            AuditTrail(self._store),
            CheckpointSigner.load(self._settings.service.state_dir),
            clock=SystemClock(),
            keep=lambda: timedelta(seconds=self._settings.audit.keep_s),
            report=lambda reason: self._log.error("the audit trail was not looked after", reason=reason),
        )
        resources.push_async_callback(keeper.close)
        await resources.enter_async_context(background(keeper.run(), name="audit-keeper"))

    async def _warn_of_tpm_groups(self) -> None:
        """Every device of a TPM group is refused as long as no TPM maker is trusted."""
        if self._pipeline.policy.registration.attestation.tpm.anchors:
            return
        with contextlib.suppress(CorruptRecord):  # whoever needs the damaged group hears of it
            found = await self._store.facts(FactsQuery(registration_key="", tpm_groups=True))
            if found.groups:
                self._log.warning(
                    "TPM enrollment groups let nobody in: there is no certificate of a TPM maker",
                    groups=",".join(group.id for group in found.groups[:_GROUPS_NAMED_MAX]),
                    ek_roots_dir=str(self._settings.attestation.tpm.ek_roots_dir),
                )

    async def _serve_metrics(self, resources: contextlib.AsyncExitStack) -> None:
        measure_edge(self._metrics, self._broker)
        revocation_list = RevocationListFile(self._settings.ca_dir / FILE_NAME).paths
        keeper = RevocationListKeeper(
            store=self._store,
            clock=SystemClock(),
            settings=lambda: self._settings,
            report=lambda reason: self._log.error("the revocation list was not signed", reason=reason),
        )
        await keeper.look()
        await resources.enter_async_context(background(keeper.run(), name="revocation-list"))
        if (address := self._settings.crl.address) is not None:
            listener = HttpServer(
                route(revocation_list, not_found), host=address.host, port=address.port, setting="crl"
            )
            resources.callback(listener.close)
        if self._settings.metrics.enabled:
            address = self._settings.metrics.address
            application = route(revocation_list, self._metrics.application)
            server = HttpServer(application, host=address.host, port=address.port, setting="metrics")
            resources.callback(server.close)
            sampler = Sampler(
                StateMetrics(self._metrics.registry),
                store=self._store,
                hubs=self._hubs,
                clock=SystemClock(),
                settings=lambda: self._settings,
            )
            await resources.enter_async_context(background(sampler.run(), name="sampler"))

    def _watch_signals(self, resources: contextlib.AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()
        for number, handler in {
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop,
            signal.SIGHUP: self.reload,
        }.items():
            loop.add_signal_handler(number, handler)
            resources.callback(loop.remove_signal_handler, number)


def _written(host: str, port: int) -> str:
    """`127.0.0.1:1883`, `[::1]:8883`: as in the configuration."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def run(settings: Settings, *, reload: Reload | None = None) -> None:
    """Run until a signal ends it.

    Raises:
        ConfigurationError, StoreError: as `Daemon`.
    """

    async def main() -> None:
        async with Daemon(settings, reload=reload) as daemon:
            spare_the_collector()
            await daemon.stopped()

    asyncio.run(main())
