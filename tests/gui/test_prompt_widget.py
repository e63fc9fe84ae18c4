"""Clicking structures in a real window: marks land where they are put, the mask is one step, nothing else changes."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

from napari_mri.core.prompts import Box, Extremes, Lasso, Point, Scribble
from napari_mri.core.volume import Origin, Volume
from napari_mri.gui import layers as bridge
from napari_mri.gui.placing import Frame
from tests.scans import GRIDS, blob, dice, head

BRAIN = (4.0, -7.0, 11.0)


def titled(volume, title="T1"):
    return Volume(volume.data, volume.grid, origin=Origin(title=title))


@pytest.fixture
def clicking(window):
    from napari_mri.gui.prompt_widget import PromptWidget

    window.add_layer(bridge.to_layer(titled(head(GRIDS["oblique"]))))
    widget = PromptWidget(window)
    window.window.add_dock_widget(widget, name="Click to segment")
    row = next(n for n in range(widget.model.count()) if widget.model.itemData(n).name == "grow")
    widget.model.setCurrentIndex(row)
    return widget


def press(widget, xyz):
    """Click at a patient place, as the mouse would with a cursor there."""
    from napari.layers.points._points_mouse_bindings import add

    layer = widget.drawn.points
    event = SimpleNamespace(type="mouse_press", pos=np.zeros(2), position=tuple(widget.frame.to_world(xyz)))
    steps = add(layer, event)
    next(steps)
    event.type = "mouse_release"
    with pytest.raises(StopIteration):
        next(steps)


def ask(widget, qtbot, act):
    with qtbot.waitSignal(widget.answered, timeout=60_000):
        act()


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)], ids=["axial", "coronal", "sagittal"])
def test_a_click_lands_on_its_voxel_in_each_plane(clicking, window, qtbot, order):
    window.dims.order = order
    clicking.draw(0)
    spot = GRIDS["oblique"].to_patient((12, 20, 9))
    press(clicking, spot)
    mark = clicking.prompts.marks[0]
    assert isinstance(mark, Point)
    np.testing.assert_allclose(GRIDS["oblique"].to_voxels(mark.xyz), (12, 20, 9), atol=0.01)
    clicking.clear()


def test_click_preview_accept_undo(clicking, window, qtbot):
    clicking.draw(0)
    ask(clicking, qtbot, lambda: press(clicking, BRAIN))
    truth = blob(GRIDS["oblique"], BRAIN, (40, 47, 37))
    assert dice(clicking._answer.data, truth) > 0.95
    assert clicking._preview.visible
    assert "ml" in clicking.score.text()
    clicking.number.setValue(3)
    clicking.accept()
    target = clicking.target.layer
    labels = bridge.labels_of(target, window.layers)
    assert dice(labels.data == 3, truth) > 0.95
    assert any(step.facts.get("prompts") for step in labels.history)
    assert not clicking._preview.visible
    assert len(clicking.prompts) == 0
    target.undo()
    assert not target.data.any()


def test_a_second_object_never_eats_the_first_unless_told(clicking, window, qtbot):
    clicking.draw(0)
    ask(clicking, qtbot, lambda: press(clicking, BRAIN))
    clicking.accept()
    first = (clicking.target.layer.data == 1).copy()
    clicking.number.setValue(2)
    ask(clicking, qtbot, lambda: press(clicking, BRAIN))
    clicking.accept()
    np.testing.assert_array_equal(clicking.target.layer.data == 1, first)
    clicking.number.setValue(2)
    clicking.rule.setCurrentIndex(clicking.rule.findData("overwrite"))
    ask(clicking, qtbot, lambda: press(clicking, BRAIN))
    clicking.accept()
    assert (clicking.target.layer.data == 2).sum() >= 0.95 * first.sum()


def test_undo_and_redo_of_marks_without_limit(clicking, qtbot):
    clicking.draw(0)
    places = [(4.0 + n, -7.0, 11.0) for n in range(25)]
    for place in places:
        press(clicking, place)
    assert len(clicking.prompts) == 25
    for _ in range(25):
        clicking.undo()
    assert len(clicking.prompts) == 0
    assert not clicking.buttons["undo"].isEnabled()
    for _ in range(25):
        clicking.redo()
    np.testing.assert_allclose([m.xyz for m in clicking.prompts], places, atol=1e-6)
    assert [m.positive for m in clicking.prompts] == [True] * 25
    size = sum(sys.getsizeof(s.points) + s.points.nbytes for s, _ in clicking._past)
    assert size < 1_000_000
    qtbot.waitUntil(lambda: clicking._job is None or not clicking._job.running, timeout=60_000)


def test_marks_can_be_moved_deleted_and_toggled(clicking, qtbot):
    clicking.draw(0)
    press(clicking, BRAIN)
    clicking.draw(1)
    press(clicking, (4.0, -7.0, 60.0))
    assert [m.positive for m in clicking.prompts] == [True, False]
    layer = clicking.drawn.points
    layer.selected_data = {1}
    clicking.toggle()
    assert [m.positive for m in clicking.prompts] == [True, True]
    layer.selected_data = {1}
    layer.remove_selected()
    assert len(clicking.prompts) == 1
    layer.data = layer.data + np.array([0.0, 0.0, 2.0])
    np.testing.assert_allclose(
        clicking.frame.to_world(clicking.prompts.marks[0].xyz) - clicking.frame.to_world(BRAIN), (0, 0, 2), atol=1e-6
    )
    qtbot.waitUntil(lambda: clicking._job is None or not clicking._job.running, timeout=60_000)


def test_marks_a_model_does_not_take_are_grey_with_a_reason(clicking):
    assert not clicking.buttons["Outline ends"].isEnabled()
    assert "takes no such marks" in clicking.buttons["Outline ends"].toolTip()
    row = next(n for n in range(clicking.model.count()) if clicking.model.itemData(n).name == "extreme")
    clicking.model.setCurrentIndex(row)
    assert clicking.buttons["Outline ends"].isEnabled()
    assert not clicking.buttons["Box"].isEnabled()


def test_a_label_is_refined(clicking, window, qtbot):
    scan = bridge.volume_of(window.layers[0])
    rough = blob(scan.grid, (8, -3, 14), (38, 45, 35)).astype(np.uint8) * 4
    target = bridge.to_layer(scan.with_labels(rough), bridge.frame_of(window.layers), name="mine")
    window.add_layer(target)
    clicking.target.choose(target)
    clicking.number.setValue(4)
    ask(clicking, qtbot, clicking.refine)
    clicking.accept()
    truth = blob(scan.grid, BRAIN, (40, 47, 37))
    assert dice(bridge.labels_of(target, window.layers).data == 4, truth) > max(0.95, dice(rough, truth))


def test_what_is_drawn_becomes_the_right_marks():
    from napari_mri.gui.prompt_layers import Snapshot

    line = np.array([[0, 0, 0], [0, 4, 0], [0, 4, 6.0]])
    square = np.array([[1, 0, 0], [1, 0, 6], [1, 4, 6], [1, 4, 0.0]])
    ends = np.arange(18, dtype=float).reshape(6, 3)
    drawn = Snapshot(
        np.concatenate([[[1.0, 2, 3]], ends]), ("background", *["outline end"] * 6), (line, square, line),
        ("path", "rectangle", "polygon"), ("background", "object", "object"),
    )  # fmt: skip
    marks = drawn.prompts(Frame(np.eye(3)[:, ::-1])).marks
    assert [type(m) for m in marks] == [Extremes, Box, Lasso, Point, Scribble]
    assert marks[3].xyz == (3.0, 2.0, 1.0)
    assert [m.positive for m in marks] == [True, True, True, False, False]
    assert marks[1].low == (0.0, 0.0, 1.0)
    assert marks[1].high == (6.0, 4.0, 1.0)


def test_a_box_layer_survives_undo(clicking, qtbot):
    lines = clicking.drawn.lines()
    lines.feature_defaults = {"side": "object"}
    lines.add_rectangles(np.array([[11, -54, -36], [11, -54, 44], [11, 40, 44], [11, 40, -36.0]]))
    assert isinstance(clicking.prompts.marks[0], Box)
    clicking.undo()
    assert len(clicking.prompts) == 0
    clicking.redo()
    assert isinstance(clicking.prompts.marks[0], Box)
    qtbot.waitUntil(lambda: clicking._job is None or not clicking._job.running, timeout=60_000)


def test_keys_shadow_none_of_naparis():
    from napari.utils.shortcuts import default_shortcuts

    from napari_mri.gui.prompt_widget import KEYS, MODES

    taken = {str(key) for keys in default_shortcuts.values() for key in keys}
    ours = [*KEYS, *(mode[4] for mode in MODES if mode[4])]
    assert len(set(ours)) == len(ours)
    assert not set(ours) & taken
