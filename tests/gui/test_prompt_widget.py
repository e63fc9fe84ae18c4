"""Clicking structures in a real window: marks land where they are put, the mask is one step, nothing else changes."""

import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

import napari_mri as mri
from napari_mri.core.prompts import Box, Extremes, Lasso, Point, Prompts, Scribble, Slab
from napari_mri.core.volume import Origin, Volume
from napari_mri.gui import layers as bridge
from napari_mri.gui.placing import Frame
from napari_mri.gui.worker import RUNS, Job
from napari_mri.models._marks import sorted_out, voxel_box
from napari_mri.models._sam_asked import plane_of
from tests.scans import GRIDS, blob, dice, grid_of, head

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


def clicking_answer(widget):
    from napari_mri.gui.prompt_asking import Answer

    return Answer(widget._answer, None, "", (), 0.1)


def test_click_preview_accept_undo(clicking, window, qtbot):
    clicking.draw(0)
    ask(clicking, qtbot, lambda: press(clicking, BRAIN))
    truth = blob(GRIDS["oblique"], BRAIN, (40, 47, 37))
    assert dice(clicking._answer.data, truth) > 0.95
    assert clicking._preview.visible
    assert "ml" in clicking.score.text()
    assert "taken for" not in clicking.score.text()
    clicking._on_answered(replace(clicking_answer(clicking), taken_for="thalamus, left"))
    assert "taken for thalamus, left" in clicking.score.text()
    clicking.number.setValue(3)
    clicking.accept()
    target = clicking.target.layer
    labels = bridge.labels_of(target, window.layers)
    assert dice(labels.data == 3, truth) > 0.95
    assert any(step.facts.get("prompts") for step in labels.history)
    assert not clicking._preview.visible
    assert [clicking.target.itemText(n) for n in range(clicking.target.count())] == [target.name, "a new layer"]  # not the preview
    assert len(clicking.prompts) == 0
    assert window.layers.selection.active is clicking.drawn.points  # the next click is one more mark
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
    qtbot.waitUntil(lambda: not clicking.asker.busy and not clicking._settle.isActive(), timeout=60_000)


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
    qtbot.waitUntil(lambda: not clicking.asker.busy and not clicking._settle.isActive(), timeout=60_000)


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


@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (3.0, 0.0, 0.0), (30.0, -20.0, 10.0)], ids=str)
@pytest.mark.parametrize("plane", [0, 1, 2], ids=["axial", "coronal", "sagittal"])
def test_a_rectangle_around_the_object_is_a_box_around_it_however_the_scan_is_tilted(angles, plane):
    from napari_mri.gui.prompt_layers import Snapshot

    scan = head(grid_of((31, 35, 29), (4.0, 4.0, 4.0), "RAS", angles))
    truth = blob(scan.grid, BRAIN, (40, 47, 37))
    frame = Frame.of(scan.grid)
    places = frame.to_world(scan.grid.to_patient(np.argwhere(truth)))
    low, high = places.min(axis=0) - 2, places.max(axis=0) + 2
    a, b = (axis for axis in range(3) if axis != plane)
    corners = np.tile((low + high) / 2, (4, 1))
    corners[:, a], corners[:, b] = np.array([low, high, high, low])[:, a], np.array([low, low, high, high])[:, b]
    drawn = Snapshot(np.zeros((0, 3)), (), (corners,), ("rectangle",), ("object",))
    prompts = drawn.prompts(frame)
    again, rest = Snapshot.of(Prompts.from_json(prompts.to_json()), frame)
    assert not rest
    np.testing.assert_allclose(sorted(again.shapes[0].tolist()), sorted(corners.tolist()), atol=1e-9)
    assert dice(mri.segment(scan, prompts, model="grow").data, truth) > 0.9
    told = sorted_out(prompts, scan.grid)
    lasso = Snapshot(np.zeros((0, 3)), (), (corners,), ("polygon",), ("object",)).prompts(frame)
    assert plane_of(scan.grid, prompts, "auto").axis == plane_of(scan.grid, lasso, "auto").axis == 2 - plane
    size = np.subtract(*voxel_box(told.boxes[0], scan.grid)[::-1])
    flat = sorted((high - low)[[a, b]] / 4)
    np.testing.assert_allclose(sorted(size), sorted([flat[0], *flat]), atol=1e-6)  # as deep as its shorter side


