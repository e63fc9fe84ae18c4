"""What a window leaves behind when it dies is offered again, with its undo; what cannot be written is told."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

from napari_mri.core.volume import Origin, Volume
from napari_mri.edit.log import EditLog
from napari_mri.edit.unfinished import unfinished
from napari_mri.gui import layers as bridge
from napari_mri.gui.edit_history import edits_of
from napari_mri.gui.history_widget import HistoryWidget
from napari_mri.gui.labels_widget import LabelsWidget
from tests.gui.painting_window import strokes
from tests.scans import GRIDS, head

ROOT = Path(__file__).resolve().parents[2]


def opened(window, grid="oblique", **facts):
    scan = head(GRIDS[grid])
    return window.add_layer(bridge.to_layer(Volume(scan.data, scan.grid, origin=Origin(title="T1"))))


def desk_of(window):
    widget = LabelsWidget(window)
    window.window.add_dock_widget(widget, name="Labels")
    return widget


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")
def test_a_killed_window_gives_back_all_but_a_stroke(window, qtbot, own_edit_logs):
    opened(window)
    assert desk_of(window).recovery.isHidden()
    painter = subprocess.Popen(
        [sys.executable, "-m", "tests.gui.painting_window", "12"], cwd=ROOT, stdout=subprocess.PIPE,
        env={**os.environ, "NAPARI_MRI_EDITS": str(own_edit_logs)},
    )  # fmt: skip
    done = [line for line in painter.stdout if line.startswith(b"did")]
    painter.wait()
    painter.stdout.close()
    assert painter.returncode == -signal.SIGKILL
    assert len(done) == 12
    (left,) = unfinished()
    assert not left.closed
    assert 11 <= len(left.steps) <= 13  # a name, too, was given
    desk = desk_of(window)
    assert not desk.recovery.isHidden()
    assert " changes" in desk.recovery.says.text()
    desk.recovery.restore()
    layer = desk.layer
    assert layer.name == "T1 · labels (restored)"
    assert desk.recovery.isHidden()
    states = list(strokes(layer.data.shape, 12))
    edits = edits_of(layer)
    np.testing.assert_array_equal(layer.data, states[edits.position])
    assert edits.position >= 11
    assert desk.table.rows.item(0, 1).text() == "liver", "names are in the log too"
    for n in range(edits.position - 1, -1, -1):
        layer.undo()
        np.testing.assert_array_equal(layer.data, states[n])
    layer.redo()
    assert edits.unsaved
    assert bridge.labels_of(layer, window.layers).grid.same(GRIDS["oblique"], 1e-3)


def left_behind(viewer, grid="oblique"):
    """Paint in a window and close its layer unsaved; return the exact labels."""
    opened(viewer, grid)
    desk = desk_of(viewer)
    desk.new_labels()
    layer = desk.layer
    for n in range(3):
        layer.paint((5 + 4 * n, 10, 10), n + 1)
    exact = bridge.labels_of(layer, viewer.layers)
    viewer.layers.remove(layer)
    return desk, exact


def test_a_window_that_looks_along_other_axes_gets_the_voxels(window, qtbot, tmp_path):
    desk, exact = left_behind(window)
    (left,) = unfinished()
    assert left.closed
    window.layers.clear()
    opened(window, "plain")
    desk.recovery.look()
    assert "closed before they were saved" in desk.recovery.says.text()
    desk.recovery.restore()
    layer = desk.layer
    assert "axes" in desk.message.text()
    np.testing.assert_array_equal(bridge.labels_of(layer, window.layers).data, exact.data)
    assert not left.path.exists()
    edits_of(layer).log.flush()
    window.layers.remove(layer)  # not saved yet: offered again
    (again,) = unfinished()
    assert again.path != left.path
    assert again.steps == ("Restored",)


def test_discard_asks_once_more_and_later_keeps(window, own_edit_logs):
    desk, _ = left_behind(window)
    desk.recovery.look()
    desk.recovery.later()
    assert desk.recovery.isHidden()
    assert len(unfinished()) == 1
    desk.recovery.look()
    desk.recovery.discard()
    assert len(unfinished()) == 1
    assert "Really" in desk.recovery.discard_button.text()
    desk.recovery.discard()
    assert unfinished() == ()
    assert desk.recovery.isHidden()


def test_a_broken_log_is_told_and_kept(window, own_edit_logs):
    desk = desk_of(window)
    log = EditLog((4, 5, 6), np.uint8, own_edit_logs / "odd.mrilog", facts={"grid": {"shape": [4, 5, 6]}})
    log.record("Brush", None, np.zeros((4, 5, 6), np.uint8), np.ones((4, 5, 6), np.uint8))
    log.close()
    desk.recovery.look()
    desk.recovery.restore()
    assert "does not tell where" in desk.message.text()
    assert (own_edit_logs / "odd.mrilog").exists()


def test_a_saved_mask_leaves_nothing_behind(window, qtbot, tmp_path, own_edit_logs):
    opened(window)
    desk = desk_of(window)
    desk.new_labels()
    desk.layer.paint((5, 10, 10), 1)
    desk.save_to(tmp_path / "mask.nii.gz")
    qtbot.waitUntil(lambda: "Saved" in desk.message.text(), timeout=20_000)
    assert not edits_of(desk.layer).unsaved
    window.layers.remove(desk.layer)
    assert not list(own_edit_logs.iterdir())


def test_a_folder_that_cannot_be_written_stays_in_sight(window, qtbot, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NAPARI_MRI_EDITS", str(tmp_path / "file"))
    monkeypatch.setattr("napari_mri.gui.edit_history.show_warning", lambda sentence: None)
    opened(window)
    desk = desk_of(window)
    desk.new_labels()
    desk.layer.paint((5, 10, 10), 1)
    qtbot.waitUntil(lambda: "go on painting" in desk.message.text(), timeout=10_000)
    desk.layer.paint((9, 10, 10), 2)
    desk.layer.undo()
    desk.layer.undo()
    assert not desk.layer.data.any()


def test_the_history_list_goes_back_and_forward(window):
    opened(window)
    desk = desk_of(window)
    desk.new_labels()
    widget = HistoryWidget(window)
    window.window.add_dock_widget(widget, name="Edit history")
    layer, states = desk.layer, [desk.layer.data.copy()]
    for n in range(5):
        layer.selected_label = n + 1
        layer.paint((5 + n, 10, 10), n + 1)
        states.append(layer.data.copy())
    names = [widget.list.item(n).text().split("   ")[-1] for n in range(widget.list.count())]
    assert names == ["Empty", "Brush 1", "Brush 2", "Brush 3", "Brush 4", "Brush 5"]
    desk.table.rows.item(1, 1).setText("spleen")
    layer.undo()
    layer.redo()
    assert widget.list.item(2).text().endswith("Brush 2 · spleen")
    for row in (2, 5, 0, 3):
        widget.list.itemClicked.emit(widget.list.item(row))
        np.testing.assert_array_equal(layer.data, states[row])
        assert widget.list.currentRow() == row
    assert widget.list.item(4).font().italic()
    assert widget.list.item(3).font().bold()
    layer.paint((20, 10, 10), 9)
    assert widget.list.count() == 5, "what was undone is gone after a new step"
    assert desk.history.count() == 5
