"""Segmentations beside DICOM series: found, landed in mm on their scan, or said why not."""

import numpy as np
import pydicom
import pytest

from napari_mri.core.errors import SeveralSeries, UnsupportedImage
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Labels
from napari_mri.io.files import load, load_all, load_labels, save, survey
from napari_mri.io.layered import SEGMENTS, is_layered, segments_of
from tests.io.series import ramp, write_series
from tests.scans import grid_of

SHAPE = (12, 9, 7)
GRID = grid_of(SHAPE, (0.9, 1.1, 2.5), "LPS", (8.0, -5.0, 3.0))


def scan_of(folder, grid=GRID, start=0, **names):
    def edit(ds, k):
        for key, value in names.items():
            setattr(ds, key, value)

    write_series(folder, ramp(grid.shape), grid, edit, start=start)
    return load(folder) if start == 0 else None


def cut(scan):
    return scan.with_labels((scan.data % 7 == 0).astype(np.uint8), {1: "some"})


@pytest.mark.parametrize("ending", [".seg.dcm", ".rtstruct.dcm"])
def test_what_lies_beside_the_series_lands_on_it(tmp_path, ending):
    scan = scan_of(tmp_path / "ct")
    labels = cut(scan)
    save(labels, tmp_path / f"a{ending}", sidecar=False)
    (tmp_path / f"a{ending}").rename(tmp_path / "ct" / "0099")
    again = load(tmp_path / "ct")  # a scan with its segmentation is still one scan
    assert not isinstance(again, Labels)
    both = load_all(tmp_path / "ct")
    assert [isinstance(one, Labels) for one in both] == [False, True]
    assert both[1].grid.same(both[0].grid)
    np.testing.assert_array_equal(both[1].data, labels.data)
    np.testing.assert_array_equal(load_labels(tmp_path / "ct").data, labels.data)
    assert [one.labels for one in survey(tmp_path / "ct")] == [False, True]
    np.testing.assert_array_equal(load(tmp_path / "ct", series=survey(tmp_path / "ct")[1].title).data, labels.data)


def test_the_right_series_of_two_is_chosen(tmp_path):
    scan = scan_of(tmp_path / "a", SeriesNumber=3)
    other = grid_of((10, 8, 6), (1.3, 1.3, 4.0), "LPS")
    write_series(tmp_path / "b", ramp(other.shape), other, start=100)
    labels = cut(scan)
    (tmp_path / "all").mkdir()
    for folder in ("a", "b"):
        for path in (tmp_path / folder).iterdir():
            path.rename(tmp_path / "all" / path.name)
    found = [one for one in load_all(tmp_path / "all") if not isinstance(one, Labels)]
    assert len(found) == 2
    save(labels, tmp_path / "all" / "x.rtstruct.dcm", sidecar=False)  # the scan's files moved: no reference
    mask = next(one for one in load_all(tmp_path / "all") if isinstance(one, Labels))
    assert mask.grid.same(scan.grid)
    with pytest.raises(SeveralSeries):
        load(tmp_path / "all")


def test_a_segmentation_on_another_grid_stays_in_mm_and_says_why(tmp_path):
    scan = scan_of(tmp_path / "ct")
    labels = cut(scan)
    save(labels, tmp_path / "a.seg.dcm", sidecar=False)
    ds = pydicom.dcmread(tmp_path / "a.seg.dcm")
    measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = [2.2, 1.8]  # twice as coarse
    ds.save_as(tmp_path / "ct" / "0099")
    mask = load_all(tmp_path / "ct")[1]
    assert not mask.grid.same(scan.grid)
    told = " ".join(mask.origin.warnings)
    assert "own grid" in told
    assert "voxels are" in told
    first = np.argwhere(mask.data)[0]
    np.testing.assert_allclose(np.sort(mask.spacing), (1.8, 2.2, 2.5), atol=1e-3)
    assert np.isfinite(mask.grid.to_patient(first)).all()


def test_a_cropped_segmentation_lands_where_its_frames_stand(tmp_path):
    scan = scan_of(tmp_path / "ct")
    data = np.zeros(scan.data.shape, np.uint8)
    data[4:7, 3:6, 2:4] = 5
    part = scan.with_labels(data)
    crop = Labels(data[3:8, 2:7, 1:5], scan.grid.cropped((3, 2, 1), (8, 7, 5)), origin=scan.origin)
    save(crop, tmp_path / "c.seg.dcm", sidecar=False)
    (tmp_path / "c.seg.dcm").rename(tmp_path / "ct" / "0098")
    mask = load_labels(tmp_path / "ct")
    np.testing.assert_array_equal(mask.data, part.data)


