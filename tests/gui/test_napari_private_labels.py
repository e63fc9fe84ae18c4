"""Tells when napari takes away something private of its Labels layer that is used here."""

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

from napari.layers import Labels

from napari_mri.gui import napari_private_labels as private


@pytest.fixture
def layer():
    return Labels(np.zeros((6, 20, 20), np.uint8))


def stepped(layer, change):
    """Return what a change's paint events carry."""
    items = []
    layer.events.paint.connect(lambda event: items.append(event.value))
    change()
    return items


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.paint((3, 10, 10), 2),
        lambda layer: layer.fill((3, 10, 10), 3),
        lambda layer: layer.fill((3, 5, 5), 3),
        lambda layer: layer.paint_polygon([(3, 2, 2), (3, 12, 3), (3, 8, 14)], 4),
        lambda layer: layer.data_setitem((np.array([0, 5]), np.array([1, 2]), np.array([3, 19])), np.array([5, 6])),
        lambda layer: layer.data_setitem((np.array([3, 5]), np.array([5, 5]), np.array([5, 5])), 7),
    ],
)
def test_what_stood_there_before_is_told(layer, change):
    layer.data[3, 4:9, 4:9] = 1
    old = layer.data.copy()
    (item,) = stepped(layer, lambda: change(layer))
    box, before, after = private.changed(item, layer.data)
    np.testing.assert_array_equal(before, old[box])
    np.testing.assert_array_equal(after, layer.data[box])
    box, before, after = private.changed(item, old)  # a single call tells of itself before it writes
    np.testing.assert_array_equal(before, old[box])
    np.testing.assert_array_equal(after, layer.data[box])
    outside = layer.data.copy()
    outside[box] = old[box]
    np.testing.assert_array_equal(outside, old)
    assert (layer.data != old).any()


def test_a_drag_over_itself_is_one_step(layer):
    layer.data[3, 8:12, :] = 9
    old = layer.data.copy()

    def drag():
        with layer.block_history():
            for x in (5, 7, 9, 7, 5):
                layer.selected_label = x
                layer.paint((3, 10, x), x)
            assert private.stroking(layer)

    (item,) = stepped(layer, drag)
    box, before, after = private.changed(item, layer.data)
    np.testing.assert_array_equal(before, old[box])
    np.testing.assert_array_equal(after, layer.data[box])
    assert not private.stroking(layer)


def test_an_unknown_record_is_not_guessed(layer):
    assert private.changed(["something new"], layer.data) is None
    assert private.changed([], layer.data) is None


def test_naparis_own_list_is_emptied(layer):
    layer.paint((3, 10, 10), 2)
    assert len(layer._undo_history) == 1
    private.forget(layer)
    assert len(layer._undo_history) == 0
    painted = layer.data.copy()
    layer.undo()
    np.testing.assert_array_equal(layer.data, painted)


def test_a_limit_holds_before_a_voxel_is_written(layer):
    layer.data[3, :, :10] = 1
    layer.brush_size = 8
    told = []

    def limit(box, old, new):
        told.append(new)
        return old != 1

    assert private.restrict(layer, limit)
    layer.paint((3, 10, 10), 2)
    layer.fill((3, 1, 1), 3)
    layer.paint_polygon([(3, 0, 0), (3, 19, 0), (3, 19, 19)], 4)
    assert told == [2, 3, 4]
    assert (layer.data[3, :, :10] == 1).all()
    assert (layer.data == 2).any()
    assert not (layer.data == 3).any()
    private.release(layer)
    layer.fill((3, 1, 1), 3)
    assert (layer.data == 3).any()
