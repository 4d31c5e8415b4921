import asyncio
import json
import uuid
from base64 import b64decode, b64encode
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from provisiond.attestation.symmetric_key import generate_sas_token
from provisiond.attestation.transcript import Transcript, request_digest
from provisiond.attestation.x509 import X509Limits
from provisiond.errors import ConnectRefused, SealBroken
from provisiond.hubs.directory import ConfiguredHubs
from provisiond.model import ConnectAttempt, Connection, Message, Outcome, RegistrationId, Role
from provisiond.pipeline import Pipeline, ReplyMode, ServicePolicy
from provisiond.protocols import native_client
from provisiond.protocols.hub_credential import parse_hub_key
from provisiond.protocols.sealing import SealingContext, open_with_private_key
from provisiond.registration.attest import AttestationPolicy
from provisiond.registration.challenge_ledger import ChallengeLimits
from provisiond.registration.context import uuid_text
from provisiond.registration.decide import RegistrationPolicy
from provisiond.registration.throttle import REFUSALS_PER_MIN_PER_ADDRESS, RequestLimits
from tests.certificates import make_key, make_leaf
from tests.enrollment_factory import PRIMARY_KEY, certificates, individual
from tests.fakes_decision import HUBS, NOW, FakeClock, FakeDecisionStore, FakeEntropy, RecordingObserver

SCOPE = "0ne00112233"
REGISTER = "$dps/registrations/PUT/iotdps-register/?$rid=r1"
POLL = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=r2&operationId="
PYTHON = "azure-iot-device-provisioning-py%2F2.14.0"


class Service:
    """A pipeline with fakes at every port."""

    def __init__(self, *, reply=ReplyMode.AUTO, **store):
        self.store = FakeDecisionStore(**store)
        self.clock = FakeClock()
        self.observer = RecordingObserver()
        attestation = AttestationPolicy(id_scope=SCOPE, x509_limits=X509Limits())
        self.pipeline = Pipeline(
            store=self.store,
            hubs=ConfiguredHubs(HUBS),
            clock=self.clock,
            entropy=FakeEntropy(),
            observer=self.observer,
            policy=ServicePolicy(registration=RegistrationPolicy(attestation=attestation), reply=reply),
        )

    async def connect(self, device="dev-1", *, client_version=PYTHON, key=PRIMARY_KEY, connection_id="c1"):
        sas = generate_sas_token(resource=f"{SCOPE}/registrations/{device}", key=key, expiry=NOW + timedelta(hours=1))
        attempt = ConnectAttempt(
            connection_id=connection_id,
            listener="devices",
            remote_address="10.0.0.9",
            tls=True,
            client_id=device,
            username=f"{SCOPE}/registrations/{device}/api-version=2019-03-31&ClientVersion={client_version}",
            password=sas.encode(),
        )
        return await self.pipeline.admit(attempt)

    async def ask(self, connection, topic=REGISTER, payload=b""):
        message = await self.pipeline.handle(connection, Message(topic=topic, payload=payload))
        return message.topic, json.loads(message.payload)


async def test_a_known_client_is_assigned_with_its_first_answer():
    service = Service(enrollments=[individual("dev-1")])
    topic, body = await service.ask(await service.connect())
    assert topic == "$dps/registrations/res/200/?$rid=r1"
    assert body["status"] == "assigned"
    assert service.store.registrations["dev-1"].operation_id == body["operationId"]


@pytest.mark.parametrize(("reply", "client_version"), [(ReplyMode.AUTO, "1.6.0"), (ReplyMode.POLL, PYTHON)])
async def test_any_other_client_is_told_to_poll_and_then_that_it_is_assigned(reply, client_version):
    service = Service(enrollments=[individual("dev-1")], reply=reply)
    connection = await service.connect(client_version=client_version)
    topic, body = await service.ask(connection)
    assert topic == "$dps/registrations/res/202/?$rid=r1&retry-after=3"
    assert service.pipeline.has_outstanding_operation(connection)
    topic, body = await service.ask(connection, POLL + body["operationId"])
    assert topic == "$dps/registrations/res/200/?$rid=r2"
    assert body["registrationState"]["assignedHub"] in {"one.example", "two.example"}
    assert not service.pipeline.has_outstanding_operation(connection)


