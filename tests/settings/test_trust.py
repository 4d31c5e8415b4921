"""Whose word is taken, from the files that the configuration names."""

import pytest

from provisiond.attestation.ek_certificate import NOTHING_DENIED
from provisiond.errors import ConfigurationError
from provisiond.settings import Settings
from provisiond.settings.files import check_files
from provisiond.settings.trust import load_tpm_policy
from tests.attestation.ek_certificate_factory import EkAuthority
from tests.certificates import NOW, make_leaf


@pytest.fixture
def roots(tmp_path):
    directory = tmp_path / "tpm-roots.d"
    directory.mkdir()
    return directory


def settings_for(tmp_path, **tpm):
    tpm = {"ek_roots_dir": str(tmp_path / "tpm-roots.d"), **tpm}
    return Settings.model_validate({"attestation": {"tpm": tpm}})


def load(tmp_path, **tpm):
    return load_tpm_policy(settings_for(tmp_path, **tpm).attestation.tpm)


def test_without_the_directory_nobody_is_trusted(tmp_path):
    policy = load(tmp_path)
    assert policy.anchors == ()
    assert policy.deny is NOTHING_DENIED


def test_every_certificate_in_the_directory_is_trusted_once(tmp_path, roots):
    first, second = EkAuthority("first"), EkAuthority("second")
    (roots / "a.cer").write_bytes(first.der)
    (roots / "b.der").write_bytes(second.der)
    (roots / "again.cer").write_bytes(first.der)
    (roots / ".b.der.swp").write_bytes(b"an editor's")
    (roots / "sub").mkdir()
    assert set(load(tmp_path).anchors) == {first.der, second.der}
    assert len(load(tmp_path).anchors) == 2


@pytest.mark.parametrize("content", [b"junk", make_leaf("device").pem], ids=["junk", "no CA"])
def test_a_file_that_is_no_ca_certificate_is_refused_by_its_name(tmp_path, roots, content):
    (roots / "maker.pem").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"tpm\.ek_roots_dir: .*maker\.pem is no CA certificate"):
        load(tmp_path)
    with pytest.raises(ConfigurationError, match="ek_roots_dir"):
        check_files(settings_for(tmp_path), now=NOW)


def test_a_directory_that_cannot_be_read_is_not_an_empty_one(tmp_path):
    (tmp_path / "tpm-roots.d").write_bytes(EkAuthority().der)
    with pytest.raises(ConfigurationError, match=r"tpm-roots\.d cannot be read: Not a directory"):
        load(tmp_path)


def test_a_deny_list_is_read(tmp_path, roots):
    (tmp_path / "deny").write_text(f"{'ab' * 32}  # stolen\n")
    assert load(tmp_path, deny_file=str(tmp_path / "deny")).deny.endorsement_key_hashes == {b"\xab" * 32}


@pytest.mark.parametrize(
    ("content", "said"), [(b"junk", "deny, line 1: not a SHA-256"), (b"\xff", "not text"), (None, "cannot be read")]
)
def test_a_deny_list_that_cannot_be_read_denies_the_start(tmp_path, content, said):
    if content is not None:
        (tmp_path / "deny").write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"tpm\.deny_file: .*{said}"):
        load(tmp_path, deny_file=str(tmp_path / "deny"))
