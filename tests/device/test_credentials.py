import base64
import io
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from provisiond.device.credentials import Credential, SymmetricKeyCredential, X509Credential, read_key
from provisiond.device.errors import CredentialError
from tests.certificates import make_ca, make_leaf

LEAF = make_leaf("dev-1", make_ca("Root"))


def key_file(tmp_path, content):
    path = tmp_path / "device.key"
    path.write_bytes(content)
    return path


def test_a_key_file_holds_base64_with_or_without_a_newline(tmp_path):
    for end in (b"", b"\n", b"\r\n"):
        assert read_key(key_file(tmp_path, base64.b64encode(b"k" * 32) + end)) == b"k" * 32


@pytest.mark.parametrize(
    "content",
    [b"", b"not base64!", base64.b64encode(b"k" * 15), base64.b64encode(b"k" * 65), b"\xff\xfe", b"A" * 300_000],
)
def test_a_key_file_of_anything_else_is_refused(tmp_path, content):
    with pytest.raises(CredentialError, match=r"device\.key"):
        read_key(key_file(tmp_path, content))


def test_a_key_is_read_from_stdin(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(base64.b64encode(b"k" * 32))))
    assert read_key(Path("-")) == b"k" * 32


def test_a_key_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CredentialError, match=r"cannot read .*No such file"):
        read_key(tmp_path / "none")


def test_a_group_key_gives_the_documented_device_key():
    group_key = base64.b64decode(
        "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw=="
    )
    credential = SymmetricKeyCredential.from_group_key(group_key, "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6")
    assert base64.b64encode(credential.key) == b"Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc="


async def test_a_token_for_the_hub_has_no_key_name():
    token = await SymmetricKeyCredential(key=b"k" * 32).hub_password(resource="hub/devices/dev", expiry=1)
    assert token.startswith("SharedAccessSignature sr=hub%2Fdevices%2Fdev&sig=")
    assert "skn" not in token


def test_secrets_are_not_shown():
    credential = X509Credential(chain_pem=b"", key_pem=b"secret")
    assert "secret" not in repr(credential) + repr(SymmetricKeyCredential(key=b"secret"))


def test_a_certificate_goes_into_a_tls_context_and_leaves_no_descriptor_behind():
    context = ssl.create_default_context()
    before = len(list(Path("/proc/self/fd").iterdir()))
    X509Credential.from_pem(LEAF.chain_pem, LEAF.key_pem).load_into(context)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_key_of_another_certificate_is_refused():
    with pytest.raises(CredentialError, match="not the first certificate's"):
        X509Credential.from_pem(LEAF.chain_pem, make_leaf("other").key_pem)


def test_an_encrypted_key_is_refused():
    encrypted = LEAF.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
    with pytest.raises(CredentialError, match="unencrypted"):
        X509Credential.from_pem(LEAF.chain_pem, encrypted)


@pytest.mark.parametrize(
    ("chain", "key"),
    [(b"", LEAF.key_pem), (LEAF.chain_pem, b""), (b"\x80\x81\xff", b"\x00\x01\x02")],
    ids=["no chain", "no key", "no PEM"],
)
def test_files_that_are_no_pem_are_refused(chain, key):
    with pytest.raises(CredentialError):
        X509Credential.from_pem(chain, key)


def test_a_certificate_that_tls_refuses_is_a_credential_error():
    with pytest.raises(CredentialError, match="TLS cannot use"):
        X509Credential(chain_pem=LEAF.chain_pem, key_pem=b"").load_into(ssl.create_default_context())


async def test_the_base_credential_proves_nothing():
    credential = Credential()
    assert await credential.hub_password(resource="r", expiry=1) is None
    assert await credential.register_members() == {}
    await credential.accept_hub_key(None)