async def test_immediate_is_immediate_for_every_client():
    service = Service(enrollments=[individual("dev-1")], reply=ReplyMode.IMMEDIATE)
    topic, _ = await service.ask(await service.connect(client_version="1.6.0"))
    assert "/200/" in topic


async def test_an_operation_that_nobody_polls_stops_being_outstanding():
    service = Service(enrollments=[individual("dev-1")], reply=ReplyMode.POLL)
    connection = await service.connect()
    await service.ask(connection)
    service.clock.advance(3600)
    assert not service.pipeline.has_outstanding_operation(connection)


async def test_a_refusal_is_answered_with_a_tracking_id_under_which_the_operator_finds_the_reason():
    service = Service(enrollments=[individual("dev-1")])
    topic, body = await service.ask(await service.connect(key=b"wrong" * 8))
    assert topic == "$dps/registrations/res/401/?$rid=r1"
    assert body["errorCode"] == 401002
    (record,) = service.store.audit
    assert record.tracking_id == body["trackingId"]
    assert record.actor == "10.0.0.9"
    assert not record.trace[-1].passed


@pytest.mark.parametrize(
    ("topic", "payload", "status"),
    [
        (REGISTER, b"{", 400),
        (REGISTER, b'{"a":NaN}', 400),
        (REGISTER, b"[" * 50_000, 400),
        (REGISTER + "&$rid=2", b"", 400),
        (REGISTER, b'{"registrationId":"dev-2"}', 401),
        ("$dps/registrations/POST/anything/?$rid=r1", b"", 404),
        (POLL + "5.unknown", b"", 404),
    ],
)
async def test_bad_input_gets_one_json_answer_and_the_next_request_is_unaffected(topic, payload, status):
    service = Service(enrollments=[individual("dev-1")])
    connection = await service.connect()
    answer, body = await service.ask(connection, topic, payload)
    assert f"/res/{status}/" in answer
    assert body["trackingId"]
    _, body = await service.ask(connection)
    assert body["status"] == "assigned"


async def test_an_operation_cannot_be_polled_by_another_device():
    service = Service(enrollments=[individual("dev-1"), individual("dev-2")], reply=ReplyMode.POLL)
    _, first = await service.ask(await service.connect("dev-1"))
    other = await service.connect("dev-2", connection_id="c2")
    await service.ask(other)
    topic, _ = await service.ask(other, POLL + first["operationId"])
    assert "/res/404/" in topic


async def test_two_registrations_of_one_id_at_once_end_in_one_record_and_one_answer():
    service = Service(enrollments=[individual("dev-1")])
    first, second = await service.connect(connection_id="c1"), await service.connect(connection_id="c2")
    answers = await asyncio.gather(service.ask(first), service.ask(second))
    assert answers[0][1]["registrationState"] == answers[1][1]["registrationState"]
    assert len(service.store.registrations) == 1


async def test_a_lost_race_is_decided_again():
    service = Service(enrollments=[individual("dev-1")], conflicts=3)
    _, body = await service.ask(await service.connect())
    assert body["status"] == "assigned"


async def test_a_race_that_is_lost_again_and_again_is_given_up_with_409():
    service = Service(enrollments=[individual("dev-1")], conflicts=8)
    topic, body = await service.ask(await service.connect())
    assert "/res/409/" in topic
    assert body["errorCode"] == 409203


async def test_a_broken_store_is_our_fault_and_nobody_hears_assigned():
    service = Service(enrollments=[individual("dev-1")], broken=True)
    topic, body = await service.ask(await service.connect())
    assert topic.startswith("$dps/registrations/res/500/?$rid=r1&retry-after=")
    assert body["errorCode"] == 500000
    assert "fire" not in body["message"]
    ((_, tracking_id),) = service.observer.failures
    assert tracking_id == body["trackingId"]


async def test_a_refusal_that_cannot_be_recorded_is_our_fault():
    service = Service(enrollments=[individual("dev-1")])
    connection = await service.connect()
    service.store.broken = True
    topic, _ = await service.ask(connection, REGISTER, b"{")
    assert "/res/500/" in topic


