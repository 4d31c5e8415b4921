import pytest

from provisiond.device.client import Patience, Step
from provisiond.device.credentials import Credential, SymmetricKeyCredential
from provisiond.device.mqtt import Endpoint
from provisiond.device.simulator import FleetOutcome, FleetReport, Service, SimulatedDevice, run_device, run_fleet
from tests.device.service import ASSIGNED, SILENCE, assigned, error, run_service

KEY = SymmetricKeyCredential(key=b"k" * 32)
QUICK = Patience(connect_s=60, request_s=60, total_s=120, poll_s=0, backoff_s=0, jitter=0)


def service_at(scripted, patience=QUICK):
    endpoint = Endpoint(host="127.0.0.1", port=scripted.port, plaintext=True)
    return Service(endpoint=endpoint, id_scope="0neScope", patience=patience)


def devices(count):
    return (SimulatedDevice(registration_id=f"sim-{number}", credential=KEY) for number in range(count))


async def test_a_device_goes_on_to_its_hub_and_says_so():
    steps = []
    async with run_service(SILENCE) as hub, run_service(assigned(assignedHub=f"127.0.0.1:{hub.port}")) as scripted:
        await run_device(
            next(devices(1)),
            service_at(scripted),
            hub_message=b"hello",
            on_step=lambda step, detail: steps.append((step, detail)),
        )
    assert steps[-2:] == [(Step.HUB_CONNECTED, f"127.0.0.1:{hub.port}"), (Step.MESSAGE_SENT, "5 bytes")]
    assert hub.requests[0].payload == b"hello"


async def test_every_device_of_a_fleet_is_assigned_once():
    done = []
    async with run_service() as scripted:
        report = await run_fleet(devices(30), service_at(scripted), concurrency=7, on_done=lambda: done.append(1))
    assert report.outcomes == {FleetOutcome.ASSIGNED: 30}
    assert sorted(connect.client_id for connect in scripted.connects) == sorted(f"sim-{n}" for n in range(30))
    assert len(done) == 30
    assert 0 < report.percentile_ms(50) <= report.percentile_ms(99)
    assert report.assigned_per_s > 0


async def test_failures_are_counted_by_kind_and_reason_and_stop_nobody():
    async with run_service(error(401002), error(401002), SILENCE, ASSIGNED) as scripted:
        patience = Patience(request_s=5, total_s=3)
        report = await run_fleet(devices(5), service_at(scripted, patience), concurrency=1)
    assert report.outcomes == {FleetOutcome.REFUSED: 2, FleetOutcome.FAILED: 1, FleetOutcome.ASSIGNED: 2}
    assert report.reasons[0] == ("the service refused the registration (401): Unauthorized", 2)


async def test_a_fleet_without_a_service_is_unreachable():
    async with run_service() as scripted:
        pass
    report = await run_fleet(devices(3), service_at(scripted))
    assert report.outcomes == {FleetOutcome.UNREACHABLE: 3}
    assert report.percentile_ms(99) is None
    assert report.assigned_per_s == 0


async def test_no_more_devices_are_under_way_than_allowed():
    made = []

    def counted():
        for device in devices(10):
            made.append(device)
            yield device

    async with run_service() as scripted:
        service = service_at(scripted)
        highest = []
        await run_fleet(counted(), service, concurrency=3, on_done=lambda: highest.append(len(made)))
    assert max(ahead - done for done, ahead in enumerate(highest)) <= 3


@pytest.mark.parametrize(("percent", "expected"), [(50, 50), (95, 95), (99, 99), (100, 100), (0, 1)])
def test_percentiles_are_nearest_rank(percent, expected):
    latencies = tuple(rank / 1000 for rank in range(1, 101))
    report = FleetReport(outcomes=None, reasons=(), latencies_s=latencies, elapsed_s=1)
    assert report.percentile_ms(percent) == pytest.approx(expected)


async def test_a_device_without_credential_is_a_device_too():
    async with run_service() as scripted:
        device = SimulatedDevice(registration_id="dev-1", credential=Credential())
        assert (await run_device(device, service_at(scripted))).device_id == "dev-1"
