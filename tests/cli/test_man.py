"""The manual page and shell completion come from the commands themselves."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime

import pytest
import typer

from provisiond.cli.main import app
from provisiond.cli.man import render_manual, walk
from tests.cli.conftest import invoke

ROOT = typer.main.get_group(app)
DATE = datetime(2026, 11, 27, tzinfo=UTC)


def test_every_command_is_in_the_manual_with_its_example():
    text = render_manual(ROOT, DATE)
    for path, _ in walk(ROOT):
        assert f".SS provisiond {' '.join(path)}".replace("-", "\\-") in text
    assert text.count("\nExample:\n") == len(list(walk(ROOT)))
    assert ".SH EXIT STATUS" in text


def test_the_command_prints_it():
    printed, expected = invoke("man").stdout.splitlines(), render_manual(ROOT, DATE).splitlines()
    assert printed[:1] + printed[2:] == expected[:1] + expected[2:]
    assert printed[1].startswith('.TH PROVISIOND 1 "20')


@pytest.mark.skipif(shutil.which("groff") is None, reason="this machine has no groff")
def test_it_is_good_roff(tmp_path):
    (tmp_path / "provisiond.1").write_text(render_manual(ROOT, DATE))
    command = ["groff", "-man", "-Tutf8", "-ww", "-K", "utf8", str(tmp_path / "provisiond.1")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if "can't break line" not in line and "adjust" not in line]
    assert complaints == []
    assert "provisiond explain" in done.stdout


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="this machine has no mandoc")
def test_mandoc_has_nothing_to_say(tmp_path):
    (tmp_path / "provisiond.1").write_text(render_manual(ROOT, DATE))
    command = ["mandoc", "-Tlint", str(tmp_path / "provisiond.1")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert [line for line in done.stdout.splitlines() if "longer than 80 bytes" not in line] == []


@pytest.mark.parametrize(("path", "command"), [pytest.param(*one, id=" ".join(one[0])) for one in walk(ROOT)])
def test_an_example_is_understood_as_it_stands(path, command):
    words = shlex.split(command.epilog.partition(":")[2].partition(">")[0])
    assert words[0] == "provisiond"
    arguments = words[words.index(path[0]) + len(path) :]
    assert [*path, *arguments] == words[words.index(path[0]) :]
    # All but what the words are looked up in: usage errors are raised here.
    with command.make_context(" ".join(path), list(arguments)):
        pass


def test_every_noun_has_an_example_too():
    for noun in sorted({path[0] for path, _ in walk(ROOT) if len(path) > 1}):
        assert f"Example: provisiond {noun} " in re.sub(r"\s+", " ", invoke(noun, "--help").stdout)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("en", "enrollment"),
        ("enrollment ex", "export"),
        ("audit ", "verify"),
        ("enrollment import --on", "--on-conflict"),
    ],
)
def test_the_shell_completes_commands_and_options(words, expected):
    line = f"provisiond {words}"
    environment = {
        **os.environ,
        "_PROVISIOND_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
    }
    command = [sys.executable, "-c", "from provisiond.cli.main import main; main()"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert expected in done.stdout.split()
