"""Smoothing keeps the volume and does its work; margins are distances in mm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mri.core.errors import BadOption
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Labels
from napari_mri.edit.tools import Guard, smooth
from tests.edit.shapes import GRIDS, ball, dice, labels_of


def _roughness(mask: np.ndarray) -> int:
    return sum(int(np.count_nonzero(np.diff(mask.astype(np.int8), axis=n))) for n in range(3))


@pytest.mark.parametrize("name", GRIDS)
def test_smoothing_keeps_volume_and_cleans_the_border(name: str) -> None:
    grid = GRIDS[name]
    clean = ball(grid, 13.0)
    rim = ball(grid, 15.0) & ~ball(grid, 11.0)
    noisy = clean ^ (rim & (np.random.default_rng(3).random(grid.shape) < 0.25))
    out = smooth(labels_of(grid, noisy), mm=2.0).data > 0
    assert abs(out.sum() / noisy.sum() - 1) < 0.002
    assert _roughness(out) < 0.7 * _roughness(noisy)
    assert dice(out, clean) > dice(noisy, clean) + 0.02


@given(seed=st.integers(0, 10**6), mm=st.floats(0.3, 6.0), spacing=st.floats(0.5, 4.0))
@settings(max_examples=25, deadline=None)
def test_smoothing_keeps_each_of_several_labels(seed: int, mm: float, spacing: float) -> None:
    rng = np.random.default_rng(seed)
    grid = Grid.plain((31, 27, 23), (1.0, 1.2, spacing))
    data = np.zeros(grid.shape, np.uint8)
    for value in (1, 2, 3):
        offset = tuple(rng.uniform(-6, 6, 3))
        data[ball(grid, float(rng.uniform(6, 10)), offset)] = value
    out = smooth(Labels(data, grid), mm=mm).data
    for value in np.unique(data[data > 0]):
        before, after = (data == value).sum(), (out == value).sum()
        assert abs(int(after) - int(before)) <= max(0.01 * before, 1)


def test_smoothing_does_not_eat_at_the_edge_of_the_scan() -> None:
    grid = Grid.plain((21, 21, 21))
    data = np.zeros(grid.shape, np.uint8)
    data[:10] = 1
    assert np.array_equal(smooth(Labels(data, grid), mm=3.0).data, data)


def test_one_label_leaves_the_others_alone() -> None:
    grid = GRIDS["anisotropic"]
    labels = labels_of(grid, ball(grid, 16), ball(grid, 10))
    out = smooth(labels, mm=3.0, label=1).data
    assert np.array_equal(out == 2, labels.data == 2)
    assert abs((out == 1).sum() / (labels.data == 1).sum() - 1) < 0.01
    closed_in = smooth(labels, mm=3.0, label=2).data
    assert np.array_equal(closed_in, labels.data), "label 2 has no room to move between label 1"


def test_locks_hold_and_volume_is_kept_around_them() -> None:
    grid = GRIDS["plain"]
    half = ball(grid, 14) & (np.indices(grid.shape)[0] < 20)
    rough = half ^ (np.random.default_rng(0).random(grid.shape) < 0.03)
    labels = labels_of(grid, rough, ball(grid, 9, (12, 0, 0)))
    out = smooth(labels, mm=2.5, guard=Guard(locked={2})).data
    assert np.array_equal(out == 2, labels.data == 2)
    assert abs((out == 1).sum() / (labels.data == 1).sum() - 1) < 0.01


def test_zero_smoothing_changes_nothing_and_nonsense_is_refused() -> None:
    labels = labels_of(GRIDS["plain"], ball(GRIDS["plain"], 8))
    assert np.array_equal(smooth(labels, mm=0).data, labels.data)
    with pytest.raises(BadOption, match="mm"):
        smooth(labels, mm=-1)
    with pytest.raises(BadOption, match="no option"):
        smooth(labels, radius=2)


def test_a_label_enclosed_by_others_stays_where_it_is() -> None:
    grid = GRIDS["plain"]
    core, shell = ball(grid, 8.0), ball(grid, 14.0)
    data = np.where(core, 2, np.where(shell, 1, 0)).astype(np.uint8)
    out = smooth(Labels(data, grid), label=2, mm=2.0).data
    assert np.array_equal(out == 1, data == 1)
    assert dice(out == 2, core) > 0.99
