"""Marks drawn by the mouse in a real window, on slices of any millimetre; what goes wrong is told and loses nothing."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

from napari_mri.cli._replay import again as replayed
from napari_mri.core.grid import Grid
from napari_mri.core.prompts import Point, Scribble
from napari_mri.core.volume import Origin, Volume
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.gui import layers as bridge
from napari_mri.io import files
from tests.gui.test_prompt_widget import BRAIN, ask, idle, press
from tests.scans import head

SHAPE = (44, 50, 40)


def scan_at(low=0.0, title="T1"):
    """A head whose axial slices lie at `low`, `low` + 2, … mm beyond whole numbers."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-40.0, -57.0, -29.0 + low)
    scan = head(Grid(SHAPE, affine))
    return replace(scan, origin=Origin(title=title))


@pytest.fixture
def clicking(window):
    from napari_mri.gui.prompt_widget import PromptWidget

    window.add_layer(bridge.to_layer(scan_at(0.7)))
    widget = PromptWidget(window)
    window.window.add_dock_widget(widget, name="Click to segment")
    choose(widget, "grow")
    return widget


def choose(widget, name):
    row = next(n for n in range(widget.model.count()) if widget.model.itemData(n).name == name)
    widget.model.setCurrentIndex(row)


class Hand:
    """A mouse over napari's canvas, at places of the window in mm."""

    def __init__(self, viewer, qtbot):
        self.viewer, self.qtbot = viewer, qtbot
        self.canvas = viewer.window._qt_viewer.canvas
        qtbot.waitExposed(viewer.window._qt_window)

    def at(self, layer, world):
        point = np.asarray(layer.world_to_data(world), float)[list(self.viewer.dims.displayed)][::-1]
        mapped = self.canvas.layer_to_visual[layer].node.get_transform("visual", "canvas").map([*point, 0, 1])
        return QPoint(*(round(v) for v in mapped[:2] / mapped[3]))

    def _send(self, kind, point, button, buttons):
        native = self.canvas.native
        place = QPointF(point)
        event = QMouseEvent(kind, place, QPointF(native.mapToGlobal(point)), button, buttons, Qt.KeyboardModifier.NoModifier)
        QApplication.sendEvent(native, event)
        QApplication.processEvents()

    def move(self, point, held=False):
        left = Qt.MouseButton.LeftButton if held else Qt.MouseButton.NoButton
        self._send(QEvent.Type.MouseMove, point, Qt.MouseButton.NoButton, left)

    def click(self, point, double=False):
        left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
        self.move(point)
        self._send(QEvent.Type.MouseButtonDblClick if double else QEvent.Type.MouseButtonPress, point, left, left)
        self._send(QEvent.Type.MouseButtonRelease, point, left, none)

    def drag(self, start, end, steps=8):
        left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
        self.move(start)
        self._send(QEvent.Type.MouseButtonPress, start, left, left)
        for n in range(1, steps + 1):
            self.move(start + (end - start) * n / steps, held=True)
        self._send(QEvent.Type.MouseButtonRelease, end, left, none)


@pytest.fixture
def hand(window, qtbot):
    return Hand(window, qtbot)


def image_of(window):
    return next(layer for layer in window.layers if type(layer).__name__ == "Image")


@pytest.mark.parametrize("low", [0.5, 0.7, -0.2])
def test_a_box_is_drawn_seen_and_moved_on_a_slice_of_any_millimetre(window, qtbot, hand, low):
    from qtpy.QtWidgets import QWidget

    from napari_mri.gui.choices import Links
    from napari_mri.gui.prompt_layers import PromptLayers

    layer = bridge.to_layer(scan_at(low))
    window.add_layer(layer)
    owner = QWidget()
    qtbot.addWidget(owner)
    told = []
    marks = PromptLayers(window, Links(owner), lambda: told.append(1))
    window.dims.set_current_step(0, 20)
    here = window.dims.point[0]
    marks.draw("box", "object")
    a, b = (hand.at(layer, (here, y, x)) for y, x in ((-20.0, -15.0), (16.0, 19.0)))
    hand.drag(a, b)
    drawn = marks.snapshot()
    assert len(drawn.shapes) == 1
    size = np.ptp(drawn.shapes[0], axis=0)
    assert size[0] == 0
    assert size[1] == pytest.approx(36, abs=2.5)
    assert size[2] == pytest.approx(34, abs=2.5)
    assert told
    assert marks.lines()._data_view._displayed.tolist() == [True]
    marks.lines().mode = "select"
    middle = hand.at(layer, (here, -2.0, 2.0))
    hand.drag(middle, hand.at(layer, (here, 8.0, 2.0)))
    moved = marks.snapshot().shapes[0]
    assert (moved - drawn.shapes[0])[:, 1].mean() == pytest.approx(10, abs=2.5), "it is found under the mouse"
    window.dims.set_current_step(0, 21)
    assert marks.lines()._data_view._displayed.tolist() == [False]
    marks.draw("scribble", "object")
    hand.drag(a, b)
    assert marks.snapshot().kinds == ("rectangle", "path")
    assert marks.lines()._data_view._displayed.tolist() == [False, True]