async def test_a_connect_for_no_role_is_refused_and_seen():
    service = Service()
    attempt = ConnectAttempt(
        connection_id="c", listener="local", remote_address="127.0.0.1", tls=False, client_id="x", username="admin"
    )
    with pytest.raises(ConnectRefused):
        await service.pipeline.admit(attempt)
    assert len(service.observer.refused) == 1


async def test_every_request_is_observed_once():
    service = Service(enrollments=[individual("dev-1")])
    connection = await service.connect()
    await service.ask(connection)
    await service.ask(connection, REGISTER, b"{")
    assert [(event, decision.outcome) for event, decision in service.observer.decisions] == [
        ("register", Outcome.ASSIGNED),
        ("request", Outcome.REFUSED),
    ]


async def test_a_closed_connection_is_forgotten():
    service = Service(enrollments=[individual("dev-1")], reply=ReplyMode.POLL)
    connection = await service.connect()
    await service.ask(connection)
    await service.pipeline.closed(connection)
    assert not service.pipeline.has_outstanding_operation(connection)


# --- native topics -----------------------------------------------------------------------------------------------------


def native_connection(device="dev-1", *, connection_id="n1", chain=()):
    return Connection(
        connection_id=connection_id,
        role=Role.NATIVE,
        claimed_id=RegistrationId.parse(device),
        listener="local",
        remote_address="127.0.0.1",
        unverified_chain=chain,
    )


async def challenge(service, connection, claim):
    payload = native_client.register_payload(claim)
    topic, body = await service.ask(connection, f"provisiond/v1/{connection.claimed_id}/req/register/r1", payload)
    assert topic == f"provisiond/v1/{connection.claimed_id}/res/register/r1"
    assert body["status"] == 401
    return Transcript(
        id_scope=SCOPE,
        registration_id=connection.claimed_id.text,
        challenge_id=body["challenge"]["challengeId"],
        session_id=body["challenge"]["sessionId"],
        nonce=b64decode(body["challenge"]["nonce"]),
        request_sha256=request_digest(payload),
    )


async def answer(service, connection, payload):
    return await service.ask(connection, f"provisiond/v1/{connection.claimed_id}/req/answer/r2", payload)


async def test_a_native_device_with_a_key_is_assigned_by_answering_its_challenge():
    service, connection = Service(enrollments=[individual("dev-1")]), native_connection()
    covered = await challenge(service, connection, native_client.symmetric_key_claim())
    topic, body = await answer(service, connection, native_client.mac_answer(covered, PRIMARY_KEY))
    assert topic == "provisiond/v1/dev-1/res/answer/r2"
    assert (body["status"], body["registrationState"]["status"]) == (200, "assigned")


async def test_a_native_device_with_a_certificate_is_assigned_by_signing():
    leaf = make_leaf("dev-1")
    service, connection = Service(enrollments=[individual("dev-1", certificates(leaf))]), native_connection()
    covered = await challenge(service, connection, native_client.x509_claim([leaf.der]))
    _, body = await answer(service, connection, native_client.signature_answer(covered, leaf.key))
    assert body["registrationState"]["status"] == "assigned"


async def test_a_certificate_whose_key_the_handshake_proved_needs_no_challenge():
    leaf = make_leaf("dev-1")
    service = Service(enrollments=[individual("dev-1", certificates(leaf))])
    payload = native_client.register_payload(native_client.x509_claim([leaf.der]))
    connection = native_connection(chain=(leaf.der,))
    _, body = await service.ask(connection, "provisiond/v1/dev-1/req/register/r1", payload)
    assert body["status"] == 200


async def test_somebody_elses_certificate_proves_nothing_without_its_key():
    leaf, thief = make_leaf("dev-1"), make_leaf("dev-1")
    service, connection = Service(enrollments=[individual("dev-1", certificates(leaf))]), native_connection()
    covered = await challenge(service, connection, native_client.x509_claim([leaf.der]))
    _, body = await answer(service, connection, native_client.signature_answer(covered, thief.key))
    assert body["error"]["errorCode"] == 401002
    assert not service.store.registrations


