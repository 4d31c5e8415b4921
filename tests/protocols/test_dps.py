import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.attestation.sas_token import parse_sas_token
from provisiond.errors import (
    AttestationError,
    ConnectRefused,
    DeviceFault,
    MalformedRequest,
    NotFound,
    UnknownOperation,
)
from provisiond.model import (
    AttestationType,
    ConnectAttempt,
    Connection,
    EnrollmentKind,
    ErrorBody,
    Message,
    PollRequest,
    RegisterRequest,
    Registration,
    RegistrationId,
    RegistrationStatus,
    Reply,
    Role,
    Substatus,
)
from provisiond.protocols import dps

SCOPE = "0ne00112233"
NOW = datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=UTC)
REGISTER = "$dps/registrations/PUT/iotdps-register/?$rid=r1"
POLL = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=r2&operationId=5.abc.def"


def attempt(client_id="dev-1", username=None, **options):
    username = username or f"{SCOPE}/registrations/{client_id}/api-version=2019-03-31&ClientVersion=x%2F1"
    return ConnectAttempt(
        connection_id="c1",
        listener="devices",
        remote_address="127.0.0.1",
        tls=True,
        client_id=client_id,
        username=username,
        **options,
    )


CONNECTION = Connection(
    connection_id="c1",
    role=Role.DPS,
    claimed_id=RegistrationId.parse("Dev-1"),
    listener="devices",
    remote_address="127.0.0.1",
    sas_token="SharedAccessSignature …",
)


def parse(topic, payload=b""):
    return dps.parse(CONNECTION, Message(topic=topic, payload=payload))


# --- CONNECT ---


@pytest.mark.parametrize(
    ("username", "client_version"),
    [
        (
            "0ne00112233/registrations/dev-1/api-version=2019-03-31&ClientVersion=azure-iot-device-provisioning-py%2F2.14.0%283.11.7%3BLinux%20x%29",
            "azure-iot-device-provisioning-py/2.14.0(3.11.7;Linux x)",
        ),
        ("0ne00112233/registrations/dev-1/api-version=2019-03-31", ""),
        ("0NE00112233/registrations/DEV-1/api-version=2021-06-01&ClientVersion=1.6.0", "1.6.0"),
    ],
)
def test_the_user_names_of_the_sdks_are_admitted(username, client_version):
    connection = dps.admit(attempt(username=username), id_scope=SCOPE)
    assert connection.claimed_id.key == "dev-1"
    assert connection.client_version == client_version
    assert connection.role is Role.DPS


@pytest.mark.parametrize(
    "username",
    [
        "0ne99999999/registrations/dev-1/api-version=2019-03-31",
        "0ne00112233/registrations/dev-1/?api-version=2019-03-31",
        "0ne00112233/registrations/dev-2/api-version=2019-03-31",
        "0ne00112233/registrations/dev-1",
        "0ne00112233/registration/dev-1/api-version=2019-03-31",
        "/registrations/dev-1/api-version=2019-03-31",
    ],
)
def test_a_user_name_that_is_inconsistent_is_refused_as_not_authorised(username):
    with pytest.raises(ConnectRefused) as caught:
        dps.admit(attempt(username=username), id_scope=SCOPE)
    assert caught.value.return_code == 5


@pytest.mark.parametrize(
    "client_id", ["", "a+b", "a#", "a/b", "a" * 129, "dev.", "dev_", "dév", "a\x00b", "a b", "..", "a\n"]
)
def test_a_client_id_that_is_no_registration_id_is_refused(client_id):
    with pytest.raises(ConnectRefused):
        dps.admit(attempt(client_id), id_scope=SCOPE)


def test_a_password_that_is_not_text_is_a_wrong_token_and_no_reason_to_refuse_the_connect():
    connection = dps.admit(attempt(password=b"\xff\xfe"), id_scope=SCOPE)
    with pytest.raises(AttestationError):
        parse_sas_token(connection.sas_token)


@given(st.text(max_size=300), st.text(max_size=150))
def test_any_user_name_and_client_id_are_admitted_or_refused(username, client_id):
    try:
        connection = dps.admit(attempt(client_id, username=username or "x"), id_scope=SCOPE)
    except ConnectRefused:
        return
    assert connection.claimed_id.text == client_id