def test_a_scribble_is_a_drag_and_a_mere_click_is_none(clicking, window, qtbot, hand):
    layer = image_of(window)
    clicking.draw(3)
    here = window.dims.point[0]
    a, b = (hand.at(layer, (here, -7.0, x)) for x in (-6.0, 14.0))
    with qtbot.waitSignal(clicking.answered, timeout=60_000):
        hand.drag(a, b)
    assert [type(m) for m in clicking.prompts] == [Scribble]
    lines = clicking.drawn.lines()
    for how in ("escape", "clear", "other mode"):
        hand.click(b)  # begins a line, which is not a mark yet
        assert [type(m) for m in clicking.prompts] == [Scribble]
        if how == "escape":
            lines._finish_drawing()  # what napari's Esc does
        elif how == "clear":
            clicking.clear()
            clicking.undo()
            clicking.draw(3)
        else:
            clicking.draw(0)
            clicking.draw(3)
        assert not lines.unfinished
        assert len(lines.data) == len(lines.features) == 1
        assert [type(m) for m in clicking.prompts] == [Scribble]
    idle(clicking, qtbot)
    with qtbot.waitSignal(clicking.answered, timeout=60_000):
        hand.drag(a, hand.at(layer, (here, 9.0, 2.0)))
    assert [type(m) for m in clicking.prompts] == [Scribble, Scribble]


def test_three_clicks_measure_an_angle(window, qtbot, hand):
    from napari_mri.gui.rulers import Rulers

    layer = bridge.to_layer(scan_at(0.5))
    window.add_layer(layer)
    widget = Rulers(window)
    window.window.add_dock_widget(widget, name="Ruler and angle")
    here = window.dims.point[0]
    corner, up, right = (hand.at(layer, (here, y, x)) for y, x in ((0.0, 0.0), (24.0, 0.0), (0.0, 24.0)))
    widget.angle()
    hand.click(up)
    hand.click(corner)
    hand.click(right)
    hand.click(right, double=True)
    assert widget.found.count() == 1
    assert widget.found.item(0).text().endswith("°")
    assert float(widget.found.item(0).text()[:-1]) == pytest.approx(90, abs=3)
    widget.ruler()
    hand.drag(up, right)
    assert widget.found.count() == 2
    assert float(widget.found.item(1).text().split()[0]) == pytest.approx(24 * np.sqrt(2), abs=2)


def test_a_mark_that_undo_brought_back_can_be_dragged(clicking, window, qtbot, hand):
    clicking.draw(0)
    ask(clicking, qtbot, lambda: press(clicking, BRAIN))
    ask(clicking, qtbot, lambda: press(clicking, (10.0, -7.0, 11.0)))
    ask(clicking, qtbot, clicking.undo)
    points, steps = clicking.drawn.points, len(clicking._past)
    start = np.array(points.data[0])
    window.dims.set_point(0, start[0])
    points.mode = "select"
    with qtbot.waitSignal(clicking.answered, timeout=60_000):
        hand.drag(hand.at(points, start), hand.at(points, start + np.array([0, 6, 0])))
    assert len(clicking._past) == steps + 1
    assert points.data[0][1] == pytest.approx(start[1] + 6, abs=2)
    ask(clicking, qtbot, clicking.undo)
    np.testing.assert_allclose(clicking.drawn.points.data[0], start)


