"""Every hub's worker in one task group, and the census that tells them and the policies how many devices there are."""

import asyncio
from collections.abc import Mapping
from typing import Final

from provisiond.assigner.arrivals import Arrivals
from provisiond.assigner.desk import Desk
from provisiond.assigner.limits import AssignerLimits
from provisiond.assigner.maker import Maker
from provisiond.assigner.reconciler import Reconciler
from provisiond.assigner.worker import HubWorker
from provisiond.connectors import HubConnector
from provisiond.errors import StoreError
from provisiond.model import RegistrationStatus
from provisiond.ports import Clock, Entropy, HubBoard, HubClaims, HubObserver, OutboxStore

_CENSUS_INTERVAL_S: Final = 5.0
"""Loads are counted between two of them as they change here; this finds what other processes did."""

_AT_A_HUB: Final = (RegistrationStatus.ASSIGNED, RegistrationStatus.ASSIGNING)


class Assigner:
    """`ports.Outbox`: works on the queues of all hubs until it is cancelled.

    Several daemons may run one each on the same store: of each hub's queue, one of them has the claim.
    """

    def __init__(
        self,
        *,
        store: OutboxStore,
        board: HubBoard,
        claims: HubClaims,
        clock: Clock,
        entropy: Entropy,
        observer: HubObserver,
        limits: AssignerLimits | None = None,
    ) -> None:
        self._store = store
        self._board = board
        self._claims = claims
        self._clock = clock
        self._entropy = entropy
        self._observer = observer
        self._limits = limits or AssignerLimits()
        self._workers: dict[str, HubWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._wanted: dict[str, HubConnector] = {}
        self._changed = asyncio.Event()

    async def run(self, connectors: Mapping[str, HubConnector]) -> None:
        """Work on these hubs, by name, and those that `adopt` brings, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._wanted = dict(connectors)
            group.create_task(self._count_for_ever(), name="hub census")
            while True:
                self._changed.clear()
                await self._replace(self._wanted)
                await self._changed.wait()

    def adopt(self, connectors: Mapping[str, HubConnector]) -> None:
        """Work on these hubs from now on; a hub whose connector is the same one goes on undisturbed.

        The connectors that are gone are closed.
        """
        self._wanted = dict(connectors)
        self._changed.set()

    async def _replace(self, connectors: Mapping[str, HubConnector]) -> None:
        for name, worker in list(self._workers.items()):
            if connectors.get(name) is not worker.desk.connector:
                await self._end(name)
        for name, connector in connectors.items():
            if name not in self._workers:
                self._begin(name, connector)

    def wake(self, hub: str) -> None:
        """There is something in this hub's queue."""
        worker = self._workers.get(hub)
        if worker is not None:
            worker.wake()

    async def close(self) -> None:
        """Close every connector; after `run` has ended."""
        for worker in self._workers.values():
            await worker.desk.connector.aclose()
        self._workers.clear()

    def _begin(self, name: str, connector: HubConnector) -> None:
        if self._group is None:
            raise RuntimeError("the assigner does not run")
        desk = Desk(
            hub=name,
            connector=connector,
            store=self._store,
            clock=self._clock,
            entropy=self._entropy,
            observer=self._observer,
            limits=self._limits,
        )
        worker = HubWorker(
            desk=desk,
            board=self._board,
            claims=self._claims,
            maker=Maker(desk=desk),
            arrivals=Arrivals(desk=desk),
            reconciler=Reconciler(desk=desk),
        )
        self._workers[name] = worker
        self._tasks[name] = self._group.create_task(worker.run(), name=f"hub {name}")

    async def _end(self, name: str) -> None:
        worker, task = self._workers.pop(name), self._tasks.pop(name)
        task.cancel()
        await asyncio.wait({task})
        await worker.desk.connector.aclose()

    async def _count_for_ever(self) -> None:
        while True:
            try:
                await self._count()
            except StoreError as error:
                self._observer.hub_failed("census", error)
            await asyncio.sleep(_CENSUS_INTERVAL_S)

    async def _count(self) -> None:
        by_hub = await self._store.count_by_hub()
        self._board.count({hub: sum(totals.get(status, 0) for status in _AT_A_HUB) for hub, totals in by_hub.items()})
        for name, worker in self._workers.items():
            worker.count(by_hub.get(name, {}).get(RegistrationStatus.ASSIGNING, 0))
