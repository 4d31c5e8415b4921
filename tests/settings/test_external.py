"""`[broker.external]`: what goes together, and what is refused before anything is connected."""

import pytest
from pydantic import ValidationError

from provisiond.errors import ConfigurationError
from provisiond.settings import Settings
from provisiond.settings.files import check_files, load_password
from tests.certificates import NOW, make_ca, make_leaf


def settings(*, mode="external", listeners=None, **external):
    broker = {"mode": mode, "external": external}
    return Settings.model_validate({"broker": broker | ({} if listeners is None else {"listeners": listeners})})


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("mqtt://127.0.0.1:1884", "127.0.0.1", 1884, False),
        ("mqtt://localhost/", "localhost", 1883, False),
        ("mqtt://[::1]", "::1", 1883, False),
        ("mqtts://broker.test", "broker.test", 8883, True),
        ("mqtts://10.0.0.7:8884", "10.0.0.7", 8884, True),
    ],
)
def test_a_broker_is_named_by_a_url(url, host, port, tls):
    external = settings(url=url, **({"ca_file": "ca.crt"} if tls else {})).broker.external
    assert (external.address.host, external.address.port, external.tls) == (host, port, tls)


def test_there_are_no_listeners_when_the_broker_is_the_sites():
    assert settings(url="mqtt://127.0.0.1").broker.listeners == ()


@pytest.mark.parametrize(
    ("protocol", "shared", "is_shared"),
    [("5", "auto", True), ("3.1.1", "auto", False), ("3.1.1", "on", True), ("5", "off", False)],
)
def test_work_is_shared_where_the_broker_is_known_to_be_able_to(protocol, shared, is_shared):
    external = settings(url="mqtt://127.0.0.1", protocol=protocol, shared_subscriptions=shared).broker.external
    assert external.is_shared is is_shared


@pytest.mark.parametrize(
    ("external", "expected"),
    [
        ({}, 'needs [broker.external] url = "mqtts://HOST:PORT"'),
        ({"url": "http://127.0.0.1"}, 'write "mqtts://HOST:PORT"'),
        ({"url": "broker:1883"}, 'write "mqtts://HOST:PORT"'),
        ({"url": "mqtt://user:secret@127.0.0.1"}, "write username and password_file"),
        ({"url": "mqtt://127.0.0.1/path"}, "nothing but a host and a port"),
        ({"url": "mqtt://127.0.0.1?x=1"}, "nothing but a host and a port"),
        ({"url": "mqtt://"}, "nothing but a host and a port"),
        ({"url": "mqtt://127.0.0.1:99999"}, "ort out of range"),
        ({"url": "mqtt://[::1"}, "is not a URL"),
        ({"url": "mqtt://broker.test"}, "write mqtts://, or use a broker on 127.0.0.1"),
        ({"url": "mqtts://broker.test"}, "mqtts needs ca_file"),
        ({"url": "mqtt://127.0.0.1", "ca_file": "a"}, "are for TLS; write mqtts://"),
        ({"url": "mqtt://127.0.0.1", "cert_file": "a"}, "are for TLS; write mqtts://"),
        ({"url": "mqtt://127.0.0.1", "password_file": "a"}, "password_file without username"),
        ({"url": "mqtt://127.0.0.1", "key_file": "a"}, "key_file without cert_file"),
        ({"url": "mqtt://127.0.0.1", "username": "a\nb"}, "no control characters"),
        ({"url": "mqtt://127.0.0.1", "group": "a/b"}, "group"),
        ({"url": "mqtt://127.0.0.1", "protocol": "3.1"}, "protocol"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_way_out(external, expected):
    with pytest.raises(ValidationError) as raised:
        settings(**external)
    assert expected in str(raised.value)


def test_listeners_of_the_embedded_broker_are_refused_beside_an_external_one():
    with pytest.raises(ValidationError, match="are the embedded broker's"):
        settings(url="mqtt://127.0.0.1", listeners=[{"name": "local", "bind": "127.0.0.1:1883"}])


def test_the_files_are_checked_and_an_embedded_hub_is_a_warning(tmp_path):
    ca, leaf = make_ca("Site"), make_leaf("provisiond")
    (tmp_path / "ca.crt").write_bytes(ca.pem)
    cert_file, _ = leaf.write(tmp_path, "client")
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "password").chmod(0o600)
    given = {
        "ca_file": str(tmp_path / "ca.crt"),
        "cert_file": str(cert_file),
        "username": "provisiond",
        "password_file": str(tmp_path / "password"),
    }
    (warning,) = check_files(settings(url="mqtts://broker.test", **given), now=NOW)
    assert "provisiond is no hub" in warning
    assert load_password(tmp_path / "password") == "secret"


@pytest.mark.parametrize(
    ("content", "mode", "expected"),
    [(b"secret", 0o644, "chmod 0600"), (b"\n", 0o600, "holds no password"), (b"\xff", 0o600, "not UTF-8")],
)
def test_a_password_file_must_be_secret_and_hold_one(tmp_path, content, mode, expected):
    (tmp_path / "password").write_bytes(content)
    (tmp_path / "password").chmod(mode)
    external = {"username": "provisiond", "password_file": str(tmp_path / "password")}
    with pytest.raises(ConfigurationError, match=expected):
        check_files(settings(url="mqtt://127.0.0.1", **external), now=NOW)


def test_a_file_of_authorities_that_holds_none_is_named(tmp_path):
    (tmp_path / "ca.crt").write_bytes(b"junk")
    with pytest.raises(ConfigurationError, match=r"ca\.crt holds no certificate"):
        check_files(settings(url="mqtts://broker.test", ca_file=str(tmp_path / "ca.crt")), now=NOW)
