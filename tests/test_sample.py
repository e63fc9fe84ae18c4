"""The sample scans: small, the same bytes each time, and free of anybody's data."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from napari_mri import sample
from napari_mri.core.grid import Grid
from napari_mri.io.files import load, load_labels


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sample")
    sample.write(place)
    return place


def files(place: Path) -> dict[str, bytes]:
    found = [p for p in place.rglob("*") if p.suffix in (".dcm", ".gz")]
    return {p.relative_to(place).as_posix(): p.read_bytes() for p in found}


def test_writing_twice_gives_the_same_bytes_and_stays_small(fresh: Path, tmp_path: Path) -> None:
    sample.write(tmp_path)
    one, two = files(fresh), files(tmp_path)
    assert one == two
    assert sum(map(len, one.values())) <= 6e6
    assert sum(map(len, files(sample.folder()).values())) <= 6e6


def test_the_kept_scans_are_those_the_generator_writes(fresh: Path) -> None:
    """Not by bytes: another zlib packs otherwise, and another processor may round the last digit otherwise."""
    for name in (sample.NIFTI, sample.LABELS):
        kept, made = (np.asarray(nibabel.load(p / name).dataobj).astype(float) for p in (sample.folder(), fresh))
        assert np.mean(np.abs(kept - made) > 1) < 1e-4
    kept, made = (pydicom.dcmread(p / sample.DICOM / "IM0040.dcm") for p in (sample.folder(), fresh))
    assert np.mean(np.abs(kept.pixel_array.astype(float) - made.pixel_array) > 1) < 1e-3
    assert kept.SOPInstanceUID == made.SOPInstanceUID


def test_series_lies_where_it_was_made() -> None:
    scan = load(sample.dicom_head())
    assert scan.turned(sample.dicom_grid().axes).grid.same(sample.dicom_grid())
    assert scan.grid.obliquity > 5
    assert scan.origin.warnings == ()


def test_series_and_nifti_show_one_head() -> None:
    """The middle of what is bright lies at the same place in both."""
    series, flair = load(sample.dicom_head()), load(sample.nifti_head())
    labels = load_labels(sample.nifti_labels())
    assert labels.grid.same(flair.grid)
    eyes = labels.grid.to_patient(np.argwhere(labels.data == 15))
    assert len(eyes) > 500
    voxel = np.rint(series.grid.to_voxels(eyes)).astype(int)
    inside = ((voxel >= 0) & (voxel < series.grid.shape)).all(1)
    dark = series.data[tuple(voxel[inside].T)]
    assert inside.mean() > 0.95
    assert np.median(dark) < 250


def test_nobody_is_named() -> None:
    header = pydicom.dcmread(sample.dicom_head() / "IM0001.dcm")
    assert str(header.PatientName) == "Phantom^Head"
    assert header.PatientIdentityRemoved == "YES"
    assert header.PatientBirthDate == ""
    assert header.StudyDate == "20000101"


def test_series_is_sound_dicom() -> None:
    headers = [pydicom.dcmread(p) for p in sorted(sample.dicom_head().glob("*.dcm"))]
    assert len({h.SOPInstanceUID for h in headers}) == len(headers) == sample.dicom_grid().shape[2]
    assert len({h.SeriesInstanceUID for h in headers}) == 1
    for h in headers:
        assert h.file_meta.MediaStorageSOPInstanceUID == h.SOPInstanceUID
        assert all(len(str(v)) <= 64 for v in (h.SOPInstanceUID, h.StudyInstanceUID, h.FrameOfReferenceUID))
        assert all(len(str(v)) <= 16 for v in (*h.ImagePositionPatient, *h.ImageOrientationPatient))
        assert h.SOPClassUID == pydicom.uid.MRImageStorage


def test_installed_package_writes_its_own_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a checkout the scans are written into the cache once; a torn copy is written again."""
    calls: list[Path] = []

    def quick(place: Path) -> None:
        calls.append(place)
        (place / sample.DICOM).mkdir()
        for number in range(3):
            (place / sample.DICOM / f"{number}.dcm").touch()
        (place / sample.NIFTI).touch()
        (place / sample.LABELS).touch()

    monkeypatch.setattr(sample, "__file__", str(tmp_path / "site-packages" / "napari_mri" / "sample.py"))
    monkeypatch.setattr(sample, "_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(sample, "write", quick)
    monkeypatch.setattr(sample, "dicom_grid", lambda: Grid.plain((2, 2, 3)))
    place = sample.folder()
    assert place.parent == tmp_path / "cache"
    assert sample.folder() == place
    assert len(calls) == 1
    (place / sample.DICOM / "1.dcm").unlink()
    assert sample.dicom_head() == place / sample.DICOM
    assert len(calls) == 2
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [place.name]
