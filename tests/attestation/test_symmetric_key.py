"""Symmetric-key attestation of individuals and groups."""

import base64
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.attestation import symmetric_key
from provisiond.errors import AttestationError
from provisiond.model import RegistrationId, SymmetricKeyMaterial, Trace
from tests.certificates import NOW, make_leaf
from tests.enrollment_factory import PRIMARY_KEY, SECONDARY_KEY, certificates, group, individual

SCOPE = "0ne0LOCAL01"


def token(key, registration_id="sensor", *, scope=SCOPE, expiry=NOW + timedelta(hours=1), key_name=None):
    resource = f"{scope}/registrations/{registration_id}"
    return symmetric_key.generate_sas_token(resource=resource, key=key, expiry=expiry, key_name=key_name)


def options(sas_token, claimed_id="sensor", trace=None):
    return {
        "claimed_id": RegistrationId.parse(claimed_id),
        "sas_token": sas_token,
        "id_scope": SCOPE,
        "now": NOW,
        "clock_skew_s": 120,
        "trace": trace or Trace(),
    }


def verify_individual(enrollment, *args, **kwargs):
    return symmetric_key.verify_individual(enrollment=enrollment, **options(*args, **kwargs))


def verify_group(groups, *args, **kwargs):
    return symmetric_key.verify_group(groups=groups, **options(*args, **kwargs))


def keys(seed):
    return SymmetricKeyMaterial(primary_key=bytes([seed]) * 64, secondary_key=bytes([seed + 1]) * 64)


def derived(key, registration_id="sensor"):
    return symmetric_key.derive_device_key(key, registration_id)


def finding(verify, *args, **kwargs):
    with pytest.raises(AttestationError) as caught:
        verify(*args, **kwargs)
    return caught.value.finding


def test_a_devices_key_is_derived_as_azure_documents_it():
    group_key = base64.b64decode(
        "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw=="
    )
    device_key = symmetric_key.derive_device_key(group_key, "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6")
    assert base64.b64encode(device_key) == b"Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc="


@pytest.mark.parametrize(("key", "name"), [(PRIMARY_KEY, "primary key"), (SECONDARY_KEY, "secondary key")])
def test_either_key_of_an_individual_enrollment_proves_its_device(key, name, trace):
    verified = verify_individual(individual("sensor"), token(key, key_name="registration"), trace=trace)
    assert (verified.credential, verified.device_key) == (name, key)
    assert [check.passed for check in trace.snapshot()] == [True] * 5


def test_scope_and_id_are_compared_without_case():
    text = token(PRIMARY_KEY, "SENSOR", scope=SCOPE.lower())
    assert verify_individual(individual("Sensor"), text, "sensoR").registration_id.text == "sensoR"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (token(b"x" * 64), "sas-signature"),
        (token(PRIMARY_KEY, "other"), "sas-resource"),
        (token(PRIMARY_KEY, scope="0neOTHER"), "sas-resource"),
        (token(PRIMARY_KEY, key_name="iothubowner"), "sas-key-name"),
        (token(PRIMARY_KEY, expiry=NOW - timedelta(seconds=121)), "sas-expired"),
        (token(PRIMARY_KEY, expiry=10**18), "sas-malformed"),
        (token(PRIMARY_KEY, expiry=-1), "sas-malformed"),
        (token(PRIMARY_KEY).replace("sig=", "sig=*"), "sas-malformed"),
        ("", "sas-malformed"),
    ],
    ids=["key", "id", "scope", "key name", "expired", "huge se", "negative se", "bad base64", "empty"],
)
def test_a_bad_token_is_refused_with_its_finding(text, expected, trace):
    assert finding(verify_individual, individual("sensor"), text, trace=trace) == expected
    assert not trace.snapshot()[-1].passed


def test_a_disabled_enrollment_is_verified_and_returned_for_the_caller_to_turn_down():
    assert not verify_individual(individual("sensor", enabled=False), token(PRIMARY_KEY)).enrollment.enabled


def test_an_enrollment_of_another_mechanism_refuses_a_token():
    enrollment = individual("sensor", certificates(make_leaf("sensor")))
    assert finding(verify_individual, enrollment, token(PRIMARY_KEY)) == "attestation-type"


@pytest.mark.parametrize(("key", "name"), [(PRIMARY_KEY, "primary"), (SECONDARY_KEY, "secondary")])
def test_a_key_derived_from_either_group_key_proves_a_device(key, name):
    verified = verify_group([group("other", keys(1)), group("line")], token(derived(key)))
    assert (verified.enrollment.id, verified.credential) == ("line", f"key derived from the {name} key")
    assert verified.device_key == derived(key)


def test_the_derivation_minds_the_spelling_of_the_id():
    assert verify_group([group("line")], token(derived(PRIMARY_KEY, "Sensor"), "Sensor"), "Sensor")
    assert finding(verify_group, [group("line")], token(derived(PRIMARY_KEY), "Sensor"), "Sensor") == "sas-signature"


def test_a_group_key_itself_proves_no_device():
    assert finding(verify_group, [group("line")], token(PRIMARY_KEY)) == "sas-signature"


def test_another_devices_derived_key_is_refused():
    assert finding(verify_group, [group("line")], token(derived(PRIMARY_KEY, "other"))) == "sas-signature"


@pytest.mark.parametrize("order", [1, -1])
def test_an_enabled_group_goes_before_a_disabled_one_of_the_same_keys(order):
    groups = [group("a", enabled=False), group("b")][::order]
    assert verify_group(groups, token(derived(PRIMARY_KEY))).enrollment.id == "b"


def test_a_disabled_group_is_returned_for_the_caller_to_turn_down():
    groups = [group("a", enabled=False), group("b", keys(1))]
    assert verify_group(groups, token(derived(PRIMARY_KEY))).enrollment.id == "a"


def test_without_a_group_that_has_keys_nothing_is_proved():
    assert finding(verify_group, [], token(PRIMARY_KEY)) == "no-key-group"
    x509_group = group("line", certificates(make_leaf("sensor")))
    assert finding(verify_group, [x509_group], token(PRIMARY_KEY)) == "no-key-group"


def test_equalising_proves_nothing_whoever_signed(trace):
    for key in (PRIMARY_KEY, bytes(32)):
        assert symmetric_key.equalise(**options(token(key), trace=trace)) is None
    assert trace.snapshot() == ()


def test_equalising_tells_the_operator_of_a_token_that_cannot_be_read(trace):
    symmetric_key.equalise(**options("junk", trace=trace))
    assert [(check.name, check.passed) for check in trace.snapshot()] == [("sas-readable", False)]


def test_no_key_shows_in_the_text_form_of_the_proof():
    verified = verify_individual(individual("sensor"), token(PRIMARY_KEY))
    assert repr(PRIMARY_KEY) not in repr(verified)


@given(st.text(max_size=200) | st.text(max_size=100).map(lambda text: f"SharedAccessSignature {text}"))
def test_any_text_is_refused_as_an_attestation_error(text):
    with pytest.raises(AttestationError):
        verify_individual(individual("sensor"), text)
    with pytest.raises(AttestationError):
        verify_group([group("line")], text)
