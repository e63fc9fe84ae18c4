"""Prompts: undo is a shorter tuple, JSON brings them back, nonsense is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_mri.core.errors import BadPrompt
from napari_mri.core.prompts import KINDS, Box, Lasso, Point, Prompts, Scribble, Slab

places = st.tuples(*[st.floats(-500, 500)] * 3)
marks = st.one_of(
    st.builds(Point, places, st.booleans()),
    st.builds(Box, places, places, st.booleans()),
    st.builds(Box, places, places, st.booleans(), st.just(((0.6, 0.8, 0.0), (-0.8, 0.6, 0.0), (0.0, 0.0, -1.0)))),
    st.builds(Scribble, st.lists(places, min_size=1, max_size=5).map(tuple), st.booleans()),
    st.builds(Lasso, st.lists(places, min_size=1, max_size=5).map(tuple), st.booleans()),
    st.builds(Slab, places.filter(lambda p: max(map(abs, p)) > 1e-3), st.floats(-500, 500), st.floats(-500, 500)),
)


@given(st.lists(marks, max_size=6))
def test_json_brings_prompts_back(some):
    prompts = Prompts(tuple(some))
    assert Prompts.from_json(prompts.to_json()) == prompts


@given(st.lists(marks, min_size=1, max_size=6), marks)
def test_undo_gives_the_earlier_prompts(some, one):
    prompts = Prompts(tuple(some))
    assert prompts.plus(one).undone() == prompts
    assert prompts.undone(99) == Prompts()


def test_a_box_is_sorted():
    assert Box((5, -1, 3), (1, 2, 3)) == Box((1, -1, 3), (5, 2, 3))


def test_a_box_may_lie_along_other_axes_than_the_patients():
    box = Box((1, 2, 3), (4, 6, 8), axes=((0.6, 0.8, 0), (-0.8, 0.6, 0), (0, 0, 1)))
    np.testing.assert_allclose(box.corners()[0, 0, 0], (0.6 - 1.6, 0.8 + 1.2, 3), atol=1e-12)
    np.testing.assert_allclose(box.corners()[1, 0, 0] - box.corners()[0, 0, 0], (1.8, 2.4, 0), atol=1e-12)
    np.testing.assert_allclose(Box((1, 2, 3), (4, 6, 8)).corners()[1, 0, 1], (4, 2, 8))
    assert "axes" not in Prompts((Box((1, 2, 3), (4, 6, 8)),)).to_json()[0]
    for axes in (((1, 0, 0), (0, 1, 0)), ((1, 0, 0), (1, 0, 0), (0, 0, 1)), ((2, 0, 0), (0, 1, 0), (0, 0, 1)), "abc"):
        with pytest.raises(BadPrompt):
            Box((1, 2, 3), (4, 6, 8), axes=axes)


def test_numpy_numbers_are_taken():
    assert Point(np.array([1, 2, 3])).xyz == (1.0, 2.0, 3.0)


@pytest.mark.parametrize("xyz", [(1, 2), (1, 2, float("nan")), (1, 2, float("inf")), "abc", None, (1, 2, 1e9)])
def test_nonsense_places_are_refused(xyz):
    with pytest.raises(BadPrompt):
        Point(xyz)


@pytest.mark.parametrize(
    "records", [[{"kind": "circle"}], [{"kind": "point"}], [{}], [{"kind": "scribble", "points": []}], [{"kind": "box", "low": [1, 2, 3]}]]
)
def test_nonsense_records_are_refused(records):
    with pytest.raises(BadPrompt):
        Prompts.from_json(records)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("positive", ["false", None, 1, [True]])
def test_only_true_and_false_tell_the_sign(kind, positive):
    line = [[0, 0, 0]] * 6
    facts = {
        "point": {"xyz": [1, 2, 3]}, "box": {"low": [0, 0, 0], "high": [1, 1, 1]}, "scribble": {"points": line},
        "lasso": {"points": line}, "extremes": {"points": line}, "slab": {"normal": [0, 0, 1], "low": 0, "high": 1},
        "mask": {"shape": [1, 1, 1], "affine": np.eye(4).ravel().tolist(), "packed": ""},
    }[kind]  # fmt: skip
    assert len(Prompts.from_json([{"kind": kind, **facts}])) == 1
    with pytest.raises(BadPrompt, match=f"Whether a {kind} prompt is positive"):
        Prompts.from_json([{"kind": kind, **facts, "positive": positive}])


@pytest.mark.parametrize(
    "record",
    [
        {"kind": "point", "xyz": ["1", 2, 3]},
        {"kind": "point", "xyz": [True, 2, 3]},
        {"kind": "box", "low": [0, 0, 0], "high": [1, "1", 1]},
        {"kind": "scribble", "points": [[0, 0, "0"]]},
        {"kind": "slab", "normal": [0, 0, 1], "low": "0", "high": 1},
        {"kind": "mask", "shape": [1, 1, 1.5], "affine": [0.0] * 16, "packed": ""},
        {"kind": "mask", "shape": [1, 1, 1], "affine": ["0"] * 16, "packed": ""},
        {"kind": "mask", "shape": [1, 1, 1], "affine": [0.0] * 16, "packed": 7},
    ],
)
def test_text_and_fractions_are_no_numbers(record):
    with pytest.raises(BadPrompt):
        Prompts.from_json([record])


@pytest.mark.parametrize("marks", [Point((1, 2, 3)), (1, 2, 3), [(1, 2, 3)], "abc", None])
def test_prompts_are_made_of_marks(marks):
    with pytest.raises(BadPrompt, match="take a tuple of marks"):
        Prompts(marks)


def test_a_lasso_is_not_listed_as_a_scribble():
    prompts = Prompts((Lasso(((0, 0, 0),)), Scribble(((1, 1, 1),))))
    assert len(prompts.of(Scribble)) == 1
    assert len(prompts.of(Lasso)) == 1


def test_a_range_of_slices_is_sorted_and_points_at_nothing():
    slab = Slab((0, 0, 2), 9, -3)
    assert (slab.normal, slab.low, slab.high, slab.positive) == ((0.0, 0.0, 1.0), -3.0, 9.0, False)
    assert slab.holds([[5, 5, 9], [5, 5, 9.1], [0, 0, -3]]).tolist() == [True, False, True]
    point = Point((1, 2, 3))
    assert Prompts((slab, point)).pointing() == Prompts((point,))
    with pytest.raises(BadPrompt):
        Slab((0, 0, 0), 1, 2)
    with pytest.raises(BadPrompt):
        Slab((0, 0, 1), 1, float("nan"))
