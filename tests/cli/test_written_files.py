"""Names that no file can have, or that stand for a directory."""

import os
import stat

import pytest


@pytest.mark.parametrize(
    "words",
    [("enrollment", "export"), ("enrollment", "import"), ("audit", "export"), ("db", "backup"), ("db", "restore")],
    ids=" ".join,
)
def test_a_directory_is_refused_where_a_file_is_wanted(gateway, words):
    gateway("enrollment", "create", "a", "--attestation-type", "symmetricKey")
    for directory in (".", gateway.directory):
        assert "is a directory; name a file" in gateway(*words, directory, expect=2).stderr


@pytest.mark.parametrize("words", [("enrollment", "export"), ("audit", "export"), ("db", "backup")], ids=" ".join)
def test_a_file_in_no_directory_is_told_by_the_name_that_was_given(gateway, tmp_path, words):
    gateway("enrollment", "create", "a", "--attestation-type", "symmetricKey")
    ended = gateway(*words, tmp_path / "missing" / "file", expect=2)
    assert f"there is no directory {tmp_path / 'missing'}" in ended.stderr


@pytest.mark.parametrize("words", [("enrollment", "export"), ("audit", "export"), ("db", "backup")], ids=" ".join)
def test_a_pipe_or_a_device_is_not_replaced(gateway, tmp_path, words):
    gateway("enrollment", "create", "a", "--attestation-type", "symmetricKey")
    os.mkfifo(tmp_path / "pipe")
    assert "is no regular file" in gateway(*words, tmp_path / "pipe", expect=2).stderr
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
