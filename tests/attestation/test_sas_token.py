"""Shared access signatures: every producer's way of writing them, and every way to get them wrong."""

import base64
import hashlib
import hmac
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.attestation.sas_token import EXPIRY_MAX_S, check_sas, generate_sas_token, parse_sas_token
from provisiond.errors import AttestationError

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NOW_S = int(NOW.timestamp())
KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))
RESOURCE = "0ne0SCOPE/registrations/sensor-7"
SIGNATURE = quote(base64.b64encode(bytes(32)), safe="")


def sign(literal, expiry, key=KEY):
    mac = hmac.new(key, f"{literal}\n{expiry}".encode(), hashlib.sha256).digest()
    return quote(base64.b64encode(mac), safe="")


def check(text, trace, *, keys=(KEY,), resource=RESOURCE, now=NOW, clock_skew_s=120):
    return check_sas(
        parse_sas_token(text),
        keys=keys,
        names_resource=lambda named: named.lower() == resource.lower(),
        key_names=("registration",),
        now=now,
        clock_skew_s=clock_skew_s,
        trace=trace,
    )


def refusal(text, trace, **options):
    with pytest.raises(AttestationError) as caught:
        check(text, trace, **options)
    return caught.value.finding


def dialect(literal, template, expiry=NOW_S + 3600):
    return "SharedAccessSignature " + template.format(sr=literal, sig=sign(literal, expiry), se=expiry)


UPPER, LOWER = RESOURCE.replace("/", "%2F"), RESOURCE.replace("/", "%2f")


@pytest.mark.parametrize(
    "text",
    [
        dialect(UPPER, "sr={sr}&sig={sig}&se={se}"),
        dialect(RESOURCE, "sr={sr}&sig={sig}&skn=registration&se={se}"),
        dialect(LOWER, "sr={sr}&sig={sig}&se={se}&skn=registration"),
        dialect(UPPER, "sr={sr}&sig={sig}&se={se}&skn=registration"),
        dialect(RESOURCE, "sr={sr}&sig={sig}&se={se}&skn="),
        dialect(UPPER, "se={se}&skn=&sr={sr}&sig={sig}"),
        dialect(UPPER.upper(), "sr={sr}&sig={sig}&se={se}"),
    ],
    ids=["Python", "Node", "C", "C#", "Java", "any order", "other case"],
)
def test_every_sdks_dialect_is_verified(text, trace):
    assert check(text, trace) == 0
    assert all(item.passed for item in trace.snapshot())


def test_a_signature_over_the_decoded_resource_is_taken(trace):
    text = f"SharedAccessSignature sr={UPPER}&sig={sign(RESOURCE, NOW_S + 60)}&se={NOW_S + 60}"
    assert check(text, trace) == 0


def test_a_raw_signature_is_taken_as_well_as_an_encoded_one(trace):
    mac = base64.b64encode(hmac.digest(KEY, f"{UPPER}\n{NOW_S + 60}".encode(), "sha256")).decode()
    assert check(f"SharedAccessSignature sr={UPPER}&sig={mac}&se={NOW_S + 60}", trace) == 0


def test_the_first_key_that_matches_is_told(trace):
    text = dialect(UPPER, "sr={sr}&sig={sig}&se={se}")
    assert check(text, trace, keys=(OTHER_KEY, KEY, KEY)) == 1


def test_a_generated_token_is_what_the_python_sdk_writes():
    text = generate_sas_token(resource=RESOURCE, key=KEY, expiry=datetime(2026, 3, 1, tzinfo=UTC))
    encoded = "0ne0SCOPE%2Fregistrations%2Fsensor-7"
    assert text == f"SharedAccessSignature sr={encoded}&sig={sign(encoded, 1772323200)}&se=1772323200"
    assert generate_sas_token(resource="r", key=KEY, expiry=1, key_name="registration").endswith(
        "&se=1&skn=registration"
    )


