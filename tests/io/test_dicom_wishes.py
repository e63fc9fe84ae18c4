"""What is done to DICOM series only when it is asked for: equal steps, precise values."""

import numpy as np
import pytest

from napari_mri.core.errors import BadOption, GeometryProblem, UnsupportedImage
from napari_mri.io.files import load, survey
from tests.io.series import at_same_place, ramp, write_series
from tests.scans import grid_of

SHAPE = (8, 6, 9)
GRID = grid_of(SHAPE, (1.5, 0.8, 2.0), "LPS", (0, 0, 0))


def left_out(*missing):
    def edit(ds, k):
        if k in missing:
            raise StopIteration

    return edit


def test_a_gap_is_filled_only_when_asked(tmp_path):
    slope = np.broadcast_to(np.arange(9) * 100, SHAPE).astype(np.int16)
    write_series(tmp_path, slope, GRID, left_out(4))
    with pytest.raises(GeometryProblem, match="--resample"):
        load(tmp_path)
    scan = load(tmp_path, resample=True)
    at_same_place(scan, slope.astype(np.float32), GRID)  # a ramp is a ramp between its slices too
    assert "were resampled" in " ".join(scan.origin.warnings)
    assert "resampled" in scan.history[-1].action
    assert scan.origin.path == ""  # nothing may refer to slices that were never taken


def test_slices_that_stand_right_keep_their_values(tmp_path):
    data = ramp(SHAPE)
    write_series(tmp_path, data, GRID, left_out(2, 5))
    scan = load(tmp_path, resample=True)
    have = scan.turned("LPS").data
    for k in (0, 1, 3, 4, 6, 7, 8):
        np.testing.assert_allclose(have[:, :, k], data[:, :, k], atol=1e-2)


def test_steps_that_grow_are_made_equal_in_mm(tmp_path):
    heights = np.cumsum([0, 2.0, 2.0, 2.4, 2.8, 3.2, 2.0, 2.0, 2.0])
    data = np.broadcast_to(np.round(heights * 10), SHAPE).astype(np.int16)

    def edit(ds, k):
        x, y, z = map(float, ds.ImagePositionPatient)
        ds.ImagePositionPatient = [x, y, z + heights[k] - 2.0 * k]

    write_series(tmp_path, data, GRID, edit)
    scan = load(tmp_path, resample=True)
    k = np.arange(scan.data.shape[2])
    z = scan.grid.to_patient(np.stack([0 * k, 0 * k, k], axis=1))[:, 2]
    start = GRID.to_patient((0, 0, 0))[2]
    np.testing.assert_allclose(scan.data[0, 0], (z - start) * 10, atol=0.51)
    assert scan.spacing[2] == pytest.approx(heights[-1] / (scan.data.shape[2] - 1))


def test_slices_shifted_sideways_are_not_resampled(tmp_path):
    def edit(ds, k):
        x, y, z = map(float, ds.ImagePositionPatient)
        ds.ImagePositionPatient = [x + (3.0 if k == 4 else 0), y, z + (1.0 if k > 6 else 0)]

    write_series(tmp_path, ramp(SHAPE), GRID, edit)
    with pytest.raises(GeometryProblem, match="sideways"):
        load(tmp_path, resample=True)


def test_a_regular_series_is_left_alone(tmp_path):
    data = ramp(SHAPE)
    write_series(tmp_path, data, GRID)
    scan = load(tmp_path, resample=True)
    assert scan.data.dtype == np.int16
    assert scan.history == ()
    assert survey(tmp_path)[0].resampled is None


def philips(per_slice=False, known=True):
    def edit(ds, k):
        ds.Manufacturer = "Philips Medical Systems"
        ds.RescaleSlope, ds.RescaleIntercept = ("2", "-10") if not per_slice else (str(1 + k), "5")
        if known:
            block = ds.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
            block.add_new(0x0E, "FL", 0.04)
            block.add_new(0x0D, "FL", 0.0)

    return edit


@pytest.mark.parametrize("per_slice", [False, True])
def test_precise_values_of_philips_are_given_on_request(tmp_path, per_slice):
    data = ramp(SHAPE)
    write_series(tmp_path, data, GRID, philips(per_slice))
    display, precise = load(tmp_path), load(tmp_path, philips="precise")
    assert display.origin.fields["values"] == "display"
    assert precise.origin.fields["values"] == "precise"
    assert "precise" in " ".join(precise.origin.warnings)
    rescale = 1.0 + np.arange(9) if per_slice else np.full(9, 2.0)
    inter = 5.0 if per_slice else -10.0
    np.testing.assert_allclose(display.turned("LPS").data, data * rescale + inter)
    want = (data * rescale + inter) / (rescale * np.float32(0.04))
    np.testing.assert_allclose(precise.turned("LPS").data, want, rtol=1e-5)


def test_precise_values_that_nobody_knows_are_refused(tmp_path):
    write_series(tmp_path / "a", ramp(SHAPE), GRID, philips(known=False))
    write_series(tmp_path / "b", ramp(SHAPE), GRID)
    for folder in "ab":
        with pytest.raises(UnsupportedImage, match="precise"):
            load(tmp_path / folder, philips="precise")
    with pytest.raises(BadOption):
        load(tmp_path / "b", philips="raw")
