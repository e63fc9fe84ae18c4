"""Window and level, rulers, comparison and time course, on viewers without a canvas."""

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

from hypothesis import given
from hypothesis import strategies as st
from napari.components import ViewerModel
from napari.layers import Image

from napari_mri.core.volume import Volume
from napari_mri.gui import layers as bridge
from napari_mri.gui import settings, window_level
from napari_mri.gui.rulers import measured, tell
from napari_mri.gui.status import sentence
from napari_mri.gui.window import arrange
from tests.scans import GRIDS, head


@pytest.fixture
def viewer(qtbot):
    made = ViewerModel()
    made.add_layer(bridge.to_layer(head(GRIDS["oblique"]), name="ax T2 FLAIR"))
    arrange(made, made.layers[0])
    return made


# ------------------------------------------------------------------------------ window and level


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        ("ax T2 FLAIR", "FLAIR"),
        ("t1_mprage_sag", "T1"),
        ("T2_TSE", "T2"),
        ("ep2d_diff_ADC", "ADC"),
        ("dwi b1000", "DWI"),
        ("SWI_Images", "T2*"),
        ("TOF_3D", "MRA"),
        ("scan", "other"),
    ],
)
def test_contrasts_are_known_by_their_names(name, contrast):
    assert window_level.contrast_of(Image(np.zeros((2, 2, 2)), name=name)) == contrast


def test_automatic_limits_hold_for_every_scale_and_ignore_a_hot_spot(viewer):
    layer = viewer.layers[0]
    low, high = window_level.automatic(layer)
    assert low < 60
    assert 480 < high < 900
    data = np.asarray(layer.data) * 1000
    data[0, 0, 0] = 1e9
    again = window_level.automatic(Image(data))
    assert again[1] == pytest.approx(1000 * high, rel=0.05)


@given(st.lists(st.floats(-1e6, 1e6), min_size=8, max_size=8), st.booleans())
def test_limits_are_in_order_whatever_is_in_the_scan(values, broken):
    data = np.array(values).reshape(2, 2, 2)
    if broken:
        data[0, 0, 0] = np.nan
    layer = Image(data)
    for low, high in (window_level.automatic(layer), window_level.whole(layer)):
        assert np.isfinite([low, high]).all()
        assert high > low


def test_a_preset_kept_on_one_scan_suits_another_of_other_brightness(viewer):
    layer = viewer.layers[0]
    window_level.apply(layer, (100, 500))
    assert window_level.store("FLAIR", "mine", layer)
    twice = Image(np.asarray(layer.data) * 2)
    pair = window_level.presets("FLAIR")["mine"]
    assert window_level.Greys.of(twice.data).limits(*pair) == pytest.approx((200, 1000), rel=0.01)
    assert "mine" not in window_level.presets("T1")
    window_level.forget("FLAIR", "mine")
    assert "mine" not in window_level.presets("FLAIR")


def test_a_spoilt_preset_is_passed_over():
    settings.remember(window_level.PRESETS, {"T1": {"bad": "x", "good": [0.1, 2]}, "T2": 3})
    assert "bad" not in window_level.presets("T1")
    assert window_level.presets("T1")["good"] == (0.1, 2.0)
    assert window_level.presets("T2") == window_level.BUILT_IN
    settings.remember(window_level.PRESETS, {})


class Event:
    def __init__(self, modifiers=("Shift",), button=1):
        self.modifiers, self.button, self.type, self.pos, self.handled = (
            modifiers,
            button,
            "mouse_press",
            (10, 10),
            False,
        )


def dragged(viewer, event):
    running = window_level.shift_drag(viewer, event)
    if next(running, "free") == "free":
        return False
    event.type, event.pos = "mouse_move", (80, 10)
    next(running)
    event.type = "mouse_release"
    next(running, None)
    return True