def test_a_box_layer_survives_undo(clicking, qtbot):
    lines = clicking.drawn.lines()
    lines.feature_defaults = {"side": "object"}
    lines.add_rectangles(np.array([[11, -54, -36], [11, -54, 44], [11, 40, 44], [11, 40, -36.0]]))
    assert isinstance(clicking.prompts.marks[0], Box)
    clicking.undo()
    assert len(clicking.prompts) == 0
    clicking.redo()
    assert isinstance(clicking.prompts.marks[0], Box)
    qtbot.waitUntil(lambda: not clicking.asker.busy and not clicking._settle.isActive(), timeout=60_000)


@pytest.mark.parametrize("kind", ["ViewerModel", "Image", "Labels", "Points", "Shapes", "Surface", "Vectors", "Tracks"])
def test_keys_shadow_none_of_naparis(kind):
    from napari import layers
    from napari.components import ViewerModel
    from napari.utils.shortcuts import default_shortcuts

    from napari_mri.gui.prompt_panel import KEYS, MODES

    # napari's own keys stand in two tables: those that can be changed in its preferences, and those tied to a class.
    taken = {str(key) for keys in default_shortcuts.values() for key in keys}
    owner = ViewerModel if kind == "ViewerModel" else getattr(layers, kind)
    taken |= {str(key) for parent in owner.__mro__ for key in getattr(parent, "class_keymap", {})}
    assert {"P", "Ctrl+R"} <= taken
    ours = [*KEYS, *(mode.key for mode in MODES if mode.key)]
    assert len(set(ours)) == len(ours)
    assert not set(ours) & taken


class Mouse:
    """One press, some moves and the release, as napari hands them to what listens to a layer's mouse."""

    def __init__(self, viewer, world, pos=(0, 0), **more):
        shown = list(viewer.dims.displayed)
        self.event = SimpleNamespace(
            type="mouse_press", pos=np.array(pos, float), position=tuple(world), view_direction=None, up_direction=None,
            dims_displayed=shown, modifiers=(), handled=False, button=1, **more,
        )  # fmt: skip

    def press(self, layer):
        own = {"select": layer._drag_modes[layer._mode]} if str(layer.mode) in ("select", "add") else {}
        self.steps = [call(layer, self.event) for call in (*layer.mouse_drag_callbacks, *own.values())]
        self._on()

    def move(self, world, pos):
        self.event.type, self.event.position, self.event.pos = "mouse_move", tuple(world), np.array(pos, float)
        self._on()

    def release(self):
        self.event.type = "mouse_release"
        self._on()

    def _on(self):
        self.steps = [s for s in self.steps if s is not None and next(s, "over") != "over"]


def idle(clicking, qtbot):
    qtbot.waitUntil(lambda: not clicking.asker.busy and not clicking._settle.isActive(), timeout=60_000)


def test_a_drag_of_a_mark_is_one_step_of_undo_and_one_question(clicking, window, qtbot):
    clicking.draw(0)
    press(clicking, BRAIN)
    layer = clicking.drawn.points
    idle(clicking, qtbot)
    layer.mode = "select"
    start = np.array(layer.data[0])
    before = len(clicking._past)
    mouse = Mouse(window, start)
    layer.selected_data = {0}
    mouse.press(layer)
    for n in range(1, 9):
        mouse.move(np.add(start, (0, 2.0 * n, n)), (10 * n, 5 * n))
    assert len(clicking._past) == before
    mouse.release()
    assert len(clicking._past) == before + 1
    np.testing.assert_allclose(layer.data[0], np.add(start, (0, 16, 8)), atol=1e-3)
    clicking.undo()
    np.testing.assert_allclose(clicking.drawn.points.data[0], start, atol=1e-6)
    idle(clicking, qtbot)


