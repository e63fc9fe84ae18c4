"""Growing from clicks lands on the object, on every kind of grid, and stops where it is told to."""

import numpy as np
import pytest

import napari_mri as mri
from napari_mri.core.errors import BadPrompt
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Volume
from napari_mri.models._marks import sorted_out, voxel_box
from napari_mri.nets import geodesic
from tests.scans import GRIDS, blob, dice, head

BRAIN = (4.0, -7.0, 11.0)


def truth(grid):
    return blob(grid, BRAIN, (40, 47, 37))


@pytest.mark.parametrize("name", GRIDS)
def test_one_click_finds_an_even_object_on_every_grid(name):
    grid = GRIDS[name]
    mask = mri.segment(head(grid), mri.Prompts((mri.Point(BRAIN),)), model="grow")
    assert mask.grid.same(grid)
    assert dice(mask.data, truth(grid)) > 0.95


def test_two_joined_objects_are_parted_by_a_click_outside():
    grid = Grid.plain((49, 31, 31), (2, 2, 2))
    left, right = blob(grid, (28, 30, 30), (20, 20, 20)), blob(grid, (68, 30, 30), (24, 20, 20))
    data = (500.0 * (left | right) + np.random.default_rng(0).normal(0, 10, grid.shape)).astype(np.float32)
    scan = Volume(data, grid)
    one = mri.segment(scan, mri.Prompts((mri.Point((28, 30, 30)),)), model="grow", reach=120.0)
    parted = mri.segment(
        scan, mri.Prompts((mri.Point((28, 30, 30)), mri.Point((70, 30, 30), False))), model="grow", reach=120.0
    )
    assert one.data[right].mean() > 0.9
    assert parted.data[right].mean() < 0.25
    assert dice(parted.data, left & ~right) > 0.8


def test_reach_bounds_the_region():
    grid = GRIDS["plain"]
    mask = mri.segment(head(grid), mri.Prompts((mri.Point(BRAIN),)), model="grow", reach=12.0)
    index = np.argwhere(mask.data)
    away = np.abs(grid.to_patient(index) - np.asarray(BRAIN)).max(axis=1)
    assert 0 < away.max() <= 12 + 2 * max(grid.spacing)


def test_a_box_alone_is_enough_and_keeps_the_region_inside():
    grid = GRIDS["oblique"]
    box = mri.Box((-40, -58, -30), (48, 44, 52))
    mask = mri.segment(head(grid), mri.Prompts((box,)), model="grow")
    assert dice(mask.data, truth(grid)) > 0.9
    low, high = voxel_box(box.corners(), grid)
    index = np.argwhere(mask.data)
    assert (index >= low - 2).all()
    assert (index <= high + 2).all()


def test_walker_agrees_with_geodesic_on_an_easy_object():
    grid = GRIDS["plain"]
    prompts = mri.Prompts((mri.Point(BRAIN), mri.Point((4, -7, 61), False)))
    mask = mri.segment(head(grid), prompts, model="grow", method="walker")
    assert dice(mask.data, truth(grid)) > 0.9


@pytest.mark.parametrize("name", ["flipped", "permuted"])
def test_a_mask_is_refined_on_any_grid(name):
    grid = GRIDS[name]
    rough = blob(grid, (8, -3, 14), (38, 45, 35))
    mask = mri.segment(head(grid), mri.Prompts((mri.Mask.of(rough, grid),)), model="grow")
    assert dice(rough, truth(grid)) < 0.93
    assert dice(mask.data, truth(grid)) > 0.95


def test_a_mask_of_another_grid_is_refused():
    mask = mri.Mask.of(truth(GRIDS["flipped"]), GRIDS["flipped"])
    with pytest.raises(BadPrompt, match="grid"):
        mri.segment(head(GRIDS["plain"]), mri.Prompts((mask,)), model="grow")


def test_only_negative_marks_are_refused():
    with pytest.raises(BadPrompt, match="Nothing points"):
        mri.segment(head(GRIDS["plain"]), mri.Prompts((mri.Point(BRAIN, False),)), model="grow")


def test_replay_gives_the_same_mask_with_every_kind_of_mark():
    from napari_mri import tasks

    grid = GRIDS["anisotropic"]
    scan = head(grid)
    ring = tuple((4 + 20 * np.cos(a), -7 + 20 * np.sin(a), 11.0) for a in np.linspace(0, 6, 12))
    prompts = mri.Prompts(
        (
            mri.Mask.of(blob(grid, BRAIN, (20, 20, 20)), grid), mri.Lasso(ring), mri.Point((4, -7, 58), False),
            mri.Scribble(((0, -7, 11), (10, -7, 11))), mri.Box((-40, -60, -30), (50, 45, 50)),
        )
    )  # fmt: skip
    first = mri.segment(scan, prompts, model="grow")
    again = tasks.replay(first.history[-1], scan)
    np.testing.assert_array_equal(first.data, again.result.data)
    assert first.data.any()


def test_a_lasso_says_inside_and_outside():
    grid = Grid.plain((40, 40, 40))
    ring = tuple((20 + 10 * np.cos(a), 20 + 6 * np.sin(a), 15.0) for a in np.linspace(0, 2 * np.pi, 20, endpoint=False))
    told = sorted_out(mri.Prompts((mri.Lasso(ring),)), grid)

    def within(p):
        return ((p[:, 0] - 20) / 10) ** 2 + ((p[:, 1] - 20) / 6) ** 2

    assert len(told.inside) > 20
    assert len(told.outside) > 20
    assert (within(told.inside) < 1).all()
    assert (within(told.outside) > 0.97).all()
    np.testing.assert_allclose(told.inside[:, 2], 15)


def test_a_flat_box_gets_a_depth():
    told = sorted_out(mri.Prompts((mri.Box((0, 0, 5), (20, 10, 5)),)), Grid.plain((30, 30, 30)))
    np.testing.assert_allclose(told.boxes[0][[0, 1], [0, 1], [0, 1]], [[0, 0, 0], [20, 10, 10]])


def test_geodesic_distance_is_the_cheapest_way():
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import dijkstra

    image = np.random.default_rng(3).normal(size=(7, 6, 5)).astype(np.float32)
    costs = geodesic.edges(image, (0.1, 0.2, 0.3), 2.0)
    number = np.arange(image.size).reshape(image.shape)
    heads, tails, weights = [], [], []
    for axis, step in enumerate((0.1, 0.2, 0.3)):
        heads.append(np.moveaxis(number, axis, 0)[:-1].ravel())
        tails.append(np.moveaxis(number, axis, 0)[1:].ravel())
        weights.append((step + 2 * np.abs(np.diff(np.moveaxis(image, axis, 0), axis=0))).ravel())
    graph = coo_matrix((np.concatenate(weights), (np.concatenate(heads), np.concatenate(tails))), shape=(210, 210))
    expected = dijkstra(graph.tocsr(), directed=False, indices=number[3, 2, 1]).reshape(image.shape)
    found = geodesic.distance(costs, np.array([[3, 2, 1]]), sweeps=20)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert (geodesic.distance(costs, np.zeros((0, 3), int)) == geodesic.FAR).all()


def test_a_damaged_mask_record_is_refused():
    record = mri.Mask.of(np.ones((4, 5, 6)), Grid.plain((4, 5, 6)))
    for packed in ("%%%", "AAAA", record.packed[:-8]):
        with pytest.raises(BadPrompt):
            mri.Mask(record.shape, record.affine, packed).voxels()
    np.testing.assert_array_equal(record.voxels(), np.ones((4, 5, 6), bool))
