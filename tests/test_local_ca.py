"""The local certification authority."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from provisiond.attestation.x509 import check_enrollable_ca_certificate, check_enrollable_client_certificate
from provisiond.errors import AlreadyExists, InvalidArgument, RecordNotFound
from provisiond.local_ca import create_file, format_fingerprint, issue_device, issue_server, load_root, make_root
from provisiond.model import RegistrationId
from tests.certificates import DAY, NOW


@pytest.fixture(scope="module")
def root():
    return make_root("Root", now=NOW)


def test_the_root_may_vouch_for_a_group(root):
    check_enrollable_ca_certificate(root.certificate.public_bytes(Encoding.DER), NOW)


def test_a_device_certificate_may_be_enrolled(root):
    device = issue_device(root, "Sensor-7", now=NOW)
    check_enrollable_client_certificate(
        device.certificate.public_bytes(Encoding.DER), NOW, registration_id=RegistrationId.parse("sensor-7")
    )
    device.certificate.verify_directly_issued_by(root.certificate)


def test_a_server_certificate_names_each_host_once(root):
    server = issue_server(root, ["gateway.local", "10.0.0.7", "::1", "gateway.local"], now=NOW)
    names = server.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["gateway.local", "10.0.0.7", "::1"]


def test_a_long_host_name_is_no_common_name(root):
    host = ".".join(["a" * 40] * 3)
    assert issue_server(root, [host], now=NOW).certificate.subject.rfc4514_string() == "CN=provisiond"


def test_no_certificate_outlives_its_root():
    root = make_root("Root", now=NOW - 3650 * DAY)
    device = issue_device(root, "a", now=NOW)
    assert device.certificate.not_valid_after_utc == root.certificate.not_valid_after_utc
    with pytest.raises(InvalidArgument, match="the root certificate has expired"):
        issue_device(root, "a", now=NOW + 3 * DAY)


def test_what_cannot_be_issued_is_refused(root):
    with pytest.raises(InvalidArgument, match="at most 64"):
        issue_device(root, "a" * 65, now=NOW)
    with pytest.raises(InvalidArgument, match="registration id"):
        issue_device(root, "../a", now=NOW)
    with pytest.raises(InvalidArgument, match="lifetime"):
        issue_device(root, "a", now=NOW, lifetime=timedelta())
    with pytest.raises(InvalidArgument, match="needs a host"):
        issue_server(root, [], now=NOW)
    with pytest.raises(InvalidArgument, match="neither a host name nor an IP address"):
        issue_server(root, ["ä"], now=NOW)


def test_a_root_is_read_back(root, tmp_path):
    create_file(tmp_path / "root.crt", root.certificate_pem)
    create_file(tmp_path / "root.key", root.key_pem, mode=0o600)
    loaded = load_root(tmp_path)
    assert loaded.fingerprint == root.fingerprint
    assert (tmp_path / "root.key").stat().st_mode & 0o777 == 0o600


def test_a_missing_or_foreign_root_is_told(root, tmp_path):
    with pytest.raises(RecordNotFound, match="`provisiond init` makes a CA"):
        load_root(tmp_path)
    (tmp_path / "root.key").write_bytes(b"junk")
    with pytest.raises(InvalidArgument, match="no unencrypted private key"):
        load_root(tmp_path)
    (tmp_path / "root.key").write_bytes(root.key_pem)
    (tmp_path / "root.crt").write_bytes(b"junk")
    with pytest.raises(InvalidArgument, match="no certificate"):
        load_root(tmp_path)


def test_a_file_is_made_once_and_whole(tmp_path):
    create_file(tmp_path / "a", b"first")
    with pytest.raises(AlreadyExists):
        create_file(tmp_path / "a", b"second")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"first"


def test_a_fingerprint_is_sha256_in_pairs():
    assert format_fingerprint(b"").startswith("E3:B0:C4:42:98:FC")
    assert len(format_fingerprint(b"")) == 95
