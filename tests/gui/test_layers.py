"""Volumes to layers and back, on a viewer without a window."""

import copy

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

from napari.components import ViewerModel
from napari.layers import Image, Layer
from napari.layers import Labels as LabelsLayer

from napari_mri.core.errors import GridMismatch, UnsupportedImage
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Frames, Labels, Origin, Volume
from napari_mri.gui import layers as bridge
from napari_mri.gui.placing import STRAIGHT
from tests.gui.test_placing import FIELDS, GEOMETRIES, blob

GRIDS = {f"wide {k}": g for k, g in GEOMETRIES.items()} | {f"small {k}": g for k, g in FIELDS.items()}


def scan(grid, seed=0, title="T1"):
    data = np.random.default_rng(seed).normal(100, 20, grid.shape).astype(np.float32)
    return Volume(data, grid, origin=Origin(title=title, format="nifti", fields={"sform_code": 2, "qform_code": 1}))


def add(viewer, volume, **look):
    layer = bridge.to_layer(volume, bridge.frame_of(viewer.layers), **look)
    viewer.add_layer(layer)
    return layer


def press_new_labels(viewer, layer):
    """What napari's own button does."""
    viewer.layers.selection.active = layer
    viewer._new_labels()
    return viewer.layers[-1]


@pytest.mark.parametrize("name", GRIDS)
def test_a_scan_comes_back_as_it_was(name):
    volume = scan(GRIDS[name])
    layer = bridge.to_layer(volume)
    assert bridge.volume_of(layer) is volume
    assert (layer.scale > 0).all()
    assert [str(u) for u in layer.units] == ["millimeter"] * 3
    np.testing.assert_allclose(layer.rotate, np.eye(3))
    np.testing.assert_allclose(np.asarray(layer.affine), np.eye(4))


@pytest.mark.parametrize("name", GRIDS)
def test_new_labels_lie_on_the_scans_grid_bit_for_bit(name):
    viewer = ViewerModel()
    volume = scan(GRIDS[name])
    layer = press_new_labels(viewer, add(viewer, volume))
    assert not layer.metadata
    rng = np.random.default_rng(1)
    layer.data = rng.integers(0, 7, layer.data.shape).astype(np.uint8)
    labels = bridge.labels_of(layer, viewer.layers)
    assert labels.grid is volume.grid
    assert labels.data.dtype == layer.data.dtype
    assert dict(labels.origin.fields) == dict(volume.origin.fields)
    # Each painted voxel is told by its place in the patient, which knows no storage order.
    frame = bridge.frame_of(viewer.layers)
    picks = np.stack([rng.integers(0, n, 50) for n in layer.data.shape], axis=1)
    patient = frame.to_patient(picks * layer.scale + layer.translate)
    voxels = np.round(volume.grid.to_voxels(patient)).astype(int)
    np.testing.assert_array_equal(labels.data[tuple(voxels.T)], layer.data[tuple(picks.T)])
    # And nothing was lost: shown again, the very same picture.
    again = bridge.to_layer(labels, frame)
    np.testing.assert_array_equal(again.data, layer.data)


@pytest.mark.parametrize("first", GEOMETRIES)
@pytest.mark.parametrize("second", FIELDS)
def test_two_layers_of_one_space_overlay(first, second):
    viewer = ViewerModel()
    place = np.array([5.0, -18.0, 9.0])
    found = []
    for grid in (GEOMETRIES[first], FIELDS[second]):
        layer = add(viewer, Volume(blob(grid, place), grid))
        index = np.indices(layer.data.shape).reshape(3, -1)
        weight = np.clip(np.asarray(layer.data).ravel() - 0.02, 0, None)
        data_place = (index * weight).sum(1) / weight.sum()
        found.append(np.array(layer.data_to_world(data_place)))
    assert np.abs(found[0] - found[1]).max() < 0.5
    frame = bridge.frame_of(viewer.layers)
    np.testing.assert_allclose(frame.to_patient(found[0]), place, atol=0.5)
    tilted = second == "other obliquity" or (first == "oblique") != (second == "oblique")
    assert ("tilted" in viewer.layers[1].name) == tilted


