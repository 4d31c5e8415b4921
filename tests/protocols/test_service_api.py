"""JSON of the Azure service API."""

import base64
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.errors import InvalidArgument
from provisiond.model import (
    AllocationPolicy,
    EnrollmentKind,
    InitialTwin,
    ProvisioningStatus,
    ReprovisionPolicy,
    SymmetricKeyMaterial,
    TpmMaterial,
    X509Material,
)
from provisiond.protocols.service_api import (
    certificate_info,
    enrollment_from_json,
    enrollment_to_json,
    format_etag,
    registration_to_json,
)
from tests.certificates import make_ca, make_leaf
from tests.enrollment_factory import PRIMARY_KEY, certificates, group, individual
from tests.fakes_decision import NOW
from tests.store.records import make_registration

INDIVIDUAL, GROUP = EnrollmentKind.INDIVIDUAL, EnrollmentKind.GROUP
KEY_BODY = {"registrationId": "a", "attestation": {"type": "symmetricKey"}}
FULL = {
    "device_id": "pump",
    "allocation_policy": AllocationPolicy.STATIC,
    "iot_hubs": ("east",),
    "reprovision_policy": ReprovisionPolicy(update_hub_assignment=True, migrate_device_data=False),
    "initial_twin": InitialTwin(tags={"site": "x"}, desired={"interval": 5}),
    "iot_edge": True,
    "device_information": {"maker": "Acme"},
    "custom_allocation": {"webhookUrl": "https://h/x", "apiVersion": "2021-10-01"},
}


def read(body, kind=INDIVIDUAL, current=None):
    return enrollment_from_json(kind, body, now=NOW, current=current)


def test_an_individual_enrollment_has_azures_names():
    body = enrollment_to_json(individual("Sensor-7", enabled=False, **FULL))
    assert body == {
        "registrationId": "Sensor-7",
        "deviceId": "pump",
        "optionalDeviceInformation": {"maker": "Acme"},
        "attestation": {"type": "symmetricKey"},
        "capabilities": {"iotEdge": True},
        "etag": "e1",
        "provisioningStatus": "disabled",
        "reprovisionPolicy": {"updateHubAssignment": True, "migrateDeviceData": False},
        "allocationPolicy": "static",
        "iotHubs": ["east"],
        "customAllocationDefinition": {"webhookUrl": "https://h/x", "apiVersion": "2021-10-01"},
        "initialTwin": {"tags": {"site": "x"}, "properties": {"desired": {"interval": 5}}},
        "createdDateTimeUtc": body["createdDateTimeUtc"],
        "lastUpdatedDateTimeUtc": body["createdDateTimeUtc"],
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z", body["createdDateTimeUtc"])


def test_what_is_not_set_is_left_out():
    assert set(enrollment_to_json(group("g"))) == {
        "enrollmentGroupId",
        "attestation",
        "capabilities",
        "etag",
        "provisioningStatus",
        "createdDateTimeUtc",
        "lastUpdatedDateTimeUtc",
    }


def test_keys_are_shown_only_when_asked_for():
    enrollment = individual("a")
    assert base64.b64encode(PRIMARY_KEY).decode() not in json.dumps(enrollment_to_json(enrollment))
    keys = enrollment_to_json(enrollment, show_keys=True)["attestation"]["symmetricKey"]
    assert base64.b64decode(keys["primaryKey"]) == PRIMARY_KEY


def test_a_certificate_is_shown_as_its_info():
    leaf = make_leaf("sensor-7")
    body = enrollment_to_json(individual("sensor-7", certificates(leaf)))
    info = body["attestation"]["x509"]["clientCertificates"]["primary"]["info"]
    assert info == certificate_info(leaf.der)
    assert (info["subjectName"], info["issuerName"], info["version"]) == ("CN=sensor-7", "CN=sensor-7", 3)
    assert re.fullmatch("[0-9A-F]{40}", info["sha1Thumbprint"])
    assert re.fullmatch("[0-9A-F]{64}", info["sha256Thumbprint"])
    assert info["serialNumber"] == f"{leaf.certificate.serial_number:X}"
    assert info["notBeforeUtc"].endswith("0Z")


def test_a_registration_is_shown_with_its_enrollment():
    state = enrollment_to_json(individual("Device-1"), registration=make_registration("Device-1"))["registrationState"]
    assert state["registrationId"] == "Device-1"
    assert state["status"] == "assigned"


def test_a_registration_has_azures_names_and_no_nulls():
    body = registration_to_json(make_registration("Device-1", payload={"a": 1}))
    assert set(body) == {
        "registrationId",
        "createdDateTimeUtc",
        "assignedHub",
        "deviceId",
        "status",
        "substatus",
        "lastUpdatedDateTimeUtc",
        "etag",
        "payload",
    }


@pytest.mark.parametrize(
    ("kind", "enrollment"),
    [
        (INDIVIDUAL, individual("Sensor-7", enabled=False, **FULL)),
        (
            GROUP,
            group(
                "g", **{name: value for name, value in FULL.items() if name not in ("device_id", "device_information")}
            ),
        ),
        (INDIVIDUAL, individual("a", TpmMaterial(endorsement_key=b"ek", storage_root_key=b"srk"))),
        (GROUP, group("g", TpmMaterial())),
        (GROUP, group("g", TpmMaterial(allowed_ids=("a", "b"), pcr_policy={"requireSafeClock": True}))),
    ],
)
def test_what_was_written_is_read_back(kind, enrollment):
    assert read(enrollment_to_json(enrollment, show_keys=True), kind, enrollment) == enrollment


@pytest.mark.parametrize("form", ["pem", "base64"])
def test_a_certificate_is_read_as_pem_or_as_base64_of_der(form):
    leaf, root = make_leaf("a"), make_ca("Root")
    text = {
        issued: issued.pem.decode() if form == "pem" else base64.b64encode(issued.der).decode()
        for issued in (leaf, root)
    }
    client = {"clientCertificates": {"primary": {"certificate": text[leaf]}, "secondary": None}}
    signing = {
        "signingCertificates": {"primary": {"certificate": text[root]}, "secondary": {"certificate": text[root]}}
    }
    body = {"registrationId": "a", "attestation": {"type": "x509", "x509": client}}
    assert read(body).attestation == X509Material(primary_der=leaf.der)
    body = {"enrollmentGroupId": "g", "attestation": {"type": "x509", "x509": signing}}
    assert read(body, GROUP).attestation == X509Material(primary_der=root.der, secondary_der=root.der)


def test_a_body_that_was_read_may_be_written_back_without_its_secrets():
    keyed = individual("a")
    assert read(enrollment_to_json(keyed), current=keyed).attestation == keyed.attestation
    certified = group("g", certificates(make_ca("Root"), make_ca("Next")))
    assert read(enrollment_to_json(certified), GROUP, certified).attestation == certified.attestation
    with pytest.raises(InvalidArgument, match="there is no certificate"):
        read(enrollment_to_json(certified), GROUP)


def test_keys_that_are_left_out_or_empty_are_for_the_service_to_make():
    assert read(KEY_BODY).attestation == SymmetricKeyMaterial(primary_key=b"", secondary_key=b"")
    body = KEY_BODY | {
        "attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": "", "secondaryKey": None}}
    }
    assert read(body).attestation == SymmetricKeyMaterial(primary_key=b"", secondary_key=b"")


