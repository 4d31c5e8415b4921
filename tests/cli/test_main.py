"""The command line as a whole: help, exit codes, what never happens."""

import json
import os
import subprocess
import sys

import pytest
import typer

from provisiond import errors
from provisiond.cli.exit_codes import ending
from provisiond.cli.main import _NOUNS, app
from tests.cli.conftest import invoke


def commands():
    """Every command as the words that call it."""
    root = typer.main.get_group(app)
    for noun in _NOUNS:
        context = typer.Context(root)
        _, command, _ = root.resolve_command(context, [noun])
        verbs = getattr(command, "commands", None)
        yield from ([noun, verb] for verb in verbs) if verbs else [[noun]]


def test_help_lists_every_noun_without_importing_them():
    code = (
        "import sys; from provisiond.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'pydantic', 'cryptography', 'amqtt', 'structlog', 'asyncio', 'aiosqlite'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    for noun in _NOUNS:
        assert f" {noun} " in ended.stdout


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_explains_itself_with_an_example(words):
    ended = invoke(*words, "--help")
    assert ended.exit_code == 0
    assert (
        words[0] == "simulate"
        or f"Example: provisiond {words[0]}" in ended.stdout
        or "Example: provisiond -c" in (ended.stdout)
    )


def test_the_version_says_what_matters():
    ended = invoke("--version")
    assert ended.stdout.startswith("provisiond 0.")
    assert "amqtt 0." in ended.stdout


def test_a_mistyped_noun_or_verb_is_a_usage_error_with_a_suggestion():
    ended = invoke("enrolment")
    assert ended.exit_code == 2
    assert "enrollment" in ended.stderr
    assert invoke("enrollment", "lst").exit_code == 2
    assert invoke("enrollment", "list", "--top", "0").exit_code == 2


def test_the_configuration_may_stand_before_the_verb_or_after_it(gateway):
    for words in (
        ("-c", gateway.config, "ca", "fingerprint"),
        ("ca", "-c", gateway.config, "fingerprint"),
        ("ca", "fingerprint", "--config", gateway.config),
    ):
        assert invoke(*words).exit_code == 0
    missing = gateway.directory / "absent.toml"
    assert invoke("-c", missing, "ca", "fingerprint", "-c", gateway.config).exit_code == 0
    assert invoke("-c", gateway.config, "ca", "fingerprint", "-c", missing).exit_code == 78


def test_the_configuration_may_stand_in_the_environment(gateway, monkeypatch):
    monkeypatch.setenv("PROVISIOND_CONFIG", str(gateway.config))
    assert invoke("ca", "fingerprint").exit_code == 0


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (errors.InvalidArgument("x"), 2),
        (errors.RecordNotFound("x"), 3),
        (errors.AlreadyExists("x"), 4),
        (errors.EtagMismatch("x"), 4),
        (errors.AttestationError("x", finding="y"), 5),
        (errors.MalformedRequest("x"), 5),
        (errors.StoreUnavailable("x"), 69),
        (errors.SchemaTooNew("x"), 69),
        (ConnectionRefusedError(111, "x"), 69),
        (errors.VersionConflict("x"), 75),
        (errors.Throttled("x", retry_after_s=1), 75),
        (errors.AddressUnavailable("x"), 75),
        (errors.ConfigurationError("x"), 78),
        (errors.ProvisiondError("x"), 1),
        (PermissionError(13, "Permission denied", "/file"), 1),
        (KeyboardInterrupt(), 130),
        (typer.Abort(), 130),
    ],
)
def test_an_error_has_its_exit_code(error, exit_code):
    with pytest.raises(typer.Exit) as caught, ending():
        raise error
    assert caught.value.exit_code == exit_code


def test_an_error_that_nobody_foresaw_is_not_hidden():
    with pytest.raises(ZeroDivisionError), ending():
        _ = 1 / 0


def test_a_message_of_several_lines_is_indented(capsys):
    with pytest.raises(typer.Exit), ending():
        raise errors.ConfigurationError("a:1: x\na:2: y")
    assert capsys.readouterr().err == "error: \n  a:1: x\n  a:2: y\n"


