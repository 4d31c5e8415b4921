"""A claim is one process's, and ends with it."""

import subprocess
import sys
from pathlib import Path

import pytest

from provisiond.hubs.claims import FileClaims

HOLD = """
import sys
from pathlib import Path
from provisiond.hubs.claims import FileClaims
print(FileClaims(Path(sys.argv[1])).claim("hub"), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that has asked for the claim and holds what it was given."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def test_what_we_have_we_keep(tmp_path):
    claims = FileClaims(tmp_path / "locks")
    assert claims.claim("hub")
    assert claims.claim("hub")
    claims.release("hub")
    claims.release("hub")


def test_another_process_has_to_wait_until_the_claim_is_released(tmp_path, other):
    assert other.stdout.readline() == "True\n"
    claims = FileClaims(tmp_path)
    assert not claims.claim("hub")
    assert claims.claim("another hub")
    claims.release("another hub")


def test_the_claim_of_a_process_that_was_killed_is_free_at_once(tmp_path, other):
    assert other.stdout.readline() == "True\n"
    other.kill()
    other.wait()
    claims = FileClaims(tmp_path)
    assert claims.claim("hub")
    claims.release("hub")


def test_a_directory_that_cannot_be_made_is_no_claim(tmp_path):
    (tmp_path / "file").write_text("")
    assert not FileClaims(tmp_path / "file" / "locks").claim("hub")
