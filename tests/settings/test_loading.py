"""Reading the configuration: where from, in which order, and what is said when it is wrong."""

import re
from pathlib import Path

import pytest

from provisiond.errors import ConfigurationError
from provisiond.settings import Settings, load_settings
from provisiond.settings.example import render_example

HEAD = "config_version = 1\n"


@pytest.fixture
def write(tmp_path):
    def write(text, name="provisiond.toml"):
        file = tmp_path / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return write


@pytest.fixture
def refusal(write):
    """The message that a configuration is refused with."""

    def refusal(text, environment=None):
        with pytest.raises(ConfigurationError) as caught:
            load_settings(write(text), environment=environment or {})
        return str(caught.value)

    return refusal


def test_without_a_file_the_defaults_hold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("provisiond.settings.sources.SEARCHED_FILES", (Path("provisiond.toml"),))
    loaded = load_settings(environment={})
    assert loaded.file is None
    assert loaded.settings == Settings()


def test_the_file_asked_for_goes_before_the_one_in_the_environment_and_the_one_in_the_directory(
    write, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write(HEAD + 'service.id_scope = "here"\n')
    named = write(HEAD + 'service.id_scope = "named"\n', "named.toml")
    asked = write(HEAD + 'service.id_scope = "asked"\n', "asked.toml")
    environment = {"PROVISIOND_CONFIG": str(named)}
    assert load_settings(asked, environment=environment).settings.service.id_scope == "asked"
    assert load_settings(environment=environment).settings.service.id_scope == "named"
    assert load_settings(environment={}).settings.service.id_scope == "here"


def test_a_file_that_was_asked_for_must_exist(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no such file \(--config\); make one with `provisiond init --dir"):
        load_settings(tmp_path / "absent.toml", environment={})
    with pytest.raises(ConfigurationError, match=r"no such file \(\$PROVISIOND_CONFIG\)"):
        load_settings(environment={"PROVISIOND_CONFIG": str(tmp_path / "absent.toml")})


def test_a_directory_is_no_file(tmp_path):
    expected = rf"^{tmp_path}: a directory \(--config\); give the file itself, such as {tmp_path}/provisiond.toml$"
    with pytest.raises(ConfigurationError, match=expected):
        load_settings(tmp_path, environment={})


def test_a_word_is_not_suggested_for_itself(refusal):
    assert refusal('config_version = "1"\n').endswith(":1: config_version = '1' is not 1")


def test_flags_go_before_environment_before_credentials_before_the_file(write, tmp_path):
    file = write(
        HEAD + '[log]\nlevel = "error"\nformat = "json"\n[service]\nid_scope = "file"\n[metrics]\nenabled=true\n'
    )
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "service.id_scope").write_text("credential\n")
    (credentials / "log.format").write_text("logfmt")
    (credentials / "server.key").write_text("somebody else's")
    loaded = load_settings(
        file,
        environment={
            "CREDENTIALS_DIRECTORY": str(credentials),
            "PROVISIOND_LOG__FORMAT": "console",
            "PROVISIOND_LOG__LEVEL": "warning",
            "PROVISIOND_METRICS__ENABLED": "false",
        },
        flags={"log": {"level": "debug"}},
    )
    settings = loaded.settings
    assert (settings.log.level, settings.log.format, settings.service.id_scope) == ("debug", "console", "credential")
    assert not settings.metrics.enabled
    assert loaded.origins == {
        "config_version": f"{file}:1",
        "log.level": "flag --level",
        "log.format": "environment PROVISIOND_LOG__FORMAT",
        "service.id_scope": "credential service.id_scope",
        "metrics.enabled": "environment PROVISIOND_METRICS__ENABLED",
    }


def test_lists_and_tables_in_the_environment_are_json():
    hubs = '[{"name": "a", "host": "a.local"}, {"name": "b", "host": "b.local", "weight": 2}]'
    environment = {"PROVISIOND_HUBS": hubs, "PROVISIOND_ATTESTATION__ALLOWED": '["x509"]', "PROVISIOND_OTHER": "1"}
    settings = load_settings(environment=environment).settings
    assert settings.attestation.allowed == ("x509",)
    assert [hub.weight for hub in settings.hubs] == [1, 2]
    with pytest.raises(
        ConfigurationError, match="environment PROVISIOND_ATTESTATION__ALLOWED: a list or table must be JSON"
    ):
        load_settings(environment={"PROVISIOND_ATTESTATION__ALLOWED": "[x509"})


def test_an_ipv6_address_in_the_environment_is_no_list():
    environment = {"PROVISIOND_METRICS__BIND": "[::1]:9109", "PROVISIOND_CRL__BIND": "[fe80::1%eth0]:80"}
    settings = load_settings(environment=environment).settings
    assert (settings.metrics.bind, settings.crl.bind) == ("[::1]:9109", "[fe80::1%eth0]:80")


def test_relative_paths_are_relative_to_the_file(write, tmp_path):
    settings = load_settings(
        write(
            HEAD
            + '[service]\nstate_dir = "state"\n[ca]\ndir = "ca"\n[attestation.x509]\ncrl_files = ["a.crl", "/b.crl"]\n'
            '[[broker.listeners]]\nname = "t"\nbind = "0.0.0.0:8883"\ntls = true\ncert_file = "tls/server.crt"\n'
        ),
        environment={},
    ).settings
    listener = settings.broker.listeners[0]
    assert settings.database_file == tmp_path / "state/provisiond.db"
    assert settings.ca_dir == tmp_path / "ca"
    assert settings.attestation.x509.crl_files == (tmp_path / "a.crl", Path("/b.crl"))
    assert (listener.cert_file, listener.key_file) == (tmp_path / "tls/server.crt", tmp_path / "tls/server.key")


@pytest.mark.parametrize(
    ("url", "file"),
    [("sqlite:///x.db", "/state/x.db"), ("sqlite:////var/x.db", "/var/x.db"), ("sqlite:///a/x.db", "/state/a/x.db")],
)
def test_the_database_is_relative_to_the_state_directory(url, file):
    settings = Settings.model_validate({"service": {"state_dir": "/state"}, "store": {"url": url}})
    assert settings.database_file == Path(file)


@pytest.mark.parametrize("text", ["", "\n \n\t\n", "# Configuration of prov"])
def test_an_empty_file_is_refused(refusal, text):
    assert "the configuration is empty" in refusal(text)


def test_a_file_of_one_key_is_a_configuration_whether_or_not_its_last_line_ends(write):
    for end in ("\n", ""):
        settings = load_settings(write(f'[service]\nid_scope = "0ne0ONE"{end}'), environment={}).settings
        assert (settings.config_version, settings.service.id_scope) == (1, "0ne0ONE")


def test_a_file_of_a_windows_editor_is_read(write):
    text = render_example().replace("\n", "\r\n")
    assert load_settings(write(b"\xef\xbb\xbf" + text.encode()), environment={}).settings == Settings()
    with pytest.raises(ConfigurationError, match="cut short"):
        load_settings(write(b"\xef\xbb\xbf" + text[: text.index("[crl]")].encode()), environment={})


def test_a_file_of_a_later_version_is_refused(refusal):
    assert "config_version = 2 is newer than this provisiond" in refusal("config_version = 2\n")


def test_a_file_that_is_not_text_or_not_toml_is_refused_with_the_line(refusal):
    assert ":2: not UTF-8 text" in refusal(b"config_version = 1\n\xff\xfe\n")
    assert ":2: not TOML" in refusal(HEAD + "[log\n") and "(at line 2, column 5)" in refusal(HEAD + "[log\n")
    assert "at line 3, the end of the file; was it cut short?" in refusal(HEAD + '[log]\nlevel = """info\n')
    assert "nested too deeply" in refusal(HEAD + "a = " + "[" * 5000 + "]" * 5000 + "\n")
    assert "larger than" in refusal(HEAD + "#" * 1024 * 1024 + "\n")


def test_the_example_cut_short_at_any_byte_is_refused(write):
    text = render_example().encode()
    assert load_settings(write(text), environment={}).settings == Settings()
    # Each cut is read from the file; every 7th keeps the test fast, and 7 shares no factor with the line lengths.
    for length in [*range(0, len(text) - 1, 7), *range(len(text) - 30, len(text) - 1)]:
        with pytest.raises(ConfigurationError):
            load_settings(write(text[:length]), environment={})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[service]\nid_scop = "x"\n', ':3: [service] "id_scop" is not a setting; did you mean "id_scope"?'),
        ('[servce]\nid_scope = "x"\n', ':2: "servce" is not a setting; did you mean "service"?'),
        (
            '[registration]\nstate_dir = "x"\n',
            ':3: [registration] "state_dir" is not a setting; it belongs in [service]',
        ),
        ("[log]\nzebra = 1\n", ':3: [log] "zebra" is not a setting; remove it, or see `provisiond config example`'),
        ('[[hubs]]\nname = "a"\nhost = "a"\nwait = 3\n', ':5: [hubs[0]] "wait" is not a setting; did you mean'),
        ("[[enrollments]]\n", "enrollments[0].registration_id is missing"),
        (
            '[log]\nlevel = "inf"\n',
            ":3: log.level = 'inf' is not 'debug', 'info', 'warning' or 'error'; did you mean \"info\"?",
        ),
        ("service = 3\n", ":2: service is a table; write [service] and its keys below"),
        ('[attestation]\nallowed = "x509"\n', ":3: attestation.allowed is a list; write it in brackets"),
        (
            "[broker.limits]\nconnect_timeout = 5\n",
            ":3: broker.limits.connect_timeout: 5 is not a duration; write a number and",
        ),
        (
            '[broker.limits]\nconnect_timeout = "5d"\n',
            ":3: broker.limits.connect_timeout: 5d is not between 100ms and 2m",
        ),
        ('[broker.limits]\nmax_packet = "1GiB"\n', ":3: broker.limits.max_packet: 1GiB is not between 1KiB and 1MiB"),
        (
            "[broker.limits]\ninflight = 0\n",
            ":3: broker.limits.inflight = 0: input should be greater than or equal to 1",
        ),
        ('[registration]\nretry_after = "1500ms"\n', "devices are told whole seconds"),
        ('[registration]\ndefault_allocation = "static"\n', 'write "hashed"'),
        ('[store]\nurl = "postgresql://h/d"\n', "postgresql database is not supported; write sqlite:///FILE"),
        ('[store]\nurl = "sqlite://x.db"\n', "write sqlite:///FILE, relative to state_dir"),
        ('[broker]\nmode = "external"\n', 'needs [broker.external] url = "mqtts://HOST:PORT"'),
        ('[[hubs]]\nname = "a"\n', ":2: hubs[0].host is missing"),
        (
            '[broker]\nlisteners = [{name = "a", bind = "127.0.0.1:1883"}, {name = "b", bind = "localhost:1883"}]\n',
            ': broker.listeners[0].bind: "127.0.0.1:1883" is taken by listener b, which has bind = "localhost:1883"',
        ),
        ("\nhubs = []\n", ":3: hubs: there must be at least one [[hubs]]"),
        ('[service]\nstate_dir = ""\n', ":3: service.state_dir: the path is empty; leave the key out for its default"),
        (
            '[[hubs]]\nname = "a"\nhost = "h"\ntype = "mosquitto"\n[hubs.options]\npassword_file = ""\n',
            ":7: hubs[0].options.password_file: the path is empty",
        ),
        ('[ca]\ndir = "a\\u0000b"\n', ":3: ca.dir: a path holds no NUL"),
        ('[attestation.x509]\ncrl_files = ["a.crl", ""]\n', ":3: attestation.x509.crl_files[1]: the path is empty"),
        (
            '[[broker.listeners]]\nname = "a"\nbind = "[::]:1"\ntls = true\ncert_file = ""\n',
            ":6: broker.listeners[0].cert_file: the path is empty",
        ),
        ('[store]\nurl = "sqlite:////var/line#4/x.db"\n', ":3: store.url: neither ? nor # nor control characters"),
        ("[broker.limits]\nmax_connections = true\n", ":3: broker.limits.max_connections: true is not a number"),
        ('# one\u2028line\x85\n[log]\nlevel = "infos"\n', ":4: log.level = "),
        (
            '[[hubs]]\nname = "a"\nhost = "h1"\n[[hubs]]\nname = "A"\nhost = "h2"\n',
            ':6: hubs[1].name: two [[hubs]] have name = "A"; each needs its own',
        ),
        (
            '[[hubs]]\nname = "a"\nhost = "h"\n[[hubs]]\nname = "b"\nhost = "h"\n',
            ':7: hubs[1].host: two [[hubs]] have host = "h"; each needs its own',
        ),
    ],
)
def test_a_mistake_is_named_with_its_line_its_key_and_the_way_out(refusal, text, expected):
    assert expected in refusal(HEAD + text)


@pytest.mark.parametrize("bind", ["0.0.0.0:1883", "[::]:1883", "192.168.1.1:1883", "gateway.local:1883"])
def test_plaintext_beyond_the_machine_is_refused(refusal, bind):
    message = refusal(HEAD + f'[[broker.listeners]]\nname = "a"\nbind = "{bind}"\n')
    assert "without TLS would show every device's credentials to the network" in message


def test_a_listener_needs_its_certificate_and_only_with_tls(refusal):
    listener = '[[broker.listeners]]\nname = "a"\nbind = "127.0.0.1:1"\n'
    assert "tls = true needs cert_file" in refusal(HEAD + listener + "tls = true\n")
    assert "cert_file without tls = true" in refusal(HEAD + listener + 'cert_file = "a.crt"\n')


def test_listeners_do_not_share_a_name_or_an_address(refusal):
    one = '[[broker.listeners]]\nname = "a"\nbind = "127.0.0.1:1"\n'
    assert 'have name = "a"' in refusal(HEAD + one + one)
    assert 'have bind = "127.0.0.1:1"' in refusal(HEAD + one + one.replace('"a"', '"b"'))


def test_a_mistake_in_the_environment_names_the_variable():
    with pytest.raises(ConfigurationError, match=r'environment PROVISIOND_LOG__LEVL: .*did you mean "level"'):
        load_settings(environment={"PROVISIOND_LOG__LEVL": "info"})
    with pytest.raises(
        ConfigurationError, match=r"environment PROVISIOND_SERVCE__X: there is no \[servce\]; did you mean"
    ):
        load_settings(environment={"PROVISIOND_SERVCE__X": "1"})


def test_a_mistake_inside_a_list_of_the_environment_names_the_variable_that_holds_the_list():
    hubs = '[{"name": "a", "host": "a.local"}, {"name": "b", "host": "b.local", "weight": 0}]'
    with pytest.raises(ConfigurationError, match=r"environment PROVISIOND_HUBS: hubs\[1\]\.weight = 0"):
        load_settings(environment={"PROVISIOND_HUBS": hubs})


def test_every_mistake_is_told_at_once_up_to_ten(refusal):
    message = refusal(HEAD + "[log]\n" + "".join(f"k{number} = 1\n" for number in range(12)))
    assert len(message.splitlines()) == 11
    assert message.endswith("… and 2 more")


def test_the_file_in_config_is_what_the_schema_says():
    shown = Path(__file__).parents[2].joinpath("config/provisiond.toml").read_text()
    assert shown == render_example(), "run: provisiond config example > config/provisiond.toml"


def test_every_setting_is_in_the_example_with_a_reason():
    for schema in (
        Settings,
        *[f.annotation for f in Settings.model_fields.values() if hasattr(f.annotation, "model_fields")],
    ):
        for name, field in schema.model_fields.items():
            if not hasattr(field.annotation, "model_fields") and name not in (
                "listeners",
                "hubs",
                "enrollments",
                "enrollment_groups",
            ):
                assert field.description, name
                assert re.search(rf"^(# )?{field.alias or name} = ", render_example(), re.MULTILINE), name