async def test_an_answer_serves_one_try():
    service, connection = Service(enrollments=[individual("dev-1")]), native_connection()
    covered = await challenge(service, connection, native_client.symmetric_key_claim())
    _, wrong = await answer(service, connection, native_client.mac_answer(covered, b"w" * 32))
    _, right = await answer(service, connection, native_client.mac_answer(covered, PRIMARY_KEY))
    assert wrong["status"] == right["status"] == 401
    assert [record.trace[-1].name for record in service.store.audit] == ["mac-mismatch", "challenge-missing"]


async def test_an_answer_that_comes_late_is_refused():
    service, connection = Service(enrollments=[individual("dev-1")]), native_connection()
    covered = await challenge(service, connection, native_client.symmetric_key_claim())
    service.clock.advance(121)
    _, body = await answer(service, connection, native_client.mac_answer(covered, PRIMARY_KEY))
    assert body["status"] == 401
    assert service.store.audit[-1].trace[-1].name == "challenge-expired"


async def test_a_client_that_connects_anew_for_every_request_may_answer_on_another_connection():
    service = Service(enrollments=[individual("dev-1")])
    covered = await challenge(service, native_connection(), native_client.symmetric_key_claim())
    other = native_connection(connection_id="n2")
    _, body = await answer(service, other, native_client.mac_answer(covered, PRIMARY_KEY))
    assert body["registrationState"]["status"] == "assigned"


async def test_an_answer_for_another_id_is_refused():
    service = Service(enrollments=[individual("dev-1"), individual("dev-2")])
    covered = await challenge(service, native_connection("dev-1"), native_client.symmetric_key_claim())
    _, body = await answer(service, native_connection("dev-2"), native_client.mac_answer(covered, PRIMARY_KEY))
    assert body["status"] == 401
    assert service.store.audit[-1].trace[-1].name == "challenge-other-registration"


async def test_an_id_that_is_not_enrolled_is_challenged_like_any_other_and_then_refused():
    service, connection = Service(), native_connection()
    covered = await challenge(service, connection, native_client.symmetric_key_claim())
    _, body = await answer(service, connection, native_client.mac_answer(covered, PRIMARY_KEY))
    assert body["error"]["errorCode"] == 401002


async def test_a_native_device_asks_for_its_status_with_the_operation_that_only_it_knows():
    service, connection = Service(enrollments=[individual("dev-1")], reply=ReplyMode.POLL), native_connection()
    covered = await challenge(service, connection, native_client.symmetric_key_claim())
    _, body = await answer(service, connection, native_client.mac_answer(covered, PRIMARY_KEY))
    assert body["status"] == 202
    topic = "provisiond/v1/dev-1/req/status/r3"
    _, own = await service.ask(connection, topic, native_client.status_payload(body["operationId"]))
    _, other = await service.ask(connection, topic, native_client.status_payload("5.guess"))
    assert (own["status"], other["status"]) == (200, 404)


async def test_a_native_connect_needs_a_client_id_that_is_a_registration_id():
    service = Service()
    attempt = ConnectAttempt(
        connection_id="c", listener="local", remote_address="127.0.0.1", tls=False, client_id="dev-1"
    )
    connection = await service.pipeline.admit(attempt)
    assert (connection.role, connection.claimed_id.text) == (Role.NATIVE, "dev-1")
    with pytest.raises(ConnectRefused):
        await service.pipeline.admit(replace(attempt, client_id="a/b"))


# --- too much --------------------------------------------------------------------------------------------------------


async def test_a_flood_of_one_id_is_throttled_with_one_row_for_the_operator_and_nobody_else_notices():
    service = Service(enrollments=[individual("dev-1"), individual("dev-2")])
    flooder, other = await service.connect("dev-1"), await service.connect("dev-2", connection_id="c2")
    answers = [await service.ask(flooder, REGISTER, b"{") for _ in range(200)]
    assert [topic for topic, _ in answers[120:]] == ["$dps/registrations/res/429/?$rid=r1&retry-after=1"] * 80
    assert {body["errorCode"] for _, body in answers[120:]} == {429001}
    assert [record.code for record in service.store.audit].count(429001) == 1
    _, body = await service.ask(other)
    assert body["status"] == "assigned"
    service.clock.advance(1)
    _, body = await service.ask(flooder)
    assert body["status"] == "assigned"


