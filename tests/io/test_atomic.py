import errno
import os

import pytest

from napari_mri.core.errors import FileProblem
from napari_mri.io import atomic
from napari_mri.io.atomic import atomic_path


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_the_file_appears_only_when_the_block_ends_well(tmp_path):
    target = tmp_path / "a.nii.gz"
    with atomic_path(target) as part:
        part.write_bytes(b"new")
        assert not target.exists()
        assert part.name.endswith(".nii.gz")
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["a.nii.gz"]


def test_a_failure_leaves_the_old_file_whole_and_nothing_behind(tmp_path):
    target = tmp_path / "a.nii"
    target.write_bytes(b"old")

    def write_and_fail():
        with atomic_path(target) as part:
            part.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_fail()
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.nii"]


def test_a_full_disk_is_told_and_the_old_file_stays(tmp_path, monkeypatch):
    target = tmp_path / "a.nii"
    target.write_bytes(b"old")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(FileProblem, match="disk is full") as caught, atomic_path(target) as part:
        part.write_bytes(b"half")
    assert "untouched" in caught.value.hint
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.nii"]


def test_a_missing_folder_and_a_folder_in_the_way_are_told(tmp_path):
    with pytest.raises(FileProblem, match="folder does not exist"), atomic_path(tmp_path / "no" / "a.nii"):
        pass
    with pytest.raises(FileProblem, match="a folder of that name exists"), atomic_path(tmp_path):
        pass


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(FileProblem, match="no permission"), atomic_path(tmp_path / "a.nii"):
        pass


def test_a_link_is_followed_and_permissions_are_kept(tmp_path):
    (tmp_path / "real.nii").write_bytes(b"old")
    (tmp_path / "real.nii").chmod(0o640)
    (tmp_path / "link.nii").symlink_to(tmp_path / "real.nii")
    with atomic_path(tmp_path / "link.nii") as part:
        part.write_bytes(b"new")
    assert (tmp_path / "link.nii").is_symlink()
    assert (tmp_path / "real.nii").read_bytes() == b"new"
    assert (tmp_path / "real.nii").stat().st_mode & 0o777 == 0o640
