"""The log: its formats, its levels, and what is never in it."""

import io
import json
import logging
import os

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from provisiond import logs
from provisiond.logs import configure_logs, redact

TOKEN = "SharedAccessSignature sr=0ne0%2Fregistrations%2Fdev&sig=c2VjcmV0LXNpZ25hdHVyZQ%3D%3D&se=1795434455"
SIGNATURE = "c2VjcmV0LXNpZ25hdHVyZQ"


def fail(text):
    raise ValueError(text)


@pytest.fixture
def stream():
    return io.StringIO()


@pytest.fixture(autouse=True)
def _restore():
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    structlog.reset_defaults()
    root.handlers, root.level = handlers, level


@pytest.fixture
def log(stream):
    configure_logs(level="debug", output_format="logfmt", stream=stream, environment={})
    return structlog.get_logger("provisiond.test")


def test_a_record_is_one_logfmt_line(log, stream):
    log.info("register assigned", registration_id="sensor-7", ms=1.5)
    line = stream.getvalue()
    assert line.startswith("time=2")
    assert line.endswith(
        'level=info logger=provisiond.test event="register assigned" registration_id=sensor-7 ms=1.5\n'
    )


def test_a_record_is_one_json_object(stream):
    configure_logs(output_format="json", stream=stream, environment={})
    structlog.get_logger("provisiond.test").warning("x", a=1)
    record = json.loads(stream.getvalue())
    assert (record["event"], record["level"], record["a"]) == ("x", "warning", 1)


def test_a_terminal_gets_the_console(stream):
    stream.isatty = lambda: True
    configure_logs(stream=stream, environment={})
    structlog.get_logger("provisiond.test").info("ready")
    assert "\x1b[" in stream.getvalue()
    assert "ready" in stream.getvalue()


def test_under_systemd_a_line_begins_with_its_priority_and_has_no_time(tmp_path):
    with (tmp_path / "journal").open("w+") as stream:
        status = os.fstat(stream.fileno())
        configure_logs(level="debug", stream=stream, environment={"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        log = structlog.get_logger("provisiond.test")
        for level in ("debug", "info", "warning", "error", "critical"):
            getattr(log, level)("x")
        stream.seek(0)
        assert stream.read().splitlines() == [f"<{n}>logger=provisiond.test event=x" for n in (7, 6, 4, 3, 2)]


def test_a_stream_that_is_not_the_journals_gets_no_priorities(stream):
    configure_logs(stream=stream, environment={"JOURNAL_STREAM": "1:2"})
    structlog.get_logger().info("x")
    assert stream.getvalue().startswith("time=")


def test_records_below_the_level_are_dropped_and_the_level_may_change(stream):
    log = structlog.get_logger("provisiond.test")
    configure_logs(level="warning", output_format="logfmt", stream=stream, environment={})
    log.info("first")
    logging.getLogger("provisiond.other").info("first")
    configure_logs(level="info", output_format="logfmt", stream=stream, environment={})
    log.info("second")
    assert "first" not in stream.getvalue()
    assert "second" in stream.getvalue()


def test_the_standard_librarys_records_look_the_same(log, stream):
    logging.getLogger("provisiond.other").info("hello %s", "there")
    assert 'level=info logger=provisiond.other event="hello there"' in stream.getvalue()


@pytest.mark.parametrize("name", ["amqtt.broker", "transitions.core", "aiosqlite", "httpx"])
def test_chatty_libraries_are_heard_from_warning_on(log, stream, name):
    logging.getLogger(name).info("payload")
    assert stream.getvalue() == ""
    logging.getLogger(name).warning("trouble")
    assert "trouble" in stream.getvalue()


@pytest.mark.parametrize("output_format", ["console", "logfmt", "json"])
def test_a_sas_token_never_appears(stream, output_format):
    configure_logs(level="debug", output_format=output_format, stream=stream, environment={})
    log = structlog.get_logger("provisiond.test")
    log.info(f"got {TOKEN}")  # noqa: G004  (a secret inside the event itself is the case)
    log.info("x", reason=f"bad token: {TOKEN}", anything=TOKEN.encode(), many=[TOKEN], deep={"a": {"b": TOKEN}})
    log.info("x", password=SIGNATURE, sas_token=SIGNATURE, primary_key=SIGNATURE, deep={"Authorization": SIGNATURE})
    log.info("x", text=f'{{"primaryKey": "{SIGNATURE}"}}', other=f"sig%3D{SIGNATURE}", parts=("sig=" + SIGNATURE,))
    logging.getLogger("amqtt.broker").warning("CONNECT password=%r", TOKEN)
    try:
        fail(TOKEN)
    except ValueError:
        log.exception("failed")
        logging.getLogger("other").exception("failed")
    assert SIGNATURE not in stream.getvalue()
    assert stream.getvalue().count("[redacted]") >= 13


@pytest.mark.parametrize("output_format", ["console", "logfmt", "json"])
@pytest.mark.parametrize(
    "value",
    [
        [{"primaryKey": SIGNATURE}],
        ({"a": [{"password": SIGNATURE}]},),
        f'{{\\"primaryKey\\": \\"{SIGNATURE}\\"}}',
        f"{{'primary_key': '{SIGNATURE}', 'b': 1}}",
        f"HostName=h;DeviceId=d;SharedAccessKey={SIGNATURE}",
        f"password={SIGNATURE} rest",
        f"password: {SIGNATURE}",
        f"mqtts://user:{SIGNATURE}@broker:8883",
        f"Authorization: Bearer {SIGNATURE}",
        f"authorization=Basic {SIGNATURE}",
        f"https://allocate.example/hub?code={SIGNATURE}",
        ValueError({"primaryKey": SIGNATURE}),
        f'{{"primaryKey":"{SIGNATURE}","secondaryKey" : "{SIGNATURE}"}}'.encode(),
    ],
    ids=str,
)
def test_a_secret_is_redacted_wherever_it_stands(stream, output_format, value):
    configure_logs(level="debug", output_format=output_format, stream=stream, environment={})
    structlog.get_logger("provisiond.test").info("x", value=value)
    try:
        fail(value)
    except ValueError:
        structlog.get_logger("provisiond.test").exception("failed")
    assert SIGNATURE not in stream.getvalue()
    assert "redacted" in stream.getvalue()


@pytest.mark.parametrize("name", ["passphrase", "credential", "auth_value", "authValue", "primaryKey"])
def test_what_is_called_a_secret_is_one(log, stream, name):
    log.info("x", **{name: SIGNATURE})
    assert SIGNATURE not in stream.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "the token is not signed with an enrolled key",
        "enrollment: individual enrollment pump-1 (symmetricKey, enabled)",
        "broker.listeners[1] (devices).key_file: /etc/provisiond/tls/server.key cannot be read: Permission denied",
        "https://allocate.example/hub gave no answer",
        "symmetricKey: the key is too short",
    ],
)
def test_what_is_no_secret_is_left_as_it_is(text):
    assert redact(text) == text