async def test_a_native_flood_is_throttled_with_retry_after():
    service, connection = Service(enrollments=[individual("dev-1")]), native_connection()
    answers = [await service.ask(connection, "provisiond/v1/dev-1/req/register/r1", b"{") for _ in range(121)]
    topic, body = answers[-1]
    assert (topic, body["status"], body["retryAfter"]) == ("provisiond/v1/dev-1/res/register/r1", 429, 1)


@pytest.mark.parametrize("address", ["198.51.100.7", "127.0.0.1"], ids=["from elsewhere", "from its own address"])
async def test_a_thousand_wrong_keys_slow_down_who_tries_them_and_not_the_device(address):
    service, free = Service(enrollments=[individual("dev-1")]), RequestLimits().wrong_keys
    thief = replace(await service.connect(key=b"wrong" * 8, connection_id="t"), remote_address=address)
    codes = []
    for _ in range(1000):
        _, body = await service.ask(thief)
        codes.append(body["errorCode"])
    assert codes == [401002] * free + [429001] * (1000 - free)
    device = replace(await service.connect(), remote_address="127.0.0.1")
    for _ in range(20):
        _, body = await service.ask(device)
        assert body["status"] == "assigned"


async def test_wrong_keys_on_ever_new_connections_are_paused_and_leave_one_record_of_it():
    service, free = Service(enrollments=[individual("dev-1")]), RequestLimits().wrong_keys
    codes = []
    for number in range(3 * free):
        thief = await service.connect(key=b"wrong" * 8, connection_id=f"t{number}")
        _, body = await service.ask(thief)
        codes.append(body["errorCode"])
        await service.pipeline.closed(thief)
    assert codes == [401002] * free + [429001] * (2 * free)
    assert [record.code for record in service.store.audit].count(429001) == 1
    _, body = await service.ask(await service.connect())
    assert body["status"] == "assigned"


async def test_rubbish_on_ever_new_connections_is_throttled_too():
    service = Service(enrollments=[individual("dev-1")])
    codes = [
        (await service.ask(await service.connect(connection_id=f"t{number}"), REGISTER, b"{"))[1]["errorCode"]
        for number in range(130)
    ]
    assert set(codes[:120]) == {400004}
    assert set(codes[120:]) == {429001}
    _, body = await service.ask(await service.connect())
    assert body["status"] == "assigned"


async def test_a_flood_of_ever_new_names_fills_no_disk_and_the_records_go_on_after_it():
    service = Service(enrollments=[individual("dev-1")])

    async def guess(number):
        connection = await service.connect(f"nobody-{number}", key=b"wrong" * 8, connection_id=f"t{number}")
        _, body = await service.ask(connection)
        assert body["errorCode"] == 401002

    for number in range(REFUSALS_PER_MIN_PER_ADDRESS + 100):
        await guess(number)
    assert len(service.store.audit) == REFUSALS_PER_MIN_PER_ADDRESS
    service.clock.advance(1)
    await guess(1000)
    assert len(service.store.audit) == REFUSALS_PER_MIN_PER_ADDRESS + 1
    _, body = await service.ask(await service.connect())
    assert body["status"] == "assigned"
    assert service.store.audit[-1].registration_id == "dev-1"


async def test_an_address_has_an_allowance_for_all_its_devices_together():
    names = [f"dev-{number}" for number in range(5)]
    service = Service(enrollments=[individual(name) for name in names])
    allowance = RequestLimits(requests_per_min_per_address=3)
    service.pipeline.policy = replace(service.pipeline.policy, requests=allowance)
    topics = [(await service.ask(await service.connect(name, connection_id=name)))[0] for name in names]
    assert [topic.partition("rid=r1")[2] for topic in topics] == ["", "", "", "&retry-after=20", "&retry-after=40"]
    service.clock.advance(20)
    _, body = await service.ask(await service.connect("dev-3", connection_id="dev-3"))
    assert body["status"] == "assigned"


