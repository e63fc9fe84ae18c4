"""What stands on the screen while planes and canvas are drawn piece by piece: nothing old, nothing twice."""

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

from napari_mri.gui import napari_private
from tests.gui.test_planes import open_labels, open_scan, send_move, spin, spot


@pytest.fixture
def planes(window):
    from napari_mri.gui.planes import ThreePlanes

    made = ThreePlanes(window)
    window.window.add_dock_widget(made, name="Three planes")
    made.set_layout("2 × 2")
    # The window goes on finding its size for a while, which is not what is asked here.
    napari_private.native_of(window).setFixedSize(300, 260)
    return made


def settle():
    from qtpy.QtTest import QTest

    QTest.qWait(60)


def on_screen(widget):
    """Return the pixels of a widget as the screen holds them, not as it would draw itself anew."""
    corner = widget.mapToGlobal(widget.rect().topLeft())
    whole = widget.screen().grabWindow(0).toImage()
    return whole.copy(corner.x(), corner.y(), widget.width(), widget.height()).convertToFormat(
        whole.Format.Format_RGB32
    )


def drawn_anew(view):
    view._base, view._fresh = None, False
    return view.grab().toImage().convertToFormat(on_screen(view).format())


def visuals(window, overlay):
    return [v.node.visible for v in napari_private._overlay_visuals(window, overlay)]


def overlays(window):
    return window.canvas.overlays.scale_bar, window.canvas.overlays.text


@pytest.mark.parametrize("ball", [False, True])
def test_no_plane_is_stale_after_the_last_of_many_strokes(window, planes, qtbot, ball):
    from qtpy.QtCore import Qt

    layer = open_labels(window, open_scan(window))
    layer.mode, layer.brush_size, layer.n_edit_dimensions = "paint", 6, 3 if ball else 2
    settle()
    here = planes.desk.point
    view = planes.views["axial"]
    for n in range(12):
        layer.selected_label = n % 5 + 1
        start = spot(view, here[1] - 9 + n, here[2] - 6 + n)
        qtbot.mousePress(view, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, start)
        send_move(view, spot(view, here[1] + 5, here[2] + n), Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier)
        spin(n % 2)
        qtbot.mouseRelease(view, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, start)
    index = tuple(np.round(layer.world_to_data(planes.desk.world(here))).astype(int))
    layer.paint(index, 5)  # as a script does, without a mouse
    view.leaveEvent(None)
    settle()
    assert len(np.unique(layer.data)) > 3
    for each in planes.views.values():
        assert on_screen(each) == drawn_anew(each), f"{each.plane.name} shows what is no longer so"
    layer.undo()
    settle()
    for each in planes.views.values():
        assert on_screen(each) == drawn_anew(each), f"{each.plane.name} shows what was undone"


def test_scrolling_far_leaves_nothing_behind(window, planes):
    open_labels(window, open_scan(window))
    settle()
    for n in range(7):
        planes.desk.scroll(n % 3, 1 + n % 2)
        spin(1)
    settle()
    for each in planes.views.values():
        assert on_screen(each) == drawn_anew(each)


def test_the_glass_draws_scale_and_name_and_napari_does_not(window, planes):
    open_scan(window)
    settle()
    assert planes.glass.scale.drawn == list(overlays(window))
    assert [visuals(window, each) for each in overlays(window)] == [[False], [False]]
    with_both = planes.glass.grab().toImage()
    scale_bar, text = overlays(window)
    assert [scale_bar.visible, text.visible] == [True, True], "napari's menus go on telling what is seen"
    scale_bar.visible = False
    settle()
    assert planes.glass.scale.drawn == [text]
    assert planes.glass.grab().toImage() != with_both
    scale_bar.visible = True
    settle()
    assert planes.glass.grab().toImage() == with_both
    text.text = "something else"
    settle()
    assert planes.glass.grab().toImage() != with_both


@pytest.mark.parametrize("how", ["3D", "grid", "closed"])
def test_napari_draws_them_where_the_glass_cannot(window, planes, how):
    open_scan(window)
    settle()
    assert visuals(window, overlays(window)[0]) == [False]
    if how == "3D":
        planes.solid.click()
    elif how == "grid":
        window.canvas.grid.enabled = True
    else:
        window.window.remove_dock_widget(planes)
    settle()
    assert visuals(window, overlays(window)[0]) == [True]
    if how == "closed":
        assert "screenshot" not in vars(napari_private.canvas_of(window))


def test_a_picture_of_the_canvas_alone_holds_the_scale(window, planes):
    open_scan(window)
    settle()
    with_bar = window.screenshot(canvas_only=True, flash=False)
    settle()
    assert visuals(window, overlays(window)[0]) == [False], "drawn by the glass again"
    window.canvas.overlays.scale_bar.visible = False
    settle()
    without = window.screenshot(canvas_only=True, flash=False)
    assert (with_bar != without).any()


def test_scale_and_crosshair_follow_napari_s_own_zoom(window, planes):
    open_scan(window)
    planes.set_layout("One big")
    settle()
    assert not planes.desk.linked
    before = planes.glass.grab().toImage()
    window.scene.camera.zoom *= 1.3
    settle()
    assert planes.glass.grab().toImage() != before


def test_what_is_private_for_the_scale_is_still_there(window):
    """Without it napari draws scale and name itself, with every frame."""
    window.canvas.overlays.scale_bar.visible = True
    assert napari_private.leave_overlay(window, window.canvas.overlays.scale_bar)
    napari_private.show_overlay(window, window.canvas.overlays.scale_bar)
    assert visuals(window, window.canvas.overlays.scale_bar) == [True]
    assert callable(napari_private.canvas_of(window).screenshot)


@pytest.mark.parametrize(
    ("most", "length", "says"),
    [(60, 50, "50 mm"), (26, 25, "25 mm"), (1.0, 1, "1 mm"), (0.3, 0.2, "200 µm"), (1300, 1000, "1 m")],
)
def test_the_scale_takes_a_round_length(most, length, says):
    from napari_mri.gui.planes_scale import longest, told

    assert longest(most) == pytest.approx(length)
    assert told(longest(most)) == says
