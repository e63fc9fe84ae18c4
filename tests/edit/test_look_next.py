"""The slice with the worst disagreement comes first, in any plane of any grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_mri.core.errors import BadOption, GridMismatch
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Labels, Volume
from napari_mri.edit.look_next import look_next
from napari_mri.edit.tool import stack_axis
from tests.edit.shapes import GRIDS, ball, labels_of


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("name", GRIDS)
def test_a_missed_piece_beats_a_border_one_voxel_off(name: str, plane: str) -> None:
    grid = GRIDS[name]
    missed = ball(grid, 5, (12, -9, 8))
    drawn, model = labels_of(grid, ball(grid, 10)), labels_of(grid, ball(grid, 10, (0.6, 0.5, 0.4)) | missed)
    spots = look_next(drawn, other=model, plane=plane)
    assert np.linalg.norm(np.asarray(spots[0].at) - np.add(grid.centre, (12, -9, 8))) < 4
    axis = stack_axis(grid, plane)
    assert abs(spots[0].number - np.argwhere(missed).mean(0)[axis]) <= 1.5
    assert spots[0].score == max(spot.score for spot in spots)
    assert len({spot.number for spot in spots}) == len(spots)


def test_the_next_look_is_at_another_place() -> None:
    grid = Grid.plain((31, 31, 41))
    a = labels_of(grid, ball(grid, 6, (0, 0, -12)), ball(grid, 4, (0, 0, 12)))
    spots = look_next(a, other=Labels(np.zeros(grid.shape, np.uint8), grid), apart_mm=8)
    first, second = spots[0].number, spots[1].number
    assert abs(first - 8) <= 1
    assert abs(first - second) >= 8
    every = look_next(a, other=Labels(np.zeros(grid.shape, np.uint8), grid), apart_mm=0)
    assert [s.score for s in every] == sorted((s.score for s in every), reverse=True)
    assert {s.number for s in every} == {s.number for s in spots} == set(np.flatnonzero(a.data.any(axis=(0, 1))))


def test_no_doubt_no_slices() -> None:
    labels = labels_of(GRIDS["oblique"], ball(GRIDS["oblique"], 8))
    assert look_next(labels, other=labels) == ()
    everything = Labels(np.ones((3, 3, 3), np.uint8), Grid.plain((3, 3, 3)))
    assert len(look_next(everything, other=Labels(np.zeros((3, 3, 3), np.uint8), everything.grid), apart_mm=0)) == 3


def test_uncertainty_and_probability() -> None:
    grid = Grid.plain((9, 9, 9))
    mask = np.zeros(grid.shape, np.uint8)
    mask[2:7, 2:7, 2:7] = 1
    unsure = np.zeros(grid.shape, np.float32)
    unsure[4, 4, 6], unsure[4, 4, 1], unsure[0, 0, 3] = 0.5, 0.2, np.nan
    spots = look_next(Labels(mask, grid), uncertainty=Volume(unsure, grid), apart_mm=0)
    assert [spot.number for spot in spots] == [6, 1]
    assert spots[0].at == (4.0, 4.0, 6.0)
    p = Volume(mask.astype(np.float32), grid).titled("probability")
    assert look_next(Labels(mask, grid), uncertainty=p) == ()
    wrong = mask.astype(np.float32)
    wrong[2:7, 2:7, 3] = 0
    found = look_next(Labels(mask, grid), uncertainty=replace(p, data=wrong))
    assert [spot.number for spot in found] == [3]
    assert found[0].voxels == 25


def test_nonsense_is_refused() -> None:
    labels = labels_of(GRIDS["plain"], ball(GRIDS["plain"], 8))
    with pytest.raises(BadOption, match="either"):
        look_next(labels)
    with pytest.raises(BadOption, match="no plane"):
        look_next(labels, other=labels, plane="oblique")
    with pytest.raises(GridMismatch):
        look_next(labels, other=labels_of(GRIDS["flipped"], ball(GRIDS["flipped"], 8)))
