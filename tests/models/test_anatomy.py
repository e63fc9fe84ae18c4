"""What a first click means: the structure it lies in, on its side, or nothing where that is not sure."""

import numpy as np
import pytest

from napari_mri.core.grid import Grid
from napari_mri.core.volume import Volume
from napari_mri.models._anatomy import BRAIN, Anatomy, Key, anatomy_of, apart, both_ways
from napari_mri.models._marks import Pointed

GRID = Grid.plain((40, 30, 20), (2.0, 2.0, 2.0))
NONE, BOXES = np.zeros((0, 3)), np.zeros((0, 2, 2, 2, 3))


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
    return Anatomy(names, right, GRID, Key(frozenset((7,))))


def test_a_click_means_the_structure_on_its_side():
    known = two_sides()
    for spot, there in (((8, 12, 8), slice(5, 15)), ((30, 12, 8), slice(25, 35)), ((20, 12, 8), slice(15, 25))):
        meaning = known.meant(pointed([spot]))
        found = known.shown(meaning)
        assert meaning[0] == (3 if spot[0] == 20 else 7)
        want = np.zeros(GRID.shape, bool)
        want[there, 10:20, 5:15] = True
        assert np.array_equal(found > 0.5, want)


def test_a_box_means_what_fills_it():
    known = two_sides()

    def box(low, high):
        return np.asarray(GRID.to_patient(np.array([low, high], float)))

    left, right, both = box((4.5, 9.5, 4.5), (14.5, 19.5, 14.5)), box((24, 9, 4), (35, 20, 15)), box((4, 9, 4), (35, 20, 15))
    for given, number, there in ((left, 7, slice(5, 15)), (right, 7, slice(25, 35)), (both, BRAIN, slice(5, 35))):
        meaning = known.filling(given)
        found = known.shown(meaning)
        want = np.zeros(GRID.shape, bool)
        want[there, 10:20, 5:15] = True
        assert meaning[0] == number
        assert np.array_equal(found > 0.5, want)
    assert known.filling(box((0, 0, 0), (4, 5, 4))) is None  # air
    assert known.filling(box((5, 10, 5), (9, 14, 9))) is None  # an eighth of it
    assert known.filling(box((0, 0, 0), (20, 29, 19))) is None  # a box far too wide


def test_how_far_structures_reach_beyond_their_map_tells_two_apart():
    names = np.zeros((7, *GRID.shape), np.uint8)
    names[5, 8:22, 8:22, 4:16] = 255
    names[6, 6:24, 6:24, 2:18] = 255
    names[6][names[5] > 0] = 0
    names[0] = 255 - names.max(axis=0)
    right = np.zeros(GRID.shape, np.uint8)
    middle = np.asarray(GRID.to_patient(np.array([[6.2, 6.2, 2.2], [22.8, 22.8, 16.8]])))  # between the two, nearer to 6
    assert Anatomy(names, right, GRID, Key(frozenset())).filling(middle) in ((6, 0), (BRAIN, 0))
    # Structure 5 is known to reach 3 mm beyond its map, and 6 to reach just as far as it.
    beyond = np.zeros((8, 2, 2), np.float32)
    beyond[:, :, 1] = 1.0
    beyond[5, 1, 0] = 3.0
    beyond[-1, 1, 0] = 9.0
    assert Anatomy(names, right, GRID, Key(frozenset(), (), beyond)).filling(middle) == (5, 0)
    # Of two that fit as well the brain is meant.
    assert Anatomy(names, right, GRID, Key(frozenset())).filling(middle) == (BRAIN, 0)


def test_a_box_around_all_white_matter_or_all_cortex_means_the_brain():
    names = np.zeros((8, *GRID.shape), np.uint8)
    names[2, 5:35, 10:20, 5:15] = 255
    names[0] = 255 - names[2]
    known = Anatomy(names, np.zeros(GRID.shape, np.uint8), GRID, Key(frozenset((2,))))
    assert known.filling(np.asarray(GRID.to_patient(np.array([[4.5, 9.5, 4.5], [34.5, 19.5, 14.5]])))) == (BRAIN, 0)