@given(
    resource=st.text(min_size=1, max_size=40, alphabet=st.characters(min_codepoint=33, max_codepoint=126)),
    key=st.binary(min_size=16, max_size=64),
    expiry=st.integers(0, EXPIRY_MAX_S),
    key_name=st.none() | st.text(max_size=10, alphabet="abc-%&= "),
)
def test_a_generated_token_is_parsed_back(resource, key, expiry, key_name):
    token = parse_sas_token(generate_sas_token(resource=resource, key=key, expiry=expiry, key_name=key_name))
    assert (token.resource_literal, token.expiry_s, token.key_name) == (quote(resource, safe=""), expiry, key_name)
    assert token.signature == hmac.digest(key, f"{token.resource_literal}\n{expiry}".encode(), "sha256")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SharedAccessSignature",
        "SharedAccessSignature ",
        "sharedaccesssignature sr=a&sig=b&se=1",
        f"sr=a&sig={SIGNATURE}&se=1",
        f"SharedAccessSignature  sr=a&sig={SIGNATURE}&se=1",
        f"SharedAccessSignature sig={SIGNATURE}&se=1",
        "SharedAccessSignature sr=a&se=1",
        f"SharedAccessSignature sr=a&sig={SIGNATURE}",
        f"SharedAccessSignature sr=&sig={SIGNATURE}&se=1",
        f"SharedAccessSignature sr=a&sr=a&sig={SIGNATURE}&se=1",
        f"SharedAccessSignature sr=a&sig={SIGNATURE}&se=1&se=1",
        f"SharedAccessSignature sr=a&sig={SIGNATURE}&se=1&skn=&skn=",
        f"SharedAccessSignature sr=a&sig={SIGNATURE}&se=1&admin=1",
        f"SharedAccessSignature sr=a&sig={SIGNATURE}&se=1&",
        f"SharedAccessSignature sr=a&sig={SIGNATURE}&se=1&skn",
        f"SharedAccessSignature sr=a&sig={SIGNATURE}&se=",
        f"SharedAccessSignature sr=a&sig={SIGNATURE}&se=-1",
        f"SharedAccessSignature sr=a&sig={SIGNATURE}&se=+1",
        f"SharedAccessSignature sr=a&sig={SIGNATURE}&se=1.5",
        f"SharedAccessSignature sr=a&sig={SIGNATURE}&se=1e9",
        f"SharedAccessSignature sr=a&sig={SIGNATURE}&se=1_0",
        f"SharedAccessSignature sr=a&sig={SIGNATURE}&se=%31",
        f"SharedAccessSignature sr=a&sig={SIGNATURE}&se=\u0661",
        f"SharedAccessSignature sr=a&sig={SIGNATURE}&se={10**18}",
        f"SharedAccessSignature sr=a&sig={SIGNATURE}&se={EXPIRY_MAX_S + 1}",
        "SharedAccessSignature sr=a&sig=&se=1",
        "SharedAccessSignature sr=a&sig=!!!&se=1",
        f"SharedAccessSignature sr=a&sig={SIGNATURE}AAAA&se=1",
        f"SharedAccessSignature sr=a&sig=AA*{SIGNATURE}&se=1",
        f"SharedAccessSignature sr=a&sig={SIGNATURE[:-3]}&se=1",
        f"SharedAccessSignature sr=a&sig={base64.b64encode(bytes(31)).decode()}&se=1",
        f"SharedAccessSignature sr=a&sig=%C3%A9{SIGNATURE}&se=1",
        f"SharedAccessSignature sr=a\n&sig={SIGNATURE}&se=1",
        f"SharedAccessSignature sr=a\0&sig={SIGNATURE}&se=1",
        f"SharedAccessSignature sr=é&sig={SIGNATURE}&se=1",
        f"SharedAccessSignature sr=a&sig={SIGNATURE}&se=1&skn=%ff",
        f"SharedAccessSignature sr={'a' * 2048}&sig={SIGNATURE}&se=1",
    ],
)
def test_anything_else_is_malformed(text):
    with pytest.raises(AttestationError) as caught:
        parse_sas_token(text)
    assert caught.value.finding == "sas-malformed"


