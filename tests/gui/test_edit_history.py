"""Strokes become steps of the log; undo, locks, autosave and what goes wrong with the disk."""

import itertools

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

from napari.components import ViewerModel

from napari_mri.core.errors import GridMismatch
from napari_mri.core.history import Order, Step
from napari_mri.core.volume import Origin, Volume
from napari_mri.edit.log import EditLog
from napari_mri.edit.unfinished import unfinished
from napari_mri.gui import layers as bridge
from napari_mri.gui.edit_history import edits_of
from napari_mri.gui.window import watch
from tests.scans import GRIDS, head


@pytest.fixture
def viewer():
    viewer = ViewerModel()
    watch(viewer)
    scan = head(GRIDS["oblique"])
    viewer.add_layer(bridge.to_layer(Volume(scan.data, scan.grid, origin=Origin(title="Mustermann T1"))))
    yield viewer
    viewer.layers.clear()


@pytest.fixture
def layer(viewer):
    scan = bridge.volume_of(viewer.layers[0])
    empty = scan.with_labels(np.zeros(scan.grid.shape, np.uint8))
    layer = viewer.add_layer(bridge.to_layer(empty, bridge.frame_of(viewer.layers), name="labels"))
    layer.mode = "paint"
    layer.brush_size = 5
    return layer


def stroke(layer, label, *places):
    """Paint one stroke."""
    layer.selected_label = label
    with layer.block_history():
        for place in places:
            layer.paint(place, label)


def test_strokes_are_named_steps_across_slices_and_tools(layer):
    edits, states, names = edits_of(layer), [layer.data.copy()], []
    rng = np.random.default_rng(0)
    for n in range(100):
        place = rng.integers(3, 25, 3)
        if n % 10 == 9:
            layer.mode = "fill"
            layer.fill(place, 9)
            names.append("Fill 9")
        elif n % 10 == 8:
            layer.mode = "erase"
            with layer.block_history():
                layer.paint(np.argwhere(layer.data)[0], 0)
            names.append("Eraser")
        elif n % 10 == 7:
            layer.data_setitem(tuple(np.atleast_1d(i) for i in place), 1 + layer.data[tuple(place)])
            names.append("Edit")
        else:
            layer.mode = "paint"
            stroke(layer, n % 8 + 1, place, place + np.array((0, 2, 1)))
            names.append(f"Brush {n % 8 + 1}")
        states.append(layer.data.copy())
    real = [not np.array_equal(a, b) for a, b in itertools.pairwise(states)]
    states = [states[0]] + [state for state, changed in zip(states[1:], real, strict=True) if changed]
    names = [name for name, changed in zip(names, real, strict=True) if changed]
    assert len(names) > 90
    assert [entry.name for entry in edits.steps] == names
    assert len(layer._undo_history) == 0, "napari keeps nothing beside"
    for state in reversed(states[:-1]):
        layer.undo()
        np.testing.assert_array_equal(layer.data, state)
    layer.undo()  # nothing is left to undo
    assert edits.position == 0
    for state in states[1:]:
        layer.redo()
        np.testing.assert_array_equal(layer.data, state)
    layer.redo()
    edits.go_to(40)
    np.testing.assert_array_equal(layer.data, states[40])
    np.testing.assert_array_equal(edits.log.replay(), layer.data)


def test_counts_follow_every_step(layer):
    edits, rng = edits_of(layer), np.random.default_rng(1)

    def true():
        values, often = np.unique(layer.data, return_counts=True)
        return {int(v): int(n) for v, n in zip(values, often, strict=True) if v}

    assert edits.counts.ask(layer.data) == {}
    for n in range(60):
        if n % 7 == 6:
            layer.undo()
        elif n % 11 == 10:
            layer.redo()
        else:
            stroke(layer, n % 5 + 1, rng.integers(3, 25, 3))
        assert edits.counts.ask(layer.data) == true()


def test_a_large_layer_is_counted_off_the_windows_thread(layer, monkeypatch):
    import napari_mri.gui.label_counts as label_counts

    monkeypatch.setattr(label_counts, "AT_ONCE", 10)
    edits = edits_of(layer)
    stroke(layer, 1, (10, 10, 10))
    assert edits.counts.ask(layer.data) is None
    edits.counts._thread.join()
    stroke(layer, 2, (12, 10, 10))  # what the thread found is old by now
    assert edits.counts.ask(layer.data) is None
    edits.counts._thread.join()
    found = edits.counts.ask(layer.data)
    assert found == {1: np.count_nonzero(layer.data == 1), 2: np.count_nonzero(layer.data == 2)}