async def test_challenges_that_nobody_answers_are_limited_and_expire():
    service = Service(enrollments=[individual("dev-1")])
    service.pipeline.policy = replace(service.pipeline.policy, challenges=ChallengeLimits(total=3, per_address=3))
    payload = native_client.register_payload(native_client.symmetric_key_claim())
    statuses = []
    for number in range(5):
        connection = native_connection(f"dev-{number}", connection_id=f"n{number}")
        _, body = await service.ask(connection, f"provisiond/v1/dev-{number}/req/register/r1", payload)
        statuses.append(body["status"])
    assert statuses == [401, 401, 401, 429, 429]
    assert len(service.store.challenges) == 3
    service.clock.advance(121)
    await challenge(service, native_connection(), native_client.symmetric_key_claim())


async def test_devices_behind_a_foreign_broker_are_not_taken_for_one_another():
    service = Service(enrollments=[individual("dev-1"), individual("dev-2")], reply=ReplyMode.POLL)
    for device in ("dev-1", "dev-2"):
        connection = replace(native_connection(device, connection_id=""), listener="external", remote_address="")
        covered = await challenge(service, connection, native_client.symmetric_key_claim())
        _, body = await answer(service, connection, native_client.mac_answer(covered, PRIMARY_KEY))
        assert body["status"] == 202
        assert not service.pipeline.has_outstanding_operation(connection)
    assert not service.pipeline._proved
    assert covered.session_id == covered.challenge_id


# --- secrets ---------------------------------------------------------------------------------------------------------

HUB_KEY = b"a secret of the hub, 32 octets.."


async def registered_with_a_hub_key(leaf):
    """A device with a certificate at a hub that knows no certificates."""
    service, connection = Service(enrollments=[individual("dev-1", certificates(leaf))]), native_connection()
    covered = await challenge(service, connection, native_client.x509_claim([leaf.der]))
    _, first = await answer(service, connection, native_client.signature_answer(covered, leaf.key))
    known = service.store.registrations["dev-1"]
    service.store.registrations["dev-1"] = replace(known, hub_key=HUB_KEY, certificate_der=leaf.der)
    return service, connection, first


@pytest.mark.parametrize("kind", ["p256", "rsa2048"])
async def test_what_is_secret_in_a_reply_only_the_device_can_read(kind):
    leaf = make_leaf("dev-1", key=make_key(kind))
    service, connection, first = await registered_with_a_hub_key(leaf)
    payload = native_client.status_payload(first["operationId"])
    reply = await service.pipeline.handle(
        connection, Message(topic="provisiond/v1/dev-1/req/status/r3", payload=payload)
    )
    body = json.loads(reply.payload)
    context = SealingContext(id_scope=SCOPE, registration_id="dev-1", operation_id=first["operationId"])
    opened = open_with_private_key(body["registrationState"]["sealedCredential"], private_key=leaf.key, context=context)
    assert parse_hub_key(opened) == HUB_KEY
    for form in (HUB_KEY, b64encode(HUB_KEY), HUB_KEY.hex().encode()):
        assert form not in reply.payload
    thief = {"p256": ec.generate_private_key(ec.SECP256R1()), "rsa2048": rsa.generate_private_key(65537, 2048)}
    observed = repr(service.observer.decisions) + repr(service.observer.failures) + repr(service.store.audit)
    for form in (HUB_KEY.decode(), b64encode(HUB_KEY).decode(), HUB_KEY.hex()):
        assert form not in observed
    with pytest.raises(SealBroken):
        open_with_private_key(body["registrationState"]["sealedCredential"], private_key=thief[kind], context=context)


async def test_a_secret_is_not_promised_to_a_key_that_cannot_receive_it():
    leaf = make_leaf("dev-1", key=make_key("ed25519"))
    service, connection, first = await registered_with_a_hub_key(leaf)
    topic = "provisiond/v1/dev-1/req/status/r3"
    _, body = await service.ask(connection, topic, native_client.status_payload(first["operationId"]))
    assert (body["status"], body["error"]["errorCode"]) == (400, 400004)
    assert "use EC or RSA" in body["error"]["message"]


# --- answers that prove nothing --------------------------------------------------------------------------------------