def test_shift_and_drag_widen_the_window_only_where_napari_has_no_use_for_it(viewer):
    layer = viewer.layers[0]
    viewer.layers.selection = {layer}
    low, high = layer.contrast_limits
    assert dragged(viewer, Event())
    assert layer.contrast_limits[1] - layer.contrast_limits[0] > 1.2 * (high - low)
    assert not dragged(viewer, Event(modifiers=()))
    assert not dragged(viewer, Event(button=2))
    labels = viewer.add_labels(np.zeros((4, 4, 4), int))
    viewer.layers.selection = {labels}
    labels.mode = "paint"
    assert not dragged(viewer, Event())
    labels.mode = "pan_zoom"
    assert dragged(viewer, Event())
    viewer.dims.ndisplay = 3
    assert not dragged(viewer, Event())


def test_the_widget_keeps_and_applies(viewer, qtbot):
    from napari_mri.gui.window_widget import WindowWidget

    widget = WindowWidget(viewer)
    qtbot.addWidget(widget)
    assert widget.contrast.currentText() == "FLAIR"
    widget.whole()
    wide = viewer.layers[0].contrast_limits
    widget.auto()
    assert viewer.layers[0].contrast_limits[1] < wide[1]
    widget.keep()
    assert "name" in widget.message.text()
    widget.preset.setEditText("for lesions")
    widget.keep()
    limits = viewer.layers[0].contrast_limits
    widget.whole()
    widget.preset.setCurrentText("for lesions")
    widget.apply()
    assert viewer.layers[0].contrast_limits == pytest.approx(limits, rel=1e-3)
    widget.drop()
    assert widget.preset.findText("for lesions") == -1


# ----------------------------------------------------------------------------------------- rulers


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_a_ruler_measures_patient_mm_on_every_grid(grid):
    layer = bridge.to_layer(head(grid))
    frame = bridge.shown(layer).placing.frame
    ends = np.array([[3.0, -20.0, 10.0], [-14.0, 22.0, 31.5]])
    length = float(measured(frame.to_world(ends)).split()[0])
    assert length == pytest.approx(np.linalg.norm(ends[1] - ends[0]), abs=0.05)


def test_angles_and_paths():
    assert measured([[0, 0, 0], [0, 0, 5], [0, 7, 5]]) == "90.0°"
    assert measured([[0, 0, 5], [0, 0, 0], [0, 5, 5]]) == "45.0°"
    assert measured([[0, 0, 0], [0, 0, 0], [0, 5, 5]]) == ""
    assert measured([[0, 0, 0], [0, 0, 3], [0, 4, 3], [0, 4, 0]]) == "10.0 mm"


def test_the_widget_tells_every_line(viewer, qtbot):
    from napari_mri.gui.rulers import Rulers

    widget = Rulers(viewer)
    qtbot.addWidget(widget)
    widget.ruler()
    layer = viewer.layers["rulers"]
    assert layer.mode == "add_line"
    layer.add_lines(np.array([[0.0, 0, 0], [0, 3, 4]]))
    layer.add_paths(np.array([[5.0, 0, 0], [5, 0, 4], [5, 4, 4]]))
    assert [widget.found.item(n).text() for n in range(2)] == ["5.0 mm", "90.0°"]
    assert tell(layer) == ["5.0 mm", "90.0°"]
    widget.found.setCurrentRow(1)
    assert viewer.dims.point[0] == pytest.approx(5, abs=2.1)
    widget.remove()
    assert widget.found.count() == 1
    viewer.layers.remove(layer)
    widget.ruler()
    assert "rulers" in viewer.layers


# ---------------------------------------------------------------------------------------- compare


