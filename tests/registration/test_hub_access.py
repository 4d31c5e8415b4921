"""Who may be which device at the embedded hub."""

from dataclasses import replace
from datetime import timedelta

import pytest

from provisiond.attestation.ek_certificate import EkDenyList
from provisiond.attestation.symmetric_key import derive_device_key, generate_sas_token
from provisiond.attestation.x509 import issuer_hashes, subject_hash
from provisiond.errors import AttestationError
from provisiond.model import (
    AttestationType,
    Connection,
    EnrollmentKind,
    Hub,
    RegistrationId,
    RegistrationStatus,
    Retirement,
    Role,
    TpmMaterial,
    Trace,
)
from provisiond.registration.attest import AttestationPolicy
from provisiond.registration.hub_access import HubFacts, device_keys, judge_access
from provisiond.registration.tpm_claim import TpmPolicy
from tests.certificates import make_ca, make_leaf
from tests.enrollment_factory import PRIMARY_KEY, SECONDARY_KEY, certificates, group, individual
from tests.fakes_decision import NOW
from tests.store.records import make_registration_of

HUBS = (Hub(name="local", host="gateway.local"), Hub(name="far", host="far.example", type="mosquitto"))
POLICY = AttestationPolicy(id_scope="0ne0")
EXPIRY = NOW + timedelta(hours=1)
HUB_KEY = b"h" * 32


def token(key, device="Dev-1", *, host="gateway.local", expiry=EXPIRY):
    return generate_sas_token(resource=f"{host}/devices/{device}", key=key, expiry=expiry)


def connect(device="Dev-1", *, sas=None, chain=()):
    return Connection(
        connection_id="c1",
        role=Role.IOTHUB,
        claimed_id=RegistrationId(device),
        listener="devices",
        remote_address="192.0.2.1",
        sas_token=sas,
        unverified_chain=chain,
    )


def registered(enrollment, **changes):
    return make_registration_of(enrollment, "Dev-1", **changes)


def facts(enrollment, *, issuers=(), individual_=None, **changes):
    of_group = enrollment.kind is EnrollmentKind.GROUP
    return HubFacts(
        registration=registered(enrollment, **changes),
        individual=individual_ if of_group else enrollment,
        group=enrollment if of_group else None,
        issuers=tuple(issuers) or ((enrollment,) if of_group else ()),
        hubs=HUBS,
    )


def judge(connection, known, *, policy=POLICY):
    return judge_access(connection, known, policy=policy, now=NOW, trace=Trace())


def finding(connection, known, **options):
    with pytest.raises(AttestationError) as refusal:
        judge(connection, known, **options)
    return refusal.value.finding


# --- symmetric keys


@pytest.mark.parametrize("key", [PRIMARY_KEY, SECONDARY_KEY])
def test_a_device_signs_with_either_key_of_its_enrollment(key):
    enrollment = individual("Dev-1")
    access = judge(connect(sas=token(key)), facts(enrollment))
    assert access.enrollment is enrollment
    assert access.expires_at == EXPIRY + timedelta(seconds=POLICY.clock_skew_s)


def test_a_token_without_end_has_one():
    access = judge(connect(sas=token(PRIMARY_KEY, expiry=253_402_300_799)), facts(individual("Dev-1")))
    assert access.expires_at.year == 9999


@pytest.mark.parametrize("spelt", ["Dev-1", "dev-1"])
@pytest.mark.parametrize("key", [PRIMARY_KEY, SECONDARY_KEY])
def test_a_device_of_a_group_signs_with_its_derived_key_as_it_spells_itself(spelt, key):
    derived = derive_device_key(key, spelt)
    assert judge(connect(spelt, sas=token(derived, spelt)), facts(group("line-4"))).enrollment.id == "line-4"


def test_a_groups_own_key_opens_nothing():
    assert finding(connect(sas=token(PRIMARY_KEY)), facts(group("line-4"))) == "sas-signature"


def test_a_device_with_a_device_id_of_its_own_goes_by_that():
    known = facts(individual("Dev-1", device_id="Pump-7"), device_id="Pump-7")
    assert judge(connect("Pump-7", sas=token(PRIMARY_KEY, "Pump-7")), known).registration.registration_id == "Dev-1"
    assert finding(connect("Pump-7", sas=token(PRIMARY_KEY, "Dev-1")), known) == "sas-resource"


def test_the_host_of_a_token_may_be_any():
    assert judge(connect(sas=token(PRIMARY_KEY, host="10.0.0.7:8883")), facts(individual("Dev-1")))


