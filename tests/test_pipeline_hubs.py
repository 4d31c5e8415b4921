"""The pipeline and the hubs: who is woken, who is counted, who is asked."""

import asyncio
import json
from dataclasses import dataclass, field, replace

import pytest

from provisiond.model import AllocationPolicy, CustomAllocation, Hub, RegistrationStatus
from tests.enrollment_factory import individual
from tests.fakes_decision import HUBS
from tests.test_pipeline import Service

REMOTE = (Hub(name="m", host="m.example", type="mosquitto", immediate=False),)
CUSTOM = {"allocation_policy": AllocationPolicy.CUSTOM, "custom_allocation": {"webhookUrl": "https://x/"}}


@dataclass
class Outbox:
    woken: list = field(default_factory=list)

    def wake(self, hub):
        self.woken.append(hub)


@dataclass
class Allocator:
    """Answers what `answers` says, one after another; the last one for ever. `meanwhile` happens while it is asked."""

    answers: list
    asked: list = field(default_factory=list)
    meanwhile: object = None

    async def allocate(self, request):
        self.asked.append(request)
        if self.meanwhile is not None:
            self.meanwhile()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return CustomAllocation(**({"enrollment_etag": request.enrollment.etag} | answer))


def make_service(*enrollments, hubs=HUBS, allocator=None, **store):
    service = Service(enrollments=list(enrollments), **store)
    service.pipeline._hubs.replace(hubs)
    service.pipeline._outbox = service.outbox = Outbox()
    service.pipeline._allocator = allocator
    return service


async def register(service, device="dev-1", **options):
    return await service.ask(await service.connect(device, **options))


async def test_a_device_that_waits_for_its_hub_wakes_the_queue_once_it_is_written_down():
    service = make_service(individual("dev-1"), hubs=REMOTE)
    topic, body = await register(service)
    assert "/res/202/" in topic
    assert body["status"] == "assigning"
    assert service.outbox.woken == ["m"]
    assert service.store.registrations["dev-1"].status is RegistrationStatus.ASSIGNING


async def test_a_device_that_needs_no_call_wakes_nobody():
    service = make_service(individual("dev-1"))
    await register(service)
    assert service.outbox.woken == []


async def test_a_burst_is_spread_over_the_least_loaded_hubs():
    names = [f"dev-{number}" for number in range(30)]
    spread = {"allocation_policy": AllocationPolicy.LEAST_LOADED}
    service = make_service(*(individual(name, **spread) for name in names))
    connections = [await service.connect(name, connection_id=name) for name in names]
    await asyncio.gather(*(service.ask(connection) for connection in connections))
    hubs = [record.hub for record in service.store.registrations.values()]
    assert (hubs.count("one"), hubs.count("two")) == (15, 15)


async def test_a_device_whose_commit_fails_does_not_count():
    service = make_service(individual("dev-1"), conflicts=8)
    await register(service)
    assert [hub.assigned_count for hub in service.pipeline._hubs.snapshot()] == [0, 0]


async def test_the_webhook_is_asked_once_and_its_answer_decides():
    allocator = Allocator([{"host": "two.example", "payload": {"a": 1}}])
    service = make_service(individual("dev-1", **CUSTOM), allocator=allocator)
    _, body = await register(service)
    assert body["registrationState"]["assignedHub"] == "two.example"
    assert body["registrationState"]["payload"] == {"a": 1}
    assert len(allocator.asked) == 1


async def test_an_answer_about_an_enrollment_that_was_changed_meanwhile_is_not_used():
    def change():
        allocator.meanwhile = None
        service.store.enrollments[0] = replace(service.store.enrollments[0], etag="e2")

    allocator = Allocator([{"host": "one.example"}, {"host": "two.example"}], meanwhile=change)
    service = make_service(individual("dev-1", **CUSTOM), allocator=allocator)
    _, body = await register(service)
    assert body["registrationState"]["assignedHub"] == "two.example"
    assert len(allocator.asked) == 2


async def test_a_race_that_is_lost_does_not_ask_the_webhook_again():
    allocator = Allocator([{"host": "two.example"}])
    service = make_service(individual("dev-1", **CUSTOM), allocator=allocator, conflicts=2)
    _, body = await register(service)
    assert body["status"] == "assigned"
    assert len(allocator.asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        {"error": "answered 500", "public_error": "Custom allocation failed with status code: 500"},
        {"host": "elsewhere"},
    ],
)
async def test_a_failed_allocation_is_failed_400207_and_may_be_tried_again(answer):
    allocator = Allocator([answer])
    service = make_service(individual("dev-1", **CUSTOM), allocator=allocator)
    topic, body = await register(service)
    assert "/res/200/" in topic
    assert (body["status"], body["registrationState"]["errorCode"]) == ("failed", 400207)
    assert service.store.audit[-1].code == 400207
    allocator.answers = [{"host": "one.example"}]
    _, body = await register(service, connection_id="c2")
    assert body["status"] == "assigned"


async def test_an_answer_that_is_not_json_for_the_device_is_still_one_answer():
    allocator = Allocator([{"host": "one.example", "payload": [1, "two"]}])
    service = make_service(individual("dev-1", **CUSTOM), allocator=allocator)
    _, body = await register(service)
    assert json.dumps(body["registrationState"]["payload"]) == '[1, "two"]'
