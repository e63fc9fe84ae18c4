"""What every tool must keep, whatever it does; and what is special to the smaller ones."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mri.core.errors import BadOption, GridMismatch
from napari_mri.core.grid import Grid
from napari_mri.core.midplane import Plane, find_midplane
from napari_mri.core.volume import Labels, Volume
from napari_mri.edit.tools import (
    TOOLS,
    Guard,
    compose,
    find_tool,
    intersect,
    minus,
    mirror,
    snap_to_edge,
    split_touching,
    threshold_inside,
    union,
)  # fmt: skip
from tests.edit.shapes import GRIDS, ball, dice, labels_of
from tests.scans import GRIDS as HEADS
from tests.scans import head

SETTINGS = {"union": {"label": 1}, "mirror": {"plane": "middle"}, "copy_slice": {"number": 12, "by": 2}}


def _scene(grid: Grid) -> tuple[Labels, Volume, Labels]:
    rng = np.random.default_rng(5)
    a, b, c = ball(grid, 11), ball(grid, 6, (5, 2, 0)), ball(grid, 5, (-12, 0, 0))
    labels = labels_of(grid, a ^ (rng.random(grid.shape) < 0.02), b, c)
    scan = Volume((200.0 * a + rng.normal(50, 10, grid.shape)).astype(np.float32), grid)
    return labels, scan, labels_of(grid, ball(grid, 9, (0, 4, 0)))


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("tool", sorted(TOOLS))
def test_every_tool_keeps_place_locks_and_input(tool: str, name: str) -> None:
    labels, scan, other = _scene(GRIDS[name])
    before = labels.data.copy()
    given = {"scan": scan, "other": other, **SETTINGS.get(tool, {})}
    out = TOOLS[tool](labels, **given)
    assert np.array_equal(labels.data, before), "the input must not change"
    assert out.grid is labels.grid
    assert out.data.dtype == labels.data.dtype
    assert out.data.shape == labels.data.shape
    assert out.history[-1].facts["changed_voxels"] == (out.data != before).sum()
    locked = TOOLS[tool](labels, guard=Guard(locked={2, 3}), **given).data
    assert np.array_equal(locked == 2, before == 2)
    assert np.array_equal(locked == 3, before == 3)
    region = ball(GRIDS[name], 8, (3, 3, 3))
    inside = TOOLS[tool](labels, guard=Guard(mask=region), **given).data
    assert np.array_equal(inside[~region], before[~region])
    held = TOOLS[tool](labels, guard=Guard(labels={1}, window=(100, 1e9)), **given).data
    may = (before == 1) & (scan.data >= 100)
    assert np.array_equal(held[~may], before[~may])


@pytest.mark.parametrize("tool", sorted(TOOLS))
def test_every_tool_takes_empty_labels_and_4d_and_refuses_nonsense(tool: str) -> None:
    grid = GRIDS["plain"]
    labels, scan, other = _scene(grid)
    empty = Labels(np.zeros(grid.shape, np.uint8), grid)
    given = {"scan": scan, **SETTINGS.get(tool, {})}
    assert not TOOLS[tool](empty, other=empty, **given).data.any()
    four = Labels(np.stack([labels.data, empty.data], axis=-1), grid)
    out = TOOLS[tool](four, other=other, **given).data
    assert np.array_equal(out[..., 0], TOOLS[tool](labels, other=other, **given).data)
    with pytest.raises(BadOption, match="no option"):
        TOOLS[tool](labels, other=other, nonsense=1, **given)
    away = Volume(scan.data, Grid.plain(grid.shape, (1, 1, 2)))
    with pytest.raises(GridMismatch, match="another grid"):
        TOOLS[tool](labels, other=other, **{**given, "scan": away})
    for needed in TOOLS[tool].needs:
        with pytest.raises(BadOption, match="needs"):
            TOOLS[tool](labels, **{key: value for key, value in {**given, "other": other}.items() if key != needed})


@pytest.mark.parametrize("tool", sorted(TOOLS))
def test_every_tool_tells_its_options(tool: str) -> None:
    made = TOOLS[tool]
    assert made.__doc__
    assert made.says.endswith(".")
    assert all(k.says.endswith(".") for k in made.knobs)
    assert made.settings({k.name: k.default for k in made.knobs}) == made.params()
    assert find_tool(tool.replace("_", "-")) is made


def test_an_unknown_tool_is_refused_with_the_list() -> None:
    with pytest.raises(BadOption, match="no tool 'paint'") as caught:
        find_tool("paint")
    assert "largest_piece" in caught.value.hint


def test_large_and_negative_label_values() -> None:
    data = np.zeros((9, 9, 9), np.int32)
    data[1:4, 1:4, 1:4], data[6, 6, 6], data[7, 1, 1] = 200_000, 200_000, -3
    out = TOOLS["largest_piece"](Labels(data, Grid.plain(data.shape))).data
    assert out[6, 6, 6] == 0
    assert out[7, 1, 1] == -3
    assert (out == 200_000).sum() == 27


def test_compose_is_exact() -> None:
    old, new = np.array([0, 1, 2, 2, 0, 3]), np.array([1, 0, 1, 0, 2, 4])
    assert list(compose(old, new)) == list(new)
    assert list(compose(old, new, locked={2})) == [1, 0, 2, 2, 0, 4]
    assert list(compose(old, new, inside=old == 0)) == [1, 1, 2, 2, 2, 3]
    assert list(Guard(locked={0}).compose(old, new)) == [0, 1, 1, 2, 0, 4]
    with pytest.raises(GridMismatch, match="shape"):
        Guard(mask=np.ones(5, bool)).compose(old, new)
    with pytest.raises(BadOption, match="needs the scan"):
        Guard(window=(0, 1)).compose(old, new)
    with pytest.raises(BadOption, match="holds no value"):
        Guard(window=(2, 1))


def test_logic() -> None:
    grid = GRIDS["permuted"]
    a, b = ball(grid, 9), ball(grid, 9, (8, 0, 0))
    labels, other = labels_of(grid, a), labels_of(grid, b)
    assert np.array_equal(union(labels, other=other, label=1).data > 0, a | b)
    kept = union(labels, other=Labels(other.data * 4, grid)).data
    assert np.array_equal(kept == 4, b & ~a)
    over = union(labels, other=Labels(other.data * 4, grid), over=True).data
    assert np.array_equal(over == 4, b)
    assert np.array_equal(minus(labels, other=other).data > 0, a & ~b)
    assert np.array_equal(intersect(labels, other=other).data > 0, a & b)
    assert np.array_equal(minus(labels, other=other, other_label=3).data, labels.data)
    wide = union(labels, other=other, label=700)
    assert wide.data.max() == 700
    assert wide.data.dtype == np.uint16
    merged = union(labels_of(grid, a, b), label=1, other_label=2).data
    assert np.array_equal(merged, (a | b).astype(np.uint8))
    with pytest.raises(BadOption, match="both labels"):
        union(labels)


def test_threshold_inside() -> None:
    grid = Grid.plain((5, 5, 5))
    grey = np.arange(125, dtype=np.float32).reshape(grid.shape)
    grey[0, 0, 0] = np.nan
    labels = labels_of(grid, np.ones(grid.shape, bool))
    scan = Volume(grey, grid)
    assert threshold_inside(labels, scan=scan, low=100).data.sum() == 25
    assert threshold_inside(labels, scan=scan).data.sum() == 124
    two = threshold_inside(labels, scan=scan, low=100, within=2, beyond=-1).data
    assert (two == 2).sum() == 25
    assert (two == 1).sum() == 100
    with pytest.raises(BadOption, match="no grey value"):
        threshold_inside(labels, scan=scan, low=3, high=2)


@pytest.mark.parametrize("name", GRIDS)
def test_touching_balls_come_apart(name: str) -> None:
    grid = GRIDS[name]
    a, b = ball(grid, 8, (-6, 0, 0)), ball(grid, 7, (7, 0, 0))
    out = split_touching(labels_of(grid, a | b), neck_mm=10.0)
    assert dice(out.data == 1, a) > 0.97
    assert dice(out.data == 2, b) > 0.97
    assert np.array_equal(out.data > 0, a | b)
    whole = split_touching(labels_of(grid, a), neck_mm=5.0).data
    assert set(np.unique(whole)) == {0, 1}, "one ball stays one"


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("radius", [10.5, 13.5])
def test_border_snaps_to_the_edge(name: str, radius: float) -> None:
    grid = GRIDS[name]
    truth = ball(grid, 12)
    noise = np.random.default_rng(0).normal(0, 10, grid.shape)
    scan = Volume((100 * truth + 50 + noise).astype(np.float32), grid)
    drawn = labels_of(grid, ball(grid, radius, (0.6, 0, 0)))
    out = snap_to_edge(drawn, scan=scan, reach_mm=3.0).data > 0
    assert dice(out, truth) > dice(drawn.data > 0, truth) + 0.05
    assert not (out & ~ball(grid, radius + 3.01, (0.6, 0, 0))).any(), "the border may not move farther than told"


@pytest.mark.parametrize("name", GRIDS)
def test_mirror_at_the_middle(name: str) -> None:
    grid = GRIDS[name]
    right, left = ball(grid, 8, (10, 2, 1)), ball(grid, 8, (-10, 2, 1))
    out = mirror(labels_of(grid, right), plane="middle", to=2).data
    assert dice(out == 2, left) > 0.9
    assert np.array_equal(out == 1, right)
    moved = mirror(labels_of(grid, right), plane="middle", keep=False).data > 0
    assert dice(moved, left) > 0.9
    assert not (moved & right).any()


@pytest.mark.parametrize("name", HEADS)
def test_the_middle_of_a_head_is_found(name: str) -> None:
    plane = find_midplane(head(HEADS[name]))
    assert plane.normal[0] > np.cos(np.radians(6))
    centre = np.array([4.0, -7.0, 11.0])
    assert abs(plane.side(centre)) < 1.5
    assert np.allclose(plane.mirrored(plane.mirrored(centre)), centre)


def test_mirror_estimates_or_asks_for_the_scan() -> None:
    grid = HEADS["permuted"]
    labels = Labels((np.linalg.norm(
        grid.to_patient(np.stack(np.indices(grid.shape), -1)) - (30, -7, 11), axis=-1) < 12).astype(np.uint8), grid)  # fmt: skip
    out = mirror(labels, scan=head(grid), to=2)
    there = grid.to_patient(np.argwhere(out.data == 2)).mean(0)
    assert np.linalg.norm(there - (-22, -7, 11)) < 3
    with pytest.raises(BadOption, match="needs the scan"):
        mirror(labels)
    assert Plane((-2.0, 0, 0), 8.0) == Plane((1.0, 0, 0), -4.0)