@pytest.mark.parametrize(
    ("sas", "expected"),
    [
        (token(b"w" * 32), "sas-signature"),
        (token(PRIMARY_KEY, "Dev-2"), "sas-resource"),
        (token(PRIMARY_KEY, "Dev-1/modules/m"), "sas-resource"),
        (token(PRIMARY_KEY, expiry=NOW - timedelta(hours=1)), "sas-expired"),
        (generate_sas_token(resource="0ne0/registrations/Dev-1", key=PRIMARY_KEY, expiry=EXPIRY), "sas-resource"),
        (
            generate_sas_token(resource="h/devices/Dev-1", key=PRIMARY_KEY, expiry=EXPIRY, key_name="owner"),
            "sas-key-name",
        ),
        ("password", "sas-malformed"),
        (None, "no-evidence"),
    ],
)
def test_any_other_token_is_refused(sas, expected):
    assert finding(connect(sas=sas), facts(individual("Dev-1"))) == expected


def test_a_certificate_is_no_key():
    assert finding(connect(chain=make_leaf("Dev-1").chain), facts(individual("Dev-1"))) == "no-evidence"


# --- what the operator says


def test_a_disabled_enrollment_lets_nobody_in():
    sas = token(PRIMARY_KEY)
    assert finding(connect(sas=sas), facts(individual("Dev-1", enabled=False))) == "enrollment-disabled"
    derived = token(derive_device_key(PRIMARY_KEY, "Dev-1"))
    assert finding(connect(sas=derived), facts(group("line-4", enabled=False))) == "enrollment-disabled"


def test_a_disabled_individual_enrollment_takes_one_device_out_of_its_group():
    derived = token(derive_device_key(PRIMARY_KEY, "Dev-1"))
    blocked = individual("Dev-1", enabled=False)
    assert finding(connect(sas=derived), facts(group("line-4"), individual_=blocked)) == "enrollment-disabled"


def test_an_individual_enrollment_that_was_made_since_decides():
    known = facts(group("line-4"), individual_=individual("Dev-1"))
    assert judge(connect(sas=token(PRIMARY_KEY)), known).enrollment.kind is EnrollmentKind.INDIVIDUAL
    assert finding(connect(sas=token(derive_device_key(PRIMARY_KEY, "Dev-1"))), known) == "sas-signature"


def test_without_its_enrollment_a_device_is_nobody():
    known = facts(individual("Dev-1"))
    assert finding(connect(sas=token(PRIMARY_KEY)), replace(known, individual=None)) == "enrollment-unknown"
    known = facts(group("line-4"))
    derived = token(derive_device_key(PRIMARY_KEY, "Dev-1"))
    assert finding(connect(sas=derived), replace(known, group=None)) == "enrollment-unknown"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": RegistrationStatus.ASSIGNING}, "device-not-assigned"),
        ({"status": RegistrationStatus.FAILED}, "device-not-assigned"),
        ({"hub": "far"}, "hub-not-embedded"),
        ({"hub": "gone"}, "hub-not-embedded"),
        ({"hub": None}, "hub-not-embedded"),
    ],
)
def test_a_device_must_be_assigned_to_this_hub(changes, expected):
    assert finding(connect(sas=token(PRIMARY_KEY)), facts(individual("Dev-1"), **changes)) == expected


def departure(*, hub="local", seconds=60, grace_s=3600):
    return Retirement(
        hub=hub, device_id="Dev-1", registration_id="Dev-1", due_at=NOW + timedelta(seconds=seconds), grace_s=grace_s
    )


def moved(*departures, status=RegistrationStatus.ASSIGNED, enabled=True):
    known = facts(individual("Dev-1", enabled=enabled), hub="far", status=status)
    return connect(sas=token(PRIMARY_KEY)), replace(known, departures=departures)


@pytest.mark.parametrize(
    "status", [RegistrationStatus.ASSIGNED, RegistrationStatus.ASSIGNING, RegistrationStatus.FAILED]
)
def test_a_device_that_has_moved_is_let_in_until_it_was_seen_at_its_new_hub(status):
    assert judge(*moved(departure(), status=status)).departing_from == "local"


@pytest.mark.parametrize("status", [RegistrationStatus.ASSIGNING, RegistrationStatus.FAILED])
def test_a_device_that_was_not_made_at_its_new_hub_is_let_in_for_as_long_as_that_takes(status):
    assert judge(*moved(departure(seconds=-60), status=status)).departing_from == "local"


@pytest.mark.parametrize("left", [departure(seconds=0), departure(grace_s=0), departure(hub="far"), departure(hub="x")])
def test_a_device_that_has_moved_for_good_is_let_in_no_longer(left):
    assert finding(*moved(left)) == "hub-not-embedded"


def test_who_was_revoked_gains_nothing_by_having_moved():
    assert finding(*moved(departure(), enabled=False)) == "enrollment-disabled"
    assert finding(*moved(departure(), status=RegistrationStatus.DISABLED)) == "device-not-assigned"


