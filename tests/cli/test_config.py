"""`provisiond config`."""

import tomllib

import pytest

from provisiond.errors import ConfigurationError
from provisiond.settings import load_settings
from provisiond.settings.example import render_example
from tests.cli.conftest import invoke


def test_a_good_configuration_is_ok_and_the_next_command_is_run(gateway):
    ended = gateway("config", "check")
    assert ended.stderr == f"{gateway.config}: ok\nnext: provisiond -c {gateway.config} run\n"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda text: "", "the configuration is empty"),
        (lambda text: text[: len(text) // 2], "cut short"),
        (lambda text: text.replace("config_version = 1\n", "config_version = 2\n"), "is newer than this provisiond"),
        (lambda text: text.replace("id_scope", "id_scop"), ':7: [service] "id_scop" is not a setting; did you mean'),
        (lambda text: text.replace("127.0.0.1:1883", "0.0.0.0:1883"), "without TLS would show"),
    ],
)
def test_a_bad_configuration_ends_with_78_and_says_why(gateway, change, expected):
    gateway.config.write_text(change(gateway.config.read_text()))
    for words in (("config", "check"), ("run",), ("enrollment", "list")):
        ended = gateway(*words, expect=78)
        assert expected in ended.stderr
        assert ended.stdout == ""


def test_a_key_that_everybody_may_read_is_refused_by_check_and_by_run(gateway):
    (gateway.directory / "tls/server.key").chmod(0o644)
    for words in (("config", "check"), ("run",)):
        assert f"run: chmod 0600 {gateway.directory}/tls/server.key" in gateway(*words, expect=78).stderr
    gateway("enrollment", "list")


def test_without_a_file_the_defaults_are_used_and_that_is_said(monkeypatch):
    monkeypatch.setattr("provisiond.settings.sources.SEARCHED_FILES", ())
    ended = invoke("config", "check")
    assert ended.exit_code == 0
    assert "no configuration file: using the defaults" in ended.stderr


def test_show_tells_what_is_in_force(gateway, monkeypatch):
    monkeypatch.setenv("PROVISIOND_LOG__LEVEL", "debug")
    shown = gateway("config", "show").json
    assert shown["log"] == {"level": "debug", "format": "auto"}
    assert shown["broker"]["limits"]["connect_timeout"] == "5s"
    assert shown["service"]["state_dir"] == str(gateway.directory / "state")


def test_show_tells_where_each_value_comes_from(gateway, monkeypatch):
    monkeypatch.setenv("PROVISIOND_LOG__LEVEL", "debug")
    rows = dict(line.split("\t", 1) for line in gateway("config", "show", "-o", "tsv").stdout.splitlines())
    assert rows["log.level"] == '"debug"\tenvironment PROVISIOND_LOG__LEVEL'
    assert rows["service.id_scope"] == f'"0ne0TEST001"\t{gateway.config}:7'
    assert rows["broker.limits.inflight"] == "20\tdefault"
    changed = gateway("config", "show", "--changed").json
    assert "broker.limits.inflight" not in {row["key"] for row in changed}


def test_the_example_is_a_configuration(tmp_path):
    ended = invoke("config", "example")
    assert ended.stdout == render_example()
    (tmp_path / "provisiond.toml").write_text(ended.stdout)
    shown = invoke("config", "show", "--config", tmp_path / "provisiond.toml").json
    for section, values in tomllib.loads(ended.stdout).items():
        expected = values.items() if isinstance(values, dict) else ()
        assert {key: shown[section][key] for key, value in expected if not isinstance(value, dict | list)} == {
            key: value for key, value in expected if not isinstance(value, dict | list)
        }


def test_the_example_for_mosquitto_names_the_configured_user(gateway):
    assert "\nuser provisiond\n" in invoke("config", "example", "--mosquitto-acl").stdout
    gateway.config.write_text(
        'config_version = 1\n[broker]\nmode = "external"\n[broker.external]\nurl = "mqtt://127.0.0.1"\n'
        'username = "line-4"\n'
    )
    assert "\nuser line-4\n" in gateway("config", "example", "--mosquitto-acl").stdout


def test_the_schema_describes_every_section():
    schema = invoke("config", "schema").json
    assert "broker" in schema["properties"]
    assert schema["additionalProperties"] is False
    limits = schema["$defs"]["Limits"]["properties"]
    assert limits["connect_timeout"]["type"] == "string"
    assert limits["connect_timeout"]["description"].startswith("From the end of the handshake")


def test_a_configuration_that_init_made_is_refused_however_it_was_cut_short(gateway):
    text = gateway.config.read_bytes()
    for length in range(0, len(text) - 1, 5):
        gateway.config.write_bytes(text[:length])
        with pytest.raises(ConfigurationError):
            load_settings(gateway.config, environment={})