def test_marks_in_the_middle_of_what_was_meant_deny_it():
    known = two_sides()
    known.names[5, 5:15, 10:20, 5:15] = 55  # likely enough where the first mark is
    known.names[7, 5:15, 10:20, 5:15] = 200
    assert known.denied((7, -1), pointed([], [(5, 12, 8)])) == (0, 0)  # its edge
    deep, share = known.denied((7, -1), pointed([], [(9, 14, 9)]))
    assert deep > 5
    assert 0.8 < share <= 1
    assert known.denied((2, 0), pointed([], [(9, 14, 9)])) == (0, 0)  # cortex, which has no middle
    assert known.denied((7, -1), pointed([(9, 14, 9)])) == (0, 0)
    marks = pointed([(6, 12, 8)], [(9, 14, 9), (10, 15, 9), (10, 14, 10)])
    seen = known.seen(known.shown((7, -1)), GRID)
    assert known.instead((7, -1), marks, seen) == (5, 0)
    assert known.instead((7, -1), pointed([(6, 12, 8)], [(20, 14, 9)]), seen) is None  # speaks for neither
    assert known.instead((BRAIN, 0), marks, seen) is None
    # As likely, but far larger than what was seen: whoever wants that clicks on what is missing.
    known.names[5, 5:35, 2:28, 2:18] = np.maximum(known.names[5, 5:35, 2:28, 2:18], 150)
    known.names[0][known.names[5] > 100] = 0
    again = Anatomy(known.names, known.right, GRID, known.key)
    seen = again.seen(again.shown((7, -1)), GRID)
    assert seen.lacks((5, 0))
    assert not seen.lacks((7, -1))
    assert again.instead((7, -1), marks, seen) is None


def test_a_second_mark_on_a_thin_thing_that_the_first_one_missed_means_it():
    names = np.zeros((28, *GRID.shape), np.uint8)
    names[1, 5:18, 5:25, 2:18] = 255  # white matter, and a sheet of cortex that the first mark lies beside
    names[2, 18:22, 5:25, 2:18] = 255
    names[1, 17, 5:25, 2:18], names[2, 17, 5:25, 2:18] = 180, 75
    names[0] = 255 - np.minimum(255, names[1].astype(int) + names[2])
    known = Anatomy(names, np.zeros(GRID.shape, np.uint8), GRID, Key(frozenset((1, 2))))
    marks = pointed([(17, 15, 9), (19, 8, 9)])
    part = known.shown((1, -1))
    part[:15] = 0  # less of it was shown than there is of the other
    seen = known.seen(part, GRID)
    assert known.instead((1, -1), marks, seen, missing=True) == (2, -1)
    assert known.instead((2, -1), pointed([(17, 15, 9), (10, 8, 9)]), seen, missing=True) is None  # the reverse is not believed
    assert known.instead((1, -1), pointed([(17, 15, 9), (10, 8, 9)]), seen, missing=True) is None  # speaks for what was meant
    assert known.instead((1, -1), pointed([(14, 15, 9), (19, 8, 9)]), seen, missing=True) is None  # not likely at the first mark
    assert known.instead((1, -1), marks, known.seen(known.shown((1, -1)) + known.shown((2, -1)), GRID), missing=True) is None


def test_marks_are_apart_if_no_two_of_them_are_near():
    first, near, far = (np.array([[x, 0.0, 0.0]]) for x in (0, 19, 40))
    assert apart([first])
    assert apart([first, far])
    assert not apart([first, near])
    assert not apart([first, near, far])
    assert not apart([far, np.concatenate([first - 90, far + 3])])  # a scribble is as near as its nearest place
    assert not apart([far, first, far + 6])


def test_what_takes_long_is_found_beforehand(monkeypatch):
    known, late = two_sides(), two_sides()
    known.prepare()
    monkeypatch.setattr("napari_mri.models._anatomy._depth", None)
    for meaning in ((7, -1), (7, 1), (7, 0), (3, 0), (BRAIN, 0)):
        assert known.denied(meaning, pointed([], [(39, 0, 0)])) == (0, 0)
    with pytest.raises(TypeError):
        late.denied((7, -1), pointed([], [(9, 14, 9)]))
    assert known.denied((7, -1), pointed([], [(9, 14, 9)]))[0] > 5


