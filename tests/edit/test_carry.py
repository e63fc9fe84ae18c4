"""Labels on another grid and back: no drift, no holes, nothing beyond the scan."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mri.core.grid import Grid
from napari_mri.core.volume import Labels
from napari_mri.edit.carry import carried
from tests.scans import GRIDS, blob, dice, grid_of, marker

THICK = grid_of((61, 65, 19), (1.5, 1.5, 6.0), "LAS", (6.0, 0.0, -4.0))


def two_blobs(grid: Grid) -> Labels:
    data = np.zeros(grid.shape, np.int16)
    data[blob(grid, (4, -7, 11), (30, 36, 40))] = 300
    data[blob(grid, (14, -7, 11), (12, 9, 13))] = 7
    data[blob(grid, (-30, 20, 30), (6, 6, 7))] = 2  # 1 ml
    return Labels(data, grid, names={300: "large", 7: "inner"})


@pytest.mark.parametrize("spacing", [(1.5, 1.5, 1.5), (1.0, 1.0, 1.0), (0.9, 1.2, 2.3)])
def test_there_and_back_keeps_every_structure(spacing):
    labels = two_blobs(THICK)
    back = carried(carried(labels, THICK.respaced(spacing)), THICK)
    for value in labels.values:
        assert labels.volume_ml(value) > 0.9
        assert dice(labels.data == value, back.data == value) >= 0.98
    assert back.data.dtype == labels.data.dtype
    assert back.names == labels.names


@pytest.mark.parametrize("name", GRIDS)
def test_a_shape_lies_at_the_same_place_on_any_grid(name):
    labels = two_blobs(GRIDS[name])
    there = carried(labels, grid_of((83, 79, 75), (1.5, 1.5, 1.5), "PIR", (-8.0, 3.0, 20.0)))
    assert dice(there.data == 300, two_blobs(there.grid).data == 300) > 0.93


def test_borders_on_the_finer_grid_are_no_stairs():
    labels = Labels(blob(THICK).astype(np.uint8), THICK)
    fine = THICK.respaced((1.5, 1.5, 1.5))
    smooth = carried(labels, fine)
    stairs = Labels(np.repeat(labels.data, 4, axis=2), fine)
    truth = blob(fine)
    assert dice(smooth.data, truth) > dice(stairs.data, truth) + 0.003


def test_no_hole_opens_where_three_labels_meet():
    grid = Grid.plain((12, 12, 12), (2, 2, 2))
    data = np.ones(grid.shape, np.uint8)
    data[6:, :6] = 2
    data[:, 6:] = 3
    there = carried(Labels(data, grid), grid.respaced((0.7, 0.7, 0.7)).cropped((0, 0, 0), (34, 34, 34)))
    assert there.values == (1, 2, 3)
    assert (there.data > 0).all()


def test_beyond_the_labels_there_is_background():
    grid = Grid.plain((5, 6, 7))
    there = carried(Labels(np.ones(grid.shape, np.uint8), grid), grid.cropped((-3, 0, 0), (5, 6, 9)))
    assert there.data[3:, :, :7].all()
    assert not there.data[:3].any()
    assert not there.data[:, :, 7:].any()


def test_frames_and_emptiness_survive():
    grid = Grid.plain((6, 7, 8), (1, 1, 3))
    data = np.zeros((*grid.shape, 2), np.uint8)
    data[2:4, 2:5, 3:6, 1] = 1
    there = carried(Labels(data, grid), grid.respaced((1, 1, 1)))
    assert there.data.shape == (6, 7, 24, 2)
    assert not there.data[..., 0].any()
    assert 2 * 3 * 6 < there.data[..., 1].sum() <= 2 * 3 * 9


def test_one_grid_is_left_alone_and_another_place_is_empty():
    labels = marker(GRIDS["plain"])
    assert carried(labels, GRIDS["plain"]) is labels
    assert not carried(labels, grid_of((5, 5, 5), (1, 1, 1), centre=(900, 0, 0))).data.any()
