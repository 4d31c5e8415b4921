from dataclasses import replace
from datetime import timedelta

import pytest

from provisiond.attestation.symmetric_key import derive_device_key, generate_sas_token
from provisiond.attestation.x509 import X509Limits
from provisiond.model import (
    AttestationType,
    EnrollmentKind,
    Evidence,
    Facts,
    Hub,
    Outcome,
    PollRequest,
    Possession,
    RegisterRequest,
    RegistrationId,
    RegistrationStatus,
    ReprovisionPolicy,
    Role,
    Substatus,
)
from provisiond.registration.attest import AttestationPolicy
from provisiond.registration.decide import Context, RegistrationPolicy, decide_poll, decide_register
from tests.attestation.der import as_version_1
from tests.certificates import make_ca, make_leaf
from tests.enrollment_factory import PRIMARY_KEY, SECONDARY_KEY, certificates, group, individual
from tests.fakes_decision import HUBS, NOW, FakeEntropy

SCOPE = "0ne00112233"
POLICY = RegistrationPolicy(attestation=AttestationPolicy(id_scope=SCOPE, x509_limits=X509Limits()))
CONTEXT = Context(
    now=NOW,
    immediate=True,
    tracking_id="t-1",
    operation_id="5.op.1",
    etag="etag-1",
    challenge_id="ch-1",
    connection_id="c-1",
    entropy=FakeEntropy(),
    actor="10.0.0.1",
)


def token(device="Dev-1", key=PRIMARY_KEY, resource=None):
    return generate_sas_token(
        resource=resource or f"{SCOPE}/registrations/{device}", key=key, expiry=NOW + timedelta(hours=1)
    )


def register(facts, device="Dev-1", *, sas=None, chain=(), context=CONTEXT, policy=POLICY, **request):
    request = RegisterRequest(
        claimed_id=RegistrationId.parse(device),
        evidence=Evidence(sas_token=sas, unverified_chain=chain, possession=Possession.TLS),
        **request,
    )
    return decide_register(request, facts, policy=policy, context=context)


def facts(enrollment=None, *, groups=(), registration=None, registered_group=None, hubs=HUBS):
    return Facts(
        individual=enrollment,
        groups=tuple(groups),
        registration=registration,
        registered_group=registered_group,
        hubs=hubs,
    )


def assigned(enrollment=None, hubs=HUBS, **options):
    return register(facts(enrollment or individual("dev-1"), hubs=hubs), sas=token(), **options).registration


# --- assignment ---


def test_an_enrolled_device_with_its_key_is_assigned_and_the_record_says_where():
    decision = register(facts(individual("dev-1", device_id="pump-7")), sas=token())
    assert decision.outcome is Outcome.ASSIGNED
    assert decision.reply.status == 200
    record = decision.registration
    assert (record.registration_id, record.device_id, record.version) == ("Dev-1", "pump-7", 1)
    assert record.assigned_host in {"one.example", "two.example"}
    assert record.substatus is Substatus.INITIAL_ASSIGNMENT
    assert decision.audit.outcome == "assigned"
    assert decision.audit.hub == record.hub


def test_the_secondary_key_serves_as_well():
    assert register(facts(individual("dev-1")), sas=token(key=SECONDARY_KEY)).outcome is Outcome.ASSIGNED


def test_a_group_key_serves_the_device_it_was_derived_for():
    sas = token(key=derive_device_key(PRIMARY_KEY, "Dev-1"))
    decision = register(facts(groups=[group("line")]), sas=sas)
    assert decision.outcome is Outcome.ASSIGNED
    assert decision.registration.enrollment_id == "line"


def test_a_device_that_polls_hears_202_first_although_it_is_assigned():
    decision = register(facts(individual("dev-1")), sas=token(), context=replace(CONTEXT, immediate=False))
    assert (decision.reply.status, decision.reply.status_text) == (202, RegistrationStatus.ASSIGNING)
    assert decision.reply.retry_after_s == POLICY.retry_after_s
    assert decision.registration.status is RegistrationStatus.ASSIGNED


