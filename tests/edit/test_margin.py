"""Margins are Euclidean distances in mm, checked against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mri.core.grid import Grid
from napari_mri.core.volume import Labels
from napari_mri.edit.distance import distance_inside, signed_distance
from napari_mri.edit.tools import margin
from tests.edit.shapes import GRIDS, ball, labels_of


def _brute(mask: np.ndarray, spacing: tuple[float, ...], mm: float) -> np.ndarray:
    """Every voxel within mm of a voxel of the mask, by comparing all with all."""
    index = np.stack(np.indices(mask.shape), -1).reshape(-1, 3) * np.asarray(spacing)
    seeds = index[mask.ravel()]
    near = [np.min(((seeds - place) ** 2).sum(1)) <= mm**2 * (1 + 1e-6) for place in index]
    return np.array(near).reshape(mask.shape)


@pytest.mark.parametrize("mm", [0.9, 2.0, 3.1])
def test_growing_and_shrinking_equal_brute_force(mm: float) -> None:
    spacing = (1.0, 0.7, 2.5)
    mask = np.random.default_rng(1).random((13, 15, 9)) < 0.01
    mask[5:9, 5:9, 3:6] = True
    labels = Labels(mask.astype(np.uint8), Grid.plain(mask.shape, spacing))
    assert np.array_equal(margin(labels, mm=mm).data > 0, _brute(mask, spacing, mm))
    inverse = Labels((~mask).astype(np.uint8), labels.grid)
    assert np.array_equal(margin(inverse, mm=-mm).data == 0, _brute(mask, spacing, mm))


@pytest.mark.parametrize("name", GRIDS)
def test_growing_a_ball_grows_its_radius(name: str) -> None:
    grid = GRIDS[name]
    out = margin(labels_of(grid, ball(grid, 8.0)), mm=4.0).data > 0
    assert not (out & ~ball(grid, 12.0 + 1e-6)).any()
    assert not (ball(grid, 8.0 + 4.0 - max(grid.spacing)) & ~out).any()


def test_growing_never_takes_another_label_and_shares_by_nearness() -> None:
    data = np.zeros((3, 3, 21), np.uint8)
    data[:, :, 0], data[:, :, 20], data[:, :, 5] = 1, 2, 7
    out = margin(Labels(data, Grid.plain(data.shape)), mm=30.0).data[1, 1]
    assert list(out) == [1, 1, 1] + [7] * 10 + [2] * 8
    only = margin(Labels(data, Grid.plain(data.shape)), mm=30.0, label=1).data[1, 1]
    assert only[5] == 7
    assert only[20] == 2
    assert (only == 1).sum() == 19


def test_the_edge_of_the_scan_is_no_border() -> None:
    data = np.ones((9, 9, 9), np.uint8)
    labels = Labels(data, Grid.plain(data.shape))
    assert np.array_equal(margin(labels, mm=-3.0).data, data)
    data = data.copy()
    data[5:] = 0
    assert list(margin(Labels(data, labels.grid), mm=-2.0).data[:, 4, 4]) == [1, 1, 1, 0, 0, 0, 0, 0, 0]


def test_zero_margin_changes_nothing() -> None:
    labels = labels_of(GRIDS["oblique"], ball(GRIDS["oblique"], 8))
    assert np.array_equal(margin(labels, mm=0.0).data, labels.data)


def test_signed_distance_is_antisymmetric() -> None:
    mask = np.zeros((9, 11), bool)
    mask[3:6, 2:9] = True
    a, b = signed_distance(mask, (1.0, 2.0)), signed_distance(~mask, (1.0, 2.0))
    assert np.allclose(a, -b)
    assert ((a > 0) == mask).all()
    assert np.isinf(distance_inside(np.ones((3, 3), bool), (1, 1))).all()
