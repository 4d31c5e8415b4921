"""`provisiond ca`."""

import shlex
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from provisiond.local_ca import issue_device, issue_server, load_root, make_revocation_list
from tests.certificates import make_ca, make_leaf
from tests.embedded_hub.gateway import make_registration
from tests.enrollment_factory import certificates, group, individual


def test_the_root_is_shown(gateway):
    shown = gateway("ca", "show").json
    assert shown["certificateFile"] == str(gateway.directory / "ca/root.crt")
    assert shown["subjectName"] == "CN=provisiond 0ne0TEST001 root"
    assert shown["fingerprint"] == gateway("ca", "fingerprint").stdout.strip()


def test_a_device_certificate_is_issued_and_can_be_enrolled(gateway, tmp_path):
    issued = gateway("ca", "issue", "sensor-7", "--out", tmp_path / "devices", "--days", "30")
    assert issued.json == {
        "certificateFile": f"{tmp_path}/devices/sensor-7.crt",
        "keyFile": f"{tmp_path}/devices/sensor-7.key",
    }
    assert stat.S_IMODE((tmp_path / "devices/sensor-7.key").stat().st_mode) == 0o600
    assert "enrollment create sensor-7 --certificate-path" in issued.stderr
    gateway("enrollment", "create", "sensor-7", "--certificate-path", tmp_path / "devices/sensor-7.crt")


def test_a_certificate_is_never_overwritten(gateway, tmp_path):
    gateway("ca", "issue", "a")
    before = (tmp_path / "a.key").read_bytes()
    gateway("ca", "issue", "a", expect=4)
    (tmp_path / "a.crt").unlink()
    gateway("ca", "issue", "a", expect=4)
    assert (tmp_path / "a.key").read_bytes() == before


def test_an_id_that_is_no_file_name_is_refused(gateway, tmp_path):
    gateway("ca", "issue", "../a", expect=2)
    gateway("ca", "issue", "a" * 65, expect=2)
    assert not (tmp_path.parent / "a.crt").exists()


def test_without_a_ca_the_way_out_is_told(gateway):
    (gateway.directory / "ca/root.crt").unlink()
    assert "`provisiond init` makes a CA" in gateway("ca", "show", expect=3).stderr
    assert "`provisiond init` makes a CA" in gateway("ca", "issue", "a", expect=3).stderr


def revocation_list_finding(gateway):
    (found,) = [one for one in gateway("doctor", expect=None).json if one["subject"] == "revocation list"]
    return found["level"], found["text"]


def test_doctor_says_for_how_long_the_list_is_good(gateway):
    assert revocation_list_finding(gateway)[0] == "warn"
    gateway("ca", "crl")
    level, text = revocation_list_finding(gateway)
    assert (level, text.partition(",")[0]) == ("ok", "0 certificates")
    old = make_revocation_list(load_root(gateway.directory / "ca"), {}, now=datetime.now(UTC) - timedelta(days=25))
    (gateway.directory / "ca/root.crl").write_bytes(old)
    level, text = revocation_list_finding(gateway)
    assert (level, "refuse every certificate" in text) == ("warn", True)


@pytest.mark.parametrize(("hub", "passed"), [("one", True), ("line-2", False), ("line-3", True)])
def test_a_certificate_of_another_authority_leaves_a_revocation_unproved_where_it_still_connects(gateway, hub, passed):
    for name, options in (("line-2", []), ("line-3", ["--option", "x509=password"])):
        known = ["--type", "mosquitto", "--host", f"{name}.local", "--option", "admin_url=mqtt://127.0.0.1:1"]
        gateway("hub", "add", name, *known, *options)
    leaf = make_leaf("pump", make_ca("Somebody else"))
    file = gateway.directory / "pump.pem"
    file.write_bytes(leaf.pem)
    gateway("enrollment", "create", "pump", "--certificate-path", file)
    enrolled = individual("pump", certificates(leaf))
    gateway.store(replace(make_registration(enrolled, "pump"), hub=hub, certificate_der=leaf.der))
    receipt = gateway("device", "disable", "pump", expect=None).json
    (check,) = [one for one in receipt["trace"] if one["check"] == "revocation-list"]
    assert (check["passed"], "its own authority" in check["finding"]) == (passed, True)


