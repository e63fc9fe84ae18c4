"""The rule of `gui/placing.py`: one frame, mm kept, each layer within half a voxel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mri.core.grid import Grid
from napari_mri.gui.placing import STRAIGHT, Frame, Placing


def turn(x=0.0, y=0.0, z=0.0):
    """Rotation by degrees about the patient's axes."""
    a, b, c = np.radians([x, y, z])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


def grid(shape=(30, 34, 26), spacing=(1.0, 1.2, 2.0), centre=(4.0, -20.0, 11.0), rotation=None, axes="RAS"):
    """A grid with a given middle, in a given storage order of its own axes."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if rotation is None else rotation) @ np.diag(spacing)
    affine[:3, 3] = np.asarray(centre) - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Grid(shape, affine).turned(axes)


OBLIQUE = turn(x=14, y=-9, z=6)
GEOMETRIES = {
    "plain": grid(),
    "flipped and permuted": grid(axes="PIL"),
    "oblique": grid(rotation=OBLIQUE, axes="LSA"),
}
SMALL = {"shape": (21, 25, 17), "spacing": (1.3, 1.1, 1.6), "centre": (6.5, -17.0, 8.0)}
FIELDS = {
    "plain": grid(**SMALL),
    "flipped and permuted": grid(**SMALL, axes="IRP"),
    "oblique": grid(**SMALL, rotation=OBLIQUE),
    "other obliquity": grid(**SMALL, rotation=turn(x=-11, z=13), axes="ASL"),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_first_scan_is_shown_voxel_by_voxel(name):
    g = GEOMETRIES[name]
    p = Placing(g, Frame.of(g))
    assert p.exact
    corners = p.shown.to_patient(np.array([[0, 0, 0], np.array(p.shape) - 1]))
    # Superior, anterior and right grow along the shown axes.
    assert (np.abs(p.frame.axes[[2, 1, 0], [0, 1, 2]]) > 0.9).all()
    assert (p.frame.axes[[2, 1, 0], [0, 1, 2]] > 0).all()
    for corner in corners:
        voxel = g.to_voxels(corner)
        np.testing.assert_allclose(voxel, np.round(voxel), atol=1e-6)


def test_a_straight_scan_has_patient_coordinates_in_the_window():
    g = GEOMETRIES["flipped and permuted"]
    frame = Frame.of(g)
    assert frame is STRAIGHT
    np.testing.assert_allclose(frame.to_world([1.0, 2.0, 3.0]), [3.0, 2.0, 1.0])


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.floats(-60, 60)] * 3), st.permutations("RAS"), st.tuples(*[st.booleans()] * 3))
def test_frames_keep_distances_and_come_back(angles, order, flips):
    axes = "".join(dict(zip("RAS", "LPI", strict=True))[c] if f else c for c, f in zip(order, flips, strict=True))
    g = grid(rotation=turn(*angles))
    g = g.turned(axes)
    frame = Frame.of(g)
    points = np.array([[0.0, 0, 0], [10, -5, 3], [100, 20, -80]])
    world = frame.to_world(points)
    np.testing.assert_allclose(frame.to_patient(world), points, atol=1e-9)
    np.testing.assert_allclose(
        np.linalg.norm(np.diff(world, axis=0), axis=1), np.linalg.norm(np.diff(points, axis=0), axis=1)
    )
    p = Placing(g, frame)
    assert p.exact
    data = np.arange(np.prod(g.shape)).reshape(g.shape)
    np.testing.assert_array_equal(p.home(p.forth(data)), data)


def blob(g, place, sigma=3.0):
    """A Gaussian spot around a patient point."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in g.shape], indexing="ij"), axis=-1)
    away = g.to_patient(index) - np.asarray(place)
    return np.exp(-(away**2).sum(-1) / (2 * sigma**2)).astype(np.float32)


def centroid(p, picture):
    """Centre of mass of what is shown, in the window's mm."""
    index = np.indices(picture.shape).reshape(3, -1)
    weight = np.clip(picture.ravel() - 0.02, 0, None)
    return (index * weight).sum(1) / weight.sum() * p.scale + p.translate


