"""Slice profiles, their inverse, and the figures a result is judged by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, zoom

from napari_mri.core.errors import BadOption, GridMismatch
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Volume
from napari_mri.measure.consistency import PROFILES, consistency, filled_spectrum, slicing
from tests.scans import GRIDS, grid_of, head

FINE = grid_of((21, 19, 24), (1.0, 1.0, 1.0), "LPS", (5.0, 3.0, -8.0))


def smooth(grid: Grid, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=grid.shape)
    return (100 + 60 * gaussian_filter(noise, 1.5) / 0.1).astype(np.float32)


@pytest.mark.parametrize("factor", [2, 3, 4, 6])
def test_a_box_profile_is_the_mean_of_the_voxels_it_covers(factor):
    data = smooth(FINE)
    scan = FINE.respaced((1, 1, factor))
    sampled = slicing(scan, FINE).sampled(data)
    assert np.allclose(sampled, data.reshape(21, 19, -1, factor).mean(-1), atol=1e-3)


def test_a_thin_slice_with_gaps_sees_only_its_middle():
    data = np.zeros(FINE.shape, np.float32)
    data[:, :, 1::6] = 1  # between slices of 2 mm, 6 mm apart, whose middle lies between voxels 2 and 3
    scan = FINE.respaced((1, 1, 6))
    assert slicing(scan, FINE, (1, 1, 2)).sampled(data).max() < 1e-9
    assert np.allclose(slicing(scan, FINE, (1, 1, 4)).sampled(data), 0.25)


def test_overlapping_slices_see_their_neighbours():
    data = np.zeros(FINE.shape, np.float32)
    data[:, :, 8] = 1
    scan = FINE.respaced((1, 1, 4))
    assert np.allclose(slicing(scan, FINE, (1, 1, 6)).sampled(data)[0, 0, 1:3], [1 / 6, 1 / 6])


@settings(max_examples=25, deadline=None)
@given(
    factor=st.floats(1.2, 8.0),
    wide=st.floats(0.5, 1.5),
    profile=st.sampled_from(PROFILES),
    level=st.floats(-500, 500),
)
def test_a_flat_volume_stays_flat_and_needs_no_correction(factor, wide, profile, level):
    scan = Grid.plain((4, 5, 6), (1.0, 1.0, factor))
    fine = scan.respaced((1.0, 1.0, 1.0))
    model = slicing(scan, fine, (1.0, 1.0, factor * wide), profile)
    flat = np.full(fine.shape, level, np.float32)
    assert np.allclose(model.sampled(flat), level, atol=1e-3)
    assert np.allclose(model.corrected(flat, model.sampled(flat)), level, atol=1e-2)


@settings(max_examples=25, deadline=None)
@given(factor=st.floats(1.5, 8.0), profile=st.sampled_from(PROFILES), seed=st.integers(0, 99))
def test_a_corrected_volume_gives_the_scan_back(factor, profile, seed):
    scan = Grid.plain((5, 6, 9), (1.0, 1.0, factor))
    fine = scan.respaced((0.8, 1.0, 1.0))
    model = slicing(scan, fine, profile=profile)
    measured = smooth(scan, seed)
    result = model.corrected(np.zeros(fine.shape, np.float32), measured)
    apart = np.sqrt(np.mean((model.sampled(result) - measured) ** 2))
    assert apart < 0.01 * np.ptp(measured)


def test_a_correction_is_the_smallest_when_smoothness_has_no_weight():
    scan = FINE.respaced((1, 1, 4))
    model = slicing(scan, FINE)
    measured = smooth(scan)
    result = model.corrected(np.zeros(FINE.shape), measured, smooth=0.0)
    assert np.allclose(result, np.repeat(measured, 4, axis=2), rtol=1e-3)


@pytest.mark.parametrize("name", GRIDS)
def test_figures_do_not_depend_on_the_storage_order(name):
    scan = head(GRIDS[name])
    fine = scan.grid.respaced([s / 2 for s in scan.spacing])
    data = zoom(scan.data, 2, order=1, grid_mode=True, mode="nearest")
    result = Volume(data, fine)
    there, turned = consistency(scan, result), consistency(scan, result.turned("PIR"))
    assert there.percent == pytest.approx(turned.percent, rel=1e-4)
    assert there.residual.grid is scan.grid
    assert 0 < there.percent < 20
    assert there.worst >= there.percent


def test_the_figure_is_what_was_added():
    scan = Volume(smooth(FINE.respaced((1, 1, 3))), FINE.respaced((1, 1, 3)))
    result = Volume(np.repeat(scan.data, 3, axis=2), FINE)
    assert consistency(scan, result).percent < 1e-3
    low, high = np.percentile(scan.data, [0.5, 99.5])
    shifted = consistency(scan, result.with_data(result.data + 0.05 * (high - low)))
    assert shifted.percent == pytest.approx(5.0, rel=0.01)
    assert np.allclose(shifted.residual.data, -0.05 * (high - low), rtol=0.01)


def test_a_scan_of_one_value_has_figures_too():
    scan = Volume(np.full((3, 3, 3), 7, np.int16), Grid.plain((3, 3, 3)))
    assert consistency(scan, scan).percent == 0
    assert consistency(scan, scan.with_data(scan.data + 1)).percent == 100
    assert consistency(scan, scan.with_data(np.float32(scan.data) * np.float32(1 + 1e-6))).percent == 0  # rounding


def test_grids_that_do_not_fit_are_refused():
    scan = FINE.respaced((1, 1, 4))
    with pytest.raises(GridMismatch, match="parallel"):
        slicing(scan, grid_of((21, 19, 24), (1, 1, 1), "LPS"))
    with pytest.raises(GridMismatch, match="reach"):
        slicing(scan, FINE.cropped((0, 0, 0), (21, 19, 16)))
    series = Volume(np.zeros((3, 3, 3, 2)), Grid.plain((3, 3, 3)))
    with pytest.raises(GridMismatch, match="frame"):
        consistency(series, series)


@pytest.mark.parametrize("thickness", [(1, 1, 0), (1, 1), (1, 1, np.nan)])
def test_a_thickness_that_is_none_is_refused(thickness):
    with pytest.raises(BadOption, match="thickness"):
        slicing(FINE.respaced((1, 1, 4)), FINE, thickness)


def test_an_unknown_profile_is_refused():
    with pytest.raises(BadOption, match="profile"):
        slicing(FINE, FINE, profile="triangle")


@pytest.mark.parametrize(("factor", "wide"), [(4, 4), (3, 3), (4, 6), (5, 3)])
def test_scaling_gives_the_scan_back_without_negative_voxels(factor, wide):
    fine = Grid.plain((9, 10, factor * 8))
    model = slicing(fine.respaced((1, 1, factor)), fine, (1, 1, wide))
    truth = np.clip(smooth(fine) - 100, 0, None)
    measured = model.sampled(truth)
    start = np.full(fine.shape, truth.mean(), np.float32)
    result = model.scaled(start, measured)
    assert result.min() >= 0
    before, after = (np.abs(model.sampled(x) - measured).mean() for x in (start, result))
    assert after < before * (1e-3 if wide <= factor else 0.3)


def scanned(count: int, seed: int = 3) -> np.ndarray:
    """Return a noisy magnitude image with edges, (24, 24, count)."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(np.arange(24), np.arange(24), np.arange(count), indexing="ij")
    image = 500.0 * (((x - 12) ** 2 + (y - 12) ** 2) / 100 + ((z - count / 2) / (0.4 * count)) ** 2 < 1)
    image += 300.0 * (np.sin(z / 3.0 + x / 2.0) > 0.3) * (image > 0)
    return np.abs(image + rng.normal(0, 8, image.shape))


def test_a_scan_as_it_comes_fills_its_spectrum():
    assert filled_spectrum(scanned(96)) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("factor", [2, 3])
def test_an_interpolated_axis_is_found(factor):
    shares = filled_spectrum(zoom(scanned(64), (1, 1, factor), order=3).round())
    assert shares[:2] == (1.0, 1.0)
    assert shares[2] < 1.6 / factor


def test_a_zero_filled_axis_is_found():
    # In air the magnitude folds noise and ringing over, which fills the spectrum again: tissue only.
    spectrum = np.fft.fftshift(np.fft.fft(scanned(64) + 400, axis=2), axes=2)
    filled = np.fft.ifft(np.fft.ifftshift(np.pad(spectrum, ((0, 0), (0, 0), (32, 32))), axes=2), axis=2)
    assert filled_spectrum(np.abs(filled))[2] < 0.75


def test_short_or_empty_axes_are_not_judged():
    assert filled_spectrum(np.zeros((20, 20, 20))) == (1.0, 1.0, 1.0)
    assert filled_spectrum(scanned(12))[2] == 1.0