def test_a_body_says_only_what_differs_from_the_defaults():
    enrollment = read(KEY_BODY | {"iotHubs": None, "allocationPolicy": None, "deviceId": ""})
    assert enrollment.provisioning_status is ProvisioningStatus.ENABLED
    assert (enrollment.device_id, enrollment.allocation_policy, enrollment.iot_hubs) == (None, None, ())


X509_PAIR = {"primary": {"certificate": "x"}}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"registrationID": "a"}, "registrationID: Extra inputs are not permitted"),
        ({"attestation": {}}, "attestation.type: Field required"),
        ({"attestation": {"type": "none"}}, "attestation.type: Input should be"),
        ({"attestation": {"type": "tpm"}}, "there is no endorsementKey"),
        ({"attestation": {"type": "tpm", "symmetricKey": {}}}, "type is tpm, but there is symmetricKey"),
        (
            {"attestation": {"type": "tpm", "tpm": {"endorsementKey": "?"}}},
            "attestation.tpm.endorsementKey: not base64",
        ),
        (
            {"attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": "a"}}},
            "attestation.symmetricKey.primaryKey: not base64",
        ),
        ({"attestation": {"type": "x509"}}, "an individual enrollment has clientCertificates, and only those"),
        (
            {"attestation": {"type": "x509", "x509": {"signingCertificates": X509_PAIR}}},
            "an individual enrollment has clientCertificates, and only those",
        ),
        (
            {
                "attestation": {
                    "type": "x509",
                    "x509": {"clientCertificates": X509_PAIR, "caReferences": {"primary": "c"}},
                }
            },
            "and only those",
        ),
        (
            {"attestation": {"type": "x509", "x509": {"clientCertificates": X509_PAIR}}},
            "attestation.x509.clientCertificates.primary: not base64",
        ),
        ({"capabilities": {"iotEdge": "true"}}, "capabilities.iotEdge: Input should be a valid boolean"),
        ({"iotHubs": "east"}, "iotHubs: Input should be a valid list"),
        ({"iotHubs": ["h"] * 51}, "iotHubs: List should have at most 50 items"),
        ({"provisioningStatus": "off"}, "provisioningStatus: Input should be 'enabled' or 'disabled'"),
        ({"initialTwin": {"properties": {"reported": {}}}}, "initialTwin.properties.reported: Extra inputs"),
    ],
)
def test_a_body_of_another_shape_is_refused_with_the_place(change, expected):
    with pytest.raises(InvalidArgument) as caught:
        read(KEY_BODY | change)
    assert expected in str(caught.value)


def test_a_refusal_does_not_repeat_a_key():
    with pytest.raises(InvalidArgument) as caught:
        read(KEY_BODY | {"attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": ["c2VjcmV0"]}}})
    assert "c2VjcmV0" not in str(caught.value)


def test_a_group_body_names_the_group():
    body = {"enrollmentGroupId": "g", "attestation": {"type": "symmetricKey"}}
    assert read(body, GROUP).id == "g"
    with pytest.raises(InvalidArgument, match="enrollmentGroupId"):
        read(KEY_BODY, GROUP)
    with pytest.raises(InvalidArgument, match="registrationId"):
        read(body)


def test_an_etag_is_base64_of_a_uuid_in_quotes():
    assert re.fullmatch(rb'"[0-9a-f-]{36}"', base64.b64decode(format_etag(b"x" * 16)))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_NAMES = st.sampled_from(
    ["registrationId", "attestation", "iotHubs", "initialTwin", "capabilities", "etag", "deviceId"]
)


@given(_JSON | st.dictionaries(_NAMES, _JSON | st.just({"type": "symmetricKey"})))
def test_any_json_is_an_enrollment_or_an_invalid_argument(body):
    try:
        assert read(body).kind is INDIVIDUAL
    except InvalidArgument as error:
        assert str(error)  # noqa: PT017  (either outcome is right; an empty message is not)
