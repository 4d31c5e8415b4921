"""Where a device goes, what its hub is told, and what it leaves behind."""

from dataclasses import replace
from datetime import timedelta

import pytest

from provisiond.model import (
    AllocationPolicy,
    CustomAllocation,
    Evidence,
    Facts,
    Hub,
    InitialTwin,
    Outcome,
    PollRequest,
    Possession,
    RegisterRequest,
    RegistrationId,
    RegistrationStatus,
    RetirementAction,
    Role,
)
from provisiond.registration.decide import decide_poll, decide_register
from tests.certificates import make_ca, make_key, make_leaf
from tests.enrollment_factory import PRIMARY_KEY, SECONDARY_KEY, certificates, individual
from tests.fakes_decision import HUBS, NOW
from tests.registration.test_decide import CONTEXT, POLICY, assigned, facts, register, token

REMOTE = Hub(name="m", host="m.example", type="mosquitto", immediate=False)
OTHER = Hub(name="n", host="n.example", type="mosquitto", immediate=False)


def reserved(hub=REMOTE, **options):
    return assigned(hubs=(hub,), **options)


# --- what the hub is told ---


def test_a_hub_that_has_to_be_told_gets_the_key_that_the_device_has_proved():
    assert reserved().hub_key == PRIMARY_KEY
    other = register(facts(individual("dev-1"), hubs=(REMOTE,)), sas=token(key=SECONDARY_KEY)).registration
    assert other.hub_key == SECONDARY_KEY


def test_the_embedded_hub_needs_no_copy_of_the_key():
    assert assigned().hub_key is None


def test_a_device_that_asks_again_while_it_waits_changes_nothing():
    again = register(facts(individual("dev-1"), registration=reserved(), hubs=(REMOTE,)), sas=token())
    assert again.registration is None
    assert again.outcome is Outcome.ASSIGNING


@pytest.mark.parametrize("status", [RegistrationStatus.ASSIGNING, RegistrationStatus.ASSIGNED])
def test_a_device_that_comes_with_its_other_key_is_made_anew_at_its_hub(status):
    before = replace(reserved(), status=status)
    decision = register(facts(individual("dev-1"), registration=before, hubs=(REMOTE,)), sas=token(key=SECONDARY_KEY))
    assert (decision.registration.status, decision.registration.hub_key) == (
        RegistrationStatus.ASSIGNING,
        SECONDARY_KEY,
    )
    assert decision.registration.substatus is before.substatus
    assert decision.retire is None


def test_a_renewed_certificate_is_told_to_the_hub():
    ca = make_ca("Devices")
    old, new = make_leaf("Dev-1", ca), make_leaf("Dev-1", ca)
    enrollment = individual("dev-1", attestation=certificates(old, new))
    first = register(facts(enrollment, hubs=(REMOTE,)), chain=old.chain).registration
    assert first.certificate_der == old.der
    again = register(facts(enrollment, registration=first, hubs=(REMOTE,)), chain=new.chain)
    assert again.registration.certificate_der == new.der


def test_a_device_that_was_disabled_at_its_hub_is_made_anew_when_it_is_let_in_again():
    disabled = replace(reserved(), status=RegistrationStatus.DISABLED)
    decision = register(facts(individual("dev-1"), registration=disabled, hubs=(REMOTE,)), sas=token())
    assert decision.registration.status is RegistrationStatus.ASSIGNING


# --- what it leaves behind ---


def test_a_device_that_moves_has_its_old_identity_retired_later():
    before = replace(reserved(), status=RegistrationStatus.ASSIGNED)
    decision = register(facts(individual("dev-1"), registration=before, hubs=(OTHER,)), sas=token())
    retire = decision.retire
    assert (retire.hub, retire.device_id, retire.action) == ("m", before.device_id, RetirementAction.DELETE)
    assert retire.due_at == NOW + timedelta(seconds=POLICY.retire_after_s)
    assert retire.grace_s == POLICY.retire_after_s
    assert "until it was seen at n" in next(
        check.finding for check in decision.audit.trace if check.name == "departure"
    )