def test_fade_and_blink_give_everything_back(viewer, qtbot):
    from napari_mri.gui.compare import BLINK, FADE, OFF, Compare

    other = viewer.add_layer(bridge.to_layer(head(GRIDS["plain"]), bridge.frame_of(viewer.layers)))
    first = viewer.layers[0]
    first.opacity, other.visible, other.blending = 0.8, False, "additive"
    widget = Compare(viewer)
    qtbot.addWidget(widget)
    widget.how.setCurrentText(FADE)
    assert "different" in widget.message.text()
    widget.first.choose(first)
    widget.second.choose(other)
    widget.show_how(FADE)
    widget.amount.setValue(25)
    assert other.visible
    assert other.opacity == pytest.approx(0.25)
    assert first.opacity == 1
    widget.how.setCurrentText(BLINK)
    seen = []
    for _ in range(3):
        widget._swap()
        seen.append(other.opacity)
    assert len(set(seen)) == 2
    viewer.layers.move(viewer.layers.index(first), len(viewer.layers))  # now the first lies above
    for _ in range(3):
        widget._swap()
        assert other.opacity == 1
    widget.how.setCurrentText(FADE)
    assert (first.opacity, other.opacity) == (pytest.approx(0.75), 1)
    viewer.layers.move(viewer.layers.index(other), len(viewer.layers))
    widget.amount.setValue(30)
    assert (first.opacity, other.opacity) == (1, pytest.approx(0.3))
    third = viewer.add_layer(bridge.to_layer(head(GRIDS["plain"], seed=2), bridge.frame_of(viewer.layers)))
    widget.second.choose(other)  # a new scan is taken for the second
    assert not third.visible, "it would hide both"
    widget.how.setCurrentText(OFF)
    assert third.visible
    viewer.layers.remove(third)
    assert (first.opacity, other.visible, str(other.blending)) == (0.8, False, "additive")
    widget.how.setCurrentText(FADE)
    viewer.layers.remove(other)
    assert "different" in widget.message.text()
    assert first.opacity == 0.8


# ------------------------------------------------------------------------------------ time course


def test_the_course_is_that_of_the_voxel_under_the_point(qtbot):
    from napari_mri.gui.timecourse import TimeCourse, course

    scan = head(GRIDS["permuted"])
    frames = np.stack([scan.data + 10 * n for n in range(5)], axis=-1)
    viewer = ViewerModel()
    layer = viewer.add_layer(bridge.to_layer(Volume(frames, scan.grid)))
    patient = np.array([6.0, -3.0, 9.0])
    record = bridge.shown(layer)
    voxel = tuple(np.round(scan.grid.to_voxels(patient)).astype(int))
    found = course(layer, record.placing.frame.to_world(patient))
    np.testing.assert_allclose(found, frames[voxel])
    assert course(layer, (1e4, 0, 0)) is None
    assert course(viewer.add_image(np.zeros((3, 3, 3))), (0, 0, 0)) is None
    widget = TimeCourse(viewer)
    qtbot.addWidget(widget)
    widget.scan.choose(layer)
    viewer.dims.set_current_step(0, 3)
    widget._point = record.placing.frame.to_world(patient)
    widget.draw()
    assert f"3: {found[3]:.5g}" in widget.says.text()
    widget.play_button.setChecked(True)
    widget._next()
    assert viewer.dims.current_step[0] == 4
    widget._next()
    assert viewer.dims.current_step[0] == 0
    widget.play_button.setChecked(False)
    assert not widget._clock.isActive()


# ----------------------------------------------------------------------------------------- status


@pytest.mark.parametrize("grid", ["oblique", "flipped"])
def test_the_status_tells_patient_mm(grid):
    viewer = ViewerModel()
    layer = viewer.add_layer(bridge.to_layer(head(GRIDS[grid]), name="T1"))
    world = bridge.shown(layer).placing.frame.to_world((4.0, -7.0, 11.0))
    told = sentence(viewer, world)
    assert told.startswith("R 4.0  P 7.0  S 11.0 mm")
    voxel = np.round(GRIDS[grid].to_voxels((4.0, -7.0, 11.0))).astype(int)
    assert f"T1 {head(GRIDS[grid]).data[tuple(voxel)]:.5g}" in told


def test_the_status_of_nothing_is_empty_or_only_numbers():
    viewer = ViewerModel()
    assert sentence(viewer, (np.nan, 0, 0)) == ""
    assert sentence(viewer, (0, 0)) == ""
    viewer.add_image(np.zeros((3, 3, 3)), name="theirs")
    assert sentence(viewer, (1, 1, 1)) == "1.0  1.0  1.0  ·  theirs 0"
    assert "theirs" not in sentence(viewer, (9, 1, 1))