@pytest.mark.parametrize("second", FIELDS)
def test_new_labels_on_the_second_scan_lie_on_the_second_grid(second):
    viewer = ViewerModel()
    add(viewer, scan(GEOMETRIES["plain"]))
    other = scan(FIELDS[second], title="FLAIR")
    layer = press_new_labels(viewer, add(viewer, other))
    ball = np.indices(layer.data.shape)
    middle = np.array(layer.data.shape) // 2
    inside = sum(((a - m) * s) ** 2 for a, m, s in zip(ball, middle, layer.scale, strict=True)) < 5.0**2
    layer.data[inside] = 3
    labels = bridge.labels_of(layer, viewer.layers)
    assert labels.grid is other.grid
    found = other.grid.to_patient(np.argwhere(labels.data == 3)).mean(0)
    meant = bridge.frame_of(viewer.layers).to_patient(layer.data_to_world(middle))
    assert np.abs(found - meant).max() < 0.5 * max(other.spacing)


def test_model_labels_and_names_survive_painting():
    viewer = ViewerModel()
    volume = scan(GEOMETRIES["oblique"])
    add(viewer, volume)
    mask = volume.with_labels((volume.data > 110).astype(np.uint8), {1: "brain"})
    before = mask.data.copy()
    layer = add(viewer, mask)
    untouched = bridge.labels_of(layer, viewer.layers)
    np.testing.assert_array_equal(untouched.data, mask.data)
    assert untouched.history == mask.history
    layer.data[3:6, 4:8, 5:9] = 2
    labels = bridge.labels_of(layer, viewer.layers)
    np.testing.assert_array_equal(mask.data, before)  # the volume it came from is frozen
    assert labels.names == {1: "brain"}
    assert labels.history[-1].action == "edited by hand"
    assert (labels.data != mask.data).sum() == (layer.data != bridge.to_layer(mask).data).sum() > 0


def test_labels_outlive_their_scan_once_adopted():
    viewer = ViewerModel()
    volume = scan(GEOMETRIES["flipped and permuted"])
    image = add(viewer, volume)
    layer = press_new_labels(viewer, image)
    assert bridge.adopt(layer, viewer.layers)
    viewer.layers.remove(image)
    assert bridge.labels_of(layer, viewer.layers).grid is volume.grid


def test_without_its_scan_a_new_layer_is_refused():
    viewer = ViewerModel()
    image = add(viewer, scan(GEOMETRIES["plain"]))
    layer = press_new_labels(viewer, image)
    viewer.layers.remove(image)
    with pytest.raises(GridMismatch, match="any open scan"):
        bridge.labels_of(layer, viewer.layers)


def test_same_place_stored_in_two_orders_must_be_chosen():
    viewer = ViewerModel()
    grid = GEOMETRIES["plain"]
    a = add(viewer, scan(grid, title="A"))
    b = add(viewer, scan(grid.turned("LIP"), title="B"))
    layer = press_new_labels(viewer, a)
    layer.data[2, 3, 4] = 1
    with pytest.raises(GridMismatch, match="'A', 'B'"):
        bridge.labels_of(layer, viewer.layers)
    for chosen in (a, b):
        labels = bridge.labels_of(layer, viewer.layers, chosen)
        assert labels.grid is bridge.volume_of(chosen).grid
    # Known from the moment it was made, the selected scan is meant.
    assert bridge.adopt(layer, viewer.layers, prefer=b)
    assert bridge.labels_of(layer, viewer.layers).grid.same(grid.turned("LIP"))


def test_two_scans_on_one_grid_are_no_doubt():
    viewer = ViewerModel()
    grid = GEOMETRIES["plain"]
    add(viewer, scan(grid, title="A"))
    b = add(viewer, scan(Grid(grid.shape, grid.affine.copy()), title="B"))
    layer = press_new_labels(viewer, b)
    assert bridge.labels_of(layer, viewer.layers).grid.same(grid)


def test_labels_of_a_model_do_not_go_onto_another_scan():
    viewer = ViewerModel()
    volume = scan(GEOMETRIES["plain"])
    add(viewer, volume)
    other = add(viewer, scan(FIELDS["plain"], title="other"))
    layer = add(viewer, volume.with_labels(volume.data > 100))
    with pytest.raises(GridMismatch, match="'other'"):
        bridge.labels_of(layer, viewer.layers, other)


def test_stale_metadata_is_not_believed():
    viewer = ViewerModel()
    volume = scan(GEOMETRIES["plain"])
    add(viewer, volume)
    mask = add(viewer, volume.with_labels(volume.data > 100))
    moved = copy.copy(mask.metadata)
    layer = LabelsLayer(np.zeros((5, 6, 7), np.uint8), metadata=moved)
    viewer.add_layer(layer)
    assert bridge.shown(layer) is None
    with pytest.raises(GridMismatch):
        bridge.labels_of(layer, viewer.layers)
    mask.translate = np.add(mask.translate, (0, 4.0, 0))
    assert bridge.shown(mask) is None