def test_a_hub_that_must_be_called_first_leaves_the_device_assigning():
    hubs = (Hub(name="slow", host="slow.example", immediate=False),)
    decision = register(facts(individual("dev-1"), hubs=hubs), sas=token())
    assert decision.outcome is Outcome.ASSIGNING
    assert decision.registration.status is RegistrationStatus.ASSIGNING
    assert decision.reply.status == 202


def test_no_eligible_hub_is_told_as_failed_with_its_code_and_nothing_is_stored():
    decision = register(facts(individual("dev-1"), hubs=()), sas=token())
    assert decision.outcome is Outcome.FAILED
    assert decision.registration is None
    assert decision.reply.registration.error_code == 400208
    assert decision.audit.code == 400208


# --- refusals ---


def refusal(decision):
    assert decision.outcome is Outcome.REFUSED
    assert decision.registration is None
    error = decision.reply.error
    return error.code, error.message, decision.reply.status


def test_wrong_key_wrong_certificate_and_unknown_id_are_told_apart_only_by_the_operator():
    wrong_key = register(facts(individual("dev-1")), sas=token(key=b"w" * 32))
    unknown = register(facts(), sas=token())
    leaf = make_leaf("Dev-1")
    wrong_certificate = register(facts(individual("dev-1", certificates(leaf))), chain=(make_leaf("Dev-1").der,))
    assert refusal(wrong_key) == refusal(unknown) == refusal(wrong_certificate) == (401002, "Unauthorized", 401)
    assert len({decision.audit.reason for decision in (wrong_key, unknown, wrong_certificate)}) == 3
    assert unknown.reply.error.tracking_id == unknown.audit.tracking_id == "t-1"


def test_the_operator_hears_what_is_wrong_with_a_certificate_that_no_enrollment_knows():
    issuer = make_ca("Line 4 CA")
    missing = register(facts(), chain=make_leaf("Dev-1", issuer).chain)
    assert missing.audit.reason == "no enrollment group has a CA certificate for the issuer CN=Line 4 CA"
    leaf = make_leaf("Dev-1", issuer)
    version_1 = register(facts(), chain=(as_version_1(leaf.der, issuer.key),))
    assert "version 3" in version_1.audit.reason
    assert refusal(missing) == refusal(version_1) == (401002, "Unauthorized", 401)


def test_a_device_that_presents_nothing_is_refused():
    assert refusal(register(facts(individual("dev-1"))))[0] == 401002


def test_evidence_of_another_mechanism_than_the_enrollment_asks_for_is_refused():
    leaf = make_leaf("Dev-1")
    assert refusal(register(facts(individual("dev-1", certificates(leaf))), sas=token()))[0] == 401002


def test_a_mechanism_that_the_service_does_not_allow_is_refused():
    policy = RegistrationPolicy(
        attestation=AttestationPolicy(id_scope=SCOPE, allowed=frozenset({AttestationType.X509}))
    )
    assert refusal(register(facts(individual("dev-1")), sas=token(), policy=policy))[0] == 401002


def test_the_trace_of_a_refusal_ends_with_the_check_that_failed():
    decision = register(facts(individual("dev-1")), sas=token(key=b"w" * 32))
    assert not decision.audit.trace[-1].passed


# --- who decides ---


def test_an_individual_enrollment_wins_over_the_group():
    sas = token(key=derive_device_key(PRIMARY_KEY, "Dev-1"))
    both = facts(individual("dev-1", certificates(make_leaf("Dev-1"))), groups=[group("line")])
    assert refusal(register(both, sas=sas))[0] == 401002


def test_a_disabled_enrollment_tells_its_own_device_that_it_is_disabled():
    decision = register(facts(individual("dev-1", enabled=False)), sas=token())
    assert (decision.outcome, decision.reply.status) == (Outcome.DISABLED, 200)
    assert decision.reply.status_text is RegistrationStatus.DISABLED
    assert decision.registration is None


def test_a_disabled_enrollment_tells_a_stranger_nothing():
    decision = register(facts(individual("dev-1", enabled=False)), sas=token(key=b"w" * 32))
    assert refusal(decision)[0] == 401002