def test_a_device_that_waits_for_a_hub_that_is_down_moves_on_and_leaves_nothing_there():
    hubs = (replace(REMOTE, healthy=False), OTHER)
    decision = register(facts(individual("dev-1"), registration=reserved(), hubs=hubs), sas=token())
    assert decision.registration.hub == "n"
    assert decision.retire.hub == "m"  # it may have been made there, by a call that is late


def test_a_device_that_stays_leaves_nothing_behind():
    assert register(facts(individual("dev-1"), hubs=(REMOTE,)), sas=token()).retire is None


# --- what it is told ---


def test_a_device_that_waits_is_told_how_long_the_queue_is():
    hub = replace(REMOTE, retry_after_s=42)
    decision = register(facts(individual("dev-1"), hubs=(hub,)), sas=token())
    assert decision.reply.retry_after_s == 42
    request = PollRequest(
        claimed_id=RegistrationId.parse("Dev-1"),
        evidence=Evidence(sas_token=token()),
        operation_id=decision.registration.operation_id,
    )
    polled = decide_poll(
        request,
        facts(individual("dev-1"), registration=decision.registration, hubs=(hub,)),
        policy=POLICY,
        context=CONTEXT,
    )
    assert (polled.reply.status, polled.reply.retry_after_s) == (202, 42)


def test_a_device_that_is_only_made_to_poll_is_told_the_default():
    hub = replace(HUBS[0], retry_after_s=42)
    decision = register(facts(individual("dev-1"), hubs=(hub,)), sas=token(), context=replace(CONTEXT, immediate=False))
    assert decision.reply.retry_after_s == POLICY.retry_after_s


# --- custom allocation ---

DEFINITION = {"webhookUrl": "https://allocate.example/", "apiVersion": "2021-10-01"}
CUSTOM = individual("dev-1", allocation_policy=AllocationPolicy.CUSTOM, custom_allocation=DEFINITION)


def ask(answer=None, *, enrollment=CUSTOM, hubs=HUBS, registration=None):
    request = RegisterRequest(
        claimed_id=RegistrationId.parse("Dev-1"),
        evidence=Evidence(sas_token=token(), possession=Possession.TLS),
        payload={"model": "x"},
    )
    known = Facts(individual=enrollment, registration=registration, hubs=hubs, custom_allocation=answer)
    return decide_register(request, known, policy=POLICY, context=CONTEXT)


def answer(**changes):
    return CustomAllocation(**({"enrollment_etag": CUSTOM.etag, "host": "two.example"} | changes))


def test_a_custom_allocation_has_to_be_asked_before_anything_is_decided():
    decision = ask()
    assert (decision.outcome, decision.registration) == (Outcome.PENDING, None)
    question = decision.allocation
    assert (question.registration_id, question.payload) == ("Dev-1", {"model": "x"})
    assert [hub.host for hub in question.hubs] == ["one.example", "two.example"]


def test_only_hubs_that_are_allowed_and_do_not_drain_are_offered():
    hubs = (*HUBS, Hub(name="three", host="three.example"))
    narrow = replace(CUSTOM, iot_hubs=("one", "three.example"))
    draining = tuple(replace(hub, eligible=hub.name != "one") for hub in hubs)
    assert [hub.name for hub in ask(enrollment=narrow, hubs=draining).allocation.hubs] == ["three"]
    assert ask(enrollment=narrow, hubs=HUBS[1:]).reply.registration.error_code == 400208


def test_the_answer_decides_and_its_payload_goes_to_the_device():
    twin = InitialTwin(tags={"line": 4})
    decision = ask(answer(host="TWO.example", payload={"a": 1}, initial_twin=twin))
    record = decision.registration
    assert (record.hub, record.payload, record.initial_twin) == ("two", {"a": 1}, twin)
    assert decision.reply.registration.payload == {"a": 1}
    assert ask(answer(payload={"a": 1}, initial_twin=twin), registration=record).registration is None


