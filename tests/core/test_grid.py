"""Grids: mm and voxels agree, turns come back, and what differs is told apart."""

from __future__ import annotations

import itertools
import pickle

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_mri.core.errors import GeometryProblem
from napari_mri.core.grid import Grid, turn_array, way_back
from tests.scans import GRIDS, grid_of

ORIENTATIONS = [
    "".join(letters)
    for order in itertools.permutations(("LR", "PA", "IS"))
    for letters in itertools.product(*order)
]

sides = st.tuples(*[st.integers(1, 9)] * 3)
spacings = st.tuples(*[st.floats(0.2, 9.0)] * 3)
tilts = st.tuples(*[st.floats(-30.0, 30.0)] * 3)
orientations = st.sampled_from(ORIENTATIONS)


@st.composite
def grids(draw) -> Grid:
    return grid_of(draw(sides), draw(spacings), draw(orientations), draw(tilts), draw(st.tuples(*[st.floats(-200, 200)] * 3)))


@given(grids(), st.tuples(*[st.floats(-20, 20)] * 3))
def test_voxels_to_patient_and_back(grid, voxel):
    assert np.allclose(grid.to_voxels(grid.to_patient(voxel)), voxel, atol=1e-6)


@given(grids())
def test_axes_are_those_of_nibabel(grid):
    assert grid.axes == "".join(nib.aff2axcodes(grid.affine))


@given(grids(), orientations)
def test_turning_keeps_every_voxel_where_it_was(grid, axes):
    data = np.arange(np.prod(grid.shape)).reshape(grid.shape)
    order, flips = grid.turn_to(axes)
    turned, there = turn_array(data, order, flips), grid.turned(axes)
    assert there.shape == turned.shape
    for voxel in ((0, 0, 0), tuple(np.asarray(there.shape) - 1)):
        before = np.rint(grid.to_voxels(there.to_patient(voxel))).astype(int)
        assert turned[voxel] == data[tuple(before)]
        assert np.allclose(grid.to_patient(before), there.to_patient(voxel), atol=1e-6)
    back_order, back_flips = way_back(order, flips)
    assert np.array_equal(turn_array(turned, back_order, back_flips), data)
    assert there.reordered(back_order, back_flips).same(grid, 1e-6)


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_turned_grid_points_where_it_says(axes):
    for grid in GRIDS.values():
        assert grid.turned(axes).axes == axes


def test_ambiguous_tilt_still_comes_back():
    """At 45° the letters are a matter of taste; the way back must not depend on them."""
    grid = grid_of((3, 4, 5), (1, 2, 3), "RAS", (45, 45, 0))
    order, flips = grid.turn_to("PIL")
    assert grid.reordered(order, flips).reordered(*way_back(order, flips)).same(grid, 1e-9)


@pytest.mark.parametrize("axes", ["RRS", "RA", "XYZ", "RASR", ""])
def test_what_is_no_orientation_is_refused(axes):
    with pytest.raises(GeometryProblem, match="not an orientation"):
        GRIDS["plain"].turn_to(axes)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.7, 2.2, 5.0), (4, 2, 1)])
def test_new_spacing_keeps_the_first_corner_and_covers_the_box(spacing):
    for grid in GRIDS.values():
        fine = grid.respaced(spacing)
        assert np.allclose(fine.spacing, spacing)
        assert np.allclose(fine.corners()[0], grid.corners()[0], atol=1e-9)
        assert all(a >= b - 1e-3 for a, b in zip(fine.size_mm, grid.size_mm, strict=True))
        assert all(a < b + s for a, b, s in zip(fine.size_mm, grid.size_mm, spacing, strict=True))


def test_exact_division_keeps_all_corners():
    grid = grid_of((10, 12, 6), (1.0, 1.5, 6.0), "LPS", (5, 6, 7))
    assert np.abs(grid.respaced((0.5, 0.5, 1.0)).corners() - grid.corners()).max() < 1e-9


@given(grids(), st.tuples(*[st.integers(-3, 3)] * 3), sides)
def test_cropping_keeps_places(grid, low, size):
    part = grid.cropped(low, np.add(low, size))
    assert np.allclose(part.to_patient((0, 0, 0)), grid.to_patient(low), atol=1e-6)
    assert part.shape == tuple(size)


def test_same_says_yes_and_no():
    grid = GRIDS["oblique"]
    assert grid.same(Grid(grid.shape, grid.affine))
    for change in ((0, 3, 0.02), (1, 1, 0.02), (2, 0, -0.02)):
        affine = grid.affine.copy()
        affine[change[:2]] += change[2]
        assert not grid.same(Grid(grid.shape, affine))
    assert not grid.same(grid.cropped((0, 0, 0), np.asarray(grid.shape) - (0, 0, 1)))
    assert not grid.same(grid.turned("LPS"))


def test_same_sees_the_spacing_of_a_single_slice():
    one, other = Grid.plain((8, 8, 1), (1, 1, 3)), Grid.plain((8, 8, 1), (1, 1, 4))
    assert not one.same(other)


@pytest.mark.parametrize(
    ("affine", "says"),
    [
        (np.diag([1, 1, np.nan, 1]), "NaN"),
        (np.diag([1, np.inf, 1, 1]), "NaN or infinite"),
        (np.diag([1.0, 0, 1, 1]), "flat"),
        (np.ones((4, 4)), "last row"),
        (np.eye(3), r"\(4, 4\)"),
        (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "parallel"),
    ],
)
def test_bad_affines_are_refused_with_a_reason(affine, says):
    with pytest.raises(GeometryProblem, match=says):
        Grid((3, 3, 3), affine)


@pytest.mark.parametrize("shape", [(0, 3, 3), (3, 3), (3, -1, 3), (2, 2, 2, 2)])
def test_bad_shapes_are_refused(shape):
    with pytest.raises(GeometryProblem):
        Grid(shape, np.eye(4))


def test_a_grid_cannot_be_changed_and_travels():
    grid = GRIDS["oblique"]
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 5
    there = pickle.loads(pickle.dumps(grid))
    assert there.same(grid, 0)
    with pytest.raises(ValueError, match="read-only"):
        there.affine[0, 0] = 5


def test_figures():
    grid = grid_of((10, 20, 30), (1, 2, 3), "RAS", (0, 0, 20), (5, 6, 7))
    assert grid.voxel_ml == pytest.approx(0.006)
    assert grid.size_mm == pytest.approx((10, 40, 90))
    assert grid.centre == pytest.approx((5, 6, 7))
    assert grid.obliquity == pytest.approx(20)
    assert not grid.sheared
    tilted = grid.affine.copy()
    tilted[1, 2] += 0.5
    assert Grid(grid.shape, tilted).sheared
    assert grid.holds(grid.corners().mean(0))
    assert not grid.holds(grid.corners()[7] + 10)
    assert "10×20×30" in repr(grid)
    assert "oblique 20.0°" in repr(grid)
