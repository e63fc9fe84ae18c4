"""There and back: shapes, places and intensities survive the way to a net and home, on every grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mri.core.grid import Grid
from napari_mri.core.volume import Volume
from napari_mri.engine import fit
from tests.scans import GRIDS, blob, dice, grid_of, head

NAMES = pytest.mark.parametrize("name", GRIDS)


def ramp(grid: Grid) -> np.ndarray:
    """Return a function of patient mm that linear interpolation reproduces exactly."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    return (grid.to_patient(index) @ np.array([1.0, -2.0, 0.5])).astype(np.float32)


@NAMES
def test_linear_ramp_is_reproduced_on_any_other_grid(name: str) -> None:
    source = grid_of((41, 43, 39), (4.0, 4.0, 4.0), "RAS", (5.0, 3.0, -8.0))
    target = Grid(tuple(n // 2 for n in GRIDS[name].shape), GRIDS[name].cropped((8, 8, 4), (12, 12, 8)).affine)
    moved = fit.resampled(ramp(source), source, target)
    index = np.stack(np.meshgrid(*map(np.arange, target.shape), indexing="ij"), axis=-1)
    voxels = source.to_voxels(target.to_patient(index))
    inside = ((voxels > 0.5) & (voxels < np.asarray(source.shape) - 1.5)).all(-1)
    assert inside.sum() > 100
    assert np.abs(moved - ramp(target))[inside].max() < 2e-3


@NAMES
def test_averaging_does_not_move_anything(name: str) -> None:
    """A coarser grid of three times the spacing holds the ramp at its own places, not half a voxel off."""
    grid = GRIDS[name]
    coarse = grid.respaced(np.asarray(grid.spacing) * 3)
    moved = fit.resampled(ramp(grid), grid, coarse)
    core = (slice(2, -3),) * 3 if min(coarse.shape) > 6 else (slice(1, -2),) * 3
    assert np.abs(moved - ramp(coarse))[core].max() < 0.05 * max(grid.spacing)


@NAMES
def test_same_grid_gives_same_voxels(name: str) -> None:
    scan = head(GRIDS[name])
    assert np.array_equal(fit.resampled(scan.data, scan.grid, scan.grid), scan.data)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SRP", "ILA"])
def test_storage_order_alone_changes_no_voxel(axes: str) -> None:
    scan = head(GRIDS["oblique"])
    turned = scan.turned(axes)
    assert np.array_equal(fit.resampled(scan.data, scan.grid, turned.grid), turned.data)


@NAMES
@pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), (5.0, 3.0, 6.1)])
def test_mask_comes_home(name: str, spacing: tuple[float, float, float]) -> None:
    grid = GRIDS[name]
    mask = blob(grid)
    fine = grid.respaced(spacing)
    home = fit.mask_resampled(fit.mask_resampled(mask, grid, fine), fine, grid)
    assert home.shape == mask.shape
    assert dice(home, mask) > 0.93
    centre = np.argwhere(home).mean(0) - np.argwhere(mask).mean(0)
    assert np.abs(centre).max() < 0.15


def test_labels_keep_their_numbers_and_type() -> None:
    grid = GRIDS["permuted"]
    labels = (blob(grid) * 7 + blob(grid, radii=(20, 20, 20)) * 1000).astype(np.uint16)
    moved = fit.labels_resampled(labels, grid, grid.respaced((3.0, 3.0, 3.0)))
    assert moved.dtype == np.uint16
    assert set(np.unique(moved)) == {0, 7, 1007}


def test_outside_is_what_was_asked() -> None:
    grid = Grid.plain((5, 5, 5))
    far = Grid.plain((5, 5, 5)).cropped((20, 20, 20), (25, 25, 25))
    assert fit.resampled(np.full((5, 5, 5), 9.0), grid, far, outside=-1.0).max() == -1.0
    assert fit.resampled(np.full((5, 5, 5), 9.0), grid, far).min() == 9.0


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(1, 19)] * 3), st.integers(1, 9))
def test_padding_is_taken_off_again(shape: tuple[int, int, int], multiple: int) -> None:
    data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    full, inner = fit.padded(data, multiple)
    assert all(n % multiple == 0 for n in full.shape)
    assert all(a - b < multiple for a, b in zip(full.shape, shape, strict=True))
    assert np.array_equal(full[inner], data)