@pytest.mark.parametrize("host", ["three.example", "one.example "])
def test_a_hub_that_was_not_offered_is_refused(host):
    reply = ask(answer(host=host)).reply
    assert reply.registration.error_code == 400207
    assert "not a linked hub" in reply.registration.error_message


def test_a_failure_is_told_as_azure_tells_it_and_explained_to_the_operator():
    failed = answer(
        host="",
        error="https://… answered 400: 'because'",
        public_error="Custom allocation failed with status code: 400",
    )
    decision = ask(failed)
    assert decision.reply.status == 200
    assert decision.reply.registration.error_message.startswith("Custom allocation failed with status code: 400")
    assert "because" in decision.audit.reason
    assert decision.registration is None


def test_an_answer_about_another_state_of_the_enrollment_is_asked_for_again():
    assert ask(answer(enrollment_etag="older")).allocation is not None


def test_a_device_that_never_moves_is_not_asked_about_again():
    from provisiond.enrollment.reprovision import POLICIES

    sticky = replace(CUSTOM, reprovision_policy=POLICIES["never"])
    first = ask(answer(), enrollment=sticky).registration
    assert ask(enrollment=sticky, registration=first).allocation is None


# --- hubs that take passwords only ---

PASSWORDS = replace(REMOTE, knows_certificates=False)


def ask_with_certificate(*hubs, protocol=Role.NATIVE, key="p256", existing=None, leaf=None):
    leaf = leaf or make_leaf("dev-1", key=make_key(key))
    request = RegisterRequest(
        claimed_id=RegistrationId("dev-1"),
        evidence=Evidence(unverified_chain=(leaf.der,), possession=Possession.TLS),
        protocol=protocol,
    )
    known = facts(individual("dev-1", certificates(leaf)), hubs=hubs, registration=existing)
    return decide_register(request, known, policy=POLICY, context=CONTEXT)


@pytest.mark.parametrize("key", ["p256", "rsa2048"])
def test_a_device_with_a_certificate_gets_a_key_for_its_password_where_certificates_are_not_known(key):
    placed = ask_with_certificate(PASSWORDS, key=key).registration
    assert (placed.hub, len(placed.hub_key)) == ("m", 32)
    assert ask_with_certificate(REMOTE).registration.hub_key is None


def test_it_keeps_that_key_for_as_long_as_it_has_that_certificate():
    leaf = make_leaf("dev-1")
    first = ask_with_certificate(PASSWORDS, leaf=leaf).registration
    assert ask_with_certificate(PASSWORDS, leaf=leaf, existing=first).registration is None
    assert (
        ask_with_certificate(PASSWORDS, existing=replace(first, hub_key=b"old" * 8)).registration.hub_key != b"old" * 8
    )


@pytest.mark.parametrize(
    ("protocol", "key", "why"), [(Role.DPS, "p256", "native topics"), (Role.NATIVE, "ed25519", "EC or RSA")]
)
def test_who_cannot_be_given_a_password_is_not_assigned_into_a_void(protocol, key, why):
    elsewhere = ask_with_certificate(PASSWORDS, OTHER, protocol=protocol, key=key)
    assert elsewhere.registration.hub == "n"
    refused = ask_with_certificate(PASSWORDS, protocol=protocol, key=key)
    assert (refused.outcome, refused.audit.code) == (Outcome.FAILED, 400208)
    (check,) = [check for check in refused.audit.trace if check.name == "hub-credential"]
    assert (check.passed, why in check.finding) == (False, True)


def test_a_device_with_a_key_of_its_own_needs_no_other():
    assert register(facts(individual("dev-1"), hubs=(PASSWORDS,)), sas=token()).registration.hub == "m"