# --- requests ---


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (b"", None),
        (b" ", None),
        (b'{"payload": null, "registrationId": "dev-1"}', None),
        (b'{"registrationId":"DEV-1","payload":{"a":[1]}}', {"a": [1]}),
        (b'{"payload": "text", "unknownField": 1}', "text"),
    ],
)
def test_a_register_body_may_be_whole_partial_or_empty(body, payload):
    request = parse(REGISTER, body)
    assert isinstance(request, RegisterRequest)
    assert request.claimed_id.text == "Dev-1"
    assert request.payload == payload
    assert request.evidence.sas_token == CONNECTION.sas_token


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"1", b"null", b"{", b'{"registrationId": 5}', b"\xff"])
def test_a_register_body_of_the_wrong_shape_is_malformed(body):
    with pytest.raises(MalformedRequest):
        parse(REGISTER, body)


def test_a_body_that_names_another_device_is_not_attested():
    with pytest.raises(AttestationError):
        parse(REGISTER, b'{"registrationId":"dev-2"}')


@pytest.mark.parametrize("body", [b"", b" ", b'{"registrationId":"dev-1"}', b"\xff{"])
def test_the_body_of_a_poll_is_ignored(body):
    request = parse(POLL, body)
    assert isinstance(request, PollRequest)
    assert request.operation_id == "5.abc.def"


@pytest.mark.parametrize(
    "query",
    ["?$rid=1", "?$rid=1&operationId=", "?$rid=1&operationId=a&operationId=b", "?$rid=1&operationId=" + "a" * 129],
)
def test_a_poll_names_exactly_one_operation(query):
    with pytest.raises(NotFound):
        parse("$dps/registrations/GET/iotdps-get-operationstatus/" + query)


@pytest.mark.parametrize(
    ("api_version", "expected"),
    [
        ("2017-08-31-preview", True),
        ("2018-04-01", True),
        ("2018-09-01-preview", False),
        ("2019-03-31", False),
        ("", False),
        ("1", False),
    ],
)
def test_only_old_api_versions_know_of_no_reprovisioning(api_version, expected):
    connection = replace(CONNECTION, api_version=api_version)
    message = Message(topic="$dps/registrations/PUT/iotdps-register/?$rid=1", payload=b"")
    assert dps.parse(connection, message).predates_reprovisioning is expected


@pytest.mark.parametrize(
    "path",
    [
        "POST/iotdps-get-onboarding-deviceupdate/",
        "PUT/iotdps-register",
        "GET/iotdps-register/",
        "res/200/",
        "",
        "PUT/iotdps-register//",
    ],
)
def test_an_unknown_operation_is_answered_with_404(path):
    with pytest.raises(UnknownOperation) as caught:
        parse(f"$dps/registrations/{path}?$rid=1")
    assert caught.value.status == 404


@pytest.mark.parametrize("topic", ["$dps/PUT/iotdps-register/?$rid=1", "$dps/other/x/?$rid=1"])
def test_a_topic_beside_registrations_is_an_unknown_operation_too(topic):
    with pytest.raises(UnknownOperation):
        parse(topic)


@pytest.mark.parametrize(
    ("query", "echo"),
    [
        ("?$rid=6f7-8", "6f7-8"),
        ("?$rid=", ""),
        ("?rid=1", ""),
        ("", ""),
        ("?$rid=a%20b", "a%20b"),
        ("?$rid=a&retry-after=0&x=y", "a"),
        ("?$rid=a?b=c", "a?b=c"),
        ("?operationId=1&$rid=7", "7"),
    ],
)
def test_the_request_id_is_echoed_as_it_was_sent(query, echo):
    topic = "$dps/registrations/PUT/iotdps-register/" + query
    parse(topic)
    assert dps.request_id(topic) == echo


@pytest.mark.parametrize(
    "query",
    [
        "?$rid=1&$rid=2",
        "?$rid=" + "a" * 10_000,
        "?$rid=a\r\nb",
        "?$rid=a%0D%0Ab",
        "?$rid=a%00b",
        "?$rid=a%26retry-after=0",
        "?$rid=\x7f",
        "?$rid=é",
    ],
)
def test_a_request_id_that_is_ambiguous_or_unsafe_is_malformed_and_not_echoed_unsafely(query):
    topic = "$dps/registrations/PUT/iotdps-register/" + query
    with pytest.raises(MalformedRequest):
        parse(topic)
    echo = dps.request_id(topic)
    assert len(echo) <= 256
    assert echo.isascii()
    assert not echo or echo.isprintable()