def test_the_preview_goes_with_the_scan_and_lies_over_it(clicking, window, qtbot):
    clicking.draw(0)
    ask(clicking, qtbot, lambda: press(clicking, BRAIN))
    other = bridge.to_layer(scan_at(5.7, "T2"), bridge.frame_of(window.layers))
    window.add_layer(other)
    assert clicking.scan.layer is not other, "the marks are meant for the first"
    with qtbot.waitSignal(clicking.answered, timeout=60_000):
        clicking.scan.choose(other)
    np.testing.assert_allclose(clicking._preview.translate, other.translate)
    assert window.layers.index(clicking._preview) > window.layers.index(other)
    assert window.layers.index(clicking._preview) < window.layers.index(clicking.drawn.points)
    clicking.clear()
    idle(clicking, qtbot)
    third = bridge.to_layer(scan_at(1.7, "T3"), bridge.frame_of(window.layers))
    window.add_layer(third)
    assert clicking.scan.layer is third


def test_no_widget_offers_the_preview(clicking, window, qtbot):
    from napari_mri.gui.labels_widget import LabelsWidget

    desk = LabelsWidget(window)
    window.window.add_dock_widget(desk, name="Labels")
    clicking.draw(0)
    ask(clicking, qtbot, lambda: press(clicking, BRAIN))
    assert desk.layer is None
    clicking.accept()
    assert desk.layer is clicking.target.layer
    assert desk.layer is not clicking._preview


def test_a_refined_label_replaces_itself_and_no_other(clicking, window, qtbot):
    clicking.draw(0)
    clicking.number.setValue(4)
    ask(clicking, qtbot, lambda: press(clicking, BRAIN))
    clicking.accept()
    target = clicking.target.layer
    where = tuple(np.array([n, n + 1]) for n in (1, 1, 1))
    target.data_setitem(where, 7)
    seven = (target.data == 7).sum()
    ask(clicking, qtbot, clicking.refine)
    clicking.number.setValue(7)
    assert not clicking._rule().replaces
    four = (target.data == 4).sum()
    clicking.accept()
    assert (target.data == 7).sum() >= seven
    assert (target.data == 4).sum() == four, "label 4 is kept, too"
    clicking.number.setValue(4)
    ask(clicking, qtbot, clicking.refine)
    assert clicking._rule().replaces
    clicking.clear()
    clicking.number.setValue(9)
    clicking.refine()
    assert "Label 9 is empty" in clicking.message.text()


def test_after_a_failure_or_a_stop_nothing_old_is_accepted(clicking, window, qtbot, monkeypatch):
    from napari_mri.core.errors import BadPrompt
    from napari_mri.models.grow import Growing

    clicking.draw(0)
    ask(clicking, qtbot, lambda: press(clicking, BRAIN))
    assert clicking.buttons["accept"].isEnabled()

    def fails(self, prompts):
        raise BadPrompt("It cannot be.")

    with monkeypatch.context() as patch:
        patch.setattr(Growing, "answer", fails)
        press(clicking, (10.0, -7.0, 11.0))
        idle(clicking, qtbot)
        assert "It cannot be" in clicking.message.text()
        assert not clicking._preview.visible
        assert not clicking.buttons["accept"].isEnabled()
        clicking.next_object()
        assert clicking.target.layer is None
        assert clicking.number.value() == 1
        assert len(clicking.prompts) == 2, "marks are not thrown away for want of an answer"
    ask(clicking, qtbot, clicking.undo)
    with monkeypatch.context() as patch:
        patch.setattr(Growing, "answer", lambda self, prompts: [self.rt.report(0.5) for _ in iter(int, 1)])
        press(clicking, (10.0, -7.0, 11.0))
        qtbot.waitUntil(lambda: clicking.asker.busy, timeout=10_000)
        clicking.stop()
        idle(clicking, qtbot)
    assert not clicking.buttons["accept"].isEnabled()
    assert not clicking.accept()
    assert clicking.target.layer is None
    ask(clicking, qtbot, clicking.undo)
    assert clicking.accept()


def test_an_option_that_is_changed_asks_anew(clicking, window, qtbot):
    clicking.draw(0)
    ask(clicking, qtbot, lambda: press(clicking, BRAIN))
    before = clicking._answer.volume_ml()
    with qtbot.waitSignal(clicking.answered, timeout=60_000):
        clicking.form.field("reach").setValue(5.0)
    assert clicking._answer.volume_ml() < before