def test_a_disabled_individual_enrollment_of_any_mechanism_takes_a_device_out_of_its_group():
    ca = make_ca("Line CA")
    leaf = make_leaf("Dev-1", issuer=ca)
    blocked = facts(individual("dev-1", enabled=False), groups=[group("line", certificates(ca))])
    assert register(blocked, chain=(leaf.der,)).outcome is Outcome.DISABLED


def test_a_disabled_group_tells_its_device_that_it_is_disabled():
    sas = token(key=derive_device_key(PRIMARY_KEY, "Dev-1"))
    assert register(facts(groups=[group("line", enabled=False)]), sas=sas).outcome is Outcome.DISABLED


# --- asking again ---


def test_asking_again_gives_the_same_answer_and_changes_nothing():
    first = assigned()
    again = register(
        facts(individual("dev-1"), registration=first),
        sas=token(),
        context=replace(CONTEXT, operation_id="5.op.2", etag="etag-2", now=NOW + timedelta(minutes=5)),
    )
    assert again.registration is None
    assert again.reply.registration == first
    assert again.audit is not None


def test_the_device_reads_its_own_spelling_back():
    again = register(facts(individual("dev-1"), registration=assigned()), "DEV-1", sas=token("DEV-1"))
    assert again.reply.registration.registration_id == "DEV-1"


@pytest.mark.parametrize(
    ("migrate", "substatus"), [(True, Substatus.DEVICE_DATA_MIGRATED), (False, Substatus.DEVICE_DATA_RESET)]
)
def test_a_device_whose_hub_is_gone_moves_as_its_policy_says(migrate, substatus):
    policy = ReprovisionPolicy(update_hub_assignment=True, migrate_device_data=migrate)
    enrollment = individual("dev-1", reprovision_policy=policy)
    first = assigned(enrollment)
    others = tuple(hub for hub in HUBS if hub.name != first.hub)
    moved = register(facts(enrollment, registration=first, hubs=others), sas=token()).registration
    assert moved.hub == others[0].name
    assert moved.substatus is substatus
    assert (moved.version, moved.created_at, moved.operation_id) == (2, first.created_at, first.operation_id)


def test_a_device_that_must_never_move_stays_even_when_its_hub_is_gone():
    policy = ReprovisionPolicy(update_hub_assignment=False, migrate_device_data=False)
    enrollment = individual("dev-1", reprovision_policy=policy)
    first = assigned(enrollment)
    others = tuple(hub for hub in HUBS if hub.name != first.hub)
    again = register(facts(enrollment, registration=first, hubs=others), sas=token())
    assert again.registration is None
    assert again.reply.registration.hub == first.hub


@pytest.mark.parametrize(
    ("own_policy", "stays"),
    [(None, True), (ReprovisionPolicy(update_hub_assignment=True, migrate_device_data=True), False)],
)
def test_a_device_of_before_reprovisioning_stays_unless_its_enrollment_says_otherwise(own_policy, stays):
    """Azure DPS, device reprovisioning: with API 2018-04-01 and no policy devices were sticky; a policy always wins."""
    enrollment = individual("dev-1", reprovision_policy=own_policy)
    first = assigned(enrollment)
    others = tuple(hub for hub in HUBS if hub.name != first.hub)
    known = facts(enrollment, registration=first, hubs=others)
    again = register(known, sas=token(), predates_reprovisioning=True)
    assert (again.reply.registration.hub == first.hub) is stays


def test_a_changed_device_id_waits_until_the_record_is_deleted():
    first = assigned()
    renamed = facts(individual("dev-1", device_id="other"), registration=first)
    assert register(renamed, sas=token()).reply.registration.device_id == first.device_id


# --- polls ---


def poll(known, operation_id="5.op.1", *, sas=None, enrollment=None):
    request = PollRequest(
        claimed_id=RegistrationId.parse("Dev-1"), evidence=Evidence(sas_token=sas or token()), operation_id=operation_id
    )
    stored = facts(enrollment or individual("dev-1"), registration=known)
    return decide_poll(request, stored, policy=POLICY, context=CONTEXT)


def test_a_poll_of_the_own_operation_reports_the_registration():
    decision = poll(assigned())
    assert (decision.reply.status, decision.outcome) == (200, Outcome.ASSIGNED)
    assert decision.registration is None
    assert decision.audit is None


