"""RTSTRUCT: contours there and back, and as pydicom and matplotlib see them in mm."""

import numpy as np
import pydicom
import pytest
from matplotlib.path import Path as Polygon

from napari_mri.core.errors import GridMismatch, MriError, UnsupportedImage
from napari_mri.core.volume import Frames, Labels
from napari_mri.io.files import load, load_labels, save
from napari_mri.io.layered import is_layered
from napari_mri.io.rtstruct import read_onto
from tests.io.series import write_series
from tests.io.test_seg_dicom import GRID, PLANTED, layers
from tests.scans import GRIDS, blob, head


def shapes(grid):
    """Return a shell with a hole, a ball in it, noise, and a voxel in the corner."""
    data = np.zeros(grid.shape, np.uint8)
    data[blob(grid)] = 1
    data[blob(grid, radii=(20, 20, 20))] = 0
    data[blob(grid, (20, 0, 11), (9, 9, 9))] = 4
    data[np.random.default_rng(0).random(grid.shape) < 0.02] = 7
    data[0, 0, 0] = 4
    return Labels(data, grid, names={1: "shell", 4: "ball"}, colors={4: (1.0, 0.0, 0.0)})


@pytest.mark.parametrize("name", GRIDS)
def test_every_voxel_comes_back(tmp_path, name):
    labels = shapes(GRIDS[name])
    path = save(labels, tmp_path / "a.rtstruct.dcm", sidecar=False)
    back = read_onto(path, head(GRIDS[name]))
    np.testing.assert_array_equal(back.data, labels.data)
    assert {v: back.names[v] for v in (1, 4)} == dict(labels.names)
    assert back.colors[4] == pytest.approx((1.0, 0.0, 0.0))


def test_another_program_finds_the_same_voxels_in_mm(tmp_path):
    grid = GRIDS["anisotropic"]
    labels = Labels(blob(grid).astype(np.uint8), grid)
    ds = pydicom.dcmread(save(labels, tmp_path / "a.rtstruct.dcm", sidecar=False))
    found = np.zeros(grid.shape, bool)
    for contour in ds.ROIContourSequence[0].ContourSequence:
        patient = np.array(contour.ContourData, float).reshape(-1, 3) * (-1, -1, 1)
        voxels = np.linalg.solve(grid.affine[:3, :3], (patient - grid.affine[:3, 3]).T).T
        plane = voxels[:, 2].round().astype(int)
        assert np.ptp(plane) == 0
        assert np.abs(voxels[:, 2] - plane).max() < 1e-3
        spots = np.argwhere(np.ones(grid.shape[:2]))
        found[..., plane[0]] ^= Polygon(voxels[:, :2]).contains_points(spots).reshape(grid.shape[:2])
    np.testing.assert_array_equal(found, labels.data > 0)


def test_it_opens_by_itself_beside_its_series_and_tells_no_patient(tmp_path):
    data = np.arange(np.prod(GRID.shape), dtype=np.int16).reshape(GRID.shape)
    write_series(tmp_path, data, GRID)
    scan = load(tmp_path)
    labels = scan.with_labels((scan.data % 97 < 20).astype(np.uint8), {1: "some"})
    path = save(labels, tmp_path / "a.rtstruct.dcm", sidecar=False)
    back = load_labels(path)
    np.testing.assert_array_equal(back.data, labels.data)
    assert back.grid.same(scan.grid)
    for secret in PLANTED:
        assert secret not in path.read_bytes()
    study = pydicom.dcmread(path).ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    assert len(study.RTReferencedSeriesSequence[0].ContourImageSequence) == GRID.shape[2]
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "b.dcm").write_bytes(path.read_bytes())
    with pytest.raises(UnsupportedImage, match="need the scan"):
        load(alone / "b.dcm")


def test_overlapping_regions_come_as_layers(tmp_path):
    labels = layers()
    back = read_onto(
        save(labels, tmp_path / "a.rtstruct.dcm", sidecar=False), Labels(labels.data[..., 0], GRID)
    )
    assert is_layered(back)
    for value in (3, 7):
        np.testing.assert_array_equal((back.data == value).any(axis=3), (labels.data == value).any(axis=3))


def test_the_wrong_scan_is_refused(tmp_path):
    path = save(shapes(GRIDS["plain"]), tmp_path / "a.rtstruct.dcm", sidecar=False)
    for wrong in ("anisotropic", "oblique"):
        with pytest.raises(GridMismatch):
            read_onto(path, head(GRIDS[wrong]))
    half = GRIDS["plain"].cropped((0, 0, 20), (31, 35, 29))
    with pytest.raises(GridMismatch, match="outside"):
        read_onto(path, head(half))


def test_what_it_cannot_hold_is_refused(tmp_path):
    with pytest.raises(UnsupportedImage):
        save(Labels(np.zeros(GRID.shape, np.uint8), GRID), tmp_path / "a.rtstruct.dcm")
    with pytest.raises(UnsupportedImage):
        save(
            Labels(np.ones((*GRID.shape, 2), np.uint8), GRID, frames=Frames("time")),
            tmp_path / "a.rtstruct.dcm",
        )


def test_a_damaged_contour_gets_a_sentence(tmp_path):
    path = save(shapes(GRIDS["plain"]), tmp_path / "a.rtstruct.dcm", sidecar=False)
    ds = pydicom.dcmread(path)
    contour = ds.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = contour.ContourData[:-1]
    ds.save_as(path)
    with pytest.raises(MriError, match="damaged"):
        read_onto(path, head(GRIDS["plain"]))
