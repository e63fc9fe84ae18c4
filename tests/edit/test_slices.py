"""Shapes painted on every fifth slice come back; locks and other labels stand."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mri.core.errors import BadOption
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Labels
from napari_mri.edit.tool import stack_axis
from napari_mri.edit.tools import Guard, copy_slice, interpolate_slices
from tests.edit.shapes import GRIDS, ball, dice, labels_of

_X, _Y, _Z = np.meshgrid(*[np.arange(81.0) - 40] * 3, indexing="ij")


def _branch() -> np.ndarray:
    apart = np.clip((_Z + 10) * 0.55, 0, None)
    return ((np.hypot(_X - apart, _Y) <= 8) | (np.hypot(_X + apart, _Y) <= 8)) & (np.abs(_Z) <= 36)


TRUTHS = {
    "sphere": (_X**2 + _Y**2 + _Z**2 <= 29**2, 0.97),
    "torus across": ((np.hypot(_X, _Z) - 26) ** 2 + _Y**2 <= 9.5**2, 0.95),
    "torus flat": ((np.hypot(_X, _Y) - 26) ** 2 + _Z**2 <= 9.5**2, 0.95),
    "two to one": (_branch(), 0.93),
    "steep tube": ((np.hypot(_X - 1.5 * _Z, _Y) <= 5) & (np.abs(_Z) <= 20), 0.97),
}


def _painted(truth: np.ndarray, start: int, axis: int = 2) -> np.ndarray:
    """Every fifth slice, and the first and the last one that hold anything."""
    there = np.flatnonzero(truth.any(axis=tuple(n for n in range(3) if n != axis)))
    keep = np.zeros(truth.shape[axis], bool)
    keep[start::5] = True
    keep[[there[0], there[-1]]] = True
    return truth & keep.reshape([-1 if n == axis else 1 for n in range(3)])


@pytest.mark.parametrize("start", range(5))
@pytest.mark.parametrize("name", TRUTHS)
def test_every_fifth_slice_gives_the_shape(name: str, start: int) -> None:
    truth, least = TRUTHS[name]
    painted = _painted(truth, start)
    out = interpolate_slices(Labels(painted.astype(np.uint8), Grid.plain(truth.shape))).data > 0
    assert dice(painted, truth) < 0.5, "the test must have something to find"
    assert dice(out, truth) >= least
    held = painted.any(axis=(0, 1))
    assert np.array_equal(out[:, :, held], painted[:, :, held]), "painted slices must not change"


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("name", GRIDS)
def test_any_plane_of_any_grid(name: str, plane: str) -> None:
    grid = GRIDS[name]
    truth = ball(grid, 14.0)
    axis = stack_axis(grid, plane)
    there = np.flatnonzero(truth.any(axis=tuple(n for n in range(3) if n != axis)))
    keep = np.zeros(grid.shape[axis], bool)
    keep[there[::3]] = True
    keep[there[-1]] = True
    painted = truth & keep.reshape([-1 if n == axis else 1 for n in range(3)])
    out = interpolate_slices(labels_of(grid, painted), plane=plane).data > 0
    assert dice(out, truth) > 0.95


def test_two_objects_of_one_label_do_not_melt() -> None:
    a, b = (np.hypot(_X + 15, _Y) <= 6) & (_Z <= 20), (np.hypot(_X - 15, _Y) <= 6) & (_Z >= -20)
    out = interpolate_slices(Labels(_painted(a | b, 0).astype(np.uint8), Grid.plain(a.shape))).data > 0
    assert not out[36:45].any(), "nothing may bridge them"
    assert dice(out, a | b) > 0.97


def test_a_piece_without_a_partner_tapers_off() -> None:
    data = np.zeros((41, 41, 11), np.uint8)
    yy, xx = np.mgrid[:41, :41]
    data[np.hypot(yy - 10, xx - 10) <= 5, :] = 1
    data[:, :, 1:10] = 0
    data[np.hypot(yy - 30, xx - 30) <= 5, 0] = 1
    out = interpolate_slices(Labels(data, Grid.plain(data.shape))).data
    areas = (out[25:, 25:] > 0).sum(axis=(0, 1))
    assert (np.diff(areas) <= 0).all()
    assert areas[3] > 0
    assert areas[6] == 0
    assert ((out[:20, :20] > 0).sum(axis=(0, 1)) == (data[:20, :20, 0] > 0).sum()).all()


def test_other_labels_locks_and_regions_stand() -> None:
    truth = TRUTHS["sphere"][0]
    data = _painted(truth, 0).astype(np.uint8)
    data[20:60, 38:42, 41:44] = 5
    labels = Labels(data, Grid.plain(data.shape))
    out = interpolate_slices(labels).data
    assert np.array_equal(out == 5, data == 5)
    assert ((interpolate_slices(labels, label=1, over=True).data == 5) < (data == 5)).any(), "may be allowed"
    locked = interpolate_slices(labels, label=1, over=True, guard=Guard(locked={5})).data
    assert np.array_equal(locked == 5, data == 5)
    half = interpolate_slices(labels, guard=Guard(mask=_X < 0)).data
    assert np.array_equal(half[_X >= 0], data[_X >= 0])
    assert not np.array_equal(half, data)


def test_two_labels_share_the_room_between_them() -> None:
    left, right = TRUTHS["sphere"][0] & (_X < 0), TRUTHS["sphere"][0] & (_X >= 0)
    data = (_painted(left, 0) + 2 * _painted(right, 0)).astype(np.uint8)
    out = interpolate_slices(Labels(data, Grid.plain(data.shape))).data
    assert dice(out == 1, left) > 0.96
    assert dice(out == 2, right) > 0.96


def test_wide_gaps_can_be_left_open() -> None:
    data = np.zeros((11, 11, 21), np.uint8)
    data[3:8, 3:8, [0, 5, 20]] = 1
    out = interpolate_slices(Labels(data, Grid.plain(data.shape, (1, 1, 2.0))), up_to_mm=10).data
    assert list(np.flatnonzero(out.any(axis=(0, 1)))) == [0, 1, 2, 3, 4, 5, 20]


def test_a_single_slice_stays_single() -> None:
    data = np.zeros((9, 9, 9), np.uint8)
    data[3:5, 3:5, 4] = 1
    assert np.array_equal(interpolate_slices(Labels(data, Grid.plain(data.shape))).data, data)


@pytest.mark.parametrize("name", GRIDS)
def test_copy_to_neighbours(name: str) -> None:
    grid = GRIDS[name]
    axis = stack_axis(grid, "axial")
    middle = grid.shape[axis] // 2
    data = np.zeros(grid.shape, np.uint8)
    view = np.moveaxis(data, axis, 0)
    view[middle, 3:7, 4:9] = 1
    view[middle + 1, 5:9, 4:9] = 2
    labels = Labels(data, grid)
    up = np.moveaxis(copy_slice(labels, number=middle, by=1).data, axis, 0)
    assert (up[middle + 1] == 2).sum() == (view[middle + 1] == 2).sum(), "other labels stay"
    assert (up[middle + 1] == 1).sum() == 2 * 5
    down = np.moveaxis(copy_slice(labels, number=middle, by=-3).data, axis, 0)
    assert all(np.array_equal(down[middle - n], view[middle]) for n in (1, 2, 3))
    assert not down[middle - 4].any()
    swapped = np.moveaxis(copy_slice(labels, number=middle, by=1, replace=True).data, axis, 0)
    assert np.array_equal(swapped[middle + 1], view[middle])


def test_copying_off_the_end_stops_and_a_missing_slice_is_refused() -> None:
    data = np.zeros((5, 5, 5), np.uint8)
    data[2, 2, 4] = 1
    labels = Labels(data, Grid.plain(data.shape))
    assert np.array_equal(copy_slice(labels, number=4, by=2).data, data)
    with pytest.raises(BadOption, match="no axial slice 5"):
        copy_slice(labels, number=5)
