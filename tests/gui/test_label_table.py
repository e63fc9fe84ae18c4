"""The label table in a real window: names, colours, locks, merging, keys, sets of names, what is saved."""

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor

from napari_mri.core.volume import Origin, Volume
from napari_mri.gui import layers as bridge
from napari_mri.gui.edit_history import edits_of
from napari_mri.gui.label_table import LOCK, NAME, SHOW
from napari_mri.io.files import load_labels
from tests.scans import GRIDS, head


@pytest.fixture
def desk(window):
    from napari_mri.gui.labels_widget import LabelsWidget

    scan = head(GRIDS["oblique"])
    window.add_layer(bridge.to_layer(Volume(scan.data, scan.grid, origin=Origin(title="T1"))))
    widget = LabelsWidget(window)
    window.window.add_dock_widget(widget, name="Labels")
    widget.new_labels()
    layer = widget.layer
    layer.data[2:6, 5:15, 5:15] = 1
    layer.data[8:12, 5:15, 5:15] = 2
    layer.data[14:18, 5:15, 5:15] = 3
    layer.refresh()
    widget.count()
    return widget


def row_of(desk, value):
    return desk.table.values().index(value)


def tick(desk, value, column, on):
    item = desk.table.rows.item(row_of(desk, value), column)
    item.setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)


def select(desk, first, *others):
    desk.table.rows.selectRow(row_of(desk, first))
    for value in others:  # as Ctrl-click does
        for column in range(desk.table.rows.columnCount()):
            desk.table.rows.item(row_of(desk, value), column).setSelected(True)
    assert desk.table.selected() == [value for value in desk.table.values() if value in (first, *others)]


def test_names_and_colours_reach_the_saved_file(desk, qtbot, tmp_path):
    table = desk.table
    assert table.values() == [1, 2, 3]
    table.rows.item(0, NAME).setText("liver")
    table.rows.item(2, NAME).setText("spleen")
    table.ask_color = lambda now: QColor(255, 0, 0)
    table._on_double(0, 0)
    assert table.set.color(1) == (1.0, 0.0, 0.0)
    np.testing.assert_allclose(desk.layer.get_color(1)[:3], (1, 0, 0))
    table.ask_color = lambda now: QColor()
    table._on_double(1, 0)
    for name in ("mask.seg.nrrd", "mask.nii.gz"):
        desk.save_to(tmp_path / name)
        qtbot.waitUntil(lambda: not desk._job.running, timeout=20_000)
        assert "Saved" in desk.message.text()
    saved = load_labels(tmp_path / "mask.seg.nrrd")
    assert saved.names[1] == "liver"
    assert saved.names[3] == "spleen"
    np.testing.assert_allclose(saved.colors[1], (1, 0, 0), atol=0.01)
    assert load_labels(tmp_path / "mask.nii.gz").names[1] == "liver"


def test_add_takes_the_next_number_onto_the_brush(desk):
    layer = desk.layer
    desk.table.add()
    assert layer.selected_label == 4
    assert desk.table.values() == [1, 2, 3, 4]
    layer.paint((20, 20, 20), 4)
    assert desk.table.rows.item(3, 5).text() == str(np.count_nonzero(layer.data == 4))
    layer.data[0, 0, 0] = 255
    desk.count()
    desk.table.add()  # more than the type holds
    assert layer.data.dtype == np.uint16
    assert layer.selected_label == 256
    layer.paint((22, 20, 20), 256)
    assert (layer.data == 256).any()
    assert [entry.name for entry in edits_of(layer).steps[1:]] == ["Brush 4", "Replaced", "Brush 256"]
    for _ in range(3):  # what a script had written is a step of its own
        layer.undo()
    assert not (layer.data == 4).any()


def test_remove_and_merge_can_be_undone_and_obey_locks(desk):
    layer, table = desk.layer, desk.table
    table.rows.item(1, NAME).setText("spleen")
    start = layer.data.copy()
    select(desk, 2)
    tick(desk, 2, LOCK, True)
    table.remove()
    np.testing.assert_array_equal(layer.data, start)
    assert "locked" in desk.message.text()
    tick(desk, 2, LOCK, False)
    select(desk, 2)
    table.remove()
    assert not (layer.data == 2).any()
    assert table.values() == [1, 3]
    layer.undo()
    np.testing.assert_array_equal(layer.data, start)
    assert sorted(table.values()) == [1, 2, 3]
    assert table.rows.item(row_of(desk, 2), NAME).text() == "spleen", "its name comes back with it"
    select(desk, 1, 3)
    table.merge()
    np.testing.assert_array_equal(layer.data == 1, (start == 1) | (start == 3))
    assert sorted(table.values()) == [1, 2]
    assert edits_of(layer).top.name == "Merge 3 into 1"
    layer.undo()
    np.testing.assert_array_equal(layer.data, start)
    select(desk, 1)
    table.merge()
    assert "two or more" in desk.message.text()


def test_hidden_labels_are_not_drawn_and_locked_ones_not_painted(desk):
    layer = desk.layer
    tick(desk, 1, SHOW, False)
    assert layer.get_color(1)[3] == 0
    assert layer.get_color(2)[3] == 1
    tick(desk, 1, SHOW, True)
    assert layer.get_color(1)[3] == 1
    tick(desk, 2, LOCK, True)
    layer.brush_size = 12
    layer.paint((9, 10, 10), 3)
    assert (layer.data[8:12, 5:15, 5:15] == 2).all()


