"""The three planes in a real window: mouse, layouts, layers that come and go, and the end."""

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

from napari_mri.core.volume import Labels
from napari_mri.gui import layers as bridge
from napari_mri.gui import napari_private
from tests.scans import GRIDS, head


@pytest.fixture
def planes(window, qtbot):
    from napari_mri.gui.planes import ThreePlanes

    made = ThreePlanes(window)
    window.window.add_dock_widget(made, name="Three planes")
    return made


def open_scan(window, grid="anisotropic"):
    scan = head(GRIDS[grid])
    layer = window.add_layer(bridge.to_layer(scan))
    window.layers.selection = {layer}
    return layer


def open_labels(window, scan_layer):
    grid = bridge.shown(scan_layer).volume.grid
    layer = bridge.to_layer(Labels(np.zeros(grid.shape, np.uint8), grid), bridge.frame_of(window.layers))
    window.add_layer(layer)
    window.layers.selection = {layer}
    return layer


def spin(times=6):
    from qtpy.QtWidgets import QApplication

    for _ in range(times):
        QApplication.processEvents()


def spot(view, up, across):
    """Return the pixel over a place in mm, as QTest wants it."""
    return view.project(up, across).toPoint()


def press(qtbot, view, at, button="LeftButton", keys="NoModifier", end=None):
    from qtpy.QtCore import Qt

    button, keys = getattr(Qt.MouseButton, button), getattr(Qt.KeyboardModifier, keys)
    qtbot.mousePress(view, button, keys, at)
    if end is not None:
        send_move(view, end, button, keys)
    qtbot.mouseRelease(view, button, keys, end or at)


def send_move(view, at, button, keys):
    from qtpy.QtCore import QEvent, QPointF
    from qtpy.QtGui import QMouseEvent
    from qtpy.QtWidgets import QApplication

    glob = QPointF(view.mapToGlobal(at))
    QApplication.sendEvent(view, QMouseEvent(QEvent.Type.MouseMove, QPointF(at), glob, button, button, keys))


def wheel(view, notches, keys=None):
    from qtpy.QtCore import QPoint, QPointF, Qt
    from qtpy.QtGui import QWheelEvent
    from qtpy.QtWidgets import QApplication

    at = QPointF(view.rect().center())
    keys = keys or Qt.KeyboardModifier.NoModifier
    phase = Qt.ScrollPhase.NoScrollPhase
    event = QWheelEvent(
        at,
        QPointF(view.mapToGlobal(at.toPoint())),
        QPoint(),
        QPoint(0, 120 * notches),
        Qt.MouseButton.NoButton,
        keys,
        phase,
        False,
    )
    QApplication.sendEvent(view, event)


def test_napari_s_private_parts_are_still_there(window):
    """Tells the day one goes away: see napari_private for what then stops working."""
    assert napari_private.canvas_of(window) is not None
    assert hasattr(napari_private.canvas_of(window), "layer_to_visual")
    assert napari_private.native_of(window) is not None
    assert napari_private.centre_of(window) is not None


def test_without_them_the_planes_stand_in_the_dock(window, qtbot, monkeypatch):
    from napari_mri.gui import planes as module

    monkeypatch.setattr(module, "centre_of", lambda viewer: None)
    made = module.ThreePlanes(window)
    window.window.add_dock_widget(made, name="Three planes")
    assert made.inside
    open_scan(window)
    made.set_layout("Three in a row")
    spin()
    assert all(view.isVisible() for view in made.views.values())