def test_an_undo_turns_to_its_slice(viewer, layer):
    stroke(layer, 1, (5, 10, 10))
    stroke(layer, 2, (20, 10, 10))
    axis = viewer.dims.not_displayed[0]
    assert axis == 0
    viewer.dims.set_point(0, layer.data_to_world((12, 0, 0))[0])
    layer.undo()
    assert round(layer.world_to_data(viewer.dims.point)[0]) == 20
    layer.undo()
    assert round(layer.world_to_data(viewer.dims.point)[0]) == 5
    edits_of(layer).go_to(2)
    assert round(layer.world_to_data(viewer.dims.point)[0]) == 20


@pytest.mark.parametrize("backstop", [False, True])
def test_locked_labels_are_never_changed(layer, backstop):
    from napari_mri.gui import napari_private_labels as private

    edits = edits_of(layer)
    layer.data[:, 8:12, :] = 3
    locked = layer.data == 3
    edits.rules.locked = {3}
    if backstop:  # a napari without the private hook
        private.release(layer)
    layer.brush_size = 12
    if backstop:  # it knows drags only: a single call tells of itself before it writes
        stroke(layer, 1, (10, 10, 10), (10, 14, 12))
        np.testing.assert_array_equal(layer.data == 3, locked)
        np.testing.assert_array_equal(edits.log.replay(), layer.data)
        return
    stroke(layer, 1, (10, 10, 10), (10, 14, 12))
    layer.n_edit_dimensions = 3
    stroke(layer, 2, (12, 7, 10))
    layer.fill((20, 2, 2), 4)
    layer.fill((20, 10, 2), 5)
    layer.n_edit_dimensions = 2
    layer.paint_polygon([(14, 0, 0), (14, 20, 0), (14, 20, 20)], 6)
    layer.data_setitem(np.nonzero(np.ones_like(layer.data)), np.full(layer.data.size, 7, np.uint8))
    layer.data_setitem((np.array([1, 2]), np.array([10, 2]), np.array([5, 5])), 3)
    np.testing.assert_array_equal(layer.data == 3, locked)
    assert (layer.data == 7).any()
    assert edits.change(np.full_like(layer.data, 8), "all") == np.count_nonzero(~locked)
    np.testing.assert_array_equal(layer.data == 3, locked)
    stroke(layer, 3, (1, 1, 1))  # nor does anything join a locked label
    np.testing.assert_array_equal(layer.data == 3, locked)
    edits.rules.locked = set()
    stroke(layer, 1, (10, 10, 10))
    assert ((layer.data == 3) != locked).any()


def test_paint_only_inside_a_label_or_a_range_of_grey_values(viewer, layer):
    edits = edits_of(layer)
    layer.data[:, 8:12, :] = 3
    inside = layer.data == 3
    edits.rules.inside = 3
    layer.brush_size = 12
    stroke(layer, 1, (10, 10, 10))
    assert (layer.data == 1).any()
    assert not (layer.data[~inside]).any()
    layer.selected_label = 1
    layer.mode = "erase"
    layer.paint((10, 10, 10), 0)  # what the brush has put there may be wiped away again
    assert not (layer.data == 1).any()
    edits.rules.inside = None
    scan = viewer.layers[0]
    low, high = np.percentile(scan.data, (60, 80))
    edits.rules.stay_between((low, high), scan, layer.data.shape)
    before = layer.data.copy()
    stroke(layer, 5, (15, 15, 15))
    changed = layer.data != before
    assert changed.any()
    assert (scan.data[changed] >= low).all()
    assert (scan.data[changed] <= high).all()
    with pytest.raises(GridMismatch):
        edits.rules.stay_between((0, 1), viewer.add_image(np.zeros((3, 4, 5))), layer.data.shape)
    edits.rules.stay_between(None, None, layer.data.shape)
    assert edits.rules.guard().open


def test_the_log_on_the_disk_gives_the_layer(layer, own_edit_logs):
    layer.data[3:5, 3:5] = 2  # what was there at first
    for n in range(5):
        stroke(layer, n + 1, (6 + n, 12, 12))
    layer.undo()
    edits = edits_of(layer)
    assert edits.unsaved
    assert edits.log.flush()
    (path,) = own_edit_logs.iterdir()
    assert "Muster" not in path.read_bytes().decode("latin-1"), "a title may be a patient's name"
    end = layer.data.copy()
    edits.log.close()
    found = EditLog.recover(path)
    np.testing.assert_array_equal(found.array, end)
    assert [entry.name for entry in found.log.steps][:2] == ["Opened", "Brush 1"]
    found.log.close()


