"""The manual page and shell completion come from the commands themselves."""

import os
import shutil
import subprocess
import sys

import pytest
import typer

from provisiond.cli.main import app
from provisiond.cli.man import render_manual, walk
from tests.cli.conftest import invoke

ROOT = typer.main.get_group(app)


def test_every_command_is_in_the_manual_with_its_example():
    text = render_manual(ROOT)
    for path, _ in walk(ROOT):
        assert f".SS provisiond {' '.join(path)}".replace("-", "\\-") in text
    assert text.count("\nExample:\n") == len(list(walk(ROOT)))
    assert ".SH EXIT STATUS" in text


def test_the_command_prints_it():
    assert invoke("man").stdout == render_manual(ROOT)


@pytest.mark.skipif(shutil.which("groff") is None, reason="this machine has no groff")
def test_it_is_good_roff(tmp_path):
    (tmp_path / "provisiond.1").write_text(render_manual(ROOT))
    command = ["groff", "-man", "-Tutf8", "-ww", "-K", "utf8", str(tmp_path / "provisiond.1")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if "can't break line" not in line and "adjust" not in line]
    assert complaints == []
    assert "provisiond explain" in done.stdout


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