def signed_over(covered, leaf, **changes):
    """An answer to the challenge, with a signature over something else."""
    body = json.loads(native_client.signature_answer(replace(covered, **changes), leaf.key))
    return json.dumps(body | {"challengeId": covered.challenge_id}).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"id_scope": "0ne0OTHER"},
        {"registration_id": "dev-2"},
        {"registration_id": "DEV-1"},
        {"challenge_id": "another"},
        {"session_id": "another"},
        {"nonce": bytes(32)},
        {"request_sha256": bytes(32)},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_a_signature_over_another_transcript_proves_nothing(changes):
    leaf = make_leaf("dev-1")
    service, connection = Service(enrollments=[individual("dev-1", certificates(leaf))]), native_connection()
    covered = await challenge(service, connection, native_client.x509_claim([leaf.der]))
    _, body = await answer(service, connection, signed_over(covered, leaf, **changes))
    assert body["error"]["errorCode"] == 401002
    assert service.store.audit[-1].trace[-1].name == "signature-invalid"


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [("p256", "ES384"), ("p256", "PS256"), ("rsa2048", "ES256"), ("ed25519", "ES256"), ("p256", "EdDSA")],
)
async def test_an_algorithm_that_is_not_the_keys_is_refused(kind, algorithm):
    leaf = make_leaf("dev-1", key=make_key(kind))
    service, connection = Service(enrollments=[individual("dev-1", certificates(leaf))]), native_connection()
    covered = await challenge(service, connection, native_client.x509_claim([leaf.der]))
    told = json.loads(native_client.signature_answer(covered, leaf.key))
    told["x509"]["algorithm"] = algorithm
    _, body = await answer(service, connection, json.dumps(told).encode())
    assert body["status"] == 401
    assert service.store.audit[-1].trace[-1].name == "signature-algorithm"


async def test_an_answer_without_a_challenge_is_refused_like_a_wrong_one():
    service, connection = Service(enrollments=[individual("dev-1")]), native_connection()
    covered = await challenge(service, connection, native_client.symmetric_key_claim())
    _, invented = await answer(
        service, connection, native_client.mac_answer(replace(covered, challenge_id="x" * 32), PRIMARY_KEY)
    )
    _, wrong = await answer(service, connection, native_client.mac_answer(covered, b"w" * 32))
    del invented["error"]["trackingId"], wrong["error"]["trackingId"]
    assert invented == wrong


async def test_a_mac_does_not_answer_a_challenge_for_a_signature():
    leaf = make_leaf("dev-1")
    service, connection = Service(enrollments=[individual("dev-1", certificates(leaf))]), native_connection()
    covered = await challenge(service, connection, native_client.x509_claim([leaf.der]))
    _, body = await answer(service, connection, native_client.mac_answer(covered, PRIMARY_KEY))
    assert body["status"] == 401


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"null", 400),
        (b"[]", 400),
        (b'{"a":NaN}', 400),
        (b'{"attestation":{"type":"x509"},"attestation":{"type":"tpm"}}', 400),
        (b'{"attestation":{"type":"symmetricKey"},"unknown":1}', 400),
        (b'{"attestation":{"type":"symmetricKey","symmetricKey":{"key":"c2VjcmV0"}}}', 400),
        (b'{"attestation":{"type":"x509","x509":{"certificateChain":["AAAA"]}}}', 401),
        (b"[" * 50_000, 400),
        (b'{"payload":' + b"1" * 5000 + b"}", 400),
        (b'"\\ud800"', 400),
        (b"\xff\xfe", 400),
        (b" " * 70_000, 400),
    ],
)
@pytest.mark.parametrize("operation", ["register", "answer", "status"])
async def test_bad_native_input_gets_one_reply_and_the_next_request_is_unaffected(operation, payload, status):
    service, connection = Service(enrollments=[individual("dev-1")]), native_connection()
    topic, body = await service.ask(connection, f"provisiond/v1/dev-1/req/{operation}/r1", payload)
    assert topic == f"provisiond/v1/dev-1/res/{operation}/r1"
    assert body["status"] == (status if operation == "register" else 400)
    assert body["error"]["trackingId"]
    await challenge(service, connection, native_client.symmetric_key_claim())


@given(st.binary(min_size=16, max_size=16))
def test_names_are_version_4_uuids(random):
    assert uuid_text(random) == str(uuid.UUID(bytes=random, version=4))
