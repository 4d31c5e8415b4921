"""`provisiond enrollment-group`."""

import pytest

from tests.certificates import make_ca, make_leaf


@pytest.fixture
def ca_file(tmp_path):
    file = tmp_path / "ca.pem"
    file.write_bytes(make_ca("Root").pem)
    return file


def test_a_ca_vouches_for_a_group(gateway, ca_file):
    created = gateway("enrollment-group", "create", "line-4", "--certificate-path", ca_file)
    assert created.json["enrollmentGroupId"] == "line-4"
    assert created.json["attestation"]["x509"]["signingCertificates"]["primary"]["info"]["issuerName"] == "CN=Root"
    assert "registration list --enrollment-id line-4" in created.stderr


def test_without_a_certificate_it_is_a_symmetric_key_group(gateway):
    created = gateway("enrollment-group", "create", "--enrollment-id", "g").json
    assert created["attestation"]["type"] == "symmetricKey"
    assert created["attestation"]["symmetricKey"]["primaryKey"]


def test_the_local_ca_vouches_for_devices_that_it_issued(gateway):
    gateway("enrollment-group", "create", "g", "--certificate-path", gateway.directory / "ca/root.crt")


def test_a_ca_is_rolled_over(gateway, ca_file, tmp_path):
    gateway("enrollment-group", "create", "g", "--certificate-path", ca_file)
    (tmp_path / "next.pem").write_bytes(make_ca("Next").pem)
    both = gateway("enrollment-group", "update", "g", "--secondary-certificate-path", tmp_path / "next.pem").json
    assert set(both["attestation"]["x509"]["signingCertificates"]) == {"primary", "secondary"}
    swapped = gateway("enrollment-group", "update", "g", "--certificate-path", tmp_path / "next.pem", "--rsc").json
    assert swapped["attestation"]["x509"]["signingCertificates"]["primary"]["info"]["subjectName"] == "CN=Next"


def test_a_ca_is_in_one_group(gateway, ca_file):
    gateway("enrollment-group", "create", "first", "--certificate-path", ca_file)
    ended = gateway("enrollment-group", "create", "second", "--certificate-path", ca_file, expect=4)
    assert "enrollment group first has this CA already" in ended.stderr


def test_a_devices_certificate_vouches_for_nobody(gateway, tmp_path):
    (tmp_path / "leaf.pem").write_bytes(make_leaf("a").pem)
    ended = gateway("enrollment-group", "create", "g", "--certificate-path", tmp_path / "leaf.pem", expect=2)
    assert "or enroll this one individually" in ended.stderr


def test_the_other_verbs_do_what_those_of_enrollments_do(gateway):
    gateway("enrollment-group", "create", "g", "--attestation-type", "symmetricKey", "--iot-hubs", "local")
    assert gateway("enrollment-group", "show", "G").json["iotHubs"] == ["local"]
    assert [one["enrollmentGroupId"] for one in gateway("enrollment-group", "list").json] == ["g"]
    assert gateway("enrollment-group", "disable", "g").json["provisioningStatus"] == "disabled"
    assert gateway("enrollment-group", "enable", "g").json["provisioningStatus"] == "enabled"
    gateway("enrollment-group", "delete", "--group-id", "g", "--yes")
    gateway("enrollment-group", "show", "g", expect=3)
    gateway("enrollment-group", "show", expect=2)
