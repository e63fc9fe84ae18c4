"""What a first click means: the structure it lies in, on its side, or nothing where that is not sure."""

import numpy as np
import pytest

from napari_mri.core.grid import Grid
from napari_mri.core.volume import Volume
from napari_mri.models._anatomy import BRAIN, Anatomy, anatomy_of
from napari_mri.models._marks import Pointed

GRID = Grid.plain((40, 30, 20), (2.0, 2.0, 2.0))
NONE, BOXES = np.zeros((0, 3)), np.zeros((0, 2, 3))


def pointed(inside, outside=()):
    def to_mm(places):
        return np.asarray(GRID.to_patient(np.reshape(np.array(places, float), (-1, 3))))

    return Pointed(to_mm(inside), to_mm(outside), BOXES)


def two_sides(share=1.0):
    """Structure 7 on both sides, 3 between them; the rest is air."""
    names = np.zeros((8, *GRID.shape), np.uint8)
    names[7, 5:15, 10:20, 5:15] = names[7, 25:35, 10:20, 5:15] = int(255 * share)
    names[3, 15:25, 10:20, 5:15] = 255
    names[0] = 255 - names[1:].max(axis=0)
    right = np.zeros(GRID.shape, np.uint8)
    right[20:] = 255
    return Anatomy(names, right, GRID, frozenset((7,)))


def test_a_click_means_the_structure_on_its_side():
    known = two_sides()
    for spot, there in (((8, 12, 8), slice(5, 15)), ((30, 12, 8), slice(25, 35)), ((20, 12, 8), slice(15, 25))):
        number, found = known.meant(pointed([spot]))
        assert number == (3 if spot[0] == 20 else 7)
        want = np.zeros(GRID.shape, bool)
        want[there, 10:20, 5:15] = True
        assert np.array_equal(found > 0.5, want)


def test_a_box_means_what_fills_it():
    known = two_sides()

    def box(low, high):
        return np.asarray(GRID.to_patient(np.array([low, high], float)))

    left, right, both = box((4.5, 9.5, 4.5), (14.5, 19.5, 14.5)), box((24, 9, 4), (35, 20, 15)), box((4, 9, 4), (35, 20, 15))
    for given, number, there in ((left, 7, slice(5, 15)), (right, 7, slice(25, 35)), (both, BRAIN, slice(5, 35))):
        meant, found = known.filling(given)
        want = np.zeros(GRID.shape, bool)
        want[there, 10:20, 5:15] = True
        assert meant == number
        assert np.array_equal(found > 0.5, want)
    assert known.filling(box((0, 0, 0), (4, 5, 4))) is None  # air
    assert known.filling(box((5, 10, 5), (9, 19, 14))) is None  # half of it
    assert known.filling(box((0, 0, 0), (20, 29, 19))) is None  # a box far too wide


def test_air_and_what_is_not_sure_mean_nothing():
    assert two_sides().meant(pointed([(1, 1, 1)])) is None
    assert two_sides(0.3).meant(pointed([(8, 12, 8)])) is None
    assert two_sides(0.6).meant(pointed([(8, 12, 8)])) is not None


def test_what_is_marked_as_outside_is_not_meant():
    # A scribble through two structures, one of which is then said not to be the object.
    line = [(12, 12, 8), (13, 12, 8), (16, 12, 8), (17, 12, 8), (18, 12, 8)]
    both = two_sides()
    assert both.meant(pointed(line))[1][20, 15, 8] > 0.5
    turned = both.meant(pointed(line[:2] + line[:1], outside=[(17, 12, 8)]))[1]
    assert turned[12, 15, 8] > 0.5
    assert turned[20, 15, 8] < 0.5


@pytest.mark.parametrize(("inner", "is_head"), [(0.0, False), (0.5, True), (1.0, False)])
def test_a_picture_of_something_else_has_no_anatomy(inner, is_head):
    grid = Grid.plain((90, 80, 80), (2.0, 2.0, 2.0))  # 4.6 litres
    scan = Volume(np.random.default_rng(0).uniform(1, 9, grid.shape).astype(np.float32), grid)
    seen = []

    def ask(image):
        seen.append(image.shape)
        logits = np.zeros((33, *image.shape), np.float32)
        logits[0] = 20.0
        logits[2, : int(inner * image.shape[0])] = 40.0
        return logits

    found = anatomy_of(scan, ask, frozenset((2,)))
    assert (found is not None) == is_head
    assert seen == [(96, 80, 80)]
    if found is not None:
        assert found.names.shape == (32, *grid.shape)
        assert found.names.dtype == np.uint8


def test_a_scan_of_one_value_has_none():
    assert anatomy_of(Volume(np.ones((20, 20, 20), np.float32), Grid.plain((20, 20, 20))), lambda x: x, frozenset()) is None


def test_a_whole_body_is_not_asked_about():
    grid = Grid.plain((100, 100, 100), (4.0, 4.0, 4.0))
    scan = Volume(np.random.default_rng(0).uniform(1, 9, grid.shape).astype(np.float32), grid)

    def ask(image):
        raise AssertionError

    assert anatomy_of(scan, ask, frozenset()) is None
