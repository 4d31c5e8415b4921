"""The files that the configuration names."""

import pytest

from provisiond.errors import ConfigurationError
from provisiond.settings import Settings
from provisiond.settings.files import check_files
from tests.certificates import DAY, NOW, make_leaf


@pytest.fixture
def settings(tmp_path):
    server = make_leaf("localhost", dns_names=("localhost",))
    (tmp_path / "server.crt").write_bytes(server.pem)
    (tmp_path / "server.key").write_bytes(server.key_pem)
    (tmp_path / "server.key").chmod(0o600)
    return Settings.model_validate(
        {
            "broker": {
                "listeners": [
                    {"name": "d", "bind": "0.0.0.0:8883", "tls": True, "cert_file": str(tmp_path / "server.crt")}
                ]
            }
        }
    )


def test_a_certificate_with_its_secret_key_is_accepted(settings):
    assert check_files(settings, now=NOW) == ()


def test_a_key_that_everybody_may_read_is_refused_with_the_command_that_mends_it(settings, tmp_path):
    (tmp_path / "server.key").chmod(0o644)
    with pytest.raises(ConfigurationError, match=rf"mode 0644\); run: chmod 0600 {tmp_path}/server.key"):
        check_files(settings, now=NOW)


def test_a_key_that_a_group_may_read_is_accepted(settings, tmp_path):
    (tmp_path / "server.key").chmod(0o640)
    assert check_files(settings, now=NOW) == ()


@pytest.mark.parametrize("name", ["server.crt", "server.key"])
def test_a_file_that_is_not_there_is_named(settings, tmp_path, name):
    (tmp_path / name).unlink()
    with pytest.raises(ConfigurationError, match=f"{name} cannot be read: No such file"):
        check_files(settings, now=NOW)


@pytest.mark.parametrize(
    ("name", "expected"), [("server.crt", "no certificate in PEM"), ("server.key", "no unencrypted private key")]
)
def test_a_file_of_something_else_is_named(settings, tmp_path, name, expected):
    (tmp_path / name).write_bytes(b"junk")
    with pytest.raises(ConfigurationError, match=expected):
        check_files(settings, now=NOW)


def test_a_key_of_another_certificate_is_refused(settings, tmp_path):
    (tmp_path / "server.key").write_bytes(make_leaf("other").key_pem)
    with pytest.raises(ConfigurationError, match="is not the key of the first certificate"):
        check_files(settings, now=NOW)


def test_a_certificate_that_is_not_valid_today_is_refused(settings):
    with pytest.raises(ConfigurationError, match="renew it, or mend the clock"):
        check_files(settings, now=NOW + 100 * 365 * DAY)


def test_a_certificate_that_ends_soon_is_a_warning(settings, tmp_path):
    server = make_leaf("localhost", not_after=NOW + 10 * DAY)
    (tmp_path / "server.crt").write_bytes(server.pem)
    (tmp_path / "server.key").write_bytes(server.key_pem)
    (warning,) = check_files(settings, now=NOW)
    assert "ends on" in warning


def test_a_revocation_list_must_be_there(tmp_path):
    settings = Settings.model_validate({"attestation": {"x509": {"crl_files": [str(tmp_path / "a.crl")]}}})
    with pytest.raises(ConfigurationError, match=r"crl_files: .*a\.crl cannot be read"):
        check_files(settings, now=NOW)