def test_a_click_in_the_3d_view_lands_on_what_is_seen_or_is_refused(clicking, window, qtbot):
    clicking.draw(0)
    window.dims.ndisplay = 3
    layer = clicking.drawn.points
    assert str(layer.mode) == "pan_zoom"
    assert "3" not in clicking.hint.text()
    assert "under the cursor" in clicking.hint.text()
    scan, grid = window.layers[0], GRIDS["oblique"]
    target = clicking.frame.to_world(BRAIN)
    for way in np.vstack([np.eye(3), -np.eye(3), [[0.6, -0.48, 0.64]]]):
        mouse = Mouse(window, target - 500 * way)
        mouse.event.view_direction = way
        before = len(clicking.prompts)
        mouse.press(layer)
        mouse.release()
        assert len(clicking.prompts) == before + 1
        voxel = np.rint(scan.world_to_data(clicking.drawn.points.data[-1])).astype(int)
        low, high = scan.contrast_limits
        assert scan.data[tuple(voxel)] > low + 0.25 * (high - low)
        # Nothing seen lies nearer to the eye on this line, and the place is on the line.
        away = clicking.drawn.points.data[-1] - target
        assert np.linalg.norm(away - way * (away @ way)) <= 0.9 * max(grid.spacing)
        nearer = clicking.drawn.points.data[-1] - way * np.arange(1.5 * max(grid.spacing), 300, 0.5)[:, None]
        spots = np.rint([scan.world_to_data(place) for place in nearer]).astype(int)
        spots = spots[((spots >= 0) & (spots < scan.data.shape)).all(axis=1)]
        assert not (scan.data[tuple(spots.T)] > low + 0.3 * (high - low)).any()
    count = len(clicking.prompts)
    mouse = Mouse(window, np.add(target, (0, 900, 0)))
    mouse.event.view_direction = np.array([1.0, 0, 0])
    mouse.press(layer)
    mouse.release()
    assert len(clicking.prompts) == count
    assert "nothing under the cursor" in clicking.hint.text()
    mouse = Mouse(window, target - (500, 0, 0))
    mouse.event.view_direction = np.array([1.0, 0, 0])
    mouse.press(layer)
    mouse.move(target, (60, 40))  # the view is turned
    mouse.move(target, (0, 0))  # and turned back
    mouse.release()
    mouse = Mouse(window, target - (500, 0, 0))
    mouse.event.view_direction, mouse.event.button = np.array([1.0, 0, 0]), 2
    mouse.press(layer)
    mouse.release()
    assert len(clicking.prompts) == count
    clicking.draw(2)
    assert "2D view" in clicking.hint.text()
    window.dims.ndisplay = 2
    clicking.draw(0)
    assert str(layer.mode) == "add"
    idle(clicking, qtbot)


def test_a_3d_click_lands_on_the_frame_of_a_series_in_view(window):
    from napari_mri.gui.prompt_ray import first_seen

    grid = GRIDS["oblique"]
    data = np.stack([blob(grid, (4.0, -7.0, 11.0 + low), (20, 20, 20)) * 900.0 for low in (0, 12)], axis=-1).astype(np.float32)
    layer = window.add_layer(bridge.to_layer(Volume(data, grid)))
    window.dims.ndisplay = 3
    spots = []
    for frame in (0, 1):
        window.dims.set_current_step(0, frame)
        way = np.array([0.0, 1.0, 0.0, 0.0])
        event = SimpleNamespace(
            position=(window.dims.point[0], -500.0, *bridge.frame_of(window.layers).to_world((4, -7, 11 + 12 * frame))[1:]),
            view_direction=way, dims_displayed=list(window.dims.displayed),
        )  # fmt: skip
        place = first_seen([layer], event)
        assert place.shape == (3,)
        spots.append(bridge.frame_of(window.layers).to_patient(place))
        away = np.linalg.norm(spots[-1] - (4.0, -7.0, 11.0 + 12 * frame))
        assert away == pytest.approx(20, abs=4), "on the surface of the ball"
    assert spots[1][2] - spots[0][2] == pytest.approx(12, abs=5)