def test_a_new_layer_can_be_chosen_beside_others(clicking, window, qtbot):
    clicking.draw(0)
    ask(clicking, qtbot, lambda: press(clicking, BRAIN))
    clicking.accept()
    first = clicking.target.layer
    clicking.target.choose(None)
    assert clicking.target.layer is None
    ask(clicking, qtbot, lambda: press(clicking, BRAIN))
    assert clicking.accept()
    assert clicking.target.layer not in (None, first)
    assert clicking.target.layer.data.sum() == first.data.sum()


def test_of_a_series_the_frame_in_view_is_clicked(window, qtbot, tmp_path):
    from napari_mri import tasks
    from napari_mri.gui.prompt_widget import PromptWidget

    one = scan_at(0.7)
    data = np.stack([np.asarray(one.data, np.float32), np.zeros(SHAPE, np.float32), np.asarray(one.data, np.float32)], axis=-1)
    data[..., 1] = np.random.default_rng(0).normal(50, 1, SHAPE)
    series = files.load(files.save(Volume(data, one.grid), tmp_path / "series.nii.gz"))
    window.add_layer(bridge.to_layer(series))
    clicking = PromptWidget(window)
    window.window.add_dock_widget(clicking, name="Click to segment")
    choose(clicking, "grow")
    window.dims.set_current_step(0, 2)
    clicking.draw(0)
    layer = clicking.drawn.points
    with qtbot.waitSignal(clicking.answered, timeout=60_000):
        layer.add(clicking.frame.to_world(BRAIN))
    assert clicking._answer.volume_ml() > 50
    window.dims.set_current_step(0, 1)
    with qtbot.waitSignal(clicking.answered, timeout=60_000):
        layer.add(clicking.frame.to_world((10.0, -7.0, 11.0)))
    assert clicking._answer.history[-1].facts["input"] == series.frame(2).fingerprint(), "the frame of the first mark"
    assert [type(m) for m in clicking.prompts] == [Point, Point]
    assert clicking.accept()
    made = bridge.labels_of(clicking.target.layer, window.layers)
    assert made.data.shape == SHAPE
    step = next(s for s in made.history if s.facts.get("prompts"))
    again = tasks.replay(step, series)
    assert np.array_equal(again.result.data > 0, made.data > 0)
    files.save(made, tmp_path / "mask.nii.gz")
    outcome, same = replayed(tmp_path / "mask.json", str(tmp_path / "series.nii.gz"), LocalRuntime("cpu"))
    assert outcome.result.data.any()
    assert same is not False


def test_marks_leave_the_slider_its_steps_and_are_seen_on_the_nearest_slice(clicking, window, qtbot, hand):
    steps = window.dims.nsteps
    clicking.draw(0)
    clicking.draw(2)
    assert window.dims.nsteps == steps
    layer, (points, lines) = image_of(window), (clicking.drawn.points, clicking.drawn.shapes)
    here = window.dims.point[0]
    with qtbot.waitSignal(clicking.answered, timeout=60_000):
        hand.drag(hand.at(layer, (here, -40.0, -30.0)), hand.at(layer, (here, 30.0, 36.0)))
    points.add([[here + 0.9, 0.0, 0.0], [here - 1.9, 0.0, 9.0]])

    def seen():
        return sorted(points._slicing_state._view_indices.tolist()), [n for n, _ in lines._data_view._visible_shapes]

    assert seen() == ([0, 1], [0])
    window.dims.set_current_step(0, window.dims.current_step[0] + 1)
    assert seen() == ([0], [])
    window.dims.set_current_step(0, window.dims.current_step[0] - 2)
    assert seen() == ([1], [])
    idle(clicking, qtbot)


def test_marks_lie_over_a_scan_that_is_opened_after_them_before_anything_is_answered(window, qtbot):
    from napari_mri.gui.prompt_widget import PromptWidget

    clicking = PromptWidget(window)
    window.window.add_dock_widget(clicking, name="Click to segment")
    choose(clicking, "grow")
    clicking.draw(0)
    assert "Open a scan first" in clicking.hint.text()
    window.add_layer(bridge.to_layer(scan_at(0.7)))
    qtbot.waitUntil(lambda: not clicking._settle.isActive() and not clicking.asker.busy, timeout=60_000)
    assert window.layers.index(clicking.drawn.points) > window.layers.index(image_of(window))
    assert "Click on the object" in clicking.hint.text()
    ask(clicking, qtbot, lambda: press(clicking, BRAIN))
    window.layers.remove(image_of(window))
    qtbot.waitUntil(lambda: "Open a scan first" in clicking.hint.text(), timeout=5_000)
    assert len(clicking.prompts) == 1
    idle(clicking, qtbot)
    assert not clicking._preview.visible