def test_rows_move_and_keys_choose_them(desk, window, qtbot):
    layer, table = desk.layer, desk.table
    select(desk, 3)
    table.move(-1)
    table.move(-1)
    assert table.values() == [3, 1, 2]
    window.layers.selection.active = layer
    keymap = {str(key): call for key, call in layer.keymap.items()}
    for key, value in (("1", 3), ("2", 1), ("3", 2)):
        keymap[key](layer)
        assert layer.selected_label == value
    keymap["9"](layer)  # no ninth row
    assert layer.selected_label == 2
    keymap["O"](layer)
    assert layer.mode == "polygon"
    desk.paint.keys.setChecked(False)
    assert "1" not in {str(key) for key in layer.keymap}
    desk.paint.keys.setChecked(True)
    other = window.add_labels(np.zeros((4, 4, 4), np.uint8))
    assert desk.layer is other
    assert not layer.keymap, "a layer that is not chosen has napari's own keys"


def test_sets_of_names_are_loaded_and_saved(desk, tmp_path):
    table = desk.table
    table.rows.item(0, NAME).setText("liver")
    for kind in ("itksnap", "slicer", "freesurfer", "bids"):
        path = tmp_path / f"names_{kind}.{'tsv' if kind == 'bids' else 'txt'}"
        table.save_to(path, kind)
        table.rows.item(0, NAME).setText("x")
        table.load_from(path)
        assert table.rows.item(0, NAME).text() == "liver"
    (tmp_path / "bad.txt").write_text("nothing of the kind")
    table.load_from(tmp_path / "bad.txt")
    assert "not a table" in desk.message.text()


def test_the_brush_may_be_kept_inside(desk):
    layer = desk.layer
    desk.paint.inside.setCurrentIndex(desk.paint.inside.findData(1))
    desk.paint._on_inside()
    layer.brush_size = 12
    before = layer.data.copy()
    layer.selected_label = 7
    layer.paint((4, 5, 5), 7)
    assert (before[layer.data == 7] == 1).all()
    assert (layer.data == 7).any()
    desk.paint.inside.setCurrentIndex(0)
    desk.paint._on_inside()
    desk.paint.range.setChecked(True)  # begins with the contrast limits
    assert edits_of(layer).rules.window == pytest.approx(desk.scan.layer.contrast_limits, abs=0.06)
    desk.paint.range.setChecked(False)
    assert edits_of(layer).rules.window is None


def test_look_next_walks_from_the_worst_slice(desk, window, qtbot):
    layer = desk.layer
    other = bridge.labels_of(layer, window.layers)
    data = layer.data.copy()
    data[10, 5:12, 5:12] = 0
    data[16, 5:8, 5:8] = 0
    second = window.add_layer(
        bridge.to_layer(other.with_data(bridge.shown(layer).placing.home(data)), bridge.frame_of(window.layers), name="rater 2")
    )
    desk.labels.choose(layer)
    desk.doubt.source.choose(second)
    slices = []
    for by in (1, 1, -1):
        desk.doubt.step(by)
        qtbot.waitUntil(lambda: desk._job is None or not desk._job.running, timeout=20_000)
        slices.append(round(layer.world_to_data(window.dims.point)[0]))
    assert slices == [10, 16, 10]
    assert "1 of 2" in desk.doubt.says.text()
    desk.doubt.source.choose(layer)
    desk.doubt.step()
    assert "Choose another" in desk.doubt.says.text()


def test_a_report_is_written(desk, qtbot, tmp_path):
    desk.saver.report_to(tmp_path / "page")
    qtbot.waitUntil(lambda: not desk._job.running, timeout=30_000)
    page = (tmp_path / "page.html").read_text()
    assert "25.60" in page or "25.6" in page
    assert "Wrote" in desk.message.text()


def test_a_tilted_layer_is_counted_as_it_is_saved(desk, window, qtbot):
    scan = head(GRIDS["anisotropic"])
    frame = bridge.frame_of(window.layers)
    tilted = window.add_layer(bridge.to_layer(Volume(scan.data, scan.grid, origin=Origin(title="B")), frame))
    assert tilted.name.endswith("(tilted)")
    desk.labels.choose(None)
    empty = scan.with_labels(np.zeros(scan.grid.shape, np.uint8))
    layer = window.add_layer(bridge.to_layer(empty, frame, name="B labels"))
    assert desk.layer is layer
    middle = np.array(layer.data.shape) // 2
    layer.brush_size, layer.n_edit_dimensions = 9, 3
    layer.paint(middle, 2)
    exact = int(np.count_nonzero(bridge.labels_of(layer, window.layers).data))
    qtbot.waitUntil(lambda: desk.table.rows.rowCount() == 1, timeout=10_000)
    qtbot.waitUntil(lambda: desk.table.rows.item(0, 5).text() == str(exact), timeout=10_000)
    layer.undo()
    qtbot.waitUntil(lambda: desk.table.rows.item(0, 5).text() == "0", timeout=10_000)
