"""Painting by mouse and keyboard events in a real window: a hundred strokes back and forth, locks, digits."""

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")
pytest.importorskip("qtpy.QtWidgets", exc_type=ImportError, reason="there is no Qt binding (extra 'all')")

from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QKeyEvent, QMouseEvent
from qtpy.QtWidgets import QApplication

from napari_mri.core.volume import Origin, Volume
from napari_mri.gui import layers as bridge
from napari_mri.gui.edit_history import edits_of
from napari_mri.gui.labels_widget import LabelsWidget
from napari_mri.gui.napari_private import native_of
from tests.scans import GRIDS, head

NONE = Qt.KeyboardModifier.NoModifier


@pytest.fixture
def desk(window):
    scan = head(GRIDS["oblique"])
    window.add_layer(bridge.to_layer(Volume(scan.data, scan.grid, origin=Origin(title="T1"))))
    widget = LabelsWidget(window)
    window.window.add_dock_widget(widget, name="Labels")
    widget.new_labels()
    widget.layer.brush_size = 4
    QApplication.processEvents()
    return widget


def drag(canvas, *places):
    """Press at the first place (parts of the canvas from its middle), move over the others, let go."""
    size = np.array([canvas.width(), canvas.height()])
    points = [QPointF(*(size / 2 + np.asarray(place) * size.min()).tolist()) for place in places]
    left = Qt.MouseButton.LeftButton

    def send(kind, point, button, buttons):
        QApplication.sendEvent(canvas, QMouseEvent(kind, point, canvas.mapToGlobal(point), button, buttons, NONE))

    send(QEvent.Type.MouseMove, points[0], Qt.MouseButton.NoButton, Qt.MouseButton.NoButton)
    send(QEvent.Type.MouseButtonPress, points[0], left, left)
    for point in points[1:]:
        send(QEvent.Type.MouseMove, point, Qt.MouseButton.NoButton, left)
    send(QEvent.Type.MouseButtonRelease, points[-1], left, Qt.MouseButton.NoButton)
    QApplication.processEvents()


def press(canvas, key, modifiers=NONE, text=""):
    """Press and let go of a key."""
    for kind in (QEvent.Type.KeyPress, QEvent.Type.KeyRelease):
        QApplication.sendEvent(canvas, QKeyEvent(kind, key, modifiers, text))
    QApplication.processEvents()


def turn_to(window, layer, number):
    window.dims.set_point(0, float(layer.data_to_world((number, 0, 0))[0]))
    QApplication.processEvents()


def test_a_hundred_strokes_back_and_forth(desk, window):
    canvas, layer, rng = native_of(window), desk.layer, np.random.default_rng(0)
    edits, states = edits_of(layer), [desk.layer.data.copy()]
    window.layers.selection.active = layer
    number = 0
    while len(states) <= 100:
        number += 1
        turn_to(window, layer, int(rng.integers(3, 25)))
        layer.selected_label = number % 7 + 1
        layer.mode = "erase" if number % 9 == 0 else "paint"
        start = rng.uniform(-0.2, 0.2, 2)
        drag(canvas, start, start + np.array((0.05, 0.02)), start + np.array((0.1, -0.03)))
        if edits.position == len(states):
            states.append(layer.data.copy())
        else:
            np.testing.assert_array_equal(layer.data, states[-1])
    control = Qt.KeyboardModifier.ControlModifier
    for state in reversed(states[:-1]):
        press(canvas, Qt.Key.Key_Z, control)
        np.testing.assert_array_equal(layer.data, state)
    for state in states[1:]:
        press(canvas, Qt.Key.Key_Z, control | Qt.KeyboardModifier.ShiftModifier)
        np.testing.assert_array_equal(layer.data, state)
    np.testing.assert_array_equal(edits.log.replay(), layer.data)
    assert len(layer._undo_history) == 0


def test_a_lock_holds_during_the_stroke_and_digits_choose(desk, window):
    canvas, layer = native_of(window), desk.layer
    layer.data[:, 10:20, 8:16] = 1
    layer.refresh()
    desk.count()
    locked = layer.data == 1
    edits_of(layer).rules.locked = {1}
    desk.table.add()
    desk.table.add()
    window.layers.selection.active = layer
    layer.mode = "paint"
    press(canvas, Qt.Key.Key_2, text="2")
    assert layer.selected_label == 2
    press(canvas, Qt.Key.Key_3, text="3")
    assert layer.selected_label == 3
    assert layer.mode == "paint", "napari's digit did not act beside"
    seen = []
    layer.events.labels_update.connect(lambda event: seen.append(bool((layer.data == 1)[locked].all())))
    turn_to(window, layer, 14)
    layer.brush_size = 12
    drag(canvas, (-0.15, 0), (-0.05, 0.02), (0.05, 0), (0.15, 0))
    assert (layer.data == 3).any()
    np.testing.assert_array_equal(layer.data == 1, locked)
    assert seen
    assert all(seen), "not for a moment"
    layer.mode = "fill"
    drag(canvas, (0, 0))
    np.testing.assert_array_equal(layer.data == 1, locked)
