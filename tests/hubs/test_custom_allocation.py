"""A webhook chooses the hub, or does anything else that a webhook may do."""

import asyncio
import gzip
from dataclasses import replace

import pytest

from provisiond.hubs.custom_allocation import WebhookAllocator
from provisiond.hubs.http import HttpClient
from provisiond.model import (
    AllocationPolicy,
    AllocationRequest,
    AttestationType,
    Hub,
    InitialTwin,
    Registration,
)
from tests.certificates import make_leaf
from tests.enrollment_factory import group, individual
from tests.hubs.services import endless, hang, json_answer, run_service
from tests.store.records import make_registration

HUBS = (Hub(name="one", host="one.example"), Hub(name="two", host="two.example"))


@pytest.fixture
async def client():
    client = HttpClient()
    yield client
    await client.aclose()


def question(url, **changes):
    enrollment = replace(
        changes.pop("enrollment", individual("dev-1")),
        allocation_policy=AllocationPolicy.CUSTOM,
        custom_allocation={"webhookUrl": url, "apiVersion": "2021-10-01"},
        etag="e-1",
    )
    given = {"registration_id": "Dev-1", "attestation_type": AttestationType.SYMMETRIC_KEY, "hubs": HUBS} | changes
    return AllocationRequest(enrollment=enrollment, **given)


async def ask(client, answer, *, deadline_s=60.0, **changes):
    async with run_service(answer) as service:
        allocated = await WebhookAllocator(client, deadline_s=deadline_s).allocate(question(service.url, **changes))
        return allocated, service.requests


async def test_the_webhook_is_asked_as_azure_asks_and_its_choice_is_taken(client):
    answer = {
        "iotHubHostName": "two.example",
        "initialTwin": {"tags": {"line": 4}, "properties": {"desired": {"interval": 10}}},
        "payload": {"any": "thing"},
        "more": "is ignored",
    }
    allocated, (request,) = await ask(client, lambda _: json_answer(answer), payload={"model": "x"})
    assert allocated.error == ""
    assert allocated.host == "two.example"
    assert allocated.initial_twin == InitialTwin(tags={"line": 4}, desired={"interval": 10})
    assert allocated.payload == {"any": "thing"}
    assert allocated.enrollment_etag == "e-1"
    body = request.json
    assert body["linkedHubs"] == ["one.example", "two.example"]
    assert body["deviceRuntimeContext"] == {"registrationId": "Dev-1", "symmetricKey": {}, "payload": {"model": "x"}}
    assert body["individualEnrollment"]["registrationId"] == "dev-1"
    assert "primaryKey" not in str(body)


async def test_a_group_and_where_the_device_is_are_told_as_well(client):
    registration: Registration = make_registration("dev-1", assigned_host="one.example", device_id="pump")
    _, (request,) = await ask(
        client,
        lambda _: json_answer({"iotHubHostName": "one.example"}),
        enrollment=group("line"),
        registration=registration,
    )
    assert request.json["enrollmentGroup"]["enrollmentGroupId"] == "line"
    context = request.json["deviceRuntimeContext"]
    assert (context["currentIotHubHostName"], context["currentDeviceId"]) == ("one.example", "pump")


async def test_the_certificate_of_the_device_is_told(client, pki):
    leaf = make_leaf("dev-1", pki[0])
    _, (request,) = await ask(
        client,
        lambda _: json_answer({"iotHubHostName": "one.example"}),
        attestation_type=AttestationType.X509,
        certificate_der=leaf.der,
    )
    certificate = request.json["deviceRuntimeContext"]["x509"]["clientCertificate"]
    assert certificate["certificate"].startswith("-----BEGIN")
    assert certificate["info"]["subjectName"] == "CN=dev-1"


@pytest.mark.parametrize("status", [400, 404, 500, 301])
async def test_a_status_but_2xx_fails_as_azure_says_it(client, status):
    headers = {"Location": "http://127.0.0.1:9/elsewhere"}
    allocated, requests = await ask(client, lambda _: (status, headers, b"because"))
    assert allocated.public_error == f"Custom allocation failed with status code: {status}"
    assert "because" in allocated.error
    assert "because" not in allocated.public_error
    assert len(requests) == 1


async def test_a_webhook_that_hangs_costs_its_deadline_and_no_more(client):
    async with asyncio.timeout(60):
        allocated, _ = await ask(client, hang, deadline_s=0.2)
    assert "did not answer within 0.2 s" in allocated.error


async def test_ten_megabytes_are_not_read(client):
    allocated, _ = await ask(client, lambda _: (200, {}, endless()))
    assert "longer than" in allocated.error


async def test_an_answer_is_asked_for_plain_and_never_inflated(client):
    bomb = gzip.compress(b'{"iotHubHostName": "' + b"a" * 10_000_000 + b'"}')
    allocated, requests = await ask(client, lambda _: (200, {"Content-Encoding": "gzip"}, bomb))
    assert "its answer cannot be read" in allocated.public_error
    assert requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"iotHubHostName": ""}',
        b'{"iotHubHostName": 7}',
        b'{"payload": 1}',
        b'{"iotHubHostName": "one.example", "initialTwin": {"tags": []}}',
        b'{"iotHubHostName": "one.example", "initialTwin": {"tags": {"a": "' + b"x" * 5000 + b'"}}}',
        b'{"iotHubHostName": "one.example", "initialTwin": {"properties": {"desired": {"a.b": 1}}}}',
        b"\xff\xfe",
        b"[" * 60_000,
    ],
)
async def test_an_answer_that_is_none_fails(client, content):
    allocated, _ = await ask(client, lambda _: (200, {}, content))
    assert allocated.error
    assert allocated.public_error == "Custom allocation failed: its answer cannot be read"


async def test_nobody_there_fails(client):
    allocated = await WebhookAllocator(client).allocate(question("http://127.0.0.1:9/"))
    assert "127.0.0.1:9" in allocated.error
    assert allocated.public_error == "Custom allocation failed: no usable answer"


@pytest.mark.parametrize("url", ["", "http://elsewhere.example/", "file:///etc/passwd"])
async def test_a_url_that_may_not_be_asked_is_not(client, url):
    allocated = await WebhookAllocator(client).allocate(question(url))
    assert "cannot be used" in allocated.error


@pytest.mark.parametrize(
    "answer", [lambda _: (500, {}, b""), lambda _: (200, {}, b"{"), hang, lambda _: (200, {}, endless())]
)
async def test_the_key_in_the_query_of_the_url_is_in_no_reason(client, answer):
    async with run_service(answer) as service:
        allocated = await WebhookAllocator(client, deadline_s=0.2).allocate(question(f"{service.url}?code=SECRET"))
    assert service.url.rstrip("/") in allocated.error
    assert "SECRET" not in allocated.error


@pytest.mark.parametrize("url", ["http://elsewhere.example/?code=SECRET", "//?code=SECRET", "http://[/?code=SECRET"])
async def test_nor_when_the_url_may_not_be_asked(client, url):
    allocated = await WebhookAllocator(client).allocate(question(url))
    assert allocated.error
    assert "SECRET" not in allocated.error