@pytest.mark.parametrize("grid", ["anisotropic", "oblique", "flipped"])
def test_every_layout_shows_the_scan(window, planes, grid):
    open_scan(window, grid)
    inner = napari_private.centre_of(window)
    assert inner is None, "napari's viewer is one cell of the grid now"
    for layout in ("2 × 2", "Three in a row", "One big"):
        planes.set_layout(layout)
        spin()
        for view in planes.views.values():
            picture = view.grab().toImage()
            grey = [picture.pixelColor(x, picture.height() // 2 + 12).lightness() for x in range(picture.width())]
            assert max(grey) > 100, f"{view.plane.name} is dark in {layout}"
    assert window.window._qt_window.isVisible()


def test_wheel_scrolls_its_own_plane_and_napari_with_it(window, planes, qtbot):
    open_scan(window)
    spin()
    before = planes.desk.point.copy()
    wheel(planes.views["axial"], 1)
    assert planes.desk.point[0] == pytest.approx(before[0] + planes.desk.step(0))
    assert window.dims.point[0] == pytest.approx(planes.desk.point[0], abs=planes.desk.step(0) / 2)
    wheel(planes.views["sagittal"], -1)
    assert planes.desk.point[2] == pytest.approx(before[2] - planes.desk.step(2))


def test_control_wheel_zooms_about_the_cursor(window, planes, qtbot):
    from qtpy.QtCore import Qt

    open_scan(window)
    planes.set_layout("2 × 2")
    spin()
    zoom, view = planes.desk.zoom, planes.views["coronal"]
    wheel(view, 2, Qt.KeyboardModifier.ControlModifier)
    assert planes.desk.zoom > 1.2 * zoom
    assert window.scene.camera.zoom == pytest.approx(planes.desk.zoom)


@pytest.mark.parametrize("radiological", [True, False])
def test_a_press_moves_the_point_and_every_view(window, planes, qtbot, radiological):
    open_scan(window)
    planes.desk.set_radiological(radiological)
    spin()
    view = planes.views["coronal"]
    wanted = planes.desk.point.copy()
    wanted[[0, 2]] += (15.0, -12.0)
    press(qtbot, view, spot(view, wanted[0], wanted[2]))
    np.testing.assert_allclose(planes.desk.point, wanted, atol=1.5 / planes.desk.zoom)
    assert window.dims.point[0] == pytest.approx(wanted[0], abs=planes.desk.step(0))
    side = view.project(wanted[0], wanted[2]).x() - view.width() / 2
    assert (side > 0) == radiological, "the patient's left is on the right in the radiological way"


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_painting_in_a_plane_is_one_step_and_seen_at_once(window, planes, qtbot, plane):
    scan = open_scan(window)
    layer = open_labels(window, scan)
    layer.mode, layer.brush_size, layer.selected_label = "paint", 5, 2
    spin()
    view = planes.views[plane]
    here = planes.desk.point
    start = spot(view, here[view.plane.up] - 8, here[view.plane.across] - 8)
    end = spot(view, here[view.plane.up] + 14, here[view.plane.across] + 9)
    before = view.grab().toImage()
    press(qtbot, view, start, end=end)
    assert (layer.data == 2).sum() > 10
    index = np.round(layer.world_to_data(planes.desk.world(here))).astype(int)
    assert set(np.nonzero(layer.data)[view.plane.slider]) == {index[view.plane.slider]}
    spin()
    assert view.grab().toImage() != before
    layer.undo()
    assert not layer.data.any()
    spin()


@pytest.mark.parametrize("mode", ["paint", "fill"])
def test_locked_labels_stay_in_every_plane(window, planes, qtbot, mode):
    from napari_mri.gui.edit_history import edits_of

    layer = open_labels(window, open_scan(window))
    layer.data[:] = 3
    spin()
    edits = edits_of(layer)
    assert edits is not None
    edits.rules.locked = {3}
    layer.mode, layer.brush_size, layer.selected_label = mode, 7, 2
    for view in planes.views.values():
        press(qtbot, view, view.rect().center())
    assert (layer.data == 3).all()
    edits.rules.locked = set()
    press(qtbot, planes.views["coronal"], planes.views["coronal"].rect().center())
    assert (layer.data == 2).any()


def test_shift_press_moves_the_point_even_with_a_brush(window, planes, qtbot):
    layer = open_labels(window, open_scan(window))
    layer.mode = "paint"
    spin()
    view = planes.views["axial"]
    press(qtbot, view, view.rect().center() / 2, keys="ShiftModifier")
    assert not layer.data.any()


def test_right_drag_sets_window_and_level(window, planes, qtbot):
    scan = open_scan(window)
    spin()
    low, high = scan.contrast_limits
    view = planes.views["sagittal"]
    from qtpy.QtCore import QPoint

    start = view.rect().center()
    press(qtbot, view, start, button="RightButton", end=start + QPoint(60, 0))
    assert scan.contrast_limits[1] - scan.contrast_limits[0] > 1.1 * (high - low)


def test_undo_and_napari_s_own_strokes_are_seen_in_every_plane(window, planes):
    layer = open_labels(window, open_scan(window))
    spin()
    layer.n_edit_dimensions = 3
    layer.brush_size = 9
    view = planes.views["sagittal"]
    index = tuple(np.round(layer.world_to_data(planes.desk.world(planes.desk.point))).astype(int))
    clean = view.grab().toImage()
    layer.paint(index, 1)
    painted = view.grab().toImage()
    assert painted != clean
    layer.undo()
    assert view.grab().toImage() == clean


def test_planes_follow_layers(window, planes):
    scan = open_scan(window)
    planes.set_layout("Three in a row")
    spin()
    view = planes.views["axial"]

    def brightness():
        picture = view.grab().toImage()
        return picture.pixelColor(picture.width() // 2 - 14, picture.height() // 2 + 14).lightness()

    lit = brightness()
    assert lit > 60
    scan.contrast_limits = (0, 5000)
    assert brightness() < lit
    scan.contrast_limits = (0, 700)
    scan.name = "renamed"
    scan.visible = False
    assert brightness() == 0
    scan.visible = True
    assert brightness() > 60
    window.layers.remove(scan)
    spin()
    assert "no scan" not in planes.status.text()
    open_scan(window, "plain")
    spin()
    assert brightness() > 60


def test_the_point_stays_when_a_layer_of_finer_steps_comes_and_goes(window, planes):
    open_scan(window)
    spin()
    planes.desk.go(planes.desk.point + np.array((7.5, 4.0, 4.0)))
    here = planes.desk.point.copy()
    other = window.add_points(np.array([[0.0, 0.0, 0.0]]))
    spin()
    window.layers.remove(other)
    spin()
    np.testing.assert_allclose(planes.desk.point, here, atol=planes.desk.step(0) / 2)
    assert window.dims.point[0] == pytest.approx(here[0], abs=planes.desk.step(0) / 2 + 1e-6)
    window.dims.set_point(0, window.dims.range[0].stop)
    assert planes.desk.point[0] == pytest.approx(window.dims.range[0].stop)


def test_a_hidden_plane_draws_nothing(window, planes):
    open_scan(window)
    planes.set_layout("Three in a row")
    spin()
    view = planes.views["axial"]
    planes._on_enlarged(planes.views["coronal"].plane)
    spin()
    assert not view.isVisible()
    assert view._base is None
    drawn = []
    view._cuts = lambda: drawn.append(1) or []
    planes.desk.scroll(0, 1)
    spin()
    assert not drawn


def test_status_names_the_place_and_the_label(window, planes):
    layer = open_labels(window, open_scan(window, "plain"))
    layer.data[:] = 3
    layer.features = {"index": [3], "name": ["hippocampus"]}
    planes.desk.pointed.emit(np.array([20.0, -7.0, 3.0]))
    planes._say()
    told = planes.status.text()
    assert "R 3.0  P 7.0  S 20.0 mm" in told
    assert "3 hippocampus" in told
    planes.desk.pointed.emit(None)
    planes._say()
    assert planes.status.text() == ""


def test_a_click_on_napari_s_canvas_moves_the_point(window, planes):
    open_scan(window)
    spin()
    before = planes.desk.point.copy()

    class Event:
        button, modifiers, type, handled = 1, (), "mouse_press", False
        position = (*window.dims.point[:1], before[1] + 10, before[2] - 6)

    event = Event()
    running = planes._clicks(window, event)
    next(running)
    event.type = "mouse_release"
    next(running, None)
    np.testing.assert_allclose(planes.desk.point[1:], (before[1] + 10, before[2] - 6))


def test_closing_the_dock_gives_napari_its_place_back(window, planes):
    open_scan(window)
    spin()
    callbacks = len(window.mouse_drag_callbacks)
    window.window.remove_dock_widget(planes)
    spin()
    assert napari_private.centre_of(window) is not None
    assert napari_private.native_of(window).isVisible()
    assert len(window.mouse_drag_callbacks) == callbacks - 1
    window.dims.set_point(0, 3.0)
    open_scan(window, "plain")
    spin()


def test_four_dimensions(window, planes):
    from napari_mri.core.volume import Volume

    scan = head(GRIDS["plain"])
    frames = np.stack([scan.data, scan.data * 0, scan.data], axis=-1)
    window.add_layer(bridge.to_layer(Volume(frames, scan.grid), contrast_limits=(0, 700)))
    spin()
    view = planes.views["sagittal"]
    window.dims.set_point(0, 0)
    spin()
    lit = view.grab().toImage()
    window.dims.set_point(0, 1)
    spin()
    assert view.grab().toImage() != lit
    window.dims.set_point(0, 2)
    assert view.grab().toImage() == lit


def test_a_ruler_is_drawn_in_a_plane(window, planes, qtbot):
    from napari_mri.gui.rulers import Rulers

    open_scan(window, "oblique")
    rulers = Rulers(window)
    window.window.add_dock_widget(rulers, name="Ruler and angle")
    rulers.ruler()
    spin()
    view, here = planes.views["sagittal"], planes.desk.point
    start, end = spot(view, here[0] - 10, here[1] - 15), spot(view, here[0] + 20, here[1] + 25)
    press(qtbot, view, start, end=end)
    assert float(rulers.found.item(0).text().split()[0]) == pytest.approx(50, abs=3 / planes.desk.zoom)
    spin()


def test_two_scans_split_and_whole_again(window):
    from napari_mri.gui.compare import OFF, SPLIT, Compare

    first, second = open_scan(window), open_scan(window)
    compare = Compare(window)
    window.window.add_dock_widget(compare, name="Compare two scans")
    compare.first.choose(first)
    compare.second.choose(second)
    compare.how.setCurrentText(SPLIT)
    spin()
    assert compare._split is not None
    compare.amount.setValue(20)
    assert compare._split.at == pytest.approx(0.2)
    compare.how.setCurrentText(OFF)
    assert compare._split is None
    spin()