def test_voxels_that_are_replaced_are_another_scan(clicking, window, qtbot):
    clicking.draw(0)
    ask(clicking, qtbot, lambda: press(clicking, BRAIN))
    before = clicking._answer.volume_ml()
    data = np.zeros_like(image_of(window).data)
    data[20:30, 20:30, 15:25] = 900
    image_of(window).data = data
    with qtbot.waitSignal(clicking.answered, timeout=60_000):
        clicking.clear()
        clicking.drawn.points.add([image_of(window).data_to_world((25, 25, 20))])
    assert 2 < clicking._answer.volume_ml() < 10 < before  # of the block of 8 ml


def test_labels_of_another_scan_are_not_refined(clicking, window, qtbot):
    for low, shape in ((8.7, SHAPE), (0.7, (44, 50, 38))):
        labels = Volume(np.zeros(shape, np.uint8), scan_at(low).grid if shape == SHAPE else Grid(shape, scan_at(low).grid.affine))
        drawn = labels.data.copy()
        drawn[20:30, 20:30, 15:25] = 1
        clicking.target.choose(window.add_layer(bridge.to_layer(labels.with_labels(drawn, {1: "block"}), bridge.frame_of(window.layers))))
        clicking.number.setValue(1)
        clicking.refine()
        assert "does not lie on the voxels of the scan that was clicked" in clicking.message.text()
        assert len(clicking.prompts) == 0


def test_what_loading_warns_of_stays_and_an_error_goes_with_its_cause(clicking, window, qtbot):
    clicking.draw(0)
    ask(clicking, qtbot, lambda: press(clicking, BRAIN))
    clicking.accept()
    other = bridge.to_layer(replace(scan_at(0.7, "T2"), data=scan_at(0.7).data * 2), bridge.frame_of(window.layers))
    window.add_layer(other)
    assert clicking.scan.layer is other
    clicking.form.set_value("reach", 13.0)
    ask(clicking, qtbot, clicking.load)
    assert clicking.form.values()["reach"] != 13.0, "as it was when the marks were made"
    assert "made on another scan" in clicking.message.text()
    ask(clicking, qtbot, lambda: press(clicking, (10.0, -7.0, 11.0)))
    assert "made on another scan" in clicking.message.text()
    clicking.clear()
    assert not clicking.message.text()
    idle(clicking, qtbot)
    choose(clicking, "sam")
    clicking.draw(0)
    qtbot.waitUntil(lambda: "No SAM file" in clicking.message.text(), timeout=20_000)
    choose(clicking, "grow")
    assert not clicking.message.text()
    qtbot.waitUntil(lambda: clicking.asker.session is not None and not clicking.asker.busy, timeout=20_000)


def test_a_layer_of_marks_that_is_deleted_takes_them_along_until_undo(clicking, window, qtbot):
    clicking.draw(0)
    ask(clicking, qtbot, lambda: press(clicking, BRAIN))
    window.layers.remove(clicking.drawn.points)
    assert len(clicking.prompts) == 0
    idle(clicking, qtbot)
    assert not clicking._preview.visible
    ask(clicking, qtbot, clicking.undo)
    assert [type(m) for m in clicking.prompts] == [Point]
    assert clicking.drawn.points in window.layers


def test_what_takes_long_says_how_far_it_is_and_cancel_is_told(clicking, window, qtbot, monkeypatch):
    from napari_mri.gui import prompt_asking

    go, real = threading.Event(), prompt_asking.tasks.open_session

    def slow(order, scan, rt):
        rt.report(0.2, "encoding")
        while not go.wait(0.01):
            if rt.cancel.is_set():
                rt.report(0.2, "stopped")
        return real(order, scan, rt)

    monkeypatch.setattr(prompt_asking.tasks, "open_session", slow)
    clicking.draw(0)
    press(clicking, BRAIN)
    qtbot.waitUntil(lambda: clicking.progress.isVisible(), timeout=5_000)
    assert clicking.progress.format() == "encoding"
    clicking.stop()
    qtbot.waitUntil(lambda: not clicking.asker.busy, timeout=5_000)
    assert not clicking.progress.isVisible()
    assert "Stopped" in clicking.hint.text()
    go.set()
    clicking.clear()
    idle(clicking, qtbot)
