"""Devices that are not there: one that goes the whole way to its hub, or a fleet of them at once."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from provisiond.device.client import Patience, ProvisioningClient, RegistrationResult, Step
from provisiond.device.credentials import Credential
from provisiond.device.dialect import Dialect
from provisiond.device.errors import CannotConnect, DeviceError, Refused
from provisiond.device.hub import connect_hub
from provisiond.device.mqtt import Endpoint
from provisiond.model import JSONValue

# Each connection attempt needs a thread until TLS stands, most of the time waiting for the server.
_CONNECTING_THREADS_LIMIT: Final = 32
_REASONS_LIMIT: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedDevice:
    """Who a device says it is, and what it proves that with."""

    registration_id: str
    credential: Credential


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The provisioning service that simulated devices ask, and how."""

    endpoint: Endpoint
    id_scope: str
    patience: Patience = field(default_factory=Patience)
    dialect: Dialect | None = None


async def run_device(
    device: SimulatedDevice,
    service: Service,
    *,
    payload: JSONValue = None,
    hub_message: bytes | None = None,
    on_step: Callable[[Step, str], None] | None = None,
) -> RegistrationResult:
    """Register a device, and with `hub_message` go on to its hub and send that.

    Raises:
        DeviceError: as `ProvisioningClient` and `connect_hub`.
    """
    async with ProvisioningClient(
        service.endpoint,
        id_scope=service.id_scope,
        registration_id=device.registration_id,
        credential=device.credential,
        patience=service.patience,
        dialect=service.dialect,
        on_step=on_step,
    ) as client:
        result = await client.register(payload)
    if hub_message is not None:
        await _visit_hub(device, service, result, hub_message, on_step or _ignore)
    return result


async def _visit_hub(
    device: SimulatedDevice,
    service: Service,
    result: RegistrationResult,
    message: bytes,
    on_step: Callable[[Step, str], None],
) -> None:
    async with connect_hub(
        service.endpoint,
        assigned_hub=result.assigned_hub,
        device_id=result.device_id,
        credential=device.credential,
        patience=service.patience,
    ) as hub:
        on_step(Step.HUB_CONNECTED, result.assigned_hub)
        await hub.send(message)
        on_step(Step.MESSAGE_SENT, f"{len(message)} bytes")


def _ignore(step: Step, detail: str) -> None:
    """Nobody listens."""


class FleetOutcome(StrEnum):
    """How one device of a fleet ended."""

    ASSIGNED = "assigned"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetReport:
    """How a fleet fared.

    Args:
        outcomes: devices by outcome.
        reasons: what went wrong and how often, the most frequent first, at most ten.
        latencies_s: from the start of the connection to the assignment, of the assigned ones, ascending.
        elapsed_s: of the whole run.
    """

    outcomes: Counter[FleetOutcome]
    reasons: tuple[tuple[str, int], ...]
    latencies_s: tuple[float, ...]
    elapsed_s: float

    @property
    def assigned_per_s(self) -> float:
        """Assigned devices per second of the run."""
        return self.outcomes[FleetOutcome.ASSIGNED] / self.elapsed_s if self.elapsed_s else 0.0

    def percentile_ms(self, percent: float) -> float | None:
        """The latency that `percent` of the assigned devices did not exceed (nearest rank); None without any."""
        if not self.latencies_s:
            return None
        rank = max(1, math.ceil(percent / 100 * len(self.latencies_s)))
        return 1000 * self.latencies_s[rank - 1]


class _Tally:
    """Collects what becomes of the devices of one run."""

    def __init__(self) -> None:
        self.outcomes: Counter[FleetOutcome] = Counter()
        self.reasons: Counter[str] = Counter()
        self.latencies_s: list[float] = []

    def assigned(self, latency_s: float) -> None:
        self.outcomes[FleetOutcome.ASSIGNED] += 1
        self.latencies_s.append(latency_s)

    def failed(self, error: DeviceError) -> None:
        match error:
            case Refused():
                outcome = FleetOutcome.REFUSED
            case CannotConnect():
                outcome = FleetOutcome.UNREACHABLE
            case _:
                outcome = FleetOutcome.FAILED
        self.outcomes[outcome] += 1
        self.reasons[str(error)] += 1


async def run_fleet(
    devices: Iterable[SimulatedDevice],
    service: Service,
    *,
    concurrency: int = 100,
    payload: JSONValue = None,
    on_done: Callable[[], None] | None = None,
) -> FleetReport:
    """Register many devices, `concurrency` at a time; one that fails does not stop the others.

    Replaces the running loop's default executor, whose few threads would let only as many devices connect at once.

    Args:
        devices: taken one by one as their turn comes, so that a generator may make their keys.
        service: whom they ask.
        concurrency: devices under way at once, at least 1.
        payload: custom payload of every device.
        on_done: called after each device.
    """
    tally, queue, started = _Tally(), iter(devices), time.monotonic()
    asyncio.get_running_loop().set_default_executor(
        ThreadPoolExecutor(min(concurrency, _CONNECTING_THREADS_LIMIT), thread_name_prefix="mqtt-connect")
    )
    async with asyncio.TaskGroup() as workers:
        for number in range(concurrency):
            workers.create_task(_work(queue, service, payload, tally, on_done), name=f"fleet-worker-{number}")
    return FleetReport(
        outcomes=tally.outcomes,
        reasons=tuple(tally.reasons.most_common(_REASONS_LIMIT)),
        latencies_s=tuple(sorted(tally.latencies_s)),
        elapsed_s=time.monotonic() - started,
    )


async def _work(
    queue: Iterator[SimulatedDevice],
    service: Service,
    payload: JSONValue,
    tally: _Tally,
    on_done: Callable[[], None] | None,
) -> None:
    for device in queue:
        started = time.monotonic()
        try:
            await run_device(device, service, payload=payload)
        except DeviceError as error:
            tally.failed(error)
        else:
            tally.assigned(time.monotonic() - started)
        if on_done is not None:
            on_done()