def test_overlapping_segments_land_as_layers(tmp_path):
    scan = scan_of(tmp_path / "ct")
    data = np.zeros((*scan.data.shape, 2), np.uint8)
    data[2:7, 2:7, 1:4, 0], data[5:9, 5:8, 2:6, 1] = 1, 2
    labels = Labels(data, scan.grid, (), SEGMENTS, scan.origin, {1: "a", 2: "b"})
    for n, ending in enumerate((".seg.dcm", ".rtstruct.dcm")):
        save(labels, tmp_path / f"o{ending}", sidecar=False)
        (tmp_path / f"o{ending}").rename(tmp_path / "ct" / f"009{n}")
    found = [one for one in load_all(tmp_path / "ct") if isinstance(one, Labels)]
    assert len(found) == 2
    for mask in found:
        assert is_layered(mask)
        for (value, have), (_, want) in zip(segments_of(mask), segments_of(labels), strict=True):
            np.testing.assert_array_equal(have, want, err_msg=str(value))


def test_alone_contours_are_refused_and_a_seg_opens(tmp_path):
    scan = scan_of(tmp_path / "ct")
    for name in ("seg", "rtstruct"):
        (tmp_path / name).mkdir()
        save(cut(scan), tmp_path / name / f"a.{name}.dcm", sidecar=False)
    assert "not in this folder" in " ".join(load(tmp_path / "seg").origin.warnings)
    with pytest.raises(UnsupportedImage, match="not in this folder"):
        load(tmp_path / "rtstruct")


def test_patients_and_studies_are_numbered_and_named_only_on_demand(tmp_path):
    for n, (name, number) in enumerate((("Roe^Ann", "P-1"), ("Roe^Ann", "P-1"), ("Poe^Max", "P-2"))):
        scan_of(tmp_path / str(n), start=100 * n, PatientName=name, PatientID=number, StudyDate="20240305")
    found = survey(tmp_path)
    assert len({one.group[0] for one in found}) == 2
    assert len({one.group[1] for one in found}) == 3
    for one in found:
        assert "Roe" not in one.title
        assert "P-1" not in repr((one.title, one.group, one.problem))
    assert {one.who() for one in found} == {"Roe Ann, P-1, 2024-03-05", "Poe Max, P-2, 2024-03-05"}


def test_a_segmentation_is_of_the_patient_of_its_scan(tmp_path):
    for n, number in enumerate(("P-1", "P-2")):
        scan_of(tmp_path / str(n), start=100 * n, PatientID=number)
    scan = load(tmp_path / "0")
    save(cut(scan), tmp_path / "0" / "x.seg.dcm", sidecar=False)
    *scans, seg = survey(tmp_path)
    assert seg.labels
    assert seg.group in {one.group for one in scans}
    assert seg.open().grid.same(scan.grid)


def test_one_study_has_no_group(tmp_path):
    scan_of(tmp_path)
    assert survey(tmp_path)[0].group == ()


def test_another_lattice_is_not_taken_for_the_series(tmp_path):
    affine = GRID.affine.copy()
    affine[:3, 3] += 0.4  # between the voxels
    scan_of(tmp_path / "ct")
    save(Labels(np.ones(SHAPE, np.uint8), Grid(SHAPE, affine)), tmp_path / "ct" / "m.seg.dcm", sidecar=False)
    told = " ".join(load_all(tmp_path / "ct")[1].origin.warnings)
    assert "not in this folder" in told


@pytest.mark.parametrize("ending", [".seg.dcm", ".rtstruct.dcm"])
def test_a_damaged_segmentation_does_not_stop_its_scan(tmp_path, ending):
    scan = scan_of(tmp_path / "ct")
    save(cut(scan), tmp_path / f"a{ending}", sidecar=False)
    good = (tmp_path / f"a{ending}").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(40):
        raw = bytearray(good)
        for at in rng.integers(140, len(raw), 8):
            raw[at] = int(rng.integers(256))
        (tmp_path / "ct" / "0099").write_bytes(bytes(raw[: int(rng.integers(1000, len(raw)))]))
        found = load_all(tmp_path / "ct")
        np.testing.assert_array_equal(found[0].data, scan.data)


@pytest.mark.parametrize("ending", [".seg.dcm", ".rtstruct.dcm"])
def test_one_slice_brings_the_segmentations_that_name_its_series_and_no_others(tmp_path, ending):
    one, other = scan_of(tmp_path / "a", SeriesNumber=3), scan_of(tmp_path / "b", SeriesNumber=4)
    labels = cut(one)
    save(labels, tmp_path / f"mine{ending}", sidecar=False)
    save(cut(other), tmp_path / f"theirs{ending}", sidecar=False)
    slices = sorted((tmp_path / "a").iterdir())
    (tmp_path / f"mine{ending}").rename(tmp_path / "a" / "zz1")
    (tmp_path / f"theirs{ending}").rename(tmp_path / "a" / "zz2")
    assert [found.labels for found in survey(slices[2])] == [False, True]
    assert not isinstance(load(slices[2]), Labels)
    np.testing.assert_array_equal(load_labels(slices[2]).data, labels.data)
    whole = (tmp_path / "a" / "zz1").read_bytes()
    (tmp_path / "a" / "zz1").write_bytes(whole[: len(whole) // 3])  # a damaged one never stops the scan
    np.testing.assert_array_equal(load(slices[2]).data, one.data)