def test_doctor_says_whether_devices_with_certificates_can_connect_to_a_mosquitto(gateway, tmp_path):
    def findings():
        return [one for one in gateway("doctor", expect=None).json if one["subject"] == "certificates at line-2"]

    gateway("hub", "add", "line-2", "--type", "mosquitto", "--host", "127.0.0.1:1")
    gateway("enrollment", "create", "keyed", "--attestation-type", "symmetricKey")
    assert findings() == []  # nobody has a certificate
    gateway("ca", "issue", "pump", "--out", tmp_path)
    gateway("enrollment", "create", "pump", "--certificate-path", tmp_path / "pump.crt")
    (found,) = findings()
    assert (found["level"], found["text"][:24]) == ("warn", "nothing answers with TLS")


# --- renewing the listeners' certificate -----------------------------------------------------------------------------


def certificate_of(gateway):
    return x509.load_pem_x509_certificate((gateway.directory / "tls/server.crt").read_bytes())


def test_a_listeners_certificate_is_renewed_with_its_names_and_key(gateway):
    before, key = certificate_of(gateway), (gateway.directory / "tls/server.key").read_bytes()
    (renewed,) = gateway("ca", "renew", "--host", "gateway.local", "--host", "localhost").json
    after = certificate_of(gateway)
    assert renewed["names"] == ["localhost", "127.0.0.1", "::1", "gateway.local"]
    assert (after.public_key(), after.issuer) == (before.public_key(), before.issuer)
    assert after.serial_number != before.serial_number
    assert (gateway.directory / "tls/server.key").read_bytes() == key
    gateway("config", "check")
    assert {path.name for path in (gateway.directory / "tls").iterdir()} == {"server.crt", "server.key"}


def test_one_that_was_lost_is_issued_for_the_names_that_are_given(gateway):
    (gateway.directory / "tls/server.crt").unlink()
    assert "needs a host name" in gateway("ca", "renew", expect=2).stderr
    assert gateway("ca", "renew", "--host", "localhost").json[0]["names"] == ["localhost"]
    gateway("config", "check")


def test_one_of_another_authority_is_left_as_it_is(gateway):
    other = make_leaf("localhost", make_ca("other"))
    (gateway.directory / "tls/server.crt").write_bytes(other.pem)
    assert "of another authority" in gateway("ca", "renew", expect=2).stderr
    assert (gateway.directory / "tls/server.crt").read_bytes() == other.pem


@pytest.mark.parametrize("content", [b"", b"junk"])
def test_a_certificate_or_key_that_cannot_be_read_is_told(gateway, content):
    (gateway.directory / "tls/server.key").write_bytes(content)
    assert "holds no unencrypted private key" in gateway("ca", "renew", expect=2).stderr
    (gateway.directory / "tls/server.crt").write_bytes(content)
    assert "cannot be read as a certificate" in gateway("ca", "renew", expect=2).stderr


def test_doctor_mends_a_certificate_that_ends_and_one_that_lacks_a_name(gateway):
    root = load_root(gateway.directory / "ca")
    now = datetime.now(UTC)
    key = load_pem_private_key((gateway.directory / "tls/server.key").read_bytes(), password=None)
    ending = issue_server(root, ["localhost"], now=now - timedelta(days=5 * 365 - 10), key=key)
    (gateway.directory / "tls/server.crt").write_bytes(ending.certificate_pem)
    gateway.config.write_text(gateway.config.read_text().replace('host = "localhost"', 'host = "gateway.local"'))

    def mends():
        found = gateway("doctor").json
        names = ("files", "certificate devices", "listener devices")
        return {one["mend"] for one in found if one["subject"] in names and "ca renew" in one["mend"]}

    assert len(mends()) == 2
    for mend in mends():
        words = shlex.split(mend, comments=True)
        assert words[:3] == ["provisiond", "-c", str(gateway.config)]
        gateway(*words[3:])
    assert mends() == set()


def test_a_group_that_is_enabled_again_has_its_certificates_back_but_for_a_device_that_was_disabled_alone(gateway):
    root = load_root(gateway.directory / "ca")
    gateway("enrollment-group", "create", "line", "--certificate-path", gateway.directory / "ca/root.crt")
    enrolled = group("line", certificates(make_ca("stands for the root")))
    for name in ("one", "two"):
        der = issue_device(root, name, now=datetime.now(UTC)).certificate_der
        gateway.store(replace(make_registration(enrolled, name), hub="local", certificate_der=der))
    gateway("device", "disable", "two", expect=None)
    gateway("enrollment-group", "disable", "line", "--revoke", expect=None)
    assert gateway("ca", "crl").json["revokedCertificates"] == 2
    gateway("enrollment-group", "enable", "line")
    assert gateway("ca", "crl").json["revokedCertificates"] == 1
    gateway("device", "enable", "two")
    assert gateway("ca", "crl").json["revokedCertificates"] == 0