@NAMES
@pytest.mark.parametrize("intensity", ["robust", "standard", "raw"])
def test_trip_home_gives_the_scan_back(name: str, intensity: str) -> None:
    scan = head(GRIDS[name])
    data, trip = fit.there(scan, fit.Plan(None, 16, intensity))
    assert all(n % 16 == 0 for n in data.shape)
    home = trip.image_home(data)
    assert home.shape == scan.data.shape
    assert np.abs(home - scan.data).max() < 0.01


@NAMES
def test_trip_knows_where_prompts_go(name: str) -> None:
    scan = head(GRIDS[name]).with_data(ramp(GRIDS[name]))
    data, trip = fit.there(scan, fit.Plan((3.0, 3.5, 4.0), 8, "raw"))
    point = np.array([6.0, -4.0, 15.0])
    voxel = np.rint(trip.net.to_voxels(point)).astype(int)
    exact = trip.net.to_patient(voxel) @ np.array([1.0, -2.0, 0.5])
    assert abs(data[tuple(voxel)] - exact) < 0.5
    mask = np.zeros(data.shape, np.float32)
    mask[tuple(slice(v - 4, v + 5) for v in voxel)] = 1
    home = trip.mask_home(mask)
    assert home.shape == scan.grid.shape
    centre = scan.grid.to_patient(np.argwhere(home).mean(0))
    assert np.linalg.norm(centre - trip.net.to_patient(voxel)) < 2.0


def test_nan_and_infinity_become_the_darkest_voxel() -> None:
    data = np.array([[[np.nan, 3.0, np.inf, -2.0]]])
    assert fit.finite(data).tolist() == [[[-2.0, 3.0, -2.0, -2.0]]]
    assert fit.finite(np.full((2, 2, 2), np.nan)).max() == 0


def test_scales_of_a_constant_image_do_not_divide_by_zero() -> None:
    flat = np.full((4, 4, 4), 5, np.int16)
    for scale in (fit.robust_scale(flat), fit.standard_scale(flat)):
        assert scale.factor == 1.0
        assert np.array_equal(scale.home(scale.there(flat)), flat)


def test_robust_scale_ignores_a_hot_voxel() -> None:
    data = np.linspace(0, 100, 20**3).reshape(20, 20, 20)
    data[0, 0, 0] = 1e9
    scale = fit.robust_scale(data)
    assert 98 < scale.factor < 101


def test_one_voxel_scan_survives() -> None:
    scan = Volume(np.ones((1, 1, 1), np.float32), Grid.plain((1, 1, 1), (3.0, 3.0, 3.0)))
    data, trip = fit.there(scan, fit.Plan((1.0, 1.0, 1.0), 4, "raw"))
    assert data.shape == (4, 4, 4)
    assert trip.image_home(data).shape == (1, 1, 1)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.9, 1.1, 3.0), (4.0, 0.5, 0.5), (2.0, 2.0, 2.0)])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_whole_numbers_and_any_order_in_memory_give_the_same_copy(spacing: tuple[float, float, float], kind: type) -> None:
    data = (np.random.default_rng(0).random((21, 34, 27)) * 200).astype(kind)
    grid = Grid.plain(data.shape, spacing)
    coarse = grid.respaced((2.0, 2.0, 2.0))
    want = fit.resampled(data.astype(np.float64), grid, coarse)
    for same in (data, np.asfortranarray(data), np.ascontiguousarray(data[::-1])[::-1], data.transpose(1, 0, 2).copy().transpose(1, 0, 2)):
        np.testing.assert_allclose(fit.resampled(same, grid, coarse), want, atol=1e-3)
    # The matrices of each axis say the same.
    np.testing.assert_allclose(fit.spread(data.astype(np.float32), fit.along(grid, coarse)), want, atol=2e-2)
    assert fit.resampled(data, grid, coarse).dtype == np.float32


@pytest.mark.parametrize("mode", ["reflect", "nearest", "constant"])
@pytest.mark.parametrize(("count", "sigma"), [(1, 2.0), (3, 2.0), (7, 1.2), (64, 1.5), (20, 0.0)])
def test_blurring_is_that_of_scipy(count: int, sigma: float, mode: str) -> None:
    from scipy.ndimage import gaussian_filter1d

    want = gaussian_filter1d(np.eye(count), sigma, axis=0, mode=mode) if sigma else np.eye(count)
    np.testing.assert_allclose(fit.blurring(count, sigma, mode), want, atol=1e-6)
