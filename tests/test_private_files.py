"""What root makes in a state directory is for whom the directory belongs to."""

import os
import stat

import pytest

from provisiond.private_files import create_private, make_private_directory

SOMEBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files for others")


def test_a_file_is_new_and_private(tmp_path):
    os.close(create_private(tmp_path / "a"))
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    assert (tmp_path / "a").stat().st_uid == os.geteuid()
    with pytest.raises(FileExistsError):
        create_private(tmp_path / "a")


def test_a_name_that_points_elsewhere_is_not_followed(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    with pytest.raises(FileExistsError):
        create_private(tmp_path / "a")
    assert not (tmp_path / "b").exists()


def test_a_directory_is_made_with_its_parents_and_left_alone_when_it_is_there(tmp_path):
    make_private_directory(tmp_path / "a/b")
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o700
    (tmp_path / "a/b").chmod(0o750)
    make_private_directory(tmp_path / "a/b")
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o750


@as_root
def test_what_root_makes_is_the_directorys_owners(tmp_path):
    os.chown(tmp_path, SOMEBODY, SOMEBODY)
    os.close(create_private(tmp_path / "a"))
    make_private_directory(tmp_path / "b/c")
    made = [(path.stat().st_uid, path.stat().st_gid) for path in (tmp_path / "a", tmp_path / "b", tmp_path / "b/c")]
    assert made == [(SOMEBODY, SOMEBODY)] * 3