def test_an_unknown_device_is_refused():
    assert finding(connect(sas=token(PRIMARY_KEY)), HubFacts(hubs=HUBS)) == "device-unknown"
    assert finding(connect(), HubFacts(hubs=HUBS)) == "device-unknown"


def test_the_keys_that_hide_who_is_unknown_open_nothing():
    for key in (bytes(32), bytes([1]) * 32):
        assert finding(connect(sas=token(key)), HubFacts(hubs=HUBS)) == "device-unknown"


def test_a_mechanism_that_the_service_does_not_allow():
    policy = replace(POLICY, allowed=frozenset({AttestationType.X509}))
    assert (
        finding(connect(sas=token(PRIMARY_KEY)), facts(individual("Dev-1")), policy=policy) == "mechanism-not-allowed"
    )


# --- certificates


def test_a_pinned_certificate_is_attested_again():
    pinned = make_leaf("Dev-1")
    known = facts(individual("Dev-1", certificates(pinned)))
    access = judge(connect(chain=pinned.chain), known)
    assert access.expires_at == pinned.certificate.not_valid_after_utc
    assert finding(connect(chain=make_leaf("Dev-1").chain), known) == "certificate-pinned"
    assert finding(connect(), known) == "certificate-missing"
    assert finding(connect(sas=token(PRIMARY_KEY)), known) == "certificate-missing"


def test_a_certificate_of_the_groups_ca_is_attested_again():
    ca = make_ca("Line 4")
    known = facts(group("line-4", certificates(ca)))
    leaf = make_leaf("Dev-1", ca)
    assert subject_hash(ca.der) in issuer_hashes(leaf.chain)
    assert judge(connect(chain=leaf.chain), known).enrollment.id == "line-4"
    assert finding(connect(chain=make_leaf("Dev-2", ca).chain), known) == "common-name-mismatch"
    assert finding(connect(chain=make_leaf("Dev-1", make_ca("Line 4")).chain), known) != "common-name-mismatch"


def test_a_disabled_group_nearer_to_the_device_blocks_it():
    root = make_ca("Root")
    line = make_ca("Line 4", root)
    site, blocked = group("site", certificates(root)), group("line-4", certificates(line), enabled=False)
    known = facts(site, issuers=(site, blocked))
    leaf = make_leaf("Dev-1", line)
    assert finding(connect(chain=leaf.chain), known) == "enrollment-changed"
    assert finding(connect(chain=leaf.chain), facts(blocked, issuers=(site, blocked))) == "enrollment-disabled"


# --- TPMs

TPM = TpmMaterial(endorsement_key=b"ek" * 50)


def test_a_tpm_signs_with_the_hub_key_of_its_registration():
    known = facts(individual("Dev-1", TPM), hub_key=HUB_KEY, endorsement_key=TPM.endorsement_key)
    assert judge(connect(sas=token(HUB_KEY)), known)
    assert finding(connect(sas=token(b"x" * 32)), known) == "sas-signature"


def test_a_tpm_that_has_not_registered_has_no_key():
    assert finding(connect(sas=token(HUB_KEY)), facts(individual("Dev-1", TPM))) == "hub-key-missing"


def test_the_hub_key_of_another_tpm_is_worth_nothing_once_a_new_one_is_enrolled():
    known = facts(individual("Dev-1", TPM), hub_key=HUB_KEY, endorsement_key=b"other")
    assert finding(connect(sas=token(HUB_KEY)), known) == "endorsement-key-mismatch"


def test_the_hub_key_of_a_tpm_on_the_deny_list_opens_nothing():
    known = facts(
        individual("Dev-1", TPM), hub_key=HUB_KEY, endorsement_key=TPM.endorsement_key, endorsement_key_hash=b"h" * 32
    )
    deny = EkDenyList(endorsement_key_hashes=frozenset({b"h" * 32}))
    policy = replace(POLICY, tpm=TpmPolicy(deny=deny))
    assert judge(connect(sas=token(HUB_KEY)), known)
    assert finding(connect(sas=token(HUB_KEY)), known, policy=policy) == "ek-denied"


# --- keys to try with


def test_the_keys_of_a_device_are_those_that_open():
    assert device_keys(registered(individual("Dev-1")), individual("Dev-1")) == (PRIMARY_KEY, SECONDARY_KEY)
    derived = tuple(derive_device_key(key, "Dev-1") for key in (PRIMARY_KEY, SECONDARY_KEY))
    assert device_keys(registered(group("line-4")), group("line-4")) == derived
    of_tpm = individual("Dev-1", TPM)
    assert device_keys(registered(of_tpm, hub_key=HUB_KEY), of_tpm) == (HUB_KEY,)
    pinned = individual("Dev-1", certificates(make_leaf("Dev-1")))
    assert device_keys(registered(pinned), pinned) == ()
