"""Zip files: what is inside opens, and nothing gets out."""

import os
import stat
import zipfile
import zlib

import numpy as np
import pytest

from napari_mri.core.errors import BrokenFile, FileProblem, MriError, NotAnImage, UnsupportedImage
from napari_mri.core.volume import Labels
from napari_mri.io import zipped
from napari_mri.io.files import load, load_all, save
from napari_mri.io.inside import is_tame
from tests.io.series import write_series
from tests.io.test_seg_dicom import GRID
from tests.scans import GRIDS, head, marker


def zip_of(path, entries, how=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def test_series_volumes_and_segmentations_inside_open(tmp_path):
    data = np.arange(np.prod(GRID.shape), dtype=np.int16).reshape(GRID.shape)
    entries = {f"dicom/{p.name}": p.read_bytes() for p in write_series(tmp_path / "s", data, GRID)}
    entries["more/a.nii.gz"] = save(head(GRIDS["plain"]), tmp_path / "a.nii.gz").read_bytes()
    entries["more/b.seg.dcm"] = save(marker(GRID), tmp_path / "b.seg.dcm").read_bytes()
    entries["__MACOSX/._a.nii.gz"] = b"junk"
    entries["readme.txt"] = b"hello"
    path = zip_of(tmp_path / "z.zip", entries)
    volumes = load_all(path)
    assert len(volumes) == 3
    assert all(volume.origin.path == str(path) for volume in volumes)
    np.testing.assert_array_equal(volumes[0].turned("LPS").data, load(tmp_path / "s").turned("LPS").data)
    assert isinstance(volumes[1], Labels)  # the segmentation comes with the series
    np.testing.assert_array_equal(volumes[2].data, head(GRIDS["plain"]).data)


def test_one_volume_inside_opens_by_itself_and_outlives_its_folder(tmp_path):
    raw = save(head(GRIDS["plain"]), tmp_path / "a.nii").read_bytes()
    scan = load(zip_of(tmp_path / "z.zip", {"a.nii": raw}))
    assert not isinstance(scan.data, np.memmap)
    np.testing.assert_array_equal(scan.data, head(GRIDS["plain"]).data)


@pytest.mark.parametrize(
    "name", ["../evil.nii", "/tmp/evil.nii", "a/../../evil.nii", "C:\\evil.nii", "..\\evil.nii"]
)
def test_names_that_lead_out_are_refused(tmp_path, name):
    with pytest.raises(FileProblem, match="outside its own folder"):
        load(zip_of(tmp_path / "z.zip", {name: b"x", "a.nii": b"x"}))
    assert not list(tmp_path.parent.rglob("evil.nii"))
    assert not os.path.exists("/tmp/evil.nii")


def test_links_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        entry = zipfile.ZipInfo("link.nii")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(FileProblem, match="outside its own folder"):
        load(tmp_path / "z.zip")


def test_bombs_stop_at_a_limit_that_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(zipped, "_FREE_RATIO_BELOW", 1_000_000)
    path = zip_of(tmp_path / "z.zip", {"a.nii": bytes(3_000_000)})
    with pytest.raises(FileProblem, match="300 times"):
        load(path)
    monkeypatch.setattr(zipped, "MOST_BYTES", 2_000_000_000)
    many = zip_of(tmp_path / "m.zip", {})
    raw = bytearray(zip_of(tmp_path / "l.zip", {"a.nii": os.urandom(1000)}, zipfile.ZIP_STORED).read_bytes())
    at = raw.rfind(b"PK\x01\x02")
    raw[at + 24 : at + 28] = (3_900_000_000).to_bytes(4, "little")
    (tmp_path / "l.zip").write_bytes(raw)
    with pytest.raises(FileProblem, match="2 GB are unpacked at most"):
        load(tmp_path / "l.zip")
    with pytest.raises(NotAnImage):
        load(many)


def test_damaged_and_encrypted_archives(tmp_path):
    path = zip_of(tmp_path / "z.zip", {"a.nii": zlib.compress(os.urandom(5000))})
    raw = path.read_bytes()
    for broken in (raw[:100], raw[:-30], raw[:60] + b"\xff" * 40 + raw[100:]):
        path.write_bytes(broken)
        with pytest.raises(MriError):
            load(path)
    raw = bytearray(raw)
    raw[raw.rfind(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises((UnsupportedImage, BrokenFile)):
        load(path)


@pytest.mark.parametrize(
    ("name", "tame"),
    [("a.raw", True), ("sub/a.raw", True), ("a..b", True), ("../a", False), ("/a", False), ("", False), ("a\0b", False),
     ("c:/a", False), ("\\\\server\\a", False), ("a/..", False), ("..", False)],
)  # fmt: skip
def test_tame_names(name, tame):
    assert is_tame(name) is tame