@given(st.text(max_size=400), st.binary(max_size=400))
def test_any_message_gives_a_request_or_a_documented_error(topic, payload):
    with contextlib.suppress(DeviceFault):
        parse("$dps/registrations/" + topic, payload)


# --- replies ---

ASSIGNED = Registration(
    registration_id="Dev-1",
    status=RegistrationStatus.ASSIGNED,
    substatus=Substatus.INITIAL_ASSIGNMENT,
    operation_id="5.abc.def",
    version=1,
    hub="local",
    assigned_host="gateway.local",
    device_id="dev-1",
    enrollment_kind=EnrollmentKind.GROUP,
    enrollment_id="line",
    attestation_type=AttestationType.X509,
    etag="IngiCg==",
    created_at=NOW,
    updated_at=NOW,
)


def test_a_first_202_is_only_the_operation_and_its_status():
    message = dps.encode(
        Reply(status=202, operation_id="5.a.b", status_text=RegistrationStatus.ASSIGNING, retry_after_s=3), rid="r1"
    )
    assert message.topic == "$dps/registrations/res/202/?$rid=r1&retry-after=3"
    assert json.loads(message.payload) == {"operationId": "5.a.b", "status": "assigning"}


def test_a_later_202_also_names_the_registration():
    message = dps.encode(
        Reply(status=202, operation_id="5.a.b", status_text=RegistrationStatus.ASSIGNING, registration_id="Dev-1"),
        rid="",
    )
    assert message.topic == "$dps/registrations/res/202/?$rid="
    assert json.loads(message.payload)["registrationState"] == {"registrationId": "Dev-1", "status": "assigning"}


def test_an_assigned_device_reads_its_whole_state_and_no_nulls():
    message = dps.encode(
        Reply(status=200, operation_id="5.abc.def", status_text=RegistrationStatus.ASSIGNED, registration=ASSIGNED),
        rid="r1",
    )
    assert message.topic == "$dps/registrations/res/200/?$rid=r1"
    assert json.loads(message.payload) == {
        "operationId": "5.abc.def",
        "status": "assigned",
        "registrationState": {
            "x509": {"enrollmentGroupId": "line"},
            "registrationId": "Dev-1",
            "createdDateTimeUtc": "2026-01-02T03:04:05.6789000Z",
            "assignedHub": "gateway.local",
            "deviceId": "dev-1",
            "status": "assigned",
            "substatus": "initialAssignment",
            "lastUpdatedDateTimeUtc": "2026-01-02T03:04:05.6789000Z",
            "etag": "IngiCg==",
        },
    }


def test_an_error_carries_code_tracking_id_message_and_time_in_ascii():
    message = dps.encode(
        Reply(status=401, error=ErrorBody(code=401002, message="Unauthorized — é", tracking_id="t", timestamp=NOW)),
        rid="r1",
    )
    assert message.topic == "$dps/registrations/res/401/?$rid=r1"
    assert message.payload.isascii()
    assert json.loads(message.payload) == {
        "errorCode": 401002,
        "trackingId": "t",
        "message": "Unauthorized — é",
        "timestampUtc": "2026-01-02T03:04:05.6789000Z",
    }


def test_a_disabled_device_hears_so_at_200_with_an_empty_operation():
    message = dps.encode(Reply(status=200, status_text=RegistrationStatus.DISABLED, registration_id="Dev-1"), rid="r")
    assert json.loads(message.payload) == {
        "operationId": "",
        "status": "disabled",
        "registrationState": {"registrationId": "Dev-1", "status": "disabled"},
    }


@pytest.mark.parametrize(
    ("client_version", "immediate"),
    [
        ("azure-iot-device-provisioning-py/2.14.0(3.11.7;Linux)", True),
        ("azure-iot-provisioning-device/1.9.1", True),
        ("provisiond-device/0.1", True),
        ("1.6.0", False),
        ("", False),
    ],
)
def test_only_clients_known_to_take_it_are_assigned_at_once(client_version, immediate):
    assert dps.takes_immediate_assignment(client_version) is immediate
