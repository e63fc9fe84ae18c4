"""The labels widget in a real window: whose voxels, volumes, tools, undo, save."""

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

from napari_mri.core.volume import Origin, Volume
from napari_mri.gui import layers as bridge
from napari_mri.io.files import load
from tests.scans import GRIDS, head


@pytest.fixture
def desk(window):
    from napari_mri.gui.labels_widget import LabelsWidget

    scan = head(GRIDS["oblique"])
    window.add_layer(bridge.to_layer(Volume(scan.data, scan.grid, origin=Origin(title="T1"))))
    widget = LabelsWidget(window)
    window.window.add_dock_widget(widget, name="Labels")
    return widget


def rows(desk):
    table = desk.table.rows
    return [[table.item(r, c).text() for c in (0, 1, 4)] for r in range(table.rowCount())]


def pick_tool(desk, title):
    desk.correct.tool.setCurrentIndex(desk.correct.tool.findText(title))
    assert desk.correct.tool.currentText() == title


def applied(desk, qtbot):
    desk.correct.apply()
    qtbot.waitUntil(lambda: not desk._job.running, timeout=20_000)


def test_the_whole_desk(desk, window, qtbot, tmp_path):
    assert "No labels yet" in desk.place.text()
    assert not desk.save_button.isEnabled()
    desk.new_labels()
    layer = window.layers[-1]
    assert layer.name == "T1 · labels"
    assert desk.labels.layer is layer
    assert layer.mode == "paint"
    assert "31×35×29 at 4×4×4 mm" in desk.place.text()

    # A cube with a hole, and an island.
    layer.data[5:15, 5:15, 5:15] = 1
    layer.data[9:11, 9:11, 9:11] = 0
    layer.data[20, 20, 20] = 1
    layer.refresh()
    start = layer.data.copy()
    desk.count()
    assert bridge.volume_of(window.layers[0]).grid.voxel_ml == pytest.approx(0.064)
    assert rows(desk) == [["1", "", "63.55 ml"]]

    pick_tool(desk, "Largest piece")
    applied(desk, qtbot)
    assert "1 voxel changed" in desk.message.text()
    assert layer.data[20, 20, 20] == 0
    pick_tool(desk, "Fill holes")
    previewed = layer.data.copy()
    desk.correct.preview()
    qtbot.waitUntil(lambda: not desk._job.running, timeout=20_000)
    np.testing.assert_array_equal(layer.data, previewed)
    assert np.count_nonzero(window.layers["preview"].data == 1) == 8
    assert window.layers["preview"].units == layer.units
    assert "would change 8 voxels" in desk.message.text()
    assert desk.layer is layer
    job = desk._job
    applied(desk, qtbot)
    assert desk._job is job, "it was worked out already"
    assert "preview" not in window.layers
    assert np.count_nonzero(layer.data) == 1000
    assert rows(desk) == [["1", "", "64.00 ml"]]
    done = layer.data.copy()
    desk.correct.undo()
    desk.correct.undo()
    np.testing.assert_array_equal(layer.data, start)
    desk.correct.redo()
    desk.correct.redo()
    np.testing.assert_array_equal(layer.data, done)
    applied(desk, qtbot)
    assert "no change" in desk.message.text()

    desk.save_to(tmp_path / "mask.nii.gz")
    qtbot.waitUntil(lambda: "Saved" in desk.message.text(), timeout=20_000)
    saved = load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(saved.data, bridge.labels_of(layer, window.layers).data)
    assert saved.grid.same(GRIDS["oblique"], 1e-3)
    assert [step.action for step in saved.history][:2] == ["Largest piece", "Fill holes"]


def test_napari_made_labels_are_followed(desk, window, qtbot):
    window.layers.selection.active = window.layers[0]
    window._new_labels()
    layer = window.layers[-1]
    assert desk.labels.layer is layer
    assert "own voxels" in desk.place.text()
    layer.paint((14, 17, 15), 5)
    assert rows(desk)[0][0] == "5"
    layer.selected_label = 1
    desk.table.rows.selectRow(0)
    assert layer.selected_label == 5


def test_labels_that_lie_nowhere_cannot_be_saved(desk, window, tmp_path):
    window.add_labels(np.zeros((7, 8, 9), np.uint8), name="stray")
    assert desk.place.text().startswith("⚠")
    assert not desk.save_button.isEnabled()
    assert not desk.correct.apply_button.isEnabled()
    desk.save_to(tmp_path / "x.nii.gz")
    assert "stray" in desk.message.text()
    assert not list(tmp_path.iterdir())


def test_an_empty_mask_and_a_bad_ending_are_told(desk, window, qtbot, tmp_path):
    desk.new_labels()
    desk.save_to(tmp_path / "x.png")
    assert "'.png'" in desk.message.text()
    desk.save_to(tmp_path / "x.nii.gz")
    qtbot.waitUntil(lambda: "Saved" in desk.message.text(), timeout=20_000)
    assert "empty" in desk.message.text()
    desk.save_to(tmp_path / "no such folder" / "x.nii.gz")
    qtbot.waitUntil(lambda: not desk._job.running, timeout=20_000)
    assert not (tmp_path / "no such folder").exists()
    assert "Saved" not in desk.message.text()
    assert desk.save_button.isEnabled()


def test_the_user_decides_between_two_storage_orders(desk, window):
    first = window.layers[0]
    scan = bridge.volume_of(first)
    other = window.add_layer(bridge.to_layer(scan.turned("LIP").titled("B"), bridge.frame_of(window.layers)))
    window.layers.selection.active = first
    window._new_labels()
    assert desk.current().grid.same(scan.grid)  # made on the selected scan
    desk.scan.setCurrentIndex(desk.scan.findText("B"))
    desk._on_picked()
    assert desk.scan.layer is other
    assert desk.current().grid.same(scan.grid.turned("LIP"))


def test_the_suggested_name_has_no_odd_characters(desk, window):
    desk.new_labels()
    assert desk.saver.suggested_path().name == "T1_labels.nii.gz"


def test_counts():
    from napari_mri.gui.label_counts import counts

    rng = np.random.default_rng(0)
    for kind in (np.uint8, np.int16, np.int32, np.uint32):
        data = rng.integers(0, 9, (5, 6, 7)).astype(kind)
        data[0, 0, 0] = 100
        if kind == np.int16:
            data[1, 1, 1] = -3
        if kind == np.uint32:
            data[1, 1, 1] = 3_000_000_000
        values, often = np.unique(data, return_counts=True)
        expected = {int(v): int(n) for v, n in zip(values, often, strict=True) if v}
        assert counts(data) == expected
    assert counts(np.zeros((3, 3, 3), np.uint8)) == {}


@pytest.mark.parametrize(
    ("volume", "words"), [(0.1234, "0.123 ml"), (12.345, "12.35 ml"), (1361.53, "1361.5 ml"), (0, "0.000 ml")]
)
def test_volumes_in_words(volume, words):
    from napari_mri.gui.label_table import in_ml

    assert in_ml(volume) == words


def test_a_hidden_by_product_is_not_taken_for_the_scan(desk, window):
    image = window.layers[0]
    scan = bridge.volume_of(image)
    frame = bridge.frame_of(window.layers)
    window.add_layer(bridge.to_layer(scan.titled("distance"), frame, visible=False))
    window.add_layer(bridge.to_layer(scan.with_labels(scan.data > 300), frame, name="mask"))
    assert desk.labels.layer.name == "mask"
    assert desk.scan.layer is image
