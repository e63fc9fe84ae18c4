"""Voxel maps as tensors: the same as scipy has it."""

import numpy as np
import pytest
from scipy import ndimage

torch = pytest.importorskip("torch")

from napari_mri.core.grid import Grid  # noqa: E402
from napari_mri.engine import fit  # noqa: E402
from napari_mri.nets import voxels  # noqa: E402


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "spacing"), [((60, 70, 50), (1, 1, 1)), ((61, 53, 71), (0.9, 1.1, 0.7)), ((40, 45, 12), (1, 1, 5))]
)
def test_matrices_along_axes_do_what_resampling_does(shape, spacing):
    grid = Grid.plain(shape, spacing)
    coarse = grid.respaced((2.0, 2.0, 2.0))
    data = noise(shape)
    small = fit.resampled(data, grid, coarse)
    there, back = fit.along(grid, coarse), fit.along(coarse, grid)
    np.testing.assert_allclose(voxels.spread(torch.from_numpy(data), there).numpy(), small, atol=2e-6)
    home = fit.resampled(small, coarse, grid)
    np.testing.assert_allclose(voxels.spread(torch.from_numpy(small), back).numpy(), home, atol=2e-6)


def test_grids_of_other_axes_have_no_matrices_along_them():
    grid = Grid.plain((20, 20, 20))
    turned = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    assert fit.along(grid, Grid((20, 20, 20), turned)) is None
    slanted = np.eye(4)
    slanted[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    assert fit.along(grid, Grid((20, 20, 20), slanted)) is None


@pytest.mark.parametrize("level", [-0.1, 0.05, 1.0])
def test_pieces_are_those_of_scipy(level):
    mask = ndimage.gaussian_filter(noise((40, 31, 35)), 0.8) > level * 0.3
    labels, count = ndimage.label(mask)
    found = voxels.pieces(torch.from_numpy(mask))
    numbers = found.first[found.run.long()].numpy()
    assert len(np.unique(numbers[mask])) == len(set(zip(labels[mask], numbers[mask], strict=True))) == count
    sizes = np.bincount(labels.ravel())[1:]
    assert sorted(found.sizes[found.sizes > 0].tolist()) == sorted(sizes)
    np.testing.assert_array_equal(found.chosen(found.sizes > 3).numpy(), np.isin(labels, 1 + np.flatnonzero(sizes > 3)))
    assert set(found.at((slice(3, 9),) * 3).tolist()) == set(numbers[3:9, 3:9, 3:9][mask[3:9, 3:9, 3:9]].tolist())
    main = ndimage.binary_fill_holes(labels == 1 + sizes.argmax())
    np.testing.assert_array_equal(voxels.largest(torch.from_numpy(mask)).numpy(), main)


def test_a_winding_way_is_one_piece_and_nothing_is_none():
    snake = np.zeros((9, 30, 9), dtype=bool)
    snake[4, ::2, 1:8] = True
    snake[4, 1::4, 7] = snake[4, 3::4, 1] = True
    for way in (snake, snake.transpose(2, 0, 1), snake.transpose(1, 2, 0)):
        assert int((voxels.pieces(torch.from_numpy(np.ascontiguousarray(way))).sizes > 0).sum()) == 1
    nothing = torch.zeros((4, 5, 6), dtype=torch.bool)
    assert voxels.extent(nothing) is None
    assert not voxels.largest(nothing).any()
    assert not voxels.pieces(nothing).chosen(voxels.pieces(nothing).sizes > 0).any()


def test_distances_are_right_as_far_as_they_are_asked_for():
    mask = noise((30, 31, 12)) > 2.6
    truth = ndimage.distance_transform_edt(~mask)
    found = voxels.away(torch.from_numpy(mask), 6).numpy()
    np.testing.assert_allclose(found[truth < 7], truth[truth < 7], atol=1e-5)
    assert found[truth >= 7].min() >= 7


@pytest.mark.parametrize("kind", ["<i2", ">i2", "u1", "f8", "?"])
def test_a_scan_in_any_storage_order_lands_as_it_is(kind):
    data = (10 * noise((5, 6, 7))).astype(kind)
    for view in (data, data.T, data[::-1, :, ::-1], data.transpose(1, 2, 0)[:, ::-1]):
        np.testing.assert_array_equal(voxels.uploaded(view, "cpu").numpy(), view.astype(np.float32))


def test_the_extent_of_a_mask():
    mask = torch.zeros((6, 7, 8), dtype=torch.bool)
    mask[2:4, 3, 1:7] = True
    low, high = voxels.extent(mask)
    assert (low.tolist(), high.tolist()) == ([2, 3, 1], [3, 3, 6])
