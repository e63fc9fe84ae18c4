"""Pieces and holes by runs are those that scipy finds voxel by voxel."""

import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes, gaussian_filter, label

from napari_mri.engine.pieces import filled, largest, pieces


def by_voxels(mask):
    pieces, count = label(mask)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    return pieces == sizes.argmax() + 1, sorted(sizes.tolist(), reverse=True)


@pytest.mark.parametrize("seed", range(60))
def test_small_masks_of_any_shape(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 10, 3)) < rng.random()
    before = mask.copy()
    np.testing.assert_array_equal(filled(mask), binary_fill_holes(mask))
    if mask.any():
        main, sizes = largest(mask)
        want, wanted = by_voxels(mask)
        np.testing.assert_array_equal(main, want)
        assert sizes == wanted
    np.testing.assert_array_equal(mask, before)


@pytest.mark.parametrize("level", [-0.3, 0.0, 0.3])
def test_winding_pieces_and_holes(level):
    mask = gaussian_filter(np.random.default_rng(1).normal(size=(40, 50, 60)), 2) * 10 > level
    main, sizes = largest(mask)
    want, wanted = by_voxels(mask)
    np.testing.assert_array_equal(main, want)
    assert sizes == wanted
    np.testing.assert_array_equal(filled(main), binary_fill_holes(main))


@pytest.mark.parametrize("value", [False, True])
def test_all_or_nothing(value):
    mask = np.full((3, 4, 5), value)
    main, sizes = largest(mask)
    np.testing.assert_array_equal(main, mask)
    np.testing.assert_array_equal(filled(mask), mask)
    assert sizes == ([60] if value else [])


def test_a_view_in_another_order_is_taken_as_it_is_meant():
    mask = np.random.default_rng(2).random((6, 7, 8)).T < 0.4
    np.testing.assert_array_equal(largest(mask[::-1])[0], by_voxels(mask[::-1])[0])
    np.testing.assert_array_equal(filled(mask[:, ::-1]), binary_fill_holes(mask[:, ::-1]))


@pytest.mark.parametrize("seed", range(40))
def test_pieces_in_a_box_are_found_and_kept_or_dropped(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 12, 3)) < 0.4
    found = pieces(mask)
    numbers, count = label(mask)
    assert len(found.sizes) == count
    for _ in range(8):
        low = rng.integers(-2, mask.shape)
        high = low + rng.integers(0, 5, 3)
        box = tuple(slice(max(0, a), max(0, b)) for a, b in zip(low, high, strict=True))
        keep = np.zeros(count, bool)
        keep[found.at(box)] = True
        np.testing.assert_array_equal(found.chosen(keep), np.isin(numbers, np.setdiff1d(numbers[box], 0)))