def test_what_is_seen_of_each_structure_is_counted_on_any_grid():
    known = two_sides()
    whole = known.seen(np.ones(GRID.shape, np.float32), GRID)
    assert np.array_equal(whole.held, whole.sizes)
    assert whole.sizes.sum() == np.prod(GRID.shape)
    assert not whole.lacks((7, 0))
    left = known.seen(known.shown((7, -1)), GRID)
    assert left.held.sum() == left.sizes[3 * 7 + 2] > 0
    assert left.lacks((7, 0))
    assert not left.lacks((7, 1))  # as much is missing as there is beside it
    small = GRID.cropped((6, 11, 6), (10, 15, 10))
    part = known.seen(np.ones(small.shape, np.float32), small)
    assert part.held.sum() == 64
    assert part.lacks((7, -1))


def test_crumbs_of_a_map_do_not_widen_a_structure():
    known = two_sides()
    low = known.ends[7, -1][0].copy()
    known.names[7, 1, 1, 1] = 255
    again = Anatomy(known.names, known.right, GRID, known.key)
    assert np.array_equal(again.ends[7, -1][0], low)
    assert np.array_equal(again.ends[7, 0], [known.ends[7, -1][0], known.ends[7, 1][1]])


def test_air_and_what_is_not_sure_mean_nothing():
    assert two_sides().meant(pointed([(1, 1, 1)])) is None
    assert two_sides(0.15).meant(pointed([(8, 12, 8)])) is None
    assert two_sides(0.6).meant(pointed([(8, 12, 8)])) is not None


def test_of_two_that_may_stand_there_the_smaller_is_meant_if_it_is_likely_enough():
    names = np.zeros((26, *GRID.shape), np.uint8)
    names[24] = 255
    there = (slice(10, 13),) * 3
    for share, meant in ((115, 25), (30, 24)):
        names[24][there], names[25][there] = 255 - share, share
        names[24, 10, 10, 10], names[25, 10, 10, 10] = 0, 255  # of which there is some for sure
        known = Anatomy(names, np.zeros(GRID.shape, np.uint8), GRID, Key(frozenset()))
        assert known.meant(pointed([(11, 11, 11)])) == (meant, 0)
        assert known.meant(pointed([(30, 11, 11)])) == (24, 0)
        assert np.allclose(known.volumes[24:], [GRID.voxel_ml * (40 * 30 * 20 - 1), GRID.voxel_ml])


def test_what_is_marked_as_outside_is_not_meant():
    # A scribble through two structures, one of which is then said not to be the object.
    line = [(12, 12, 8), (13, 12, 8), (16, 12, 8), (17, 12, 8), (18, 12, 8)]
    both = two_sides()
    assert both.shown(both.meant(pointed(line)))[20, 15, 8] > 0.5
    turned = both.shown(both.meant(pointed(line[:2] + line[:1], outside=[(17, 12, 8)])))
    assert turned[12, 15, 8] > 0.5
    assert turned[20, 15, 8] < 0.5


def test_the_middle_of_the_brain_that_is_not_the_middle_of_a_structure_means_the_brain():
    names = np.zeros((8, *GRID.shape), np.uint8)
    names[1, 5:35, 5:25, 2:18] = 255
    names[1, 19:22] = 0
    names[3, 19:22, 5:25, 2:18] = 255
    names[0] = 255 - names.max(axis=0)
    known = Anatomy(names, np.zeros(GRID.shape, np.uint8), GRID, Key(frozenset()))
    assert known.meant(pointed([(18, 15, 9)])) == (BRAIN, 0)  # the edge of 1, the depth of the brain
    assert known.meant(pointed([(20, 15, 9)])) == (3, 0)  # its own middle, too
    assert known.meant(pointed([(11, 15, 9)]))[0] == 1
    assert known.meant(pointed([(18, 7, 4)]))[0] == 1  # an edge near the surface


def test_a_second_mark_on_something_else_means_more():
    known = two_sides()
    left, right, between = ([GRID.to_patient(np.array(p, float))] for p in ((7, 12, 8), (32, 12, 8), (20, 12, 8)))
    left, right, between = (np.asarray(p) for p in (left, right, between))
    side = (7, -1)
    assert known.more(side, [left], right) == (7, 0)
    assert known.shown((7, 0))[[8, 30], 12, 8].min() == 1
    assert known.more(side, [left], between) == (BRAIN, 0)
    assert known.more((7, 0), [left, right], between) == (BRAIN, 0)
    assert known.more(None, [left], between) == (BRAIN, 0)
    assert known.more(side, [left, left + 6.0], between) is None  # who wants the brain does not click again near by
    assert known.more(side, [left, left + 6.0], right) == (7, 0)
    # The same structure, too near, in air, or all of the brain already: nothing new.
    assert known.more((3, 0), [between], between + 21.0) is None
    assert known.more(side, [left], np.asarray([GRID.to_patient(np.array([18.0, 19, 14]))])) is None  # 8 mm beside it
    assert known.more(side, [left], np.asarray([GRID.to_patient(np.array([14.0, 18, 13]))])) is None
    assert known.more(side, [np.asarray([GRID.to_patient(np.array([14.0, 12, 8]))])], between) is None
    assert known.more(side, [left], np.asarray([GRID.to_patient(np.array([38.0, 12, 8]))])) is None
    assert known.more((BRAIN, 0), [left], between) is None