def test_a_duplicate_is_known():
    viewer = ViewerModel()
    volume = scan(GEOMETRIES["oblique"])
    mask = add(viewer, volume.with_labels(volume.data > 100))
    data, state, kind = mask.as_layer_data_tuple()
    twin = Layer.create(copy.deepcopy(data), state, kind)
    viewer.add_layer(twin)
    assert bridge.labels_of(twin, viewer.layers).grid is volume.grid


def test_four_dimensions():
    viewer = ViewerModel()
    grid = GEOMETRIES["flipped and permuted"]
    data = np.random.default_rng(0).normal(size=(*grid.shape, 5)).astype(np.float32)
    series = Volume(data, grid, frames=Frames("diffusion", bvals=(0, 1, 2, 3, 4)))
    layer = add(viewer, series)
    assert layer.data.shape[0] == 5
    assert layer.axis_labels[0] == "diffusion"
    assert bridge.volume_of(layer) is series
    still = add(viewer, Volume(data[..., 0], grid))
    flat = press_new_labels(viewer, still)
    assert bridge.labels_of(flat, viewer.layers).data.shape == grid.shape
    full = press_new_labels(viewer, layer)
    full.data[2, 1, 1, 1] = 4
    labels = bridge.labels_of(full, viewer.layers)
    assert labels.data.shape == series.data.shape
    assert [int(n) for n in np.argwhere(labels.data)[0]][3] == 2


def test_a_changed_image_comes_back_changed():
    volume = scan(GEOMETRIES["flipped and permuted"])
    layer = bridge.to_layer(volume)
    layer.data = np.asarray(layer.data) * 2
    np.testing.assert_array_equal(bridge.volume_of(layer).data, volume.data * 2)


def test_a_foreign_image_is_believed_and_said_so():
    layer = Image(np.random.default_rng(0).random((9, 10, 11)), scale=(3, 2, 1), translate=(5, 6, 7), name="tif")
    volume = bridge.volume_of(layer)
    assert volume.origin.warnings
    assert volume.grid.axes == "RAS"
    np.testing.assert_allclose(volume.grid.to_patient([0, 0, 0]), [7, 6, 5])
    np.testing.assert_array_equal(bridge.to_layer(volume, STRAIGHT).data, layer.data)
    mask = bridge.to_layer(volume.with_labels(volume.data > 0.5), STRAIGHT)
    np.testing.assert_allclose(mask.translate, layer.translate)
    np.testing.assert_allclose(mask.scale, layer.scale)


@pytest.mark.parametrize(
    ("layer", "error"),
    [
        (Image(np.zeros((8, 9))), UnsupportedImage),
        (Image(np.zeros((8, 9, 10, 3), np.uint8), rgb=True), UnsupportedImage),
        (Image(np.zeros((8, 9, 10)), rotate=(10, 20, 30)), GridMismatch),
        (Image(np.zeros((8, 9, 10)), shear=(0.1, 0, 0)), GridMismatch),
        (Image(np.zeros((8, 9, 10)), scale=(1, -1, 1)), GridMismatch),
    ],
)
def test_foreign_layers_that_cannot_be_understood(layer, error):
    with pytest.raises(error):
        bridge.volume_of(layer)


def test_names_and_colours_of_labels_are_shown():
    volume = scan(GEOMETRIES["plain"])
    labels = Labels((volume.data > 100).astype(np.int16), volume.grid, names={1: "lesion"}, colors={1: (1.0, 0.0, 0.5)})
    layer = bridge.to_layer(labels)
    np.testing.assert_allclose(layer.get_color(1), (1.0, 0.0, 0.5, 1.0))
    assert list(layer.features["name"]) == ["lesion"]


@pytest.mark.parametrize("axes", ["RAS", "LPI", "SAR", "ASL"])
def test_a_slice_step_shows_patient_axes(axes):
    """The slider goes up the body, rows to the front, columns to the right, whatever the storage."""
    grid = GEOMETRIES["plain"].turned(axes)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1)
    patient = grid.to_patient(index)
    for world_axis, patient_axis in ((0, 2), (1, 1), (2, 0)):
        shown = np.asarray(bridge.to_layer(Volume(patient[..., patient_axis], grid)).data)
        steps = np.diff(shown, axis=world_axis)
        assert (steps > 0).all()
