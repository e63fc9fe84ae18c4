"""Largest piece, islands and holes, on every kind of grid."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mri.core.errors import BadOption
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Labels
from napari_mri.edit.tools import Guard, drop_islands, fill_holes, largest_piece
from tests.edit.shapes import GRIDS, ball, labels_of


@pytest.fixture(params=GRIDS)
def grid(request: pytest.FixtureRequest) -> Grid:
    return GRIDS[request.param]


def test_largest_piece_keeps_one(grid: Grid) -> None:
    big, small = ball(grid, 9.0), ball(grid, 3.0, (14, 0, 0))
    labels = labels_of(grid, big | small)
    assert small.any()
    assert not (big & small).any()
    out = largest_piece(labels)
    assert np.array_equal(out.data, big.astype(np.uint8))
    assert labels.data[small].all(), "the input must not change"
    assert out.grid.same(grid)
    assert out.data.dtype == np.uint8
    assert out.history[-1].order is not None
    assert out.history[-1].order.model == "largest_piece"


def test_largest_piece_works_on_each_label_by_itself() -> None:
    data = np.zeros((9, 9, 9), np.int16)
    data[0:3, 0, 0], data[5:7, 0, 0], data[0, 5:9, 5], data[5, 8, 8] = 1, 1, 7, 7
    out = largest_piece(Labels(data, Grid.plain(data.shape))).data
    assert (out == 1).sum() == 3
    assert (out == 7).sum() == 4
    assert out[6, 0, 0] == 0
    assert out[5, 8, 8] == 0
    only = largest_piece(Labels(data, Grid.plain(data.shape)), label=7).data
    assert (only == 1).sum() == 5
    assert (only == 7).sum() == 4


def test_corners_join_only_when_asked() -> None:
    data = np.zeros((5, 5, 5), np.uint8)
    data[1, 1, 1] = data[2, 2, 2] = 1
    labels = Labels(data, Grid.plain(data.shape))
    assert largest_piece(labels).data.sum() == 1
    assert largest_piece(labels, touch="corners").data.sum() == 2


@pytest.mark.parametrize("tool", [largest_piece, drop_islands, fill_holes])
def test_nothing_in_nothing_out(tool, grid: Grid) -> None:
    labels = Labels(np.zeros(grid.shape, np.uint8), grid)
    assert not tool(labels).data.any()
    with pytest.raises(BadOption, match="No voxel holds label 3"):
        tool(labels, label=3)


def test_islands_are_measured_in_ml() -> None:
    data = np.zeros((20, 10, 10), np.uint8)
    data[0:10, 0, 0], data[12:16, 5, 5] = 1, 1
    labels = Labels(data, Grid.plain(data.shape, (1.0, 2.0, 5.0)))  # 0.01 ml a voxel
    assert drop_islands(labels, below_ml=0.05).data.sum() == 10
    assert drop_islands(labels, below_ml=0.04).data.sum() == 14  # exactly the limit stays
    assert drop_islands(labels, below_ml=0.2).data.sum() == 0


def test_holes_3d_and_2d(grid: Grid) -> None:
    whole, hole = ball(grid, 11.0), ball(grid, 4.0)
    shell = labels_of(grid, whole & ~hole)
    assert np.array_equal(fill_holes(shell).data > 0, whole)
    # A tube along the patient's feet-head axis is open in 3D and closed in axial slices.
    axis = next(n for n, letter in enumerate(grid.axes) if letter in "SI")
    hole_2d = np.broadcast_to(hole.any(axis=axis, keepdims=True), grid.shape)
    tube = labels_of(grid, np.broadcast_to(whole.any(axis=axis, keepdims=True), grid.shape) & ~hole_2d)
    assert np.array_equal(fill_holes(tube).data, tube.data)
    filled = fill_holes(tube, plane="axial").data > 0
    assert np.array_equal(filled, (tube.data > 0) | hole_2d)
    assert np.array_equal(fill_holes(tube, plane="sagittal").data, tube.data)


def test_holes_leave_other_labels_and_large_holes() -> None:
    data = np.zeros((11, 11, 11), np.uint8)
    data[1:10, 1:10, 1:10] = 1
    data[3:8, 3:8, 3:8] = 0
    data[5, 5, 5] = 2
    labels = Labels(data, Grid.plain(data.shape))
    out = fill_holes(labels).data
    assert out[5, 5, 5] == 2
    assert not (out[1:10, 1:10, 1:10] == 0).any()
    assert np.array_equal(fill_holes(labels, up_to_ml=0.1).data, data)  # the hole is 0.125 ml


def test_a_bay_at_the_edge_of_the_scan_is_no_hole() -> None:
    data = np.ones((7, 7, 7), np.uint8)
    data[0, 3, 3] = data[3, 3, 3] = 0
    out = fill_holes(Labels(data, Grid.plain(data.shape))).data
    assert out[0, 3, 3] == 0
    assert out[3, 3, 3] == 1


def test_locked_labels_and_region_hold(grid: Grid) -> None:
    big, small = ball(grid, 9.0), ball(grid, 3.0, (14, 0, 0))
    labels = labels_of(grid, big | small)
    assert np.array_equal(largest_piece(labels, guard=Guard(locked={1})).data, labels.data)
    assert np.array_equal(largest_piece(labels, guard=Guard(mask=big)).data, labels.data)
    assert (largest_piece(labels, guard=Guard(mask=small)).data > 0).sum() == big.sum()


def test_4d_labels_frame_by_frame() -> None:
    data = np.zeros((9, 9, 9, 2), np.uint8)
    data[0:3, 0, 0, 0], data[5, 5, 5, 0] = 1, 1
    data[8, 8, 0:2, 1], data[0, 0, 0, 1] = 1, 1
    out = largest_piece(Labels(data, Grid.plain(data.shape[:3]))).data
    assert out.shape == data.shape
    assert out[..., 0].sum() == 3
    assert out[..., 1].sum() == 2