@pytest.mark.parametrize("first", GEOMETRIES)
@pytest.mark.parametrize("second", FIELDS)
def test_two_fields_of_view_overlay_within_half_a_voxel(first, second):
    frame = Frame.of(GEOMETRIES[first])
    for place in ((5.0, -18.0, 9.0), (6.0, -16.0, 10.5)):
        for g in (GEOMETRIES[first], FIELDS[second]):
            p = Placing(g, frame)
            found = centroid(p, p.forth(blob(g, place)))
            away = np.abs(found - frame.to_world(place))
            assert away.max() < 0.5 * min(g.spacing), (first, second, away)


@pytest.mark.parametrize("second", FIELDS)
def test_only_another_obliquity_is_interpolated(second):
    frame = Frame.of(GEOMETRIES["oblique"])
    assert Placing(FIELDS[second], frame).exact == (second == "oblique")


def test_a_tilted_lattice_covers_the_scan_and_skips_no_voxel():
    g = grid(shape=(40, 40, 9), spacing=(1.0, 1.0, 5.0), rotation=turn(x=25))
    p = Placing(g, STRAIGHT)
    assert not p.exact
    voxels = np.argwhere(np.ones(g.shape, bool))
    shown = p.shown.to_voxels(g.to_patient(voxels))
    assert (shown > -0.51).all()
    assert (shown < np.array(p.shape) - 0.49).all()
    crossing = np.abs(np.linalg.inv(g.affine[:3, :3]) @ p.shown.affine[:3, :3])
    assert crossing.max() <= 1 + 1e-9


def test_tilted_labels_keep_every_voxel_that_was_not_painted():
    rng = np.random.default_rng(3)
    g = grid(rotation=turn(x=20, y=10))
    p = Placing(g, STRAIGHT)
    labels = rng.integers(0, 4, g.shape).astype(np.uint8)
    picture = np.array(p.forth(labels, labels=True))
    np.testing.assert_array_equal(p.home(picture, labels), labels)
    middle = tuple(n // 2 for n in p.shape)
    ball = np.indices(p.shape)
    stroke = sum(((axis - m) * s) ** 2 for axis, m, s in zip(ball, middle, p.scale, strict=True)) < 6.0**2
    picture[stroke] = 9
    after = p.home(picture, labels)
    painted = after == 9
    np.testing.assert_array_equal(after[~painted], labels[~painted])
    volume = painted.sum() * g.voxel_ml * 1000
    assert volume == pytest.approx(4 / 3 * np.pi * 6**3, rel=0.06)
    centre = g.to_patient(np.argwhere(painted)).mean(0)
    assert np.abs(centre - p.frame.to_patient(np.array(middle) * p.scale + p.translate)).max() < 0.5


def test_a_sheared_grid_is_interpolated():
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    affine[1, 2] = 0.9
    g = Grid((20, 22, 12), affine)
    frame = Frame.of(g)
    p = Placing(g, frame)
    assert not p.exact
    place = g.to_patient((10, 11, 6))
    assert np.abs(centroid(p, p.forth(blob(g, place))) - frame.to_world(place)).max() < 0.5


def test_rounding_of_a_header_does_not_make_a_scan_tilted():
    g = GEOMETRIES["oblique"]
    noisy = g.affine.copy()
    noisy[:3] += np.random.default_rng(0).normal(0, 1e-4, (3, 4))
    assert Placing(Grid(g.shape, noisy), Frame.of(g)).exact


def test_fits_says_no():
    p = Placing(GEOMETRIES["plain"], STRAIGHT)
    assert p.fits(p.shape, p.scale, p.translate)
    assert not p.fits(p.shape, p.scale * 1.001, p.translate)
    assert not p.fits(p.shape, p.scale, np.add(p.translate, (0, 0.3, 0)))
    assert not p.fits((*p.shape[:2], p.shape[2] + 1), p.scale, p.translate)


def test_four_axes_go_there_and_back():
    g = GEOMETRIES["flipped and permuted"]
    data = np.random.default_rng(1).integers(0, 9, (*g.shape, 3)).astype(np.int16)
    p = Placing(g, STRAIGHT)
    shown = p.forth(data)
    assert shown.shape == (3, *p.shape)
    np.testing.assert_array_equal(p.home(shown), data)
