"""The certificate factory makes what it says."""

import ssl

import pytest
from cryptography import x509

from tests.certificates import SERVER_AUTH, make_ca, make_crl, make_key, make_leaf, make_name


def test_a_chain_leaves_the_root_out():
    root = make_ca("Root")
    line = make_ca("Line", root, path_length=0)
    leaf = make_leaf("sensor", line)
    assert leaf.chain == (leaf.der, line.der)
    assert leaf.full_chain == (leaf.der, line.der, root.der)
    assert leaf.chain_pem.count(b"BEGIN CERTIFICATE") == 2
    leaf.certificate.verify_directly_issued_by(line.certificate)
    line.certificate.verify_directly_issued_by(root.certificate)


def test_a_leaf_without_an_issuer_is_self_signed():
    leaf = make_leaf("sensor")
    leaf.certificate.verify_directly_issued_by(leaf.certificate)
    assert leaf.chain == (leaf.der,)


def test_an_added_extension_replaces_the_default_of_its_type():
    ca = make_ca("Root", extensions=[(x509.BasicConstraints(ca=True, path_length=3), False)])
    extension = ca.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (extension.critical, extension.value.path_length) == (False, 3)


def test_a_written_server_certificate_is_one_that_openssl_loads(tmp_path):
    server = make_leaf("localhost", make_ca("Root"), dns_names=("localhost",), usages=(SERVER_AUTH,))
    certificate_path, key_path = server.write(tmp_path, "server")
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate_path, key_path)
    assert key_path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "secp256k1", "ed25519", "ed448", "rsa1024", "rsa2048"])
def test_every_kind_of_key_signs_a_certificate(kind):
    key = make_key(kind)
    assert make_leaf("sensor", key=key).certificate.public_key() == key.public_key()


def test_an_owner_keeps_its_key():
    assert make_key(owner="a") is make_key(owner="a")
    assert make_key(owner="a") is not make_key(owner="b")


def test_a_name_may_have_two_common_names_and_a_crl_names_its_serials():
    root = make_ca("Root")
    leaf = make_leaf("", root, subject=make_name("one", "two"))
    crl = x509.load_der_x509_crl(make_crl(root, [leaf]))
    assert [entry.serial_number for entry in crl] == [leaf.certificate.serial_number]