def test_a_file_that_cannot_be_read_is_named(gateway):
    ended = gateway("enrollment", "create", "a", "--certificate-path", "absent.pem", expect=1)
    assert ended.stderr == "error: absent.pem: No such file or directory\n"


def provisiond(*arguments, **options):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PROVISIOND_")}
    return subprocess.Popen(
        [sys.executable, "-m", "provisiond", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def test_a_process_prints_data_on_stdout_and_the_rest_on_stderr(gateway):
    with provisiond("-c", gateway.config, "enrollment", "create", "a", "--attestation-type", "symmetrickey") as process:
        stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["registrationId"] == "a"
    assert "next: " in stderr


def test_a_reader_that_has_seen_enough_is_no_error():
    # The schema is larger than a pipe holds in one write of ours only when nobody reads it: close it at once.
    with provisiond("config", "schema") as process:
        process.stdout.close()
        stderr = process.stderr.read()
        assert process.wait(timeout=120) == 0, stderr
    assert stderr == ""


def run(words, **options):
    """`provisiond WORDS` as a process of its own, from a shell."""
    return subprocess.run(
        ["bash", "-c", words],
        env=os.environ | {"PROVISIOND": f"{sys.executable} -m provisiond"},
        check=False,
        **options,
    )


@pytest.mark.parametrize(
    ("redirection", "exit_code"),
    [(">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0), ("--name absent 2>&-", 2), ("> /dev/full", 1)],
)
def test_a_stream_that_is_closed_or_full_is_no_reason_for_a_traceback(gateway, redirection, exit_code):
    ended = run(f"$PROVISIOND -c {gateway.config} enrollment list {redirection}", capture_output=True, text=True)
    assert (ended.returncode, "Traceback" in ended.stderr) == (exit_code, False)


def test_a_closed_stdin_is_an_empty_one(gateway):
    command = "enrollment create a --attestation-type symmetricKey --primary-key-file - <&-"
    ended = run(f"$PROVISIOND -c {gateway.config} {command}", capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr == "error: -: empty; it must hold a key in base64\n"


def test_an_argument_that_is_no_text_is_refused(gateway):
    ended = run(f"$PROVISIOND -c {gateway.config} enrollment show $'a\\xff'", capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr == "error: argument 5 is not text in UTF-8: 'a\\udcff'\n"


def test_attestation_types_are_spelt_as_everywhere_else(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for noun in ("enrollment", "enrollment-group"):
        assert "<x509|symmetricKey|tpm>" in invoke(noun, "create", "--help").stdout


@pytest.mark.parametrize("command", ["enrollment list", "status", "doctor", "db check", "explain --registration-id a"])
def test_who_may_not_enter_the_state_directory_is_told_who_may(gateway, command):
    gateway("enrollment", "list")
    unprivileged = "setpriv --bounding-set=-dac_override,-dac_read_search" if os.geteuid() == 0 else ""
    state = gateway.directory / "state"
    state.chmod(0o000)
    try:
        ended = run(f"{unprivileged} $PROVISIOND -c {gateway.config} {command}", capture_output=True, text=True)
    finally:
        state.chmod(0o700)
    assert ended.returncode == 69
    assert ended.stderr == (
        f"error: the database {state}/provisiond.db cannot be opened: Permission denied; "
        "be root, or the user that the service runs as (sudo -u USER provisiond …)\n"
    )


@pytest.mark.parametrize("closed", ["file", "directory"])
@pytest.mark.parametrize("named", ["-c", "PROVISIOND_CONFIG"])
def test_a_configuration_that_may_not_be_read_cannot_be_used(gateway, closed, named):
    unprivileged = "setpriv --bounding-set=-dac_override,-dac_read_search" if os.geteuid() == 0 else ""
    path = gateway.config if closed == "file" else gateway.directory
    mode = path.stat().st_mode
    given = f"$PROVISIOND -c {gateway.config}" if named == "-c" else f"env {named}={gateway.config} $PROVISIOND"
    path.chmod(0o000)
    try:
        ended = run(f"{unprivileged} {given} config check", capture_output=True, text=True)
    finally:
        path.chmod(mode)
    assert ended.returncode == 78
    assert ended.stderr == f"error: {gateway.config}: cannot be read: Permission denied\n"