def test_a_private_key_never_appears():
    pem = "-----BEGIN PRIVATE KEY-----\nMIGH\nAgEA\n-----END PRIVATE KEY-----\n"
    assert redact(f"read {pem} from disk") == "read [redacted]\n from disk"


def test_numbers_are_not_secrets(log, stream):
    log.info("x", keys=3, key_file=None)
    assert "keys=3 key_file=" in stream.getvalue()


def test_a_record_stays_on_its_line(log, stream):
    log.info("a\nlevel=error event=forged", client="x\r\n\x1b[2J\u2028y")
    logging.getLogger("other").info("b\nforged")
    assert len(stream.getvalue().splitlines()) == 2
    assert "\x1b" not in stream.getvalue()


def test_a_console_traceback_keeps_its_lines_and_shows_no_variables(stream):
    configure_logs(output_format="console", stream=stream, environment={})
    hidden = "x".join("abcd")
    try:
        fail("foreseen")
    except ValueError:
        structlog.get_logger().exception("failed")
    assert "\nTraceback" in stream.getvalue()
    assert hidden not in stream.getvalue()


def test_a_stream_that_cannot_be_written_does_not_matter(stream):
    configure_logs(stream=stream, environment={})
    stream.close()
    structlog.get_logger().info("nobody hears this")
    logging.getLogger("other").info("nor this")


@given(
    st.lists(
        st.sampled_from(
            [
                "SharedAccessSignature",
                "sig",
                "%3d",
                "=",
                "Key",
                "PASSWORD",
                "\u017fecret",
                "to\u212aen",
                "-----BEGIN ",
                "EC ",
                "PRIVATE KEY-----",
                '"',
                "'",
                ": ",
                " ",
                "x",
                "&",
                "?code",
                "authorization",
                "://",
                "@",
                "passphrase",
                "\\",
                "\u0130",
                "ß",
            ]
        ),
        max_size=8,
    ).map("".join)
)
def test_the_quick_look_for_secrets_misses_none_that_a_pattern_would_find(text):
    slowly = text
    for pattern, replacement in logs._SECRET_TEXTS:
        slowly = pattern.sub(replacement, slowly)
    assert redact(text) == slowly
