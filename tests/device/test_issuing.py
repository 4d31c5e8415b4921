import stat

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from provisiond.device.errors import CredentialError
from provisiond.device.issuing import IssuingAuthority, keep_self_signed
from tests.certificates import make_ca, make_key


def common_name(certificate):
    return certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value


@pytest.mark.parametrize("key", ["p256", "rsa2048", "ed25519"])
def test_a_root_issues_a_leaf_and_is_not_presented_itself(tmp_path, key):
    root = make_ca("Root", key=make_key(key))
    authority = IssuingAuthority.from_files(*root.write(tmp_path, "ca"))
    (leaf,) = x509.load_pem_x509_certificates(authority.issue("sim-1").chain_pem)
    leaf.verify_directly_issued_by(root.certificate)
    assert common_name(leaf) == "sim-1"


def test_an_intermediate_goes_along_with_the_leaf(tmp_path):
    line = make_ca("Line", make_ca("Root"))
    authority = IssuingAuthority.from_files(*line.write(tmp_path, "ca"))
    leaf, intermediate = x509.load_pem_x509_certificates(authority.issue("sim-1").chain_pem)
    leaf.verify_directly_issued_by(intermediate)
    assert intermediate == line.certificate


def test_a_name_too_long_for_a_certificate_is_refused(tmp_path):
    authority = IssuingAuthority.from_files(*make_ca("Root").write(tmp_path, "ca"))
    with pytest.raises(CredentialError, match="common name"):
        authority.issue("x" * 65)


def test_a_self_signed_certificate_is_made_once_and_kept(tmp_path):
    directory = tmp_path / "state"
    first, path = keep_self_signed("dev-1", directory)
    second, _ = keep_self_signed("dev-1", directory)
    assert first == second
    (certificate,) = x509.load_pem_x509_certificates(path.read_bytes())
    certificate.verify_directly_issued_by(certificate)
    assert stat.S_IMODE((directory / "dev-1.key").stat().st_mode) == 0o600


def test_a_directory_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CredentialError, match="cannot keep"):
        keep_self_signed("dev-1", tmp_path / "file")