def test_a_closed_layer_leaves_a_log_only_if_something_was_not_saved(viewer, layer, own_edit_logs):
    assert not list(own_edit_logs.iterdir()), "nothing was painted yet"
    edits = edits_of(layer)
    stroke(layer, 1, (6, 12, 12))
    edits.saved(edits.top)
    assert not edits.unsaved
    viewer.layers.remove(layer)
    assert not list(own_edit_logs.iterdir())
    viewer.add_layer(layer)
    stroke(layer, 2, (8, 12, 12))
    layer.undo()
    assert not edits_of(layer).unsaved, "all is as it was opened"
    layer.redo()
    viewer.layers.remove(layer)
    (left,) = unfinished()
    assert left.closed
    assert left.steps[-1] == "redo"


def test_a_tool_and_an_accepted_answer_tell_who_made_them(viewer, layer):
    edits = edits_of(layer)
    stroke(layer, 1, (6, 12, 12))
    stroke(layer, 1, (7, 12, 12))
    stroke(layer, 2, (7, 18, 12))
    tool = Step("Smooth", Order("edit", "smooth", {"mm": 1.0}))
    assert edits.change(np.where(layer.data == 1, 4, layer.data), "Smooth", step=tool)
    layer.data_setitem((np.array([1]), np.array([2]), np.array([3])), 5)
    bridge.note(layer, Step("segment by grow", Order("segment", "grow", {}), {"prompts": 2}))
    steps = bridge.labels_of(layer, viewer.layers).history[-3:]
    assert [step.action for step in steps] == ["edited by hand: Brush 1 × 2, Brush 2", "Smooth", "segment by grow"]
    assert steps[0].facts["steps"] == 3
    assert steps[1].order == tool.order
    assert steps[2].facts["prompts"] == 2
    assert edits.top.kind == "model"
    layer.undo()
    assert bridge.labels_of(layer, viewer.layers).history[-1].action == "Smooth", "what was undone was not done"
    with layer.block_history():  # as a plane of ours paints where napari shows another
        layer.data_setitem((np.array([3, 4]), np.array([2, 2]), np.array([3, 3])), layer.selected_label)
    assert edits.top.name == "Brush 2"
    layer.undo()
    bridge.note(layer, Step("never happened"))
    assert edits.top.name == "Smooth"


def test_an_exchanged_array_is_a_step_and_a_wider_type_none(layer):
    edits = edits_of(layer)
    stroke(layer, 1, (6, 12, 12))
    before = layer.data.copy()
    layer.data = layer.data.astype(np.uint16)
    assert edits.position == 1
    layer.selected_label = 700
    stroke(layer, 700, (8, 12, 12))
    layer.data = np.where(layer.data == 700, 3, layer.data).astype(np.uint16)
    assert [entry.name for entry in edits.steps] == ["Brush 1", "Brush 700", "Replaced"]
    layer.undo()
    assert (layer.data == 700).any()
    layer.undo()
    np.testing.assert_array_equal(layer.data, before)
    layer.data = np.zeros((9, 9, 9), np.uint8)  # other labels altogether
    assert edits.steps == ()
    layer.paint((4, 4, 4), 2)
    assert edits.position == 1


def test_a_half_stroke_cannot_be_undone_under_the_brush(layer):
    stroke(layer, 1, (6, 12, 12))
    with layer.block_history():
        layer.paint((6, 20, 20), 1)
        layer.undo()
        assert edits_of(layer).position == 1
    assert edits_of(layer).position == 2


def test_a_folder_that_cannot_be_written_is_told_and_painting_goes_on(layer, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NAPARI_MRI_EDITS", str(tmp_path / "file"))
    said = []
    monkeypatch.setattr("napari_mri.gui.edit_history.show_warning", said.append)
    for n in range(4):
        stroke(layer, 1, (6 + n, 12, 12))
    edits = edits_of(layer)
    assert not edits.log.flush(0.5)
    assert "go on painting" in edits.trouble
    edits._look_at_disk()
    edits._look_at_disk()
    assert len(said) == 1
    for _ in range(4):
        layer.undo()
    assert not layer.data.any()


def test_labels_that_stand_nowhere_are_kept_in_memory_only(viewer, own_edit_logs):
    stray = viewer.add_labels(np.zeros((7, 8, 9), np.uint8))
    stray.paint((3, 3, 3), 1)
    assert edits_of(stray).position == 1
    assert not list(own_edit_logs.iterdir())
    stray.undo()
    assert not stray.data.any()
    flat = viewer.add_labels(np.zeros((8, 9), np.uint8))
    assert edits_of(flat) is None
    assert edits_of(None) is None


def test_a_closed_layer_is_napari_s_again(viewer, layer):
    edits = edits_of(layer)
    layer.paint((6, 12, 12), 1)
    viewer.layers.remove(layer)
    assert edits_of(layer) is None
    assert edits.log is None
    layer.paint((9, 12, 12), 1)
    assert edits.log is None
    before = layer.data.copy()
    layer.undo()  # napari's own undo works again
    assert not np.array_equal(layer.data, before)
    assert (layer.data == 1).any()
