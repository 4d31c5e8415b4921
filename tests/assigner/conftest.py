"""Assigners at work on a real store, with hubs in memory."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from provisiond.assigner import Assigner, AssignerLimits
from provisiond.store import SqliteStore
from provisiond.system import SystemClock, SystemEntropy
from tests.fakes_hubs import Claims, HubLog

QUICK = AssignerLimits(
    call_timeout_s=60, poll_s=0.05, probe_interval_s=60, reconcile_interval_s=0.05, reconcile_page=7, attempts=3
)


@pytest.fixture
async def store(tmp_path):
    async with await SqliteStore.open(tmp_path / "provisiond.db") as store:
        yield store


@asynccontextmanager
async def working(store, log, limits=QUICK, claims=None, **hubs):
    """An assigner on these hubs, by name; it ends with the block."""
    assigner = Assigner(
        store=store,
        board=log,
        claims=claims or Claims(),
        clock=SystemClock(),
        entropy=SystemEntropy(),
        observer=log,
        limits=limits,
    )
    task = asyncio.create_task(assigner.run(hubs), name="assigner")
    try:
        yield assigner
    finally:
        task.cancel()
        await asyncio.wait({task})
        await assigner.close()
        if not task.cancelled() and task.exception() is not None:
            raise task.exception()


@pytest.fixture
def log():
    return HubLog()
