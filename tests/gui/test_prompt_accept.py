"""Accepting an object: no other object loses a voxel unless told, whatever the labels and the object are."""

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_mri.core.errors import GridMismatch
from napari_mri.core.prompts import Slab
from napari_mri.gui import layers as bridge
from napari_mri.gui.edit_history import edits_of
from napari_mri.gui.prompt_accept import Rule, changes, name_label, next_free, write
from napari_mri.gui.window import watch
from tests.scans import GRIDS, blob, head

SHAPE = (4, 5, 3)
labels = arrays(np.uint8, SHAPE, elements=st.integers(0, 4))
objects = arrays(np.bool_, SHAPE)
rules = st.builds(
    Rule, st.integers(1, 5), st.sampled_from(["keep", "overwrite", "inside"]), st.integers(0, 4), st.booleans()
)


def applied(old, new, rule):
    put, lost = changes(old, new, rule)
    after = old.copy()
    after[put], after[lost] = rule.value, 0
    return after


@settings(deadline=None)
@given(labels, objects, rules)
def test_only_what_the_rule_allows_is_touched(old, new, rule):
    after = applied(old, new, rule)
    other = (old != 0) & (old != rule.value)
    if rule.others == "keep":
        np.testing.assert_array_equal(after[other], old[other])
        assert (after[new & (old == 0)] == rule.value).all()
    elif rule.others == "inside":
        beyond = other & (old != rule.inside)
        np.testing.assert_array_equal(after[beyond], old[beyond])
        assert (after[new & (old == rule.inside)] == rule.value).all()
    else:
        assert (after[new] == rule.value).all()
    np.testing.assert_array_equal(after[other & ~new], old[other & ~new])
    mine = old == rule.value
    assert (after[mine & new] == rule.value).all()
    assert (after[mine & ~new] == (0 if rule.replaces else rule.value)).all()
    changed = after != old
    assert set(np.unique(after[changed])) <= {0, rule.value}


@settings(deadline=None)
@given(labels, objects, rules)
def test_accepting_twice_is_accepting_once(old, new, rule):
    once = applied(old, new, rule)
    np.testing.assert_array_equal(applied(once, new, rule), once)


@settings(deadline=None)
@given(labels, objects, objects)
def test_two_objects_that_keep_never_share_a_voxel(old, first, second):
    one = applied(old, first, Rule(6))
    both = applied(one, second, Rule(7))
    np.testing.assert_array_equal(both == 6, one == 6)


@settings(deadline=None)
@given(labels, st.integers(0, 9))
def test_the_next_label_is_in_no_voxel(data, after):
    value = next_free(data, after)
    assert value > after
    assert not (data == value).any()
    assert all((data == n).any() for n in range(after + 1, value))


@pytest.mark.parametrize("name", GRIDS)
def test_one_call_of_napari_writes_it_and_a_range_spares_what_lies_beyond(name, monkeypatch):
    scan = head(GRIDS[name])
    old = blob(scan.grid, (4, -7, 11), (30, 30, 30)).astype(np.uint8) * 2
    layer = bridge.to_layer(scan.with_labels(old), None)
    smaller = scan.with_labels(blob(scan.grid, (4, -7, 11), (12, 12, 12)), {1: "object"})
    calls = []
    real = layer.data_setitem
    monkeypatch.setattr(layer, "data_setitem", lambda *a, **k: (calls.append(1), real(*a, **k)))
    slab = Slab((0, 0, 1), 11.0, 500.0)
    record = bridge.record_of(layer, [layer])
    count = write(layer, record, smaller, Rule(2, replaces=True), (slab,))
    home = bridge.labels_of(layer, [layer]).data
    index = np.stack(np.indices(scan.grid.shape), axis=-1)
    asked = slab.holds(scan.grid.to_patient(index))
    assert len(calls) == 1
    assert count == (home != old).sum()
    np.testing.assert_array_equal(home[asked] > 0, smaller.data[asked] > 0)
    np.testing.assert_array_equal(home[~asked], old[~asked])
    assert write(layer, record, smaller, Rule(2, replaces=True), (slab,)) == 0
    assert len(calls) == 1


def test_labels_of_another_scan_or_a_label_too_large_are_refused():
    scan, other = head(GRIDS["plain"]), head(GRIDS["anisotropic"])
    layer = bridge.to_layer(scan.with_labels(np.zeros(scan.grid.shape, np.uint8)), None)
    record = bridge.record_of(layer, [layer])
    with pytest.raises(GridMismatch, match="does not lie"):
        write(layer, record, other.with_labels(np.ones(other.grid.shape, np.uint8)), Rule(1))
    with pytest.raises(GridMismatch, match="cannot hold"):
        write(layer, record, scan.with_labels(np.ones(scan.grid.shape, np.uint8)), Rule(300))
    assert not layer.data.any()


@pytest.fixture
def empty():
    """Labels of a followed window, and what names one of them."""
    from napari.components import ViewerModel

    viewer = ViewerModel()
    watch(viewer)
    scan = head(GRIDS["oblique"])
    layer = viewer.add_layer(bridge.to_layer(scan.with_labels(np.zeros(scan.grid.shape, np.uint8))))

    def call(value, taken_for, alone=True):
        name_label(layer, bridge.record_of(layer, viewer.layers), value, taken_for, alone)
        names = bridge.shown(layer).volume.names
        assert {v: n for v, n in edits_of(layer).labels.names.items() if v} == {v: n for v, n in names.items() if v}
        return names.get(value, "")

    yield layer, call
    viewer.layers.clear()


def test_a_label_is_called_what_its_marks_were_taken_for(empty):
    _, call = empty
    assert call(1, "thalamus, left") == "thalamus, left"
    assert call(2, "") == ""
    assert call(1, "thalamus, left", alone=False) == "thalamus, left"  # a part of it that was missing
    assert call(1, "", alone=False) == "thalamus, left"
    assert call(1, "putamen, left") == "putamen, left"  # the first was taken back
    assert call(1, "") == ""


def test_a_label_of_two_structures_has_the_name_of_neither(empty):
    _, call = empty
    call(1, "thalamus, left")
    assert call(1, "thalamus, right", alone=False) == ""
    assert call(1, "thalamus, right", alone=False) == ""
    assert call(3, "putamen, left", alone=False) == ""  # painted before, nobody knows what


def test_a_name_of_the_users_stays(empty):
    layer, call = empty
    edits_of(layer).labels.add(1, "target")
    edits_of(layer).labels.keep(bridge.shown(layer))
    assert call(1, "thalamus, left") == "target"
    call(2, "putamen, left")
    edits_of(layer).labels.rename(2, "mine")
    edits_of(layer).labels.keep(bridge.shown(layer))
    assert call(2, "thalamus, left", alone=False) == "mine"
    assert call(2, "putamen, left", alone=True) == "mine"