def test_a_poll_of_an_unfinished_registration_is_told_to_come_back():
    record = replace(assigned(), status=RegistrationStatus.ASSIGNING)
    reply = poll(record).reply
    assert (reply.status, reply.registration_id, reply.retry_after_s) == (202, "Dev-1", 3)


@pytest.mark.parametrize("operation_id", ["5.op.2", "x", "é"])
def test_a_poll_of_another_operation_is_not_found(operation_id):
    assert refusal(poll(assigned(), operation_id))[0] == 404202


def test_a_poll_without_a_registration_is_not_found():
    assert refusal(poll(None))[0] == 404202


def test_a_poll_with_the_wrong_key_is_unauthorised_before_anything_is_looked_up():
    assert refusal(poll(assigned(), sas=token(key=b"w" * 32)))[0] == 401002


def test_a_poll_after_the_enrollment_was_disabled_says_disabled():
    assert poll(assigned(), enrollment=individual("dev-1", enabled=False)).outcome is Outcome.DISABLED


def native_poll(known, chain, enrollment, operation_id="5.op.1", registered_group=None, policy=POLICY):
    request = PollRequest(
        claimed_id=RegistrationId.parse("Dev-1"),
        evidence=Evidence(unverified_chain=chain, possession=Possession.TLS),
        operation_id=operation_id,
        protocol=Role.NATIVE,
    )
    stored = facts(enrollment, registration=known, registered_group=registered_group)
    return decide_poll(request, stored, policy=policy, context=CONTEXT)


def test_a_poll_that_proves_nothing_is_answered_while_the_enrollment_lasts():
    of_group = replace(assigned(), enrollment_kind=EnrollmentKind.GROUP, enrollment_id="line-4")
    assert native_poll(of_group, (), None, registered_group=group("line-4")).outcome is Outcome.ASSIGNED
    disabled = native_poll(of_group, (), None, registered_group=group("line-4", enabled=False))
    assert (disabled.outcome, disabled.reply.registration) == (Outcome.DISABLED, None)
    # An individual enrollment that was made since takes the device out of its group.
    assert native_poll(of_group, (), individual("dev-1"), registered_group=group("line-4", enabled=False)).outcome is (
        Outcome.ASSIGNED
    )
    disabled = native_poll(of_group, (), individual("dev-1", enabled=False), registered_group=group("line-4"))
    assert disabled.outcome is Outcome.DISABLED


def test_a_poll_that_proves_nothing_is_unauthorised_once_the_enrollment_is_gone():
    of_group = replace(assigned(), enrollment_kind=EnrollmentKind.GROUP, enrollment_id="line-4")
    assert refusal(native_poll(of_group, (), None))[0] == 401002
    assert refusal(native_poll(assigned(), (), None, registered_group=group("line-4")))[0] == 401002
    certificates_only = replace(
        POLICY, attestation=replace(POLICY.attestation, allowed=frozenset({AttestationType.X509}))
    )
    assert refusal(native_poll(assigned(), (), individual("dev-1"), policy=certificates_only))[0] == 401002


def test_a_certificate_that_a_registration_was_not_made_with_does_not_keep_its_device_from_polling():
    passport = (make_leaf("Line-4").der,)
    assert native_poll(assigned(), passport, individual("dev-1")).outcome is Outcome.ASSIGNED
    assert refusal(native_poll(assigned(), passport, individual("dev-1"), "5.op.2"))[0] == 404202
    assert refusal(native_poll(None, passport, individual("dev-1")))[0] == 404202


def test_the_certificate_that_a_registration_was_made_with_is_verified_again_at_a_poll():
    leaf = make_leaf("Dev-1")
    known = register(facts(individual("dev-1", certificates(leaf))), chain=(leaf.der,)).registration
    replaced = individual("dev-1", certificates(make_leaf("Dev-1")))
    assert native_poll(known, (leaf.der,), individual("dev-1", certificates(leaf))).outcome is Outcome.ASSIGNED
    assert refusal(native_poll(known, (leaf.der,), replaced))[0] == 401002