def test_what_is_meant_has_a_name():
    names = ("air", "a", "b", "bridge", "c", "d", "e", "island")
    known = Anatomy(two_sides().names, two_sides().right, GRID, Key(frozenset((7,)), names))
    said = [known.key.says(m) for m in ((3, 0), (7, 1), (7, -1), (7, 0), (BRAIN, 0))]
    assert said == ["bridge", "island, right", "island, left", "island, both sides", "brain"]


def test_an_edge_that_the_map_may_have_wrong_means_nothing_new():
    known = two_sides()
    known.names[7, 15:25] = 20  # a twelfth
    known.names[3, 15:25] = 200
    left, between = (np.asarray([GRID.to_patient(np.array(p, float))]) for p in ((7, 12, 8), (20, 12, 8)))
    assert known.more((7, 0), [left], between) is None


def test_sides_of_white_matter_and_cortex_mean_the_brain():
    names = np.zeros((8, *GRID.shape), np.uint8)
    names[2, 5:35, 10:20, 5:15] = 255
    right = np.zeros(GRID.shape, np.uint8)
    right[20:] = 255
    known = Anatomy(names, right, GRID, Key(frozenset((2,))))
    left, other = (np.asarray([GRID.to_patient(np.array(p, float))]) for p in ((7, 12, 8), (32, 12, 8)))
    assert known.more((2, -1), [left], other) == (BRAIN, 0)


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

    found = anatomy_of(scan, ask, Key(frozenset((2,))))
    assert (found is not None) == is_head
    assert seen == [(96, 80, 80)] * 2  # as it is, and mirrored
    if found is not None:
        assert found.names.shape == (32, *grid.shape)
        assert found.names.dtype == np.uint8


def test_the_mirror_image_is_asked_too_and_its_sides_are_swapped():
    image = np.random.default_rng(0).uniform(size=(16, 16, 16)).astype(np.float32)

    def ask(x):
        seen = np.zeros((3, *x.shape), np.float32)
        seen[1] = x  # by what is there
        seen[1, :8] += 1  # and by where it is, which the mirror image evens out
        seen[2] = np.arange(-7.5, 8)[:, None, None]  # right is where the index is high
        return seen

    both = both_ways(ask, image)
    np.testing.assert_allclose(both[1], image + 0.5, atol=1e-6)
    np.testing.assert_allclose(both[2], ask(image)[2])


def test_a_scan_of_one_value_has_none():
    assert anatomy_of(Volume(np.ones((20, 20, 20), np.float32), Grid.plain((20, 20, 20))), lambda x: x, Key(frozenset())) is None


def test_a_whole_body_is_not_asked_about():
    grid = Grid.plain((100, 100, 100), (4.0, 4.0, 4.0))
    scan = Volume(np.random.default_rng(0).uniform(1, 9, grid.shape).astype(np.float32), grid)

    def ask(image):
        raise AssertionError

    assert anatomy_of(scan, ask, Key(frozenset())) is None


def test_a_box_that_lies_elsewhere_is_not_taken_for_a_structure():
    names = np.zeros((8, *GRID.shape), np.uint8)
    names[7, 5:15, 10:20, 10:14] = 255
    names[0] = 255 - names[7]
    known = Anatomy(names, np.zeros(GRID.shape, np.uint8), GRID, Key(frozenset()))
    places = np.array([[4.5, 9.5, 9.5], [14.5, 19.5, 13.5]])
    above = places + np.array([0, 0, 4.5])
    assert known.filling(np.asarray(GRID.to_patient(places)))[0] in (7, BRAIN)
    assert known.filling(np.asarray(GRID.to_patient(above))) is None
