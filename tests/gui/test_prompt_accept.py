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
from napari_mri.gui.prompt_accept import Rule, changes, next_free, write
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