def test_outlines_come_into_the_3d_view_without_a_word(clicking, window, qtbot, recwarn):
    clicking.draw(0)
    ask(clicking, qtbot, lambda: press(clicking, BRAIN))
    window.dims.ndisplay = 3
    qtbot.wait(50)
    ask(clicking, qtbot, lambda: clicking.drawn.points.add(clicking.frame.to_world((10.0, -7.0, 11.0))))
    assert not [w for w in recwarn.list if "Contours" in str(w.message)]
    window.dims.ndisplay = 2
    assert clicking._preview.contour == 1


def test_a_3d_click_prefers_the_preview(clicking, window, qtbot):
    clicking.draw(0)
    ask(clicking, qtbot, lambda: press(clicking, BRAIN))
    window.dims.ndisplay = 3
    mouse = Mouse(window, clicking.frame.to_world(BRAIN) - (500, 0, 0))
    mouse.event.view_direction = np.array([1.0, 0, 0])
    mouse.press(clicking.drawn.points)
    mouse.release()
    voxel = np.rint(clicking._preview.world_to_data(clicking.drawn.points.data[-1])).astype(int)
    assert clicking._preview.data[tuple(voxel)] == 1
    assert clicking._preview.data[tuple(voxel - (1, 0, 0))] == 0
    idle(clicking, qtbot)


def test_a_range_of_slices_holds_for_every_model(clicking, window, qtbot):
    spot = clicking.frame.to_world(BRAIN)
    clicking.draw(0)
    window.dims.order = (1, 0, 2)
    step = window.layers[0].scale[1]
    window.dims.set_point(1, spot[1] - 6)
    clicking.range.limit("low")
    low = window.dims.point[1]
    window.dims.set_point(1, spot[1] + 9)
    clicking.range.limit("high")
    high = window.dims.point[1]
    assert "Coronal" in clicking.range.text.text()
    ask(clicking, qtbot, lambda: press(clicking, BRAIN))
    rows = np.flatnonzero(clicking._preview.data.any(axis=(0, 2)))
    ends = [clicking._preview.data_to_world((0, row, 0))[1] for row in (rows[0], rows[-1])]
    np.testing.assert_allclose(ends, (low, high), atol=0.51 * step)
    clicking.accept()
    ask(clicking, qtbot, lambda: (clicking.range.show_slab(None), press(clicking, BRAIN)))
    assert clicking._preview.data.any(axis=(0, 2)).sum() > len(rows)
    window.dims.ndisplay = 3
    clicking.range.limit("low")
    assert "2D" in clicking.range.text.text()
    window.dims.ndisplay = 2
    idle(clicking, qtbot)


def test_marks_come_back_from_a_saved_mask(clicking, window, qtbot, tmp_path):
    from napari_mri.io import files

    clicking.draw(0)
    press(clicking, BRAIN)
    clicking.draw(1)
    press(clicking, (4.0, -7.0, 60.0))
    lines = clicking.drawn.lines()
    lines.feature_defaults = {"side": "object"}
    spot = clicking.frame.to_world(BRAIN)
    clicking.range.show_slab(Slab((0, 0, 1), -10, 30))
    ask(clicking, qtbot, lambda: lines.add_paths(spot + np.array([[0, 0, 0], [0, 4, 0], [0, 4, 5.0]])))
    asked = clicking.prompts
    clicking.number.setValue(7)
    clicking.accept()
    made = bridge.labels_of(clicking.target.layer, window.layers)
    files.save(made, tmp_path / "mask.nii.gz")
    window.layers.remove(clicking.target.layer)
    clicking.range.show_slab(None)
    window.add_layer(bridge.to_layer(files.load_labels(tmp_path / "mask.nii.gz"), bridge.frame_of(window.layers)))
    clicking.number.setValue(6)
    clicking.load()
    assert "holds no marks of label 6" in clicking.message.text()
    clicking.number.setValue(7)
    ask(clicking, qtbot, clicking.load)
    assert [type(m) for m in clicking.prompts] == [type(m) for m in asked]
    for mine, theirs in zip(clicking.prompts.to_json(), asked.to_json(), strict=True):
        for key, value in theirs.items():
            assert mine[key] == (pytest.approx(value) if isinstance(value, float) else value) or np.allclose(mine[key], value)
    np.testing.assert_array_equal(clicking._answer.data > 0, made.data == 7)
    assert len(clicking.drawn.points.data) == 2
    press(clicking, (4.0, -7.0, 20.0))
    assert len(clicking.prompts) == len(asked) + 1
    idle(clicking, qtbot)