def test_a_key_that_is_not_enrolled_is_refused(trace):
    assert refusal(dialect(UPPER, "sr={sr}&sig={sig}&se={se}"), trace, keys=(OTHER_KEY,)) == "sas-signature"


def test_an_altered_expiry_is_refused(trace):
    text = f"SharedAccessSignature sr={UPPER}&sig={sign(UPPER, NOW_S + 60)}&se={NOW_S + 6000}"
    assert refusal(text, trace) == "sas-signature"


def test_an_empty_or_short_key_lets_nobody_in(trace):
    for key in (b"", bytes(15)):
        text = generate_sas_token(resource=RESOURCE, key=key, expiry=NOW_S + 60)
        assert refusal(text, trace, keys=(key,)) == "sas-signature"


@pytest.mark.parametrize(
    "resource",
    [
        "0neOTHER/registrations/sensor-7",
        "0ne0SCOPE/registrations/sensor-8",
        "0ne0SCOPE/registrations/sensor-7/x",
        "0ne0SCOPE/registrations/",
        "0ne0SCOPE%2Fregistrations%2Fsensor-7",
        "hub.example/devices/sensor-7",
        "0ne0SCOPE/registrations/\u017fensor-7",
    ],
)
def test_a_token_for_something_else_is_refused(resource, trace):
    text = generate_sas_token(resource=resource, key=KEY, expiry=NOW_S + 60)
    assert refusal(text, trace) in ("sas-resource", "sas-malformed")


def test_a_wrong_key_name_is_refused(trace):
    text = generate_sas_token(resource=RESOURCE, key=KEY, expiry=NOW_S + 60, key_name="iothubowner")
    assert refusal(text, trace) == "sas-key-name"


def test_an_expired_token_is_taken_within_the_clock_skew_and_refused_after_it(trace):
    text = generate_sas_token(resource=RESOURCE, key=KEY, expiry=NOW_S)
    assert check(text, trace, now=NOW + timedelta(seconds=120)) == 0
    assert refusal(text, trace, now=NOW + timedelta(seconds=121)) == "sas-expired"
    assert refusal(generate_sas_token(resource=RESOURCE, key=KEY, expiry=0), trace) == "sas-expired"


def test_a_hubs_token_is_verified_by_the_same_check(trace):
    text = generate_sas_token(resource="hub.example/devices/Pump", key=KEY, expiry=NOW_S + 60)
    token = parse_sas_token(text)
    index = check_sas(
        token,
        keys=(KEY,),
        names_resource=lambda named: named == "hub.example/devices/Pump",
        key_names=(),
        now=NOW,
        clock_skew_s=0,
        trace=trace,
    )
    assert index == 0


def test_no_secret_is_in_the_text_form_or_the_trace(trace):
    token = parse_sas_token(dialect(UPPER, "sr={sr}&sig={sig}&se={se}"))
    refusal(dialect(UPPER, "sr={sr}&sig={sig}&se={se}"), trace, keys=(OTHER_KEY,))
    assert repr(token.signature) not in repr(token)
    assert KEY.hex() not in repr(trace.snapshot())


FIELDS = st.sampled_from(["sr", "sig", "se", "skn", "", "x"])
VALUES = st.text(max_size=60) | st.sampled_from([UPPER, SIGNATURE, str(NOW_S), "%", "%zz", "%00", "=", "&"])
ALMOST = st.lists(st.tuples(FIELDS, VALUES), max_size=6).map(
    lambda fields: "SharedAccessSignature " + "&".join(f"{name}={value}" for name, value in fields)
)


@given(st.text(max_size=300) | ALMOST)
def test_any_text_is_a_token_or_malformed(text):
    with suppress(AttestationError):
        token = parse_sas_token(text)
        assert len(token.signature) == 32 and 0 <= token.expiry_s <= EXPIRY_MAX_S
