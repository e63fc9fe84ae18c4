"""Cuts, shared point and strokes of the planes, on viewers without a window."""

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

from napari.components import ViewerModel
from napari.layers import Image
from napari.layers import Labels as LabelsLayer

from napari_mri.core.volume import Labels, Volume
from napari_mri.gui import layers as bridge
from napari_mri.gui import planes_cut, settings
from napari_mri.gui.planes_desk import ALL, AXIAL, CORONAL, RADIOLOGICAL, SAGITTAL
from napari_mri.gui.planes_paint import Stroke, paintable
from napari_mri.gui.window import arrange, look
from tests.scans import GRIDS, head


def viewer_of(*volumes):
    viewer = ViewerModel()
    for volume in volumes:
        viewer.add_layer(bridge.to_layer(volume, bridge.frame_of(viewer.layers)))
    arrange(viewer, viewer.layers[0])
    return viewer


def blank(scan, dtype=np.uint8):
    return Labels(np.zeros(scan.grid.shape, dtype), scan.grid)


# ------------------------------------------------------------------------------------------ cuts


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("plane", ALL, ids=lambda plane: plane.name)
def test_a_cut_shows_the_voxels_that_lie_there_in_the_patient(grid, plane):
    """Whatever the storage order: each pixel's value is that of the voxel nearest to its place in mm."""
    scan = head(grid)
    layer = viewer_of(scan).layers[0]
    record = bridge.shown(layer)
    world = layer.data_to_world((np.array(layer.data.shape) - 1) // 2 + 1)
    voxels, low, high = planes_cut.sliced(layer, planes_cut.place_of(layer), plane, np.array(world))
    step = (high - low) / voxels.shape
    rng = np.random.default_rng(3)
    for _ in range(40):
        row, column = (int(rng.integers(n)) for n in voxels.shape)
        place = np.array(world, float)
        place[plane.up] = low[0] + (row + 0.5) * step[0]
        place[plane.across] = low[1] + (column + 0.5) * step[1]
        voxel = np.round(grid.to_voxels(record.placing.frame.to_patient(place))).astype(int)
        assert voxels[row, column] == scan.data[tuple(voxel)]


def test_a_plane_that_misses_a_layer_shows_nothing_of_it():
    layer = viewer_of(head(GRIDS["plain"])).layers[0]
    place = planes_cut.place_of(layer)
    outside = np.array(layer.extent.world[1]) + 50
    assert all(planes_cut.sliced(layer, place, plane, outside) is None for plane in ALL)


def test_frames_follow_napari_and_end_where_the_layer_ends():
    data = np.arange(2 * 5 * 6 * 7, dtype=np.float32).reshape(2, 5, 6, 7)
    layer = Image(data, scale=(1, 2, 2, 3))
    place = planes_cut.place_of(layer)
    voxels, *_ = planes_cut.sliced(layer, place, AXIAL, np.array([1.0, 4.0, 0, 0]))
    np.testing.assert_array_equal(voxels, data[1, 2])
    assert planes_cut.sliced(layer, place, AXIAL, np.array([2.0, 4.0, 0, 0])) is None


def test_a_layer_turned_in_napari_is_cut_where_it_is_seen():
    data = np.zeros((5, 9, 9), np.uint8)
    data[:, 2, 4] = 7
    turned = Image(data, rotate=90)
    place = planes_cut.place_of(turned)
    assert place.bent
    spot = np.array(turned.data_to_world((2, 2, 4)))
    voxels, low, _ = planes_cut.sliced(turned, place, AXIAL, spot)
    row, column = np.floor(spot[1:] - low).astype(int)
    assert voxels[row, column] == 7
    assert (voxels == 7).sum() == 1


@pytest.mark.parametrize("mirrored", [True, False])
def test_the_picture_is_up_and_on_its_side(mirrored):
    """A voxel that is high and to the right of the patient is at the top, on the side that was asked for."""
    data = np.zeros((3, 4, 5), np.uint8)
    data[1, 3, 4] = 2
    layer = LabelsLayer(data)
    voxels, *_ = planes_cut.sliced(layer, planes_cut.place_of(layer), AXIAL, np.array([1.0, 0, 0]))
    image, _ = planes_cut.picture(voxels, layer, planes_cut.label_table(layer, data.dtype), mirrored)
    assert (image.width(), image.height()) == (5, 4)
    coloured = {(x, y) for x in range(5) for y in range(4) if image.pixelColor(x, y).alpha()}
    assert coloured == {(0 if mirrored else 4, 0)}


def test_grey_values_are_coloured_as_napari_colours_them():
    layer = Image(np.array([[[0, 50, 100, 900]]], np.int16), contrast_limits=(0, 100), gamma=2.0, colormap="gray")
    shown = planes_cut.grey_picture(np.asarray(layer.data[0]), layer, planes_cut.grey_table(layer)) & 0xFF
    assert list(shown[0]) == [0, pytest.approx(64, abs=2), 255, 255]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_labels_have_napari_s_colours_even_large_ones(dtype):
    top = min(np.iinfo(dtype).max, 70000)
    layer = LabelsLayer(np.array([[[0, 1, 2, top]]], dtype))
    shown = planes_cut.label_picture(np.asarray(layer.data[0]), layer, planes_cut.label_table(layer, dtype))
    for pixel, value in zip(shown[0], (0, 1, 2, top), strict=True):
        colour = layer.get_color(value)
        if colour is None:
            assert pixel == 0
        else:
            assert [(int(pixel) >> shift & 0xFF) / 255 for shift in (16, 8, 0)] == pytest.approx(colour[:3], abs=0.01)


def test_a_contour_leaves_the_inside_open():
    data = np.zeros((1, 9, 9), np.uint8)
    data[0, 2:7, 2:7] = 1
    layer = LabelsLayer(data)
    layer.contour = 1
    seen = planes_cut.label_picture(data[0], layer, planes_cut.label_table(layer, data.dtype)) > 0
    assert seen[2, 2]
    assert not seen[4, 4]
    assert not seen[0, 0]


# ----------------------------------------------------------------------------------------- desk


@pytest.fixture
def desk(qtbot):
    from qtpy.QtWidgets import QWidget

    from napari_mri.gui.planes_desk import Desk

    owner = QWidget()
    qtbot.addWidget(owner)
    yield Desk(viewer_of(head(GRIDS["anisotropic"])), owner)
    owner.deleteLater()


def test_a_point_within_the_slice_does_not_make_napari_slice_anew(desk):
    sliced = []
    desk.viewer.layers[0].events.set_data.connect(lambda event: sliced.append(event))
    here = desk.point.copy()
    desk.go(here + np.array((0, 5.0, -3.0)))
    assert not sliced
    np.testing.assert_allclose(desk.point, here + np.array((0, 5.0, -3.0)))
    desk.go(here + np.array((desk.step(0), 5.0, -3.0)))
    assert sliced


def test_the_point_stays_when_napari_is_turned_to_another_plane(desk):
    desk.go(desk.point + np.array((0, 11.0, 0)))
    wanted = desk.point.copy()
    look(desk.viewer, "coronal")
    np.testing.assert_allclose(desk.point, wanted, atol=desk.step(1))
    assert abs(desk.viewer.dims.point[1] - wanted[1]) <= desk.step(1) / 2 + 1e-6


def test_scrolling_in_napari_moves_the_point_and_only_along_its_slider(desk):
    before, seen = desk.point.copy(), []
    desk.moved.connect(lambda: seen.append(desk.point.copy()))
    desk.viewer.dims.set_point(0, before[0] + 2 * desk.step(0))
    assert len(seen) == 1
    np.testing.assert_allclose(seen[0] - before, (2 * desk.step(0), 0, 0))


def test_the_point_cannot_leave_what_is_open(desk):
    desk.go((1e6, -1e6, 0))
    low, high = desk.extent()
    assert (desk.point >= low).all()
    assert (desk.point <= high).all()


def test_zoom_and_middle_are_napari_s_too_unless_unlinked(desk):
    desk.look(3.5, (1.0, 2.0, 3.0))
    assert desk.viewer.scene.camera.zoom == pytest.approx(3.5)
    assert desk.viewer.scene.camera.center[-2:] == pytest.approx((2.0, 3.0))
    desk.viewer.scene.camera.zoom = 2.0
    assert desk.zoom == pytest.approx(2.0)
    desk.linked = False
    desk.look(5.0)
    assert desk.viewer.scene.camera.zoom == pytest.approx(2.0)


def test_the_side_is_remembered_for_the_next_window(desk):
    assert desk.radiological
    desk.set_radiological(False)
    assert not desk.radiological
    after = viewer_of(head(GRIDS["plain"]))
    assert after.scene.camera.orientation2d == ("up", "right")
    settings.remember(RADIOLOGICAL, True)
    arrange(after, after.layers[0])
    assert after.scene.camera.orientation2d == ("up", "left")


def test_a_broken_settings_file_counts_as_none():
    settings.path().parent.mkdir(parents=True, exist_ok=True)
    settings.path().write_text("{torn")
    assert settings.recall(RADIOLOGICAL, True) is True
    assert settings.remember("x", 3)
    settings.path().write_text('{"radiological": "yes"}')
    assert settings.recall(RADIOLOGICAL, True) is True
    settings.path().unlink()


# ---------------------------------------------------------------------------------------- strokes


def stroke(viewer, layer, plane, *places):
    made = Stroke(viewer, layer, plane)
    for place in places:
        made.to(place)
    made.end()


@pytest.mark.parametrize("grid", ["plain", "anisotropic", "oblique"])
@pytest.mark.parametrize("plane", ALL, ids=lambda plane: plane.name)
@pytest.mark.parametrize("ball", [False, True])
def test_a_dab_in_any_plane_is_what_napari_paints_there(grid, plane, ball):
    scan = head(GRIDS[grid])
    viewer = viewer_of(scan, blank(scan), blank(scan))
    mine, theirs = viewer.layers[1:]
    for layer in (mine, theirs):
        layer.brush_size, layer.selected_label = 7, 3
        layer.n_edit_dimensions = 3 if ball else 2
    mine.mode = "paint"
    spot = tuple(n // 2 + 1 for n in mine.data.shape)
    stroke(viewer, mine, plane, mine.data_to_world(spot))
    look(viewer, plane.name)
    theirs.paint(spot, 3)
    assert mine.data.any()
    np.testing.assert_array_equal(mine.data, theirs.data)


@pytest.mark.parametrize("plane", ALL, ids=lambda plane: plane.name)
def test_a_drag_is_one_step_of_undo_and_leaves_no_gap(plane):
    scan = head(GRIDS["plain"])
    viewer = viewer_of(scan, blank(scan))
    layer = viewer.layers[1]
    layer.mode, layer.brush_size = "paint", 3
    start, end = np.array([15, 15, 15]), np.array([15, 15, 15])
    end[plane.up] += 9
    end[plane.across] += 6
    stroke(viewer, layer, plane, layer.data_to_world(start), layer.data_to_world(end))
    from scipy.ndimage import label

    assert label(layer.data)[1] == 1
    flat = np.nonzero(layer.data)[plane.slider]
    assert set(flat) == {15}
    layer.undo()
    assert not layer.data.any()
    layer.redo()
    assert layer.data[tuple(end)]


@pytest.mark.parametrize("plane", [CORONAL, SAGITTAL], ids=lambda plane: plane.name)
def test_preserved_labels_are_preserved_in_every_plane(plane):
    scan = head(GRIDS["plain"])
    viewer = viewer_of(scan, blank(scan))
    layer = viewer.layers[1]
    layer.data[14:17, 14:17, 14:17] = 2
    layer.mode, layer.brush_size, layer.preserve_labels, layer.selected_label = "paint", 9, True, 1
    stroke(viewer, layer, plane, layer.data_to_world((15, 15, 15)))
    assert (layer.data == 2).sum() == 27
    assert (layer.data == 1).any()
    layer.mode = "erase"
    stroke(viewer, layer, plane, layer.data_to_world((15, 15, 15)))
    assert (layer.data == 2).sum() == 27
    assert not (layer.data == 1).any()


@pytest.mark.parametrize("contiguous", [True, False])
def test_fill_stays_in_its_plane(contiguous):
    scan = head(GRIDS["plain"])
    viewer = viewer_of(scan, blank(scan))
    layer = viewer.layers[1]
    layer.data[10:12, :, 5:8] = 1
    layer.data[20:22, :, 5:8] = 1
    layer.mode, layer.selected_label, layer.contiguous = "fill", 4, contiguous
    stroke(viewer, layer, CORONAL, layer.data_to_world((10, 9, 6)))
    assert set(np.nonzero(layer.data == 4)[1]) == {9}
    assert (layer.data == 4).sum() == (6 if contiguous else 12)
    layer.undo()
    assert not (layer.data == 4).any()


def test_picking_and_pressing_outside():
    scan = head(GRIDS["plain"])
    viewer = viewer_of(scan, blank(scan))
    layer = viewer.layers[1]
    layer.data[3, 4, 5] = 6
    layer.mode = "pick"
    stroke(viewer, layer, SAGITTAL, layer.data_to_world((3, 4, 5)))
    assert layer.selected_label == 6
    for mode in ("pick", "fill", "paint", "erase"):
        layer.mode = mode
        before = layer.data.copy()
        stroke(viewer, layer, CORONAL, layer.data_to_world((3, 400, 5)))
        np.testing.assert_array_equal(layer.data, before)
    layer.mode = "pan_zoom"
    assert not paintable(layer)
    assert not paintable(viewer.layers[0])


def test_strokes_in_a_time_frame_stay_in_it():
    scan = head(GRIDS["plain"])
    viewer = viewer_of(Volume(np.stack([scan.data] * 3, axis=-1), scan.grid))
    layer = viewer.add_labels(np.zeros((3, 29, 35, 31), np.uint8), scale=(1, 4, 4, 4))
    viewer.dims.set_point(0, 1)
    layer.mode = "paint"
    stroke(viewer, layer, SAGITTAL, np.array([1.0, 40.0, 40.0, 40.0]))
    assert set(np.nonzero(layer.data)[0]) == {1}
    assert set(np.nonzero(layer.data)[3]) == {10}