def test_next_object_goes_on_with_a_free_label(clicking, window, qtbot):
    clicking.draw(0)
    clicking.number.setValue(1)
    ask(clicking, qtbot, lambda: press(clicking, BRAIN))
    clicking.next_object()
    assert clicking.number.value() == 2
    assert (clicking.target.layer.data == 1).any()
    clicking.target.layer.data_setitem((np.array([0]), np.array([0]), np.array([0])), 3)
    clicking.next_object()
    assert clicking.number.value() == 4
    assert len(clicking.prompts) == 0


def test_a_hundred_scribbles_of_undo_weigh_little(clicking, qtbot):
    from napari_mri.gui.prompt_layers import Snapshot

    rng = np.random.default_rng(4)
    drawn = Snapshot(np.zeros((0, 3)))
    line = ()
    for n in range(100):
        line = (*(shape.copy() for shape in drawn.shapes), rng.normal(size=(60, 3)))
        points = np.array([[n, 0, 0.0]] * (n + 1))
        drawn = Snapshot(points, ("object",) * (n + 1), line, ("path",) * (n + 1), ("object",) * (n + 1))
        clicking._push(drawn, ())
        drawn = clicking._past[-1][0]
    clicking._settle.stop()
    held = {id(a): a.nbytes + 128 for s, _ in clicking._past for a in (s.points, *s.shapes)}
    marks = sum(shape.nbytes for shape in line) + points.nbytes
    lists = sum(sys.getsizeof(t) for s, _ in clicking._past for t in (s.sides, s.shapes, s.kinds, s.shape_sides))
    assert sum(held.values()) + lists - marks <= 1_000_000


def test_five_hundred_marks_are_undone_and_redone(clicking, qtbot):
    clicking.draw(0)
    layer = clicking.drawn.points
    rng = np.random.default_rng(3)
    seen = []
    for n in range(500):
        if n == 250:
            clicking.draw(1)
        layer.add(rng.uniform(-30, 30, 3))
        seen.append(clicking.prompts)
    clicking._settle.stop()
    size = sum(s.points.nbytes for s, _ in clicking._past)
    for n in reversed(range(500)):
        clicking.undo()
        if n % 50 == 1:
            assert clicking.prompts == seen[n - 1]
    assert len(clicking.prompts) == 0
    for _ in range(500):
        clicking.redo()
    assert clicking.prompts == seen[-1]
    assert [m.positive for m in clicking.prompts] == [True] * 250 + [False] * 250
    assert len(layer.data) == 500
    clicking._settle.stop()
    assert size < 5_000_000


def test_the_device_is_chosen_and_asked(clicking, qtbot):
    assert [clicking.device.itemData(n) for n in range(clicking.device.count())][:1] == ["auto"]
    clicking.device.setCurrentIndex(clicking.device.findData("cpu"))
    clicking.draw(0)
    ask(clicking, qtbot, lambda: press(clicking, BRAIN))
    assert clicking.asker.session.rt._wish == "cpu"
    first = clicking.asker.session
    ask(clicking, qtbot, lambda: clicking.device.setCurrentIndex(clicking.device.findData("auto")))
    assert clicking.asker.session is not first


def test_a_click_is_answered_and_accepted_while_a_run_works(clicking, window, qtbot):
    over = threading.Event()
    run = Job(lambda rt: over.wait(60), "cpu")
    run.start()
    try:
        qtbot.waitUntil(lambda: RUNS.at_work is run)
        clicking.draw(0)
        ask(clicking, qtbot, lambda: press(clicking, BRAIN))
        clicking.accept()
        assert run.running
        labels = bridge.labels_of(clicking.target.layer, window.layers)
        assert dice(labels.data > 0, blob(GRIDS["oblique"], BRAIN, (40, 47, 37))) > 0.9
    finally:
        over.set()
        assert run.wait(5)
